"""Who calls: credentials in call metadata, as the public contract names them, to a principal."""

import hmac
from collections.abc import Mapping
from contextvars import ContextVar
from http.cookies import CookieError, SimpleCookie
from typing import Protocol

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID, Principal

API_KEY_COOKIE = "runstore_api_key"

current_principal: ContextVar[Principal] = ContextVar("current_principal")
"""Set by the interceptor for the duration of a call."""


class Authenticator(Protocol):
    """Recognises callers."""

    async def principal(self, metadata: Mapping[str, str], /) -> Principal:
        """The caller. Raises UNAUTHENTICATED, PERMISSION_DENIED."""
        ...


class Keys(Protocol):
    """What authentication needs of the catalog."""

    async def authenticate(self, secret: str) -> Principal | None:
        """The key's principal, or None for a key that nobody issued."""
        ...


class NoAuthentication:
    """Everybody is the operator and the default tenant, whatever credentials they send."""

    async def principal(self, metadata: Mapping[str, str], /) -> Principal:
        return Principal(DEFAULT_TENANT_ID, None, is_operator=True)


class KeyAuthentication:
    """Callers carry an API key, or the operator's."""

    def __init__(self, keys: Keys, operator_key: str) -> None:
        self._keys = keys
        self._operator_key = operator_key.encode()

    async def principal(self, metadata: Mapping[str, str], /) -> Principal:
        secret = credential(metadata)
        if not secret:
            raise RunstoreError(ErrorReason.UNAUTHENTICATED, "an API key is needed: x-api-key")
        if hmac.compare_digest(secret.encode(), self._operator_key):
            return Principal("", None, is_operator=True)
        principal = await self._keys.authenticate(secret)
        if principal is None:
            raise RunstoreError(ErrorReason.UNAUTHENTICATED, "the API key is unknown, expired or revoked")
        tenant_id = metadata.get("x-tenant-id", "").lower()
        if tenant_id and tenant_id != principal.tenant_id:
            raise RunstoreError(
                ErrorReason.PERMISSION_DENIED,
                "the API key does not belong to this tenant",
                field="x-tenant-id",
            )
        return principal


def credential(metadata: Mapping[str, str]) -> str:
    """The API key in the headers of contract runs-v1, section 2; "" when none has one.

    `x-api-key` comes last: the SDK sends its own beside a credential that was given for one call.

    Service tokens and cookies of the vendor are its own; here each of these headers carries an API
    key, so that a replica configured with any of them works.
    """
    if value := metadata.get("x-service-key", "").strip():
        return value
    scheme, _, token = metadata.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    try:
        cookie = SimpleCookie(metadata.get("cookie", "")).get(API_KEY_COOKIE)
    except CookieError:
        cookie = None
    if cookie is not None and cookie.value:
        return cookie.value
    return metadata.get("x-api-key", "").strip()
