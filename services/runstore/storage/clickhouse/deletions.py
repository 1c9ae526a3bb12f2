"""Deleting runs: hidden at once by a mark on each of their keys, purged later from every table.

The mark is like that of a run that has moved away (`Present.GONE`): it hides what is not newer than itself.
The table `deleted_runs` says which runs are marked and not purged yet. Everything here can be repeated, and
what a crash has cut short is (docs/decisions/0010-deleting.md).
"""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from runstore.domain.deletions import PendingDeletions, PurgeStep, RunDeletion
from runstore.domain.runs import RunQuery
from runstore.storage.clickhouse.columns import Present
from runstore.storage.clickhouse.engine import Engine
from runstore.storage.clickhouse.feedback_sql import FeedbackPresent
from runstore.storage.clickhouse.list_sql import Statement
from runstore.storage.clickhouse.run_stats import Runs

_MAX_STEP_DELETIONS = 50

_TENANT = "tenant_id = {tenant:UUID}"
_KEY = "project_id, start_time, run_id"
_IS_GONE = f"bitAnd(present, {Present.GONE.value}) != 0"
_MARK = f"toUInt32({Present.GONE.value + Present.DELETED.value})"
_MARKED = f"run_id IN (SELECT run_id FROM deleted_runs WHERE {_TENANT} AND seq = {{seq:UInt64}})"
# Not of type DateTime64: as parameters of mutations, times before 2001 are misread.
_FIRST, _LAST = (f"fromUnixTimestamp64Micro({{{name}:Int64}}, 'UTC')" for name in ("first", "last"))

# In this order: marks hide rows as long as there are any, keys lead to both, and `deleted_runs` to the keys.
_PURGED = (
    ("run_payloads", ""),
    ("run_attachments", ""),
    ("feedback", ""),
    ("runs", f"NOT ({_IS_GONE})"),
    ("runs", ""),
    ("run_keys", ""),
)
_IN_TIME = frozenset({"run_payloads", "run_attachments", "runs"})
"""Tables whose rows stand at the times of their runs."""


class ClickHouseDeletions:
    """`DeletionStore` in ClickHouse."""

    def __init__(self, engine: Engine, runs: Runs) -> None:
        self._engine = engine
        self._runs = runs

    # -- deleting --------------------------------------------------------------------------------

    async def delete(self, deletion: RunDeletion, /) -> list[str]:
        return await self._engine.write(lambda client: _delete(client, deletion))

    async def pending_deletions(self, tenant_id: str, run_ids: Collection[str], /) -> PendingDeletions:
        def read(client: Any) -> PendingDeletions:
            if not client.query("SELECT 1 FROM deleted_runs LIMIT 1").result_rows:
                return PendingDeletions(are_any=False, sequences={})
            text = (
                f"SELECT toString(run_id), max(seq) FROM deleted_runs WHERE {_TENANT} "
                "AND run_id IN {runs:Array(UUID)} GROUP BY run_id"
            )
            rows = client.query(text, parameters={"tenant": tenant_id, "runs": list(run_ids)}).result_rows
            return PendingDeletions(are_any=True, sequences=dict(rows))

        return await self._engine.read(read, is_limited=False)

    # -- finding ---------------------------------------------------------------------------------

    async def projects_of(self, tenant_id: str, /) -> list[str]:
        """Ids of all projects that have, or had, runs."""
        text = f"SELECT DISTINCT toString(project_id) FROM trace_keys WHERE {_TENANT}"
        return await self._column(Statement(text, {"tenant": tenant_id}))

    async def traces_of(self, query: RunQuery, /) -> list[str]:
        """Ids of the traces of runs that the query means, at most its limit."""
        runs = await self._runs.matching(query, ["trace_id"])
        runs.text = f"SELECT DISTINCT toString(trace_id) FROM ({runs.text}) LIMIT {query.limit:d}"
        return await self._column(runs)

    async def _column(self, statement: Statement) -> list[str]:
        rows = await self._engine.read(
            lambda client: client.query(statement.text, parameters=statement.parameters).result_rows,
            is_limited=False,
        )
        return [value for (value,) in rows]

    # -- purging ---------------------------------------------------------------------------------

    async def purge_steps(self) -> list[PurgeStep]:
        """All deletions that are not forgotten, the oldest first."""
        text = (
            "SELECT toString(tenant_id), arraySort(groupUniqArray(seq)) FROM deleted_runs GROUP BY tenant_id "
            "ORDER BY min(seq)"
        )
        rows = await self._engine.read(lambda client: client.query(text).result_rows, is_limited=False)
        return [
            PurgeStep(tenant_id, tuple(sequences[start : start + _MAX_STEP_DELETIONS]))
            for tenant_id, sequences in rows
            for start in range(0, len(sequences), _MAX_STEP_DELETIONS)
        ]

    async def deleted_blobs(self, step: PurgeStep, /) -> Sequence[str]:
        """Keys of the blobs that rows of the step refer to; others may, too."""
        victims, parameters = _victims(step)
        text = " UNION DISTINCT ".join(
            f"SELECT {column} AS key FROM {table} WHERE {_TENANT} AND ({victims}) AND notEmpty({source})"
            for table, column, source in (
                ("run_payloads", "arrayJoin(blob_keys)", "blob_keys"),
                ("run_attachments", "blob_key", "blob_key"),
            )
        )
        return await self._column(Statement(text, parameters))

    async def purge(self, step: PurgeStep, /) -> None:
        """Remove the rows of a step. Beside the writer, which would have to wait for it."""
        await self._engine.read(lambda client: _purge(client, step), is_limited=False)

    async def forget_deletions(self, step: PurgeStep, /) -> None:
        """Forget that the runs of a purged step are deleted: nothing older can come of them any more."""
        statement = f"DELETE FROM deleted_runs WHERE {_TENANT} AND seq IN {{seqs:Array(UInt64)}}"
        parameters = {"tenant": step.tenant_id, "seqs": list(step.sequences)}
        await self._engine.read(
            lambda client: client.command(statement, parameters=parameters), is_limited=False
        )


