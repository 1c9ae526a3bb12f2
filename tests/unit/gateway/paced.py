"""Calls as `PacedCalls` sees them: an application that knows one good key, and no real pauses."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.manual_clock import ManualClock

from runstore.domain.pacing import PacedCallers, Pacing
from runstore.gateway import paced_calls
from runstore.gateway.paced_calls import PacedCalls


class PacedApp:
    """Answers each call with a status of the caller's choice, and says how long it was paused first."""

    def __init__(
        self,
        clock: ManualClock,
        pacing: Pacing,
        monkeypatch: pytest.MonkeyPatch,
        on_pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._paused_s = 0.0
        self._app = PacedCalls(self._answer, PacedCallers(pacing, clock), on_pause)
        # Not of the whole process: others have event loops in it.
        monkeypatch.setattr(paced_calls, "asyncio", SimpleNamespace(sleep=self._sleep))

    async def call(self, key: str, status: int, address: str) -> float:
        """Seconds of the pause."""
        self._paused_s = 0.0
        scope = {
            "type": "http", "path": str(status), "client": (address, 1),
            "headers": [(b"x-api-key", key.encode())] if key else [],
        }  # fmt: skip
        await self._app(scope, self._receive, self._send)
        return self._paused_s

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if (b"x-api-key", b"good") in scope["headers"]:
            scope["state"]["caller"] = "somebody"
        await send({"type": "http.response.start", "status": int(scope["path"])})

    async def _receive(self) -> Any:
        raise AssertionError

    async def _send(self, message: Any) -> None:
        assert message["status"]

    async def _sleep(self, seconds: float) -> None:
        self._paused_s += seconds
