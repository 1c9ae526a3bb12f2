"""The event loop that graphs run on: a thread of its own, so that what they do holds up nothing else."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

_T = TypeVar("_T")

_log = structlog.get_logger(__name__)


class GraphLoop:
    """An event loop in a thread, and threads for nodes that are not async."""

    def __init__(self, *, node_threads: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(
            concurrent.futures.ThreadPoolExecutor(node_threads, thread_name_prefix="node")
        )
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="graphs", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Runs `work` on the loop; from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Calls `function` on the loop soon; from any thread."""
        self._loop.call_soon_threadsafe(function, *arguments)

    async def answers(self, timeout_s: float) -> bool:
        """Whether the loop is free for others within that time."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wrap_future(self.submit(asyncio.sleep(0)))
        except TimeoutError:
            return False
        return True

    def close(self, timeout_s: float) -> None:
        """Ends the loop. Nodes that are not async and do not end are left behind."""
        self._closing = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        while not self._closing:
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - a node called sys.exit(), which asyncio raises here as well
                _log.warning("a graph tried to end the process", error=type(error).__name__)
