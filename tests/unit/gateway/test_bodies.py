"""What arrives before a body does, or instead of it."""

from functools import cache
from typing import Any
from unittest.mock import Mock

import pytest
import structlog

from runstore.gateway.app import create_app
from runstore.gateway.bodies import BodyLimits
from runstore.gateway.metrics import GatewayMetrics

LIMITS = BodyLimits(1_000, 1_000, 10, 4_000, 1_000, 1_000)


@cache
def gateway() -> Any:
    """One without a store."""
    nobody: Any = Mock()
    return create_app(nobody, LIMITS, lambda: 0, GatewayMetrics("gateway", None))


async def post(headers: list[tuple[bytes, bytes]], messages: list[dict[str, Any]]) -> int:
    """The status of a POST whose body arrives as these messages."""
    statuses: list[int] = []
    arriving = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(arriving)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/runs", "query_string": b"",
        "headers": headers, "server": ("host", 80), "client": ("client", 1), "scheme": "http",
    }  # fmt: skip
    await gateway()(scope, receive, send)
    [status] = statuses
    return status


@pytest.mark.parametrize("declared", ["x", "-1", "\xb2", "9" * 5_000, "1e9", ""])
async def test_content_length_that_is_no_length_is_ignored(declared: str) -> None:
    """What counts is what arrives: here no JSON."""
    body = {"type": "http.request", "body": b"{", "more_body": False}
    assert await post([(b"content-length", declared.encode("latin-1"))], [body]) == 400


async def test_client_that_goes_away_is_no_defect() -> None:
    """A connection that ends within a body is logged as 499, not as a failure of the server."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    with structlog.testing.capture_logs() as logged:
        assert await post([], messages) == 499
    assert [(line["event"], line["status"], line["log_level"]) for line in logged] == [
        ("http_call", 499, "info")
    ]
