"""Keeps the leases of a worker's runs, by heartbeats that no busy event loop can delay."""

import threading
import time
from collections.abc import Callable
from typing import Final

import grpc
import structlog

from runstore.agents.leases import Lease
from runstore.v1 import agent_worker_service_pb2 as pb

_INTERVAL_S: Final = 5.0

Renew = Callable[[pb.RenewClaimsRequest, float], pb.RenewClaimsResponse]
"""Calls the store, within the seconds given. Raises grpc.RpcError."""

_log = structlog.get_logger(__name__)


class Claims:
    """The runs that a worker has claimed, and the thread that renews them. Any thread may use it."""

    def __init__(
        self,
        worker_id: str,
        renew: Renew,
        *,
        on_lost: Callable[[str], None],
        on_cancel: Callable[[pb.WorkerCancel], None],
    ) -> None:
        self._worker_id = worker_id
        self._renew = renew
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._lease_s = 0.0
        self._interval_s = _INTERVAL_S
        self._held: dict[str, tuple[pb.AgentRunClaim, Lease]] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def set_lease(self, lease_s: float) -> None:
        """The store says how long a claim holds. All claims are renewed at once."""
        self._lease_s = lease_s
        self._interval_s = min(_INTERVAL_S, lease_s / 6)
        self._wake.set()

    def add(self, claim: pb.AgentRunClaim) -> Lease:
        """A run was given to this worker just now."""
        lease = Lease(self._lease_s)
        with self._lock:
            self._held[claim.claim_token] = (claim, lease)
        return lease

    def remove(self, claim_token: str) -> None:
        """The end of the attempt is stored, or the claim is lost."""
        with self._lock:
            self._held.pop(claim_token, None)

    def suspend(self) -> None:
        """The store has lost sight of this worker: nothing is written before a renewal."""
        for _, lease in self._all():
            lease.suspend()

    def lose(self, claim_token: str) -> None:
        """The store has taken a claim back."""
        with self._lock:
            held = self._held.pop(claim_token, None)
        if held is not None:
            held[1].lose()
            self._on_lost(claim_token)

    def messages(self) -> list[pb.AgentRunClaim]:
        """The claims, for the store."""
        return [claim for claim, _ in self._all()]

    def close(self) -> None:
        """Ends the thread; leases run out."""
        self._closing = True
        self._wake.set()

    def _all(self) -> list[tuple[pb.AgentRunClaim, Lease]]:
        with self._lock:
            return list(self._held.values())

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            held = self._all()
            if held:
                self._renew_all(held)

    def _renew_all(self, held: list[tuple[pb.AgentRunClaim, Lease]]) -> None:
        # Counted from before the call: the store counts from when it handles it.
        until_s = time.monotonic() + self._lease_s
        request = pb.RenewClaimsRequest(worker_id=self._worker_id, claims=[claim for claim, _ in held])
        try:
            response = self._renew(request, self._interval_s)
        except grpc.RpcError as error:
            _log.warning("leases were not renewed", code=str(error.code()))
            return
        lost = {claim.claim_token for claim in response.lost}
        for claim, lease in held:
            if claim.claim_token in lost:
                self.lose(claim.claim_token)
            else:
                lease.renew(until_s)
        for cancel in response.cancels:
            self._on_cancel(cancel)
