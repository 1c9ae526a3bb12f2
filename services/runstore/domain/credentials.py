"""Where a caller's credential stands: in headers, which gRPC calls metadata."""

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Final

SESSION_COOKIE: Final = "runstore_session"

CREDENTIAL_HEADERS: Final = (
    *("x-api-key", "x-service-key", "authorization", "cookie"),
    *("x-tenant-id", "x-organization-id"),
)
"""Headers that say who calls, and in whose name."""


def credential(headers: Mapping[str, str]) -> str:
    """The credential in the headers of contract runs-v1, section 2; "" when none has one.

    `x-api-key` comes last: the SDK sends its own beside a credential that was given for one call. What a
    credential is, key or token, shows by itself; so each of these headers may carry either.
    """
    if value := headers.get("x-service-key", "").strip():
        return value
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if cookies := headers.get("cookie", ""):
        try:
            session = SimpleCookie(cookies).get(SESSION_COOKIE)
        except CookieError:
            session = None
        if session is not None and session.value:
            return session.value
    return headers.get("x-api-key", "").strip()


def is_in_cookie_alone(headers: Mapping[str, str]) -> bool:
    """Whether a browser would send the credential by itself, also for a page of somebody else's."""
    others = {name: value for name, value in headers.items() if name != "cookie"}
    return bool(credential(headers)) and not credential(others)
