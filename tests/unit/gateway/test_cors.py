"""Pages of other origins: off by default; named origins may call every route and read its errors."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from runstore.gateway.app import create_app
from runstore.gateway.bodies import BodyLimits
from runstore.gateway.metrics import GatewayMetrics
from runstore.gateway.store_client import StoreClient

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = "https://app.example.com"
LIMITS = BodyLimits(
    max_body_bytes=1_000_000,
    max_decompressed_bytes=1_000_000,
    max_decompression_ratio=50,
    max_memory_bytes=4_000_000,
    max_payload_bytes=1_000_000,
    max_attachment_bytes=1_000_000,
)


Call = Callable[..., Awaitable[httpx.Response]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def call() -> AsyncIterator[Call]:
    """The answer of a gateway without a store: `call(origins, method, path, **headers)`."""
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        store = StoreClient(channel, patience_s=0)

        @cache
        def gateway(origins: tuple[str, ...]) -> Any:
            metrics = GatewayMetrics("gateway", None)
            return create_app(store, LIMITS, lambda: 0, metrics, cors_origins=origins)

        async def call(origins: tuple[str, ...], method: str, path: str, **headers: str) -> httpx.Response:
            transport = httpx.ASGITransport(gateway(origins))
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                return await client.request(
                    method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
                )

        yield call


def preflight(method: str, *headers: str) -> dict[str, str]:
    """What a browser sends before a call that is not simple."""
    return {"access_control_request_method": method, "access_control_request_headers": ", ".join(headers)}


async def test_off_unless_set(call: Call) -> None:
    """Without the setting no answer allows a page of another origin anything."""
    for method, path, headers in (
        ("OPTIONS", "/runs", preflight("POST")),
        ("GET", "/info", {}),
    ):
        answer = await call((), method, path, origin=ORIGIN, **headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/runs/multipart", "POST"),
        ("/api/v2/runs/query", "POST"),
        ("/api/v1/sessions/11111111-1111-4111-8111-111111111111", "DELETE"),
        ("/threads/11111111-1111-4111-8111-111111111111", "PATCH"),
        ("/no/such/route", "PUT"),
    ],
)
async def test_preflights_of_every_route(call: Call, path: str, method: str) -> None:
    """A named origin may use any method and header, without a credential in the preflight."""
    answer = await call(
        (ORIGIN,), "OPTIONS", path, origin=ORIGIN, **preflight(method, "x-api-key", "content-encoding")
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert method in answer.headers["access-control-allow-methods"]
    assert "content-encoding" in answer.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/no/such/route", 404), ("GET", "/sessions", 503)]
)
async def test_errors_can_be_read(call: Call, method: str, path: str, status: int) -> None:
    """A page is told what is wrong, and when to try again."""
    answer = await call((ORIGIN,), method, path, origin=ORIGIN)
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "Retry-After" in answer.headers["access-control-expose-headers"]


async def test_strangers_are_not_named(call: Call) -> None:
    """Another origin is refused its preflight, and gets no header that lets it read an answer."""
    for origin in ("https://evil.example", "https://app.example.com.evil.example", "null"):
        refused = await call((ORIGIN,), "OPTIONS", "/runs", origin=origin, **preflight("POST"))
        assert refused.status_code == 400
        answer = await call((ORIGIN,), "GET", "/info", origin=origin)
        for each in (refused, answer):
            assert "access-control-allow-origin" not in each.headers


async def test_any_origin_gets_no_cookies(call: Call) -> None:
    """`*` allows every page to call, but not with the cookie of whoever looks at it."""
    answer = await call(("*",), "GET", "/info", origin="https://any.example")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
