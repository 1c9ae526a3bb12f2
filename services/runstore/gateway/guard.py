"""Decides who may call which route, before anything else of a request is looked at.

The store says whose a credential is, and enforces the table of access itself for every call that reaches it.
The gateway remembers its answers for three seconds, so a busy tracer costs a question in that time. What was
revoked meanwhile is refused by the store.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from runstore.domain.access import Access, check_access
from runstore.domain.credentials import credential, is_in_cookie_alone
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.expiring import ExpiringMap
from runstore.domain.failed_attempts import FailedAttempts
from runstore.domain.principals import Principal, Role
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.runtime.clock import Clock
from runstore.v1 import tenant_service_pb2 as pb

_MAX_CALLERS: Final = 10_000
_REMEMBERED_S: Final = 3.0
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ROLES: Final[Mapping[int, Role]] = {
    pb.ROLE_INGEST_ONLY: Role.INGEST_ONLY,
    pb.ROLE_READER: Role.READER,
    pb.ROLE_EDITOR: Role.EDITOR,
    pb.ROLE_ADMIN: Role.ADMIN,
}


class Guard:
    """Admits calls that have the access that their route needs."""

    def __init__(self, store: StoreClient, clock: Clock, attempts: FailedAttempts) -> None:
        self._store = store
        self._attempts = attempts
        self._callers: ExpiringMap[bytes, Principal] = ExpiringMap(
            clock, max_entries=_MAX_CALLERS, ttl_s=_REMEMBERED_S, name="callers"
        )
        self._asking: dict[bytes, asyncio.Task[Principal]] = {}

    async def admit(self, request: Request, access: Access) -> Principal | None:
        """The caller, who has `access`; None for nobody, who may see what is published.

        Raises UNAUTHENTICATED, PERMISSION_DENIED, WORKSPACE_REQUIRED, RATE_LIMITED, UNAVAILABLE.
        """
        credentials = credentials_of(request.headers)
        headers = dict(credentials)
        secret = credential(headers)
        if not secret:
            if access is Access.PUBLISHED:
                return None
            raise RunstoreError(
                ErrorReason.UNAUTHENTICATED, "a credential is needed, such as an API key: x-api-key"
            )
        if _is_forged(request, headers):
            raise RunstoreError(ErrorReason.PERMISSION_DENIED, "a session does not act for other sites")
        key = _digest(secret, headers)
        caller = self._callers.get(key)
        if caller is None:
            address = request.client.host if request.client else ""
            with self._attempts.counted(address, secret):
                caller = await self._ask(key, credentials)
        check_access(caller, access)
        return caller

    async def _ask(self, key: bytes, credentials: Credentials) -> Principal:
        """The store's answer: one question for all calls that wait for the same."""
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.create_task(self._question(key, credentials))
            self._asking[key] = asking
            asking.add_done_callback(lambda task: self._answered(key, task))
        return await asyncio.shield(asking)

    def _answered(self, key: bytes, asking: "asyncio.Task[Principal]") -> None:
        del self._asking[key]
        if not asking.cancelled():
            asking.exception()  # Whoever still waits for it gets it; asyncio would log it when nobody does.

    async def _question(self, key: bytes, credentials: Credentials) -> Principal:
        ticket = self._callers.ticket()
        answer = await self._store.ask(self._store.tenants.GetCaller, pb.GetCallerRequest(), credentials)
        caller = Principal(
            answer.tenant_id,
            answer.key_id or None,
            is_operator=answer.is_operator,
            role=_ROLES.get(answer.role),
        )
        self._callers.put(key, caller, ticket)
        return caller


def _digest(secret: str, headers: Mapping[str, str]) -> bytes:
    """What the store's answer depends on, at a length that strangers cannot choose."""
    parts = (secret, headers.get("x-tenant-id", ""), headers.get("x-organization-id", ""))
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _is_forged(request: Request, headers: Mapping[str, str]) -> bool:
    """Whether a page of another site may have had a browser send its user's session (CSRF).

    Browsers say where a request comes from; SDKs that send a cookie say nothing, and need not.
    """
    if request.method in _SAFE_METHODS or "cookie" not in headers:
        return False
    site = request.headers.get("sec-fetch-site")
    if site is None:
        origin = request.headers.get("origin")
        if origin is None or urlsplit(origin).netloc == request.headers.get("host", ""):
            return False
    elif site != "cross-site":
        return False
    return is_in_cookie_alone(headers)
