"""What callers see of a defect of the gateway itself: that there is one, in their dialect, and no more."""

from typing import Any

import httpx
import pytest
import structlog

from runstore.gateway.app import create_app
from runstore.gateway.bodies import BodyLimits
from runstore.gateway.dialects import INTERNAL_TEXT
from runstore.gateway.metrics import GatewayMetrics

PROJECT_ID = "3d0c8a55-9f0b-4d0c-8f7c-1f4f5b8c9a01"


class DefectiveStore:
    """A store client every method of which fails in a way that nobody thought of."""

    def __getattr__(self, name: str) -> Any:
        async def fail(*arguments: object) -> None:
            raise ZeroDivisionError("what only the log may say")

        return fail


@pytest.mark.parametrize(
    ("method", "path", "body", "key"),
    [
        ("GET", "/sessions", None, "detail"),
        ("POST", "/runs/batch", {"post": []}, "error"),
        ("POST", "/api/v2/runs/query", {"project_ids": [PROJECT_ID]}, "detail"),
    ],
)
async def test_defect_is_answered_in_the_routes_dialect(method: str, path: str, body: Any, key: str) -> None:
    """500 with a general sentence where clients of the route look for it; the log has the exception once."""
    store: Any = DefectiveStore()
    app = create_app(
        store, BodyLimits(1_000, 1_000, 10, 4_000, 1_000, 1_000), lambda: 0, GatewayMetrics("gateway", None)
    )
    # Raises what the application raises: nothing, so that the connection can go on.
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as http:
        with structlog.testing.capture_logs() as lines:
            answer = await http.request(method, path, json=body)
    assert answer.status_code == 500
    assert answer.json()[key] == INTERNAL_TEXT
    assert "what only the log may say" not in answer.text
    assert [line["event"] for line in lines] == ["http_call_failed", "http_call"]
    assert lines[1]["status"] == 500
