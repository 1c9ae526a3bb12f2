"""Lets a snapshot of the engine in between two flushes, so that it holds none of them in part."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class FlushPause:
    """Knows whether a flush is under way: from its first write until it is reported as stored.

    A flush whose process dies is under way until the next process has repeated it.
    """

    def __init__(self) -> None:
        self._is_flushing = False
        self._is_held = False
        self._changed = asyncio.Condition()

    def writing(self, call: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """`call`, which is a write of a flush; the first of a flush waits for the end of a pause."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            if not self._is_flushing:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._is_flushing or not self._is_held)
                    self._is_flushing = True
            return await call(*args, **kwargs)

        return guarded

    async def ended(self) -> None:
        """A flush has been stored."""
        async with self._changed:
            self._is_flushing = False
            self._changed.notify_all()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """No flush is under way inside; one caller at a time. Seconds of it are seconds of lag."""
        async with self._changed:
            self._is_held = True
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._is_flushing)
            yield
        finally:
            async with self._changed:
                self._is_held = False
                self._changed.notify_all()