def _delete(client: Any, deletion: RunDeletion) -> list[str]:
    deletion = msgspec.structs.replace(deletion, trace_ids=_expired(client, deletion))
    run_ids = _run_ids(client, deletion)
    # Whole traces, too: nothing else finds what another store has in its log of them, once it comes.
    traces = deletion.trace_ids if deletion.project_id is None else ()
    deleted = dict.fromkeys((*run_ids, *traces))
    if not deleted:
        return []
    parameters = {"tenant": deletion.tenant_id, "seq": deletion.sequence}
    rows = [[deletion.tenant_id, deletion.sequence, run_id] for run_id in deleted]
    client.insert("deleted_runs", rows, ["tenant_id", "seq", "run_id"])
    older = f"{_TENANT} AND {_MARKED} AND seq <= {{seq:UInt64}}"
    # All keys that a run ever had: each may still have rows.
    client.command(
        f"INSERT INTO runs (tenant_id, {_KEY}, seq, present) SELECT DISTINCT tenant_id, {_KEY}, "
        f"{{seq:UInt64}}, {_MARK} FROM run_keys WHERE {older}",
        parameters=parameters,
    )
    client.command(
        "INSERT INTO feedback (tenant_id, run_id, feedback_id, seq, present) SELECT DISTINCT tenant_id, "
        f"run_id, feedback_id, {{seq:UInt64}}, toUInt32({FeedbackPresent.GONE.value}) FROM feedback "
        f"WHERE {older}",
        parameters=parameters,
    )
    # Operations that wait would bring back what they say.
    client.command(
        "INSERT INTO parked_operations SELECT DISTINCT tenant_id, awaited_run_id, run_id, seq, true, '' "
        f"FROM parked_operations WHERE {older} AND NOT done",
        parameters=parameters,
    )
    if client.query(f"SELECT 1 FROM dead_letters WHERE {older} LIMIT 1", parameters=parameters).result_rows:
        client.command(f"DELETE FROM dead_letters WHERE {older}", parameters=parameters)
    return run_ids


def _run_ids(client: Any, deletion: RunDeletion) -> list[str]:
    """Every run that is meant, marked before or not: a replay repeats what it may have cut short."""
    run_ids = dict.fromkeys(deletion.run_ids)
    parameters: dict[str, Any] = {"tenant": deletion.tenant_id}
    in_project = ""
    if deletion.project_id is not None:
        parameters["project"] = deletion.project_id
        in_project = " AND project_id = {project:UUID}"
    if run_ids and in_project:
        parameters["runs"] = list(run_ids)
        text = (
            f"SELECT DISTINCT toString(run_id) FROM run_keys WHERE {_TENANT}{in_project} "
            "AND run_id IN {runs:Array(UUID)}"
        )
        rows = client.query(text, parameters=parameters).result_rows
        run_ids = dict.fromkeys(run_id for (run_id,) in rows)
    if deletion.trace_ids:
        run_ids.update(dict.fromkeys(_runs_of_traces(client, deletion.trace_ids, in_project, parameters)))
    return list(run_ids)


