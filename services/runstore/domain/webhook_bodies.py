"""What webhooks tell of a run that has ended (contract agents, section 2.14)."""

from typing import Any, Final

import msgspec

from runstore.domain.agent_runs import AgentRun, AgentRunStatus, AgentThread, Finished, RunEnd
from runstore.domain.times import format_time

_FAILED: Final = (AgentRunStatus.ERROR, AgentRunStatus.TIMEOUT)
_NULL: Final = msgspec.Raw(b"null")


def webhook_body(run: AgentRun, thread: AgentThread, end: RunEnd, finished: Finished, now_us: int) -> bytes:
    """The run as the REST interface shows it, how it ended, and what its thread holds then: a JSON object.

    `thread` is as it was before. A stateless run has none to look at: what `wait` answers stands for it.
    """
    ended_at_us = finished.ended_at_us or now_us
    started_at_us = finished.started_at_us or run.started_at_us
    body: dict[str, Any] = {
        "run_id": run.run_id,
        "thread_id": run.thread_id,
        "assistant_id": run.assistant_id,
        "created_at": format_time(run.due_at_us),
        "updated_at": format_time(now_us),
        "status": end.status.value,
        "metadata": msgspec.Raw(run.metadata),
        "kwargs": msgspec.Raw(run.kwargs),
        "multitask_strategy": run.multitask_strategy.value,
        "langsmith_session_name": run.project_name if run.is_traced else None,
        "cancel_reason": run.cancel_reason,
        "trace_id": run.trace_id or None,
        "run_started_at": None if started_at_us is None else format_time(started_at_us),
        "run_ended_at": format_time(ended_at_us),
        "values": _values(run, thread, end, finished),
    }
    if end.error is not None:
        body["error"] = {"error": end.error.error, "message": end.error.message}
    return msgspec.json.encode(body)


def _values(run: AgentRun, thread: AgentThread, end: RunEnd, finished: Finished) -> msgspec.Raw:
    if not run.has_checkpoints:
        return _NULL if end.status in _FAILED else msgspec.Raw(end.result)
    values = thread.values if finished.snapshot is None else finished.snapshot.values
    return _NULL if values is None else msgspec.Raw(values)
