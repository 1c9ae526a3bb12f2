"""Keeps a store, its gateways and workers running, and stops them in the order that loses nothing."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from runstore.runtime.child import Child

_log = structlog.get_logger(__name__)

# A child ends itself when its own drain takes too long; being killed is for one that cannot even do that.
_GRACE_S = 10.0


class Supervisor:
    """Runs children until told to stop, or until one of them cannot be started at all."""

    def __init__(self, store: Child, clients: Sequence[Child], *, drain_timeout_s: float) -> None:
        self._store = store
        self._clients = tuple(clients)
        self._kill_after_s = drain_timeout_s + _GRACE_S

    async def run(self, *, stop: asyncio.Event, force: asyncio.Event, on_ready: Callable[[], None]) -> None:
        """Calls `on_ready` once when the store and its clients all answer; returns when all have ended.

        After `stop`, clients drain while the store still answers them, then the store drains;
        `force` kills what is left. Raises CannotStart when a child fails before it was ever ready,
        with every other child stopped.
        """
        running = {child: asyncio.create_task(child.run()) for child in (self._store, *self._clients)}
        announcing = asyncio.create_task(self._announce(on_ready))
        stopping = asyncio.create_task(stop.wait())
        any_end: list[asyncio.Task[Any]] = [stopping, *running.values()]
        try:
            await asyncio.wait(any_end, return_when=asyncio.FIRST_COMPLETED)
        finally:
            announcing.cancel()
            stopping.cancel()
            await self._stop({child: running[child] for child in self._clients}, force)
            await self._stop({self._store: running[self._store]}, force)
        for task in running.values():
            task.result()

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        for child in (self._store, *self._clients):
            await child.ready.wait()
        on_ready()

    async def _stop(self, running: dict[Child, asyncio.Task[None]], force: asyncio.Event) -> None:
        for child in running:
            child.stop()
        forced = asyncio.create_task(force.wait())
        ended = asyncio.gather(*running.values(), return_exceptions=True)
        either: list[asyncio.Future[Any]] = [forced, ended]
        await asyncio.wait(either, timeout=self._kill_after_s, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        for child, task in running.items():
            if not task.done():
                _log.error("child does not end, killing it", child=child.name, pid=child.pid)
                child.kill()
        await ended
