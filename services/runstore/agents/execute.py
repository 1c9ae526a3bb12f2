"""Executes one attempt of a run: calls the graph, passes on what it says, and tells how it ended."""

import asyncio
import contextlib
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl
from langgraph.store.base import BaseStore

from runstore.agents.attempts import Attempt, Ended, Event, Outcome, Snapshot, Stop
from runstore.agents.checkpoints import Checkpoints, CheckpointsUnavailable
from runstore.agents.continuing import Earlier
from runstore.agents.events import Stream
from runstore.agents.failures import RAISED_BY_USERS, Failure, LeaseLost, failure_of
from runstore.agents.fenced_saver import FencedSaver
from runstore.agents.graphs import RegisteredGraph, Use
from runstore.agents.json_values import from_json, to_json
from runstore.agents.leases import Lease
from runstore.agents.run_config import graph_config, graph_context, graph_input
from runstore.agents.snapshots import latest_snapshot
from runstore.agents.tracing import Tracing
from runstore.domain.errors import RunstoreError

# A graph that does not stop in this time is left to itself: it can write nothing more.
_STOP_GRACE_S: Final = 10.0

Emit = Callable[[Event], Awaitable[None]]
"""Passes an event on; waits while too many of them are on their way."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every attempt of a worker shares."""

    checkpoints: Checkpoints
    store: BaseStore | None
    tracing: Tracing
    run_timeout_s: float


