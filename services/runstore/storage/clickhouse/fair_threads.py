"""Threads that tenants share fairly: none can take all, and none waits behind the queue of another."""

import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_Waiting = tuple["Future[Any]", Callable[[], Any]]


class FairThreads:
    """A pool whose free threads go to the tenants that wait, in turn.

    One tenant has all threads but one at most: slow calls of one, which nothing interrupts, leave others a
    way through.
    """

    def __init__(self, count: int, *, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._free = count
        self._most_each = max(1, count - 1)
        self._running: Counter[str] = Counter()
        # By tenant, in the order in which they have their turn.
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._lock = threading.Lock()

    def submit(self, tenant_id: str, call: Callable[[], T]) -> "Future[T]":
        """The result of `call` in one of the threads. Cancelled before it has begun, it never begins."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(tenant_id, deque()).append((future, call))
            self._begin_what_can()
        return future

    def shutdown(self) -> None:
        """Cancels what has not begun, and waits for the rest."""
        with self._lock:
            waiting = [future for queue in self._waiting.values() for future, _ in queue]
            self._waiting.clear()
        for future in waiting:
            future.cancel()
        self._pool.shutdown()

    def _begin_what_can(self) -> None:
        while self._free and (tenant_id := self._next_in_turn()) is not None:
            queue = self._waiting.pop(tenant_id)
            future, call = queue.popleft()
            if queue:
                self._waiting[tenant_id] = queue  # Behind the others, from now on.
            if future.set_running_or_notify_cancel():
                self._free -= 1
                self._running[tenant_id] += 1
                self._pool.submit(self._run, tenant_id, future, call)

    def _next_in_turn(self) -> str | None:
        return next((each for each in self._waiting if self._running[each] < self._most_each), None)

    def _run(self, tenant_id: str, future: "Future[Any]", call: Callable[[], Any]) -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it is the caller's, who waits for the future
            self._end(tenant_id)
            future.set_exception(error)
        else:
            self._end(tenant_id)
            future.set_result(result)

    def _end(self, tenant_id: str) -> None:
        with self._lock:
            self._free += 1
            self._running[tenant_id] -= 1
            if not self._running[tenant_id]:
                del self._running[tenant_id]
            self._begin_what_can()
