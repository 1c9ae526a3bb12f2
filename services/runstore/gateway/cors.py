"""Lets pages of other origins call the gateway from a browser, where an operator names those origins."""

from collections.abc import Collection
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

# What clients in browsers read besides the body; browsers hide other headers from pages.
_EXPOSED_HEADERS: Final = (
    "Content-Location",
    "Location",
    "Retry-After",
    "X-Pagination-Next",
    "X-Pagination-Total",
    "X-Request-Id",
    "X-Should-Retry",
)
_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_MAX_AGE_S: Final = 600


def allow_origins(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """`app` with answers, errors included, that pages of these origins (`*`: of any) may read.

    It answers preflights itself, which browsers send without credentials. Cookies are for named origins only:
    with `*` every page that a person visits could act with that person's cookie.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=["*"],
        allow_credentials="*" not in origins,
        expose_headers=_EXPOSED_HEADERS,
        max_age=_MAX_AGE_S,
    )