class Execution:
    """One attempt, from its beginning to its end.

    `stop` may be called from its event loop at any time; before `run`, the graph is not called at all, and
    only what the stop asks for is done.
    """

    def __init__(
        self,
        attempt: Attempt,
        graph: RegisteredGraph,
        lease: Lease,
        surroundings: Surroundings,
        emit: Emit,
    ) -> None:
        self._attempt = attempt
        self._graph = graph
        self._lease = lease
        self._around = surroundings
        self._emit = emit
        self._control = RunControl()
        self._stop: Stop | None = None
        self._reason = ""
        self._stopping = asyncio.Event()
        modes = attempt.kwargs.get("stream_mode") or ["values"]
        self._stream = Stream(modes, subgraphs=bool(attempt.kwargs.get("subgraphs")))
        self._saver: FencedSaver | None = None

    def drain(self) -> None:
        """Asks the graph to pause before its next step, for another attempt to continue."""
        self._control.request_drain()

    def stop(self, why: Stop, reason: str = "") -> None:
        """Stops the graph at once, if it has not ended. What came first stays, but LOST."""
        if why is Stop.LOST:
            self._lease.lose()
        elif self._stop is not None:
            return
        self._stop, self._reason = why, reason
        self._stopping.set()

    async def run(self) -> Ended | None:
        """Calls the graph. Returns how it ended, or None when the lease was lost. Raises nothing."""
        try:
            return await self._run()
        except RAISED_BY_USERS as error:  # Whatever it is, the store has to know that the attempt is over.
            return self._failed(error)
        finally:
            self._lease.lose()

    async def _run(self) -> Ended | None:
        if self._attempt.has_checkpoints:
            self._saver = FencedSaver(
                self._around.checkpoints,
                self._lease,
                thread_id=self._attempt.thread_id,
                run_id=self._attempt.run_id,
                is_sync=self._attempt.kwargs.get("durability") == "sync",
            )
        error = await self._called() if self._stop is None else None
        if self._saver is not None:
            await self._saver.close()
        return await self._stopped(self._stop) if self._stop is not None else await self._ended(error)

    async def _called(self) -> BaseException | None:
        """Calls the graph, until it ends or is stopped. Returns what it has raised."""
        calling = asyncio.create_task(self._call())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait(
            {calling, stopping},
            timeout=self._around.run_timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        stopping.cancel()
        if not calling.done():
            self.stop(Stop.TIMEOUT)
            calling.cancel()
            await asyncio.wait({calling}, timeout=_STOP_GRACE_S)
        if not calling.done():
            _log.warning("graph does not stop", run_id=self._attempt.run_id)
            calling.add_done_callback(_forget)
            return None
        return asyncio.CancelledError() if calling.cancelled() else calling.exception()

    async def _call(self) -> None:
        attempt = self._attempt
        earlier = None
        if self._saver is not None and attempt.number > 1:
            earlier = await Earlier.find(self._saver, attempt.thread_id, attempt.run_id)
        config = graph_config(attempt, continues=earlier is not None)
        asked = Use(config, "assistants.read", store=self._around.store)
        context = graph_context(await self._graph.context_schema(asked), attempt.kwargs.get("context"))
        use = Use(config, "threads.create_run", self._saver, self._around.store, context)
        options: dict[str, Any] = {"context": context, "control": self._control}
        if self._saver is not None:
            options["durability"] = attempt.kwargs.get("durability") or "async"
        for name in ("interrupt_before", "interrupt_after"):
            if nodes := attempt.kwargs.get(name):
                options[name] = nodes
        with self._around.tracing.of(attempt):
            async with self._graph.opened(use) as graph:
                breakpoints = options.get("interrupt_before"), options.get("interrupt_after")
                if earlier and await earlier.is_at_breakpoint(graph, *breakpoints):
                    return
                graph_in = None if earlier else graph_input(attempt.kwargs)
                async with contextlib.aclosing(
                    self._stream.events(graph, graph_in, config, options)
                ) as events:
                    async for event in events:
                        await self._emit(event)

    async def _ended(self, error: BaseException | None) -> Ended | None:
        if isinstance(error, GraphDrained):
            return await self._stopped(Stop.DRAIN)
        if error is not None:
            return self._failed(error, await self._snapshot_if_readable())
        snapshot = await self._snapshot()
        result = self._stream.result
        if result is None and snapshot is not None:
            result = _result_of(snapshot)
        return Ended(Outcome.SUCCESS, result or b"{}", snapshot)

    async def _stopped(self, why: Stop) -> Ended | None:
        if why is Stop.LOST:
            return None
        if why is Stop.DRAIN:
            return Ended(Outcome.REQUEUE)
        if why is Stop.TIMEOUT:
            failure = Failure("TimeoutError", f"The run took longer than {self._around.run_timeout_s:g} s")
            return Ended(Outcome.TIMEOUT, _error_result(failure), await self._snapshot(), failure)
        result = self._stream.result or b"{}"
        if why is Stop.INTERRUPT:
            failure = Failure("UserInterrupt", self._reason)
            return Ended(Outcome.INTERRUPTED, result, await self._snapshot(), failure)
        return await self.roll_back(result)

    async def roll_back(self, result: bytes = b"{}") -> Ended:
        """Deletes what the run has stored, and tells what remains."""
        if self._attempt.has_checkpoints:
            await self._lease.held()
            try:
                await self._around.checkpoints.delete_run(self._attempt.thread_id, self._attempt.run_id)
            except RunstoreError as refusal:
                _log.warning("checkpoints stay", run_id=self._attempt.run_id, why=refusal.message)
        snapshot = await self._snapshot(is_rolled_back=True)
        return Ended(Outcome.ROLLED_BACK, result, snapshot, Failure("UserRollback", self._reason))

    def _failed(self, error: BaseException, snapshot: Snapshot | None = None) -> Ended | None:
        for cause in _chain(error):
            if isinstance(cause, LeaseLost):
                return None
            if isinstance(cause, CheckpointsUnavailable):
                _log.warning("checkpoints are away", run_id=self._attempt.run_id, why=str(cause))
                return Ended(Outcome.REQUEUE, failure=failure_of(cause), is_failure=True)
        _log.info(
            "graph failed",
            run_id=self._attempt.run_id,
            error=type(error).__name__,
            # No `exc_info`, which is for defects of this program.
            traceback="".join(traceback.format_exception(error)),
        )
        failure = failure_of(error)
        return Ended(Outcome.ERROR, _error_result(failure), snapshot, failure)

    async def _snapshot(self, *, is_rolled_back: bool = False) -> Snapshot | None:
        if self._saver is None:
            return None
        use = Use({"configurable": {}}, "threads.read", self._saver, self._around.store)
        latest_id = None if is_rolled_back else self._saver.latest_id
        async with self._graph.opened(use) as graph:
            return await latest_snapshot(graph, self._attempt.thread_id, latest_id)

    async def _snapshot_if_readable(self) -> Snapshot | None:
        """The state of a run that failed, perhaps because its state cannot be read or rendered."""
        try:
            return await self._snapshot()
        except RAISED_BY_USERS as error:  # The run has failed already, and that is what is told.
            _log.warning("state cannot be read", run_id=self._attempt.run_id, error=type(error).__name__)
            return None


def _result_of(snapshot: Snapshot) -> bytes | None:
    """What `wait` answers about a run that said nothing, from the state of its thread."""
    interrupts = [entry for entries in from_json(snapshot.interrupts).values() for entry in entries]
    return to_json({"__interrupt__": interrupts}) if interrupts else snapshot.values


def _error_result(failure: Failure) -> bytes:
    return to_json({"__error__": {"error": failure.error, "message": failure.message}})


def _chain(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _forget(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
