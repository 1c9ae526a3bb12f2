"""Runs and threads of graphs: messages ⇄ domain."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from runstore.dispatch.feeds import EventId, RunEvent
from runstore.domain.agent_runs import (
    AgentRun,
    AgentRunError,
    AgentRunStatus,
    AgentThread,
    AgentThreadStatus,
    CancelAction,
    Claim,
    MultitaskStrategy,
    RunEnd,
    ThreadSnapshot,
    Ttl,
)
from runstore.domain.errors import invalid
from runstore.rpc.mapping import set_time
from runstore.v1 import agent_run_pb2 as pb
from runstore.v1 import thread_service_pb2

STATUSES: Final = {
    pb.AGENT_RUN_STATUS_PENDING: AgentRunStatus.PENDING,
    pb.AGENT_RUN_STATUS_RUNNING: AgentRunStatus.RUNNING,
    pb.AGENT_RUN_STATUS_ERROR: AgentRunStatus.ERROR,
    pb.AGENT_RUN_STATUS_SUCCESS: AgentRunStatus.SUCCESS,
    pb.AGENT_RUN_STATUS_TIMEOUT: AgentRunStatus.TIMEOUT,
    pb.AGENT_RUN_STATUS_INTERRUPTED: AgentRunStatus.INTERRUPTED,
    pb.AGENT_RUN_STATUS_ROLLED_BACK: AgentRunStatus.ROLLED_BACK,
}
STRATEGIES: Final = {
    pb.MULTITASK_STRATEGY_UNSPECIFIED: MultitaskStrategy.ENQUEUE,
    pb.MULTITASK_STRATEGY_REJECT: MultitaskStrategy.REJECT,
    pb.MULTITASK_STRATEGY_INTERRUPT: MultitaskStrategy.INTERRUPT,
    pb.MULTITASK_STRATEGY_ROLLBACK: MultitaskStrategy.ROLLBACK,
    pb.MULTITASK_STRATEGY_ENQUEUE: MultitaskStrategy.ENQUEUE,
}
ACTIONS: Final = {
    pb.CANCEL_ACTION_UNSPECIFIED: CancelAction.INTERRUPT,
    pb.CANCEL_ACTION_INTERRUPT: CancelAction.INTERRUPT,
    pb.CANCEL_ACTION_ROLLBACK: CancelAction.ROLLBACK,
}
THREAD_STATUSES: Final = {
    thread_service_pb2.AGENT_THREAD_STATUS_IDLE: AgentThreadStatus.IDLE,
    thread_service_pb2.AGENT_THREAD_STATUS_BUSY: AgentThreadStatus.BUSY,
    thread_service_pb2.AGENT_THREAD_STATUS_INTERRUPTED: AgentThreadStatus.INTERRUPTED,
    thread_service_pb2.AGENT_THREAD_STATUS_ERROR: AgentThreadStatus.ERROR,
}
ACTION_NUMBERS: Final = {action: number for number, action in ACTIONS.items()}
_STATUS_NUMBERS: Final = {status: number for number, status in STATUSES.items()}
_STRATEGY_NUMBERS: Final = {strategy: number for number, strategy in STRATEGIES.items()}
_THREAD_STATUS_NUMBERS: Final = {status: number for number, status in THREAD_STATUSES.items()}

_T = TypeVar("_T")


def chosen(field: str, choices: Mapping[Any, _T], number: int) -> _T:
    """What the number of an enum means. Raises INVALID_ARGUMENT for one that the enum does not have."""
    if number not in choices:
        raise invalid(field, f"{number} is not one of its values")
    return choices[number]


# -- runs ------------------------------------------------------------------------------------------


def run_message(run: AgentRun) -> pb.AgentRun:
    """The run as callers and workers get it."""
    message = pb.AgentRun(
        run_id=run.run_id,
        thread_id=run.thread_id,
        assistant_id=run.assistant_id,
        status=_STATUS_NUMBERS[run.status],
        metadata=run.metadata,
        multitask_strategy=_STRATEGY_NUMBERS[run.multitask_strategy],
        kwargs=run.kwargs,
        attempt=run.attempt,
        cancel_reason=run.cancel_reason,
        trace_id=run.trace_id,
    )
    if run.is_traced and run.project_name is not None:
        message.project_name = run.project_name
    set_time(message.due_time, run.due_at_us)
    set_time(message.update_time, run.updated_at_us)
    return message


def event_message(event: RunEvent) -> pb.AgentRunEvent:
    """The event with its id."""
    return pb.AgentRunEvent(
        event_id="{}-{}".format(*event.event_id),
        mode=event.mode,
        namespace=event.namespace,
        data=event.data,
    )


def event_id(field: str, text: str) -> EventId:
    """The place that `<milliseconds>-<sequence>` names, or the first half alone. Raises INVALID_ARGUMENT."""
    milliseconds, _, sequence = text.partition("-")
    if not (text.isascii() and milliseconds.isdecimal() and (sequence or "0").isdecimal()):
        raise invalid(field, "not the id of an event")
    return int(milliseconds), int(sequence or 0)


def end_message(end: RunEnd) -> pb.AgentRunEnd:
    """How a run ended."""
    error = end.error or _error_of(end.result)
    return pb.AgentRunEnd(
        status=_STATUS_NUMBERS[end.status],
        result=end.result,
        error=None if error is None else error_message(error),
    )


class _Failed(msgspec.Struct):
    failure: AgentRunError | None = msgspec.field(name="__error__", default=None)


def _error_of(result: bytes) -> AgentRunError | None:
    """The error in what `wait` answers: all that is kept of one for long."""
    if not result.startswith(b'{"__error__"'):
        return None
    try:
        return msgspec.json.decode(result, type=_Failed).failure
    except msgspec.DecodeError:  # A graph's own value of that name.
        return None


def error_message(error: AgentRunError) -> pb.AgentRunError:
    """Why a run did not succeed."""
    return pb.AgentRunError(error=error.error, message=error.message)


def error_of(message: Any, field: str) -> AgentRunError | None:
    """The error in an optional field."""
    if not message.HasField(field):
        return None
    error = getattr(message, field)
    return AgentRunError(error.error, error.message)


def snapshot_of(message: Any) -> ThreadSnapshot | None:
    """The optional field `snapshot`."""
    if not message.HasField("snapshot"):
        return None
    snapshot = message.snapshot
    return ThreadSnapshot(
        snapshot.values if snapshot.HasField("values") else None,
        snapshot.interrupts if snapshot.HasField("interrupts") else None,
        snapshot.has_next,
    )


def claim_of(message: Any) -> Claim:
    """The claim that a worker names."""
    return Claim(message.run_id, message.claim_token)


_CHECKPOINT: Final[Mapping[str, type]] = {"checkpoint_id": str, "checkpoint_ns": str, "checkpoint_map": dict}


def check_checkpoint(field: str, checkpoint: Mapping[str, object]) -> None:
    """Raises INVALID_ARGUMENT unless the parts of a checkpoint's place are of their types."""
    for name, kind in _CHECKPOINT.items():
        part = checkpoint.get(name)
        if part is not None and (not isinstance(part, kind) or (isinstance(part, str) and "\0" in part)):
            raise invalid(f"{field}.{name}", "not an object" if kind is dict else "not a text, or with NUL")


