"""The workers that are connected to this store, what they hold, and what is on its way to them."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from runstore.catalog.agent_claims import Worker
from runstore.domain.agent_runs import Cancel, Claim, ClaimedRun


@dataclass(frozen=True, slots=True)
class Lost:
    """A claim is lost: the worker must write nothing more."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Recorded:
    """The end of an attempt is stored."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Asked:
    """A question for the worker; what it is about concerns only those who ask and answer."""

    question_id: str
    question: object


ToWorker: TypeAlias = ClaimedRun | Cancel | Lost | Recorded | Asked


@dataclass(eq=False, slots=True)
class ConnectedWorker:
    """A worker and its stream."""

    worker: Worker
    slots: int
    claims: dict[str, Claim] = field(default_factory=dict)
    """What it holds, by run."""
    is_draining: bool = False
    is_stalled: bool = False
    """It has not renewed a claim: its stream will be ended."""
    is_gone: bool = False
    reserved_slots: int = 0
    """Of runs that are just being claimed for it."""
    _outbox: "asyncio.Queue[ToWorker | BaseException | None]" = field(default_factory=asyncio.Queue)

    @property
    def takes_runs(self) -> bool:
        """Whether it is to be given any more, if it has room."""
        return not (self.is_draining or self.is_stalled or self.is_gone)

    @property
    def free_slots(self) -> int:
        """Runs that it can take now."""
        if not self.takes_runs:
            return 0
        return self.slots - len(self.claims) - self.reserved_slots

    def holds(self, claim: Claim) -> bool:
        """Whether the claim is this worker's, as far as is known here."""
        return self.claims.get(claim.run_id) == claim

    def send(self, message: ToWorker) -> None:
        """Puts a message on the stream; never blocks, for slots and questions are bounded."""
        self._outbox.put_nowait(message)

    def close(self, error: BaseException | None = None) -> None:
        """Ends the stream after what was sent, with `error` when there is one."""
        self.is_gone = True
        self._outbox.put_nowait(error)

    async def next_message(self) -> ToWorker | None:
        """The next message for the stream; None when it is to end. Raises the error that ends it."""
        message = await self._outbox.get()
        if isinstance(message, BaseException):
            raise message
        return message


def freest(workers: list[ConnectedWorker]) -> ConnectedWorker:
    """The worker with most room. Most reservations come to nothing: they do not count."""
    return max(workers, key=lambda each: each.free_slots + each.reserved_slots)


class Slot:
    """Room for one run on one of some workers, reserved once it is asked for."""

    def __init__(self, workers: list[ConnectedWorker]) -> None:
        self._workers = workers
        self.worker: ConnectedWorker | None = None
        """Whose slot it is, once it is reserved."""
        self.is_taken = False

    def of(self, graph_id: str) -> Worker | None:
        """The freest worker that has the graph, with one slot less from now on; None when all are busy."""
        if self.worker is None:
            able = [
                each for each in self._workers if each.free_slots > 0 and graph_id in each.worker.graph_ids
            ]
            if not able:
                return None
            self.worker = freest(able)
            self.worker.reserved_slots += 1
        return self.worker.worker


class Workers:
    """All of them, by tenant."""

    def __init__(self) -> None:
        self._by_id: dict[tuple[str, str], ConnectedWorker] = {}
        self._came = asyncio.Event()

    def add(self, connected: ConnectedWorker) -> None:
        """Registers a worker; its earlier stream, should there be one, ends."""
        key = (connected.worker.tenant_id, connected.worker.worker_id)
        earlier = self._by_id.get(key)
        if earlier is not None:
            earlier.close()
        self._by_id[key] = connected
        self._came.set()
        self._came = asyncio.Event()

    def remove(self, connected: ConnectedWorker) -> bool:
        """Forgets a worker; False when a later stream of it has taken its place."""
        connected.is_gone = True
        key = (connected.worker.tenant_id, connected.worker.worker_id)
        if self._by_id.get(key) is not connected:
            return False
        del self._by_id[key]
        return True

    def of_tenant(self, tenant_id: str) -> list[ConnectedWorker]:
        """The tenant's workers."""
        return [each for each in self._by_id.values() if each.worker.tenant_id == tenant_id]

    def tenants(self) -> set[str]:
        """Tenants that have a worker."""
        return {tenant_id for tenant_id, _ in self._by_id}

    def holder(self, claim: Claim) -> ConnectedWorker | None:
        """The worker that holds the claim."""
        return next((each for each in self._by_id.values() if each.holds(claim)), None)

    async def with_graph(self, tenant_id: str, graph_id: str, timeout_s: float) -> ConnectedWorker | None:
        """The least busy worker that has the graph, of all for ""; waits for one, None if none comes.

        A worker that drains is chosen only when there is no other.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            able = [
                each
                for each in self.of_tenant(tenant_id)
                if not each.is_gone and (not graph_id or graph_id in each.worker.graph_ids)
            ]
            if able:
                return min(able, key=lambda each: (each.is_draining, len(each.claims)))
            try:
                async with asyncio.timeout_at(deadline):
                    await self._came.wait()
            except TimeoutError:
                return None

    def __iter__(self) -> Iterator[ConnectedWorker]:
        return iter(list(self._by_id.values()))