def _expired(client: Any, deletion: RunDeletion) -> tuple[str, ...]:
    """The traces of a deletion, but for those that have gone on, or were kept, since it was decided."""
    if deletion.started_before_us is None or not deletion.trace_ids:
        return deletion.trace_ids
    text = (
        f"SELECT toString(trace_id) FROM trace_keys WHERE {_TENANT} AND trace_id IN {{traces:Array(UUID)}} "
        "GROUP BY trace_id HAVING max(last_start) < fromUnixTimestamp64Micro({before:Int64}, 'UTC') "
        "AND NOT (max(kept) AND {spares:Bool})"
    )
    parameters = {
        "tenant": deletion.tenant_id,
        "traces": list(deletion.trace_ids),
        "before": deletion.started_before_us,
        "spares": deletion.spares_kept,
    }
    return tuple(trace_id for (trace_id,) in client.query(text, parameters=parameters).result_rows)


def _runs_of_traces(
    client: Any, trace_ids: Sequence[str], in_project: str, parameters: dict[str, Any]
) -> list[str]:
    traces = {**parameters, "traces": list(trace_ids)}
    text = (
        "SELECT toString(project_id), toUnixTimestamp64Micro(min(first_start)), "
        "toUnixTimestamp64Micro(max(last_start)) FROM trace_keys "
        f"WHERE {_TENANT}{in_project} AND trace_id IN {{traces:Array(UUID)}} GROUP BY project_id"
    )
    places = client.query(text, parameters=traces).result_rows
    if not places:
        return []
    where = (
        f"{_TENANT} AND project_id IN {{projects:Array(UUID)}} AND start_time >= {_FIRST} "
        f"AND start_time <= {_LAST} AND NOT ({_IS_GONE})"
    )
    traces |= _bounds(places)
    position = f"(bitAnd(present, {Present.SETTLED.value}), seq)"
    text = (
        f"SELECT DISTINCT toString(run_id) FROM (SELECT run_id, argMax(trace_id, {position}) AS trace "
        f"FROM runs WHERE {where} AND ({_KEY}) IN (SELECT {_KEY} FROM runs WHERE {where} "
        f"AND trace_id IN {{traces:Array(UUID)}}) GROUP BY {_KEY}) WHERE trace IN {{traces:Array(UUID)}}"
    )
    return [run_id for (run_id,) in client.query(text, parameters=traces).result_rows]


def _bounds(places: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Parameters of what lies in the places (project, first time, last time in microseconds)."""
    return {
        "projects": [project for project, _, _ in places],
        "first": min(first for _, first, _ in places),
        "last": max(last for _, _, last in places),
    }


def _victims(step: PurgeStep) -> tuple[str, dict[str, Any]]:
    """Condition on the rows that the deletions of a step mean, and its parameters."""
    parameters: dict[str, Any] = {"tenant": step.tenant_id}
    conditions = []
    for index, sequence in enumerate(step.sequences):
        name = f"{{seq{index}:UInt64}}"
        parameters[f"seq{index}"] = sequence
        marked = f"SELECT run_id FROM deleted_runs WHERE {_TENANT} AND seq = {name}"
        # What is newer than its deletion has come back.
        conditions.append(f"(run_id IN ({marked}) AND seq <= {name})")
    return " OR ".join(conditions), parameters


def _purge(client: Any, step: PurgeStep) -> None:
    victims, parameters = _victims(step)
    text = (
        "SELECT toString(project_id), toUnixTimestamp64Micro(min(start_time)), "
        f"toUnixTimestamp64Micro(max(start_time)) FROM run_keys WHERE {_TENANT} AND ({victims}) "
        "GROUP BY project_id"
    )
    places = client.query(text, parameters=parameters).result_rows
    in_time = "AND 0"
    if places:
        parameters |= _bounds(places)
        in_time = (
            f"AND project_id IN {{projects:Array(UUID)}} AND start_time >= {_FIRST} AND start_time <= {_LAST}"
        )
    for table, condition in _PURGED:
        where = f"{_TENANT} {in_time if table in _IN_TIME else ''} AND ({victims})"
        if condition:
            where = f"{where} AND {condition}"
        if client.query(f"SELECT 1 FROM {table} WHERE {where} LIMIT 1", parameters=parameters).result_rows:
            client.command(f"DELETE FROM {table} WHERE {where}", parameters=parameters)