# -- threads ---------------------------------------------------------------------------------------


def thread_message(thread: AgentThread) -> thread_service_pb2.AgentThread:
    """The thread as callers get it."""
    message = thread_service_pb2.AgentThread(
        thread_id=thread.thread_id,
        metadata=thread.metadata,
        config=thread.config,
        status=_THREAD_STATUS_NUMBERS[thread.status],
        values=thread.values,
        interrupts=thread.interrupts,
    )
    set_time(message.create_time, thread.created_at_us)
    set_time(message.update_time, thread.updated_at_us)
    if thread.state_updated_at_us is not None:
        set_time(message.state_update_time, thread.state_updated_at_us)
    if thread.error is not None:
        message.error.CopyFrom(error_message(thread.error))
    if thread.ttl_minutes is not None:
        message.ttl.minutes = thread.ttl_minutes
        message.ttl.strategy = thread.ttl_strategy or ""
        if thread.expires_at_us is not None:
            set_time(message.ttl.expire_time, thread.expires_at_us)
    return message


_TTL_STRATEGIES: Final = ("delete", "keep_latest")
_MAX_TTL_MINUTES: Final = 100 * 366 * 24 * 60


def ttl_of(message: Any) -> Ttl | None:
    """The optional field `ttl`. Raises INVALID_ARGUMENT."""
    if not message.HasField("ttl"):
        return None
    ttl = message.ttl
    if not 0 < ttl.minutes <= _MAX_TTL_MINUTES:
        raise invalid("ttl.ttl", "must be above 0 minutes and below a century")
    if (ttl.strategy or "delete") not in _TTL_STRATEGIES:
        raise invalid("ttl.strategy", f"must be one of {', '.join(_TTL_STRATEGIES)}")
    return Ttl(ttl.minutes, ttl.strategy or "delete")
