"""What has expired, found and forgotten; and which traces are kept (docs/decisions/0016-retention.md).

A trace expires as a whole, by the start of its last run in any project: `trace_keys` knows it, and whether
the trace is kept. The runs themselves are deleted like any others (`deletions`), or with their partition.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.retention import ExpiredTrace, ExpiryQuery, Freed, Month, TraceKeep
from runstore.domain.runs import RunPlace
from runstore.storage.clickhouse.columns import NIL_UUID, Present, sql_time
from runstore.storage.clickhouse.engine import Engine


def _at(name: str) -> str:
    """A parameter in microseconds as a time. As DateTime64, mutations would misread times before 2001."""
    return f"fromUnixTimestamp64Micro({{{name}:Int64}}, 'UTC')"


_TENANT: Final = "tenant_id = {tenant:UUID}"
_NIL: Final = f"toUUID('{NIL_UUID}')"
_RUN_TABLES: Final = ("run_payloads", "run_attachments", "runs")
"""In the order in which they are dropped: as long as there are runs, there is something to drop."""
_IN_MONTH: Final = f"start_time >= {_at('start')} AND start_time < {_at('end')}"
# Rows are grouped in the order in which they lie, so that memory does not grow with the number of traces.
_IN_ORDER: Final = "SETTINGS optimize_aggregation_in_order = 1"
_SEQUENCE_BITS: Final = 12
"""Of a sequence number, below the time; see `ingest.sequence`."""


class Places(Protocol):
    """Knows where runs are."""

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]:
        """Where the runs are stored; those that are not are left out."""
        ...


class ClickHouseRetention:
    """`RetentionStore` in ClickHouse."""

    def __init__(self, engine: Engine, places: Places) -> None:
        self._engine = engine
        self._places = places
        # Of a cluster, one replica of each shard.
        self._parts = f"cluster('{engine.cluster}', system.parts)" if engine.cluster else "system.parts"

    # -- keeping ---------------------------------------------------------------------------------

    async def keep(self, keep: TraceKeep) -> None:
        """See `RunWriter.keep`."""
        trace_ids = set(keep.trace_ids)
        if keep.run_ids:
            places = await self._places.places(keep.tenant_id, keep.run_ids)
            # What is not there yet is most likely the root of its trace.
            trace_ids.update(
                places[run_id].trace_id if run_id in places else run_id for run_id in keep.run_ids
            )
        if trace_ids:
            time_us = keep.sequence >> _SEQUENCE_BITS
            await self._engine.write(lambda client: _keep(client, keep.tenant_id, sorted(trace_ids), time_us))

    async def keep_judged(self, patches: Sequence[FeedbackPatch]) -> None:
        """Keep the traces of the runs that new feedback is about."""
        by_tenant: dict[str, dict[str, FeedbackPatch]] = {}
        for patch in patches:
            if patch.action is FeedbackAction.CREATE and patch.run_id is not None and patch.keeps_trace:
                by_tenant.setdefault(patch.tenant_id, {})[patch.run_id] = patch
        for tenant_id, judged in by_tenant.items():
            last = max(patch.sequence for patch in judged.values())
            told = {patch.trace_id for patch in judged.values() if patch.trace_id is not None}
            silent = [run_id for run_id, patch in judged.items() if patch.trace_id is None]
            await self.keep(TraceKeep(tenant_id, last, tuple(silent), tuple(told)))

    async def kept(self, tenant_id: str, trace_ids: Collection[str], /) -> set[str]:
        text = (
            f"SELECT toString(trace_id) FROM trace_keys WHERE {_TENANT} "
            "AND trace_id IN {traces:Array(UUID)} GROUP BY trace_id HAVING max(kept)"
        )
        rows = await self._rows(text, {"tenant": tenant_id, "traces": list(trace_ids)}, is_limited=True)
        return {trace_id for (trace_id,) in rows}

    # -- traces ----------------------------------------------------------------------------------

    async def tenants(self) -> list[str]:
        rows = await self._rows("SELECT DISTINCT toString(tenant_id) FROM trace_keys", {})
        return [tenant_id for (tenant_id,) in rows]

    async def expired(self, query: ExpiryQuery, /) -> list[ExpiredTrace]:
        text = (
            "SELECT toString(trace_id), is_kept, cutoff_us, toUnixTimestamp64Micro(first) AS first_us, "
            f"last_us FROM ({_expired(query)}) ORDER BY last_us LIMIT {query.limit:d} {_IN_ORDER}"
        )
        rows = await self._rows(text, _parameters(query))
        return [ExpiredTrace(trace_id, bool(is_kept), *rest) for trace_id, is_kept, *rest in rows]

    async def rows_of(self, query: ExpiryQuery, traces: Sequence[ExpiredTrace], /) -> Freed:
        text = f"SELECT count() FROM runs WHERE {_in_batch(query)}"
        [(rows,)] = await self._rows(text, _batch_parameters(query, traces))
        return Freed(rows, round(rows * await self._bytes_per_row()))

    async def forget(self, query: ExpiryQuery, traces: Sequence[ExpiredTrace], /) -> None:
        # A run that came meanwhile keeps its trace's key; one that only guessed its trace needs none.
        key = "project_id, start_time, run_id"
        left = (
            f"SELECT argMax(trace_id, (bitAnd(present, {Present.SETTLED.value}), seq)) FROM runs "
            f"WHERE {_TENANT} AND start_time >= {_at('first')} AND start_time <= {_at('last')} "
            f"AND bitAnd(present, {Present.GONE.value}) = 0 "
            f"AND ({key}) IN (SELECT {key} FROM runs WHERE {_in_batch(query)}) GROUP BY {key}"
        )
        text = (
            f"DELETE FROM trace_keys WHERE {_TENANT} AND trace_id IN (SELECT trace_id FROM "
            f"({_expired(query)}) WHERE last_us <= {{last_us:Int64}}) AND trace_id NOT IN ({left})"
        )
        await self._command(text, _batch_parameters(query, traces))

    async def forget_parked(self, tenant_id: str, accepted_before_us: int, /) -> None:
        parameters = {"tenant": tenant_id, "seq": accepted_before_us << _SEQUENCE_BITS}
        await self._delete("parked_operations", f"{_TENANT} AND seq < {{seq:UInt64}}", parameters)

    async def oldest_us(self, tenant_id: str, /) -> int | None:
        text = (
            "SELECT toUnixTimestamp64Micro(min(first_start)) FROM trace_keys "
            f"WHERE {_TENANT} AND trace_id != {_NIL} AND project_id != {_NIL} HAVING count() > 0"
        )
        rows = await self._rows(text, {"tenant": tenant_id})
        return rows[0][0] if rows else None

    # -- partitions ------------------------------------------------------------------------------

    async def months(self) -> list[Month]:
        text = (
            f"SELECT DISTINCT toUInt32(partition) AS month FROM {self._parts} WHERE active "
            "AND database = currentDatabase() AND table IN ('runs', 'runs_local') ORDER BY month"
        )
        return [_month(number) for (number,) in await self._rows(text, {})]

    async def projects_of(self, month: Month, /) -> list[tuple[str, str]]:
        text = f"SELECT DISTINCT toString(tenant_id), toString(project_id) FROM runs WHERE {_IN_MONTH}"
        return [(tenant_id, project_id) for tenant_id, project_id in await self._rows(text, _times(month))]

    async def has_living(self, month: Month, cutoff_us: int, kept_cutoff_us: int, /) -> bool:
        text = (
            # What is only kept, and has no runs yet, has no times of its own.
            f"SELECT 1 FROM (SELECT minIf(first_start, project_id != {_NIL}) AS first, "
            f"maxIf(last_start, project_id != {_NIL}) AS last, max(kept) AS is_kept "
            f"FROM trace_keys WHERE trace_id != {_NIL} GROUP BY tenant_id, trace_id) "
            f"WHERE first < {_at('end')} AND last >= {_at('start')} AND (last >= {_at('cutoff')} "
            f"OR (is_kept AND last >= {_at('kept_cutoff')})) LIMIT 1 {_IN_ORDER}"
        )
        times = {"cutoff": cutoff_us, "kept_cutoff": kept_cutoff_us}
        return bool(await self._rows(text, _times(month) | times))

    async def blobs_of(self, month: Month, after: str, limit: int, /) -> list[tuple[str, str]]:
        text = (
            "SELECT DISTINCT key, toString(tenant_id) FROM (SELECT arrayJoin(blob_keys) AS key, tenant_id "
            f"FROM run_payloads WHERE {_IN_MONTH} AND notEmpty(blob_keys) UNION ALL SELECT blob_key AS key, "
            f"tenant_id FROM run_attachments WHERE {_IN_MONTH} AND blob_key != '') "
            f"WHERE key > {{after:String}} ORDER BY key LIMIT {limit:d}"
        )
        return [
            (key, tenant_id) for key, tenant_id in await self._rows(text, _times(month) | {"after": after})
        ]

    async def drop(self, month: Month, /) -> dict[str, Freed]:
        parameters = _times(month)
        per_row = await self._bytes_per_row(month)
        rows = await self._rows(
            f"SELECT toString(tenant_id), count() FROM runs WHERE {_IN_MONTH} GROUP BY tenant_id", parameters
        )
        # Feedback of these runs and of no others; a run that moved to another month is in both.
        judged = "(tenant_id, run_id) IN (SELECT DISTINCT tenant_id, run_id FROM feedback)"
        keys = "SELECT tenant_id, run_id FROM run_keys WHERE"
        await self._delete(
            "feedback",
            f"(tenant_id, run_id) IN ({keys} {_IN_MONTH} AND {judged}) "
            f"AND (tenant_id, run_id) NOT IN ({keys} NOT ({_IN_MONTH}) AND {judged})",
            parameters,
        )
        await self._delete("run_keys", _IN_MONTH, parameters)
        await self._delete(
            "trace_keys", f"first_start >= {_at('start')} AND last_start < {_at('end')}", parameters
        )
        await self._engine.write(lambda client: _drop(client, month))
        return {tenant_id: Freed(count, round(count * per_row)) for tenant_id, count in rows}

    # -- statements ------------------------------------------------------------------------------

    async def _bytes_per_row(self, month: Month | None = None) -> float:
        """On disk, of everything that a row of `runs` brings."""
        text = (
            "WITH replaceRegexpOne(table, '_local$', '') AS of_table "
            "SELECT sum(bytes_on_disk) / greatest(sumIf(rows, of_table = 'runs'), 1) "
            f"FROM {self._parts} "
            f"WHERE active AND database = currentDatabase() AND of_table IN {_RUN_TABLES}"
        )
        if month is not None:
            text += f" AND partition = '{month.number:d}'"
        [(per_row,)] = await self._rows(text, {})
        return float(per_row)

    async def _rows(
        self, text: str, parameters: Mapping[str, Any], *, is_limited: bool = False
    ) -> Sequence[Sequence[Any]]:
        def query(client: Any) -> Sequence[Sequence[Any]]:
            rows: Sequence[Sequence[Any]] = client.query(text, parameters=dict(parameters)).result_rows
            return rows

        return await self._engine.read(query, is_limited=is_limited)

    async def _delete(self, table: str, where: str, parameters: Mapping[str, Any]) -> None:
        """Beside the writer, which would have to wait for it."""
        # On a server a mutation takes half a second even where there is nothing to do.
        if await self._rows(f"SELECT 1 FROM {table} WHERE {where} LIMIT 1", parameters):
            await self._command(f"DELETE FROM {table} WHERE {where}", parameters)

    async def _command(self, text: str, parameters: Mapping[str, Any]) -> None:
        await self._engine.read(
            lambda client: client.command(text, parameters=dict(parameters)), is_limited=False
        )


def _keep(client: Any, tenant_id: str, trace_ids: Sequence[str], time_us: int) -> None:
    parameters = {"tenant": tenant_id, "traces": list(trace_ids)}
    where = f"{_TENANT} AND trace_id IN {{traces:Array(UUID)}}"
    text = f"SELECT toString(trace_id), max(kept) FROM trace_keys WHERE {where} GROUP BY trace_id"
    is_kept = dict(client.query(text, parameters=parameters).result_rows)
    if any(not is_kept[trace_id] for trace_id in is_kept):
        client.command(
            "INSERT INTO trace_keys (tenant_id, trace_id, project_id, first_start, last_start, kept) "
            "SELECT tenant_id, trace_id, project_id, min(first_start), max(last_start), 1 FROM trace_keys "
            f"WHERE {where} GROUP BY tenant_id, trace_id, project_id HAVING NOT max(kept)",
            parameters=parameters,
        )
    time = sql_time(time_us)
    missing = [
        [tenant_id, trace_id, NIL_UUID, time, time, 1] for trace_id in trace_ids if trace_id not in is_kept
    ]
    if missing:
        names = ["tenant_id", "trace_id", "project_id", "first_start", "last_start", "kept"]
        client.insert("trace_keys", missing, names)


def _drop(client: Any, month: Month) -> None:
    for table in _RUN_TABLES:
        client.command(f"ALTER TABLE {table} DROP PARTITION {month.number:d}")


def _expired(query: ExpiryQuery) -> str:
    """Traces of a tenant that have expired."""
    cutoff, kept_cutoff = "{cutoff:Int64}", "{kept_cutoff:Int64}"
    if query.cutoffs_us:
        cutoff, kept_cutoff = (
            f"transform(toString(project_id), {{projects:Array(String)}}, {{{name}s:Array(Int64)}}, "
            f"{default})"
            for name, default in (("cutoff", cutoff), ("kept_cutoff", kept_cutoff))
        )
    return (
        "SELECT trace_id, min(first_start) AS first, toUnixTimestamp64Micro(max(last_start)) AS last_us, "
        f"max(kept) AS is_kept, if(is_kept, min({kept_cutoff}), min({cutoff})) AS cutoff_us FROM trace_keys "
        f"WHERE {_TENANT} AND trace_id != {_NIL} GROUP BY trace_id HAVING last_us < cutoff_us"
    )


def _parameters(query: ExpiryQuery) -> dict[str, Any]:
    return {
        "tenant": query.tenant_id,
        "cutoff": query.cutoff_us,
        "kept_cutoff": query.kept_cutoff_us,
        "projects": list(query.cutoffs_us),
        "cutoffs": [cutoff for cutoff, _ in query.cutoffs_us.values()],
        "kept_cutoffs": [cutoff for _, cutoff in query.cutoffs_us.values()],
    }


def _in_batch(query: ExpiryQuery) -> str:
    """Rows of runs in a batch of traces, by the trace that each row says."""
    return (
        f"{_TENANT} AND start_time >= {_at('first')} AND start_time <= {_at('last')} AND trace_id IN "
        f"(SELECT trace_id FROM ({_expired(query)}) WHERE last_us <= {{last_us:Int64}})"
    )


def _batch_parameters(query: ExpiryQuery, traces: Sequence[ExpiredTrace]) -> dict[str, Any]:
    last_us = max(trace.last_us for trace in traces)
    return _parameters(query) | {
        "first": min(trace.first_us for trace in traces),
        "last": last_us,
        "last_us": last_us,
    }


def _month(number: int) -> Month:
    year, month = divmod(number, 100)
    start = datetime(year, month, 1, tzinfo=UTC)
    end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return Month(number, round(start.timestamp() * 1e6), round(end.timestamp() * 1e6))


def _times(month: Month) -> dict[str, Any]:
    return {"start": month.start_us, "end": month.end_us}
