"""Questions that only a worker can answer, because they need a graph or its checkpoints."""

import asyncio
import secrets
from typing import Final

from runstore.dispatch.workers import Asked, ConnectedWorker, Workers
from runstore.domain.errors import ErrorReason, RunstoreError

_WORKER_TIMEOUT_S: Final = 10.0
_ANSWER_TIMEOUT_S: Final = 60.0
_MAX_OPEN: Final = 1_000


class Questions:
    """Asks workers and hands their answers back. What both are made of concerns only the two ends."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._open: dict[str, tuple[ConnectedWorker, asyncio.Future[object]]] = {}

    async def ask(self, tenant_id: str, graph_id: str, question: object) -> object:
        """The answer of a worker of the tenant that has the graph; of any worker for "".

        Raises UNAVAILABLE when no worker comes within 10 seconds, it goes, or gives no answer within a
        minute; OVERLOADED when too many questions wait for answers.
        """
        worker = await self._workers.with_graph(tenant_id, graph_id, _WORKER_TIMEOUT_S)
        if worker is None:
            graph = f" that has the graph {graph_id}" if graph_id else ""
            raise RunstoreError(ErrorReason.UNAVAILABLE, f"no worker{graph} is connected: runstore agents")
        if len(self._open) >= _MAX_OPEN:
            raise RunstoreError(ErrorReason.OVERLOADED, "too many questions wait for workers")
        question_id = secrets.token_hex(16)
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._open[question_id] = (worker, answer)
        worker.send(Asked(question_id, question))
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                return await answer
        except TimeoutError as error:
            raise RunstoreError(ErrorReason.UNAVAILABLE, "the worker did not answer in time") from error
        finally:
            del self._open[question_id]

    def answer(self, worker: ConnectedWorker, question_id: str, answer: object) -> None:
        """A worker answers. What nobody waits for any more, or is another's to answer, is dropped."""
        asked, future = self._open.get(question_id, (None, None))
        if asked is worker and future is not None and not future.done():
            future.set_result(answer)

    def gone(self, worker: ConnectedWorker) -> None:
        """A worker has gone: it answers nothing more."""
        for asked, future in self._open.values():
            if asked is worker and not future.done():
                future.set_exception(
                    RunstoreError(ErrorReason.UNAVAILABLE, "the worker that was asked has gone")
                )
