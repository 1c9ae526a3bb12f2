"""Open streams: they were let in once, and must not go on when their caller would not be let in now."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from runstore.domain.errors import ErrorReason, RunstoreError

_CHECK_EVERY_S: Final = 3.0
_REFUSED: Final = (ErrorReason.UNAUTHENTICATED, ErrorReason.PERMISSION_DENIED, ErrorReason.WORKSPACE_REQUIRED)


@dataclass(frozen=True, slots=True)
class Admission:
    """How a caller was let in."""

    caller: tuple[str, ...]
    """What it showed, and for what: streams of equal callers are let in, or not, together."""
    again: Callable[[], Awaitable[object]]
    """Raises as when it came, if it would not be let in now."""


class OpenStreams:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self._tasks: dict[str, set[asyncio.Task[Any]]] = {}
        self._admissions: dict[asyncio.Task[Any], Admission] = {}
        self._ended: set[asyncio.Task[Any]] = set()

    @contextmanager
    def opened(self, tenant_id: str, admission: Admission | None = None) -> Iterator[None]:
        """For as long as the task has a stream of the tenant. `admission`: None where nobody had to ask.

        Raises UNAUTHENTICATED once the stream is ended.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - every call is a task
        self._tasks.setdefault(tenant_id, set()).add(task)
        if admission is not None:
            self._admissions[task] = admission
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise RunstoreError(
                ErrorReason.UNAUTHENTICATED, "the credential does not open a tenant any more"
            ) from None
        finally:
            self._ended.discard(task)
            self._admissions.pop(task, None)
            mine = self._tasks[tenant_id]
            mine.discard(task)
            if not mine:
                del self._tasks[tenant_id]

    def end(self, tenant_id: str) -> None:
        """End every stream of a tenant."""
        for task in self._tasks.get(tenant_id, ()):
            self._end(task)

    async def run(self) -> None:
        """Look at all streams every three seconds, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            await self.check()

    async def check(self) -> None:
        """End the streams of callers that would not be let in now: a key was revoked, a token has expired."""
        refused: dict[tuple[str, ...], bool] = {}
        for task, admission in list(self._admissions.items()):
            if admission.caller not in refused:
                refused[admission.caller] = await _is_refused(admission)
            if refused[admission.caller] and task in self._admissions:
                self._end(task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        if task not in self._ended:  # Once: what ends a stream is told to its client.
            self._ended.add(task)
            task.cancel()


async def _is_refused(admission: Admission) -> bool:
    try:
        await admission.again()
    except RunstoreError as error:
        return error.reason in _REFUSED  # A catalog that is away ends nothing.
    return False
