"""What happens to rows of runs inside a transaction that has locked their thread."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Row, Select, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog.agent_tables import IS_IN_FLIGHT, agent_results, agent_runs
from runstore.domain.agent_runs import (
    CANCEL_ERRORS,
    AgentRun,
    AgentRunError,
    AgentRunStatus,
    AgentThread,
    Cancel,
    CancelAction,
    Claim,
    Effects,
    MultitaskStrategy,
    RunEnd,
)

NO_CLAIM: Final = {"worker_id": None, "claim_token": None, "lease_until_us": None}
_EMPTY: Final = b"{}"

_runs = agent_runs.c
_COLUMNS: Final = [column for column in _runs if column.name not in NO_CLAIM]

# Built once: to build a statement takes longer than SQLite takes to execute it.
_INSERT: Final = insert(agent_runs)
_INSERT_RESULT: Final = insert(agent_results)
_UPDATE: Final = update(agent_runs).where(_runs.run_id == bindparam("of_run"))
_IN_FLIGHT: Final = (
    select(agent_runs)
    .where(_runs.thread_id == bindparam("of_thread"), IS_IN_FLIGHT)
    .order_by(_runs.due_at_us, _runs.run_id)
)


async def insert_run(
    connection: AsyncConnection, run: AgentRun, claim: Mapping[str, object] = NO_CLAIM
) -> None:
    """Stores a run, with the columns of its claim if it is claimed."""
    await connection.execute(_INSERT, {**_columns(run), **claim})


async def update_run(connection: AsyncConnection, run_id: str, changes: Mapping[str, object]) -> None:
    """Sets columns of a run."""
    await connection.execute(_UPDATE, {"of_run": run_id, **changes})


async def runs_in_flight(connection: AsyncConnection, thread_id: str) -> list[Row[Any]]:
    """Rows of the thread's pending and running runs, in the order in which they start."""
    return list(await connection.execute(_IN_FLIGHT, {"of_thread": thread_id}))


async def cancel_run(
    connection: AsyncConnection,
    thread: AgentThread,
    row: Row[Any],
    action: CancelAction,
    reason: str,
    now_us: int,
) -> Effects:
    """Cancels a run in flight. One that no worker has ever had ends at once.

    Otherwise the cancel is noted in the row, where it holds whatever becomes of the worker; a rollback also
    overrules an earlier interrupt.
    """
    run = run_of(row)
    if run.status is AgentRunStatus.PENDING and not run.attempt:
        is_rollback = action is CancelAction.ROLLBACK
        end = RunEnd(
            run_id=run.run_id,
            thread_id=run.thread_id,
            status=AgentRunStatus.ROLLED_BACK if is_rollback else AgentRunStatus.INTERRUPTED,
            result=_EMPTY if is_rollback else thread.values or _EMPTY,
            error=cancel_error(action, reason),
        )
        await end_run(connection, thread, run, end, now_us, {"cancel_reason": reason})
        return Effects(ends=[end])
    if run.cancel_action is not None and action is CancelAction.INTERRUPT:
        return Effects()
    noted = {"cancel_action": action.value, "cancel_reason": reason, "updated_at_us": now_us}
    await update_run(connection, run.run_id, noted)
    if run.status is not AgentRunStatus.RUNNING:
        return Effects()
    return Effects(cancels=[Cancel(Claim(run.run_id, row.claim_token), action, reason)])


async def end_run(
    connection: AsyncConnection,
    thread: AgentThread,
    run: AgentRun,
    end: RunEnd,
    now_us: int,
    changes: dict[str, Any],
) -> None:
    """Stores how `run` ended, with `changes` to its row; when the row goes, its end is kept for a while."""
    is_gone = end.status is AgentRunStatus.ROLLED_BACK
    if is_gone or thread.is_temporary:
        kept = {
            "run_id": run.run_id,
            "tenant_id": run.tenant_id,
            "thread_id": run.thread_id,
            "status": end.status.value,
            "result": end.result,
            "ended_at_us": now_us,
        }
        await connection.execute(_INSERT_RESULT, kept)
    if is_gone:
        await connection.execute(delete(agent_runs).where(_runs.run_id == run.run_id))
        return
    ended = {
        "status": end.status.value,
        "result": end.result,
        "updated_at_us": now_us,
        "ended_at_us": now_us,
        **NO_CLAIM,
        **changes,
    }
    await update_run(connection, run.run_id, ended)


def cancel_error(action: CancelAction, reason: str) -> AgentRunError:
    """What a cancelled run leaves as its thread's error."""
    return AgentRunError(CANCEL_ERRORS[action], reason)


def select_runs() -> Select[Any]:
    """The columns that `run_of` takes."""
    return select(*_COLUMNS)


def _columns(run: AgentRun) -> dict[str, Any]:
    return {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}


def run_of(row: Row[Any]) -> AgentRun:
    """The run of a row that has all its columns."""
    fields = {column.name: getattr(row, column.name) for column in _COLUMNS}
    fields["status"] = AgentRunStatus(row.status)
    fields["multitask_strategy"] = MultitaskStrategy(row.multitask_strategy)
    if row.cancel_action is not None:
        fields["cancel_action"] = CancelAction(row.cancel_action)
    return AgentRun(**fields)
