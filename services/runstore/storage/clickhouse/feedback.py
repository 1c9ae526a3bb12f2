"""Feedback in ClickHouse: the one implementation of `FeedbackStore`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from clickhouse_connect.driver.exceptions import DataError

from runstore.domain.feedback import (
    Feedback,
    FeedbackAction,
    FeedbackByKey,
    FeedbackPatch,
    FeedbackQuery,
    FeedbackStats,
)
from runstore.domain.query_kinds import QueryKind
from runstore.storage.clickhouse.columns import NIL_UUID, sql_time
from runstore.storage.clickhouse.engine import Engine
from runstore.storage.clickhouse.feedback_sql import (
    EVERYTHING,
    FEEDBACK_COLUMNS,
    UPDATED_BITS,
    FeedbackPresent,
    feedback_stats,
    merged_feedback,
    stats_of,
)
from runstore.storage.clickhouse.query_watch import QueryWatch, watched
from runstore.storage.run_store import BlockRefused

_NIL = f"toUUID('{NIL_UUID}')"
_IDS = ("feedback_id", "run_id", "project_id", "trace_id", "comparative_experiment_id", "feedback_group_id")
_TIMES = ("run_start_time", "created_at", "modified_at")
_RECORD = (
    *(f"toString({name})" for name in _IDS),
    *(f"toUnixTimestamp64Micro({name})" for name in _TIMES),
    *("key", "score", "value", "comment", "correction", "error", "extra"),
    *("source_type", "source_user_id", "source_user_name", "source_metadata"),
)

_FeedbackKey = tuple[str, str]
"""(run id, record id)"""


class ClickHouseFeedback:
    """`FeedbackStore` on an engine whose schema is up to date."""

    def __init__(self, engine: Engine, watch: QueryWatch) -> None:
        self._watch = watch
        self._engine = engine

    # -- writing ---------------------------------------------------------------------------------

    async def append(self, patches: Sequence[FeedbackPatch], /) -> None:
        def insert(client: Any) -> None:
            rows = [feedback_row(patch) for patch in patches]
            rows += [feedback_row(patch) for patch in _departures(client, patches)]
            try:
                client.insert("feedback", rows, list(FEEDBACK_COLUMNS))
            except (DataError, ValueError, TypeError, OverflowError) as error:
                raise BlockRefused(str(error)) from error

        await self._engine.write(insert)

    async def delete_of_runs(self, tenant_id: str, run_ids: Collection[str], /) -> None:
        await self._delete("run_id IN {runs:Array(UUID)}", {"tenant": tenant_id, "runs": list(run_ids)})

    async def delete_of_project(self, tenant_id: str, project_id: str, /) -> None:
        await self._delete(_of_projects(), {"tenant": tenant_id, "projects": [project_id]})

    async def _delete(self, condition: str, parameters: dict[str, Any]) -> None:
        def delete(client: Any) -> None:
            client.command(
                f"DELETE FROM feedback WHERE tenant_id = {{tenant:UUID}} AND {condition}",
                parameters=parameters,
            )

        await self._engine.read(delete, is_limited=False)

    # -- reading ---------------------------------------------------------------------------------

    async def get(self, tenant_id: str, feedback_id: str, /) -> Feedback | None:
        found = await self.page(FeedbackQuery(tenant_id, feedback_ids=(feedback_id,), limit=1))
        return found[0] if found else None

    @watched(QueryKind.FEEDBACK)
    async def page(self, query: FeedbackQuery, /) -> list[Feedback]:
        # In two steps, so that comments and values are read for the page alone.
        rows, parameters = _matching(query)
        keys = await self._rows(
            f"SELECT toString(run_id), toString(feedback_id) FROM {rows} "
            f"ORDER BY created_at DESC, feedback_id DESC LIMIT {query.limit:d} OFFSET {query.offset:d}",
            parameters,
        )
        records = await self._records(
            query.tenant_id, [(run_id, feedback_id) for run_id, feedback_id in keys]
        )
        return [records[key] for _, key in keys if key in records]

    @watched(QueryKind.FEEDBACK)
    async def stats(self, query: FeedbackQuery, /) -> FeedbackByKey:
        rows, parameters = _matching(query)
        found = await self._rows(feedback_stats(rows, "''"), parameters)
        return {key: stats_of(columns) for _, key, *columns in found}

    async def stats_of_runs(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, FeedbackByKey]:
        rows = merged_feedback("tenant_id = {tenant:UUID} AND run_id IN {runs:Array(UUID)}")
        text = feedback_stats(rows, "toString(run_id)")
        found: dict[str, dict[str, FeedbackStats]] = {}
        for run_id, key, *columns in await self._rows(text, {"tenant": tenant_id, "runs": list(run_ids)}):
            found.setdefault(run_id, {})[key] = stats_of(columns)
        return found

    async def _records(self, tenant_id: str, keys: Sequence[_FeedbackKey]) -> dict[str, Feedback]:
        if not keys:
            return {}
        rows = merged_feedback(
            "tenant_id = {tenant:UUID} AND (run_id, feedback_id) IN (SELECT pair.1, pair.2 FROM "
            "(SELECT arrayJoin(arrayZip({runs:Array(UUID)}, {ids:Array(UUID)})) AS pair))"
        )
        parameters = {
            "tenant": tenant_id,
            "runs": [run_id for run_id, _ in keys],
            "ids": [feedback_id for _, feedback_id in keys],
        }
        found = await self._rows(f"SELECT {', '.join(_RECORD)} FROM {rows}", parameters)
        return {row[0]: _record(row) for row in found}

    async def _rows(self, text: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return await self._engine.read(
            lambda client: client.query(text, parameters=dict(parameters)).result_rows
        )


# -- records to rows and back ------------------------------------------------------------------------


def feedback_row(patch: FeedbackPatch) -> list[Any]:
    """The row of an operation, in the order of FEEDBACK_COLUMNS."""
    values = {
        "tenant_id": patch.tenant_id,
        "run_id": patch.run_id or NIL_UUID,
        "feedback_id": patch.feedback_id,
        "seq": patch.sequence,
        "present": _present(patch),
        "project_id": patch.project_id or NIL_UUID,
        "trace_id": patch.trace_id or NIL_UUID,
        "key": patch.key,
        "score": patch.score,
        "value": patch.value or b"",
        "comment": patch.comment,
        "correction": patch.correction or b"",
        "error": patch.error,
        "source_type": patch.source_type,
        "source_user_id": patch.source_user_id or "",
        "source_user_name": patch.source_user_name or "",
        "source_metadata": patch.source_metadata or b"",
        "extra": patch.extra or b"",
        "comparative_experiment_id": patch.comparative_experiment_id or NIL_UUID,
        "feedback_group_id": patch.feedback_group_id or NIL_UUID,
        "run_start_time": sql_time(patch.run_start_time_us or 0),
        "created_at": sql_time(patch.created_at_us),
        "modified_at": sql_time(patch.modified_at_us),
    }
    return [values[name] for name in FEEDBACK_COLUMNS]


def _present(patch: FeedbackPatch) -> int:
    match patch.action:
        case FeedbackAction.CREATE:
            return EVERYTHING
        case FeedbackAction.DELETE:
            return FeedbackPresent.GONE
        case FeedbackAction.UPDATE:
            return sum(bit for name, bit in UPDATED_BITS.items() if getattr(patch, name) is not None)


def _record(row: Sequence[Any]) -> Feedback:
    feedback_id, *ids, run_start_us, created_us, modified_us = row[: len(_IDS) + len(_TIMES)]
    run_id, project_id, trace_id, experiment_id, group_id = (
        None if each == NIL_UUID else each for each in ids
    )
    key, score, value, comment, correction, error, extra, *source = row[len(_IDS) + len(_TIMES) :]
    source_type, user_id, user_name, metadata = source
    return Feedback(
        id=feedback_id,
        run_id=run_id,
        project_id=project_id,
        trace_id=trace_id,
        run_start_time_us=run_start_us or None,
        key=key,
        score=score,
        value=value.encode() or None,
        comment=comment,
        correction=correction.encode() or None,
        error=error,
        source_type=source_type,
        source_user_id=user_id or None,
        source_user_name=user_name or None,
        source_metadata=metadata.encode() or None,
        extra=extra.encode() or None,
        comparative_experiment_id=experiment_id,
        feedback_group_id=group_id,
        created_at_us=created_us,
        modified_at_us=modified_us,
    )


# -- records that change their run -------------------------------------------------------------------


def _departures(client: Any, patches: Sequence[FeedbackPatch]) -> list[FeedbackPatch]:
    """What removes records from the runs that they were about before a newer creation: deletions there, with
    the number of that creation."""
    created: dict[tuple[str, str], dict[str | None, int]] = {}
    for patch in patches:
        if patch.action is FeedbackAction.CREATE:
            runs = created.setdefault((patch.tenant_id, patch.feedback_id), {})
            runs[patch.run_id] = max(runs.get(patch.run_id, 0), patch.sequence)
    for tenant_id in {tenant_id for tenant_id, _ in created}:
        ids = [feedback_id for tenant, feedback_id in created if tenant == tenant_id]
        stored = client.query(
            f"SELECT toString(feedback_id), toString(nullIf(run_id, {_NIL})), max(seq) FROM feedback_keys "
            "WHERE tenant_id = {tenant:UUID} AND feedback_id IN {ids:Array(UUID)} "
            "GROUP BY feedback_id, run_id",
            parameters={"tenant": tenant_id, "ids": ids},
        )
        for feedback_id, run_id, sequence in stored.result_rows:
            runs = created[(tenant_id, feedback_id)]
            runs[run_id] = max(runs.get(run_id, 0), sequence)
    return [
        FeedbackPatch(tenant_id, feedback_id, run_id, FeedbackAction.DELETE, sequence=max(runs.values()))
        for (tenant_id, feedback_id), runs in created.items()
        for run_id, sequence in runs.items()
        if sequence < max(runs.values())
    ]


# -- conditions --------------------------------------------------------------------------------------


def _of_projects() -> str:
    """Records on the projects, and on runs of them whose project was not told."""
    homeless = f"project_id = {_NIL} AND run_id != {_NIL}"
    return (
        f"(project_id IN {{projects:Array(UUID)}} OR ({homeless} AND run_id IN (SELECT run_id FROM run_keys "
        "WHERE tenant_id = {tenant:UUID} AND project_id IN {projects:Array(UUID)} AND run_id IN "
        f"(SELECT run_id FROM feedback WHERE tenant_id = {{tenant:UUID}} AND {homeless}))))"
    )


def _matching(query: FeedbackQuery) -> tuple[str, dict[str, Any]]:
    """The merged records of a query as what stands behind FROM, with its parameters."""
    parameters: dict[str, Any] = {"tenant": query.tenant_id}
    key, merged = ["tenant_id = {tenant:UUID}"], ["1"]

    def add(conditions: list[str], name: str, value: Any, text: str) -> None:
        if value not in ((), None):
            parameters[name] = list(value) if isinstance(value, tuple) else value
            conditions.append(text)

    add(key, "runs", query.run_ids, "run_id IN {runs:Array(UUID)}")
    add(
        key,
        "ids",
        query.feedback_ids,
        "feedback_id IN {ids:Array(UUID)} AND run_id IN (SELECT run_id FROM feedback_keys "
        "WHERE tenant_id = {tenant:UUID} AND feedback_id IN {ids:Array(UUID)})",
    )
    if query.is_on_run is not None:
        key.append(f"run_id {'!=' if query.is_on_run else '='} {_NIL}")
    add(merged, "projects", query.project_ids, _of_projects())
    add(merged, "keys", query.keys, "key IN {keys:Array(String)}")
    add(merged, "sources", query.source_types, "source_type IN {sources:Array(String)}")
    add(merged, "users", query.user_ids, "source_user_id IN {users:Array(String)}")
    if query.has_score is not None:
        merged.append("isNotNull(score)" if query.has_score else "isNull(score)")
    if query.has_comment is not None:
        merged.append("ifNull(notEmpty(comment), 0)" if query.has_comment else "empty(ifNull(comment, ''))")
    for name, operator, bound in (
        ("min_created", ">=", query.min_created_at_us),
        ("max_created", "<=", query.max_created_at_us),
    ):
        if bound is not None:
            add(merged, name, sql_time(bound), f"created_at {operator} {{{name}:DateTime64(6, 'UTC')}}")
    add(
        merged,
        "experiment",
        query.comparative_experiment_id,
        "comparative_experiment_id = {experiment:UUID}",
    )
    return f"{merged_feedback(' AND '.join(key))} WHERE {' AND '.join(merged)}", parameters
