"""Lets every route answer under all the prefixes that SDKs build (contract runs-v1, section 1).

Routes are registered once, in their shortest form; this rewrites what arrives to that form. A
rewrite instead of redirects: SDKs do not resend bodies to a redirect's target.
"""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

# Longest first: `/api/v1/runs` must not become `/v1/runs`.
_V1_PREFIXES: Final = ("/api/v1", "/api")


def canonical_path(path: str) -> str:
    """The registered form of a request's path: v1 as `/X`, v2 as `/api/v2/X`, without trailing slash.

    Platform routes are registered as `/v1/platform/X`, which an `api_url` ending in `/v1` turns
    into `/api/v1/platform/X`.
    """
    path = path.rstrip("/") or "/"
    if path.startswith("/v2/"):
        return "/api" + path
    if path.startswith("/api/v2/"):
        return path
    for prefix in _V1_PREFIXES:
        if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
            path = path[len(prefix) :] or "/"
            break
    if path.startswith("/platform/"):
        return "/v1" + path
    return path


class CanonicalPaths:
    """ASGI middleware that hands on every HTTP request under its canonical path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `canonical_path`."""
        if scope["type"] == "http":
            # In place: `CallLog`, further out, reads the route that the router leaves in the scope.
            scope["path"] = canonical_path(scope["path"])
        await self._app(scope, receive, send)
