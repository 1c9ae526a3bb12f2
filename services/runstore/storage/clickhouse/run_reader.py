"""Reads what is asked of runs whose keys are known, from all tables at once."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from runstore.domain.blob_refs import is_reference, unpack
from runstore.domain.extra import merge_extra, metadata_of
from runstore.domain.previews import error_preview, preview
from runstore.domain.runs import Position, RunField, RunKey, RunQuery, StoredRun
from runstore.storage.clickhouse.columns import PAYLOAD_BITS
from runstore.storage.clickhouse.list_sql import (
    PAYLOAD_FIELDS,
    PREVIEWED,
    Statement,
    bind_keys,
    payload_sizes,
    payloads,
    rows_of,
)
from runstore.storage.clickhouse.merged_run import COST_FIELDS, MergedRun, Prices, columns_of
from runstore.storage.run_store import FeedbackStore, TraceReader

Rows = Sequence[Sequence[Any]]


class Engine(Protocol):
    """Executes a statement; strings are bytes if asked: payloads are not decoded to be encoded again."""

    async def __call__(self, statement: Statement, *, bytes_columns: bool = False) -> Rows: ...


class RunReader:
    """Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine, feedback: FeedbackStore, traces: TraceReader) -> None:
        self._engine = engine
        self._feedback = feedback
        self._traces = traces

    async def read(
        self,
        query: RunQuery,
        keys: Sequence[RunKey],
        merged: Mapping[RunKey, StoredRun] | None = None,
        *,
        is_dense: bool = False,
    ) -> tuple[StoredRun, ...]:
        """The runs with these keys in the order of the keys, without those that exist no more.

        `merged` are runs, these among them, whose partial rows have been read already. `is_dense`: hardly any
        others lie between them.
        """
        if not keys:
            return ()
        found, payload_values, files, stats = await asyncio.gather(
            self._merged(query, keys, merged),
            self._payloads(query, keys, is_dense=is_dense),
            self._attachments(query, keys),
            self._feedback_stats(query, keys),
        )
        runs = []
        for key in keys:
            if (run := found.get(key)) is not None:
                run.values.update(payload_values.get(key, {}))
                run.values.update(files.get(key.run_id, {}))
                run.values.update(stats.get(key.run_id, {}))
                runs.append(run)
        await self._add_subtree_usage(query, runs)
        return tuple(runs)

    async def merge(
        self,
        query: RunQuery,
        rows: Rows,
        columns: Sequence[str],
        passes: Callable[[MergedRun], bool] = lambda _run: True,
        most: int | None = None,
        /,
    ) -> dict[RunKey, StoredRun]:
        """The first `most` runs among partial rows that exist and pass, in the order of the rows.

        `columns`: what the rows have behind the key, at least `columns_of` the query's fields.
        """
        runs = _merged(query.tenant_id, rows, columns)
        found = {run.key: run for run in islice((run for run in runs if run.exists() and passes(run)), most)}
        prices: Prices = {}
        if query.fields & COST_FIELDS and (late := [key for key, run in found.items() if run.needs_price()]):
            columns = columns_of(query.fields, with_usage=True)
            prices, rows = await asyncio.gather(
                self._prices(), self._engine(rows_of(query.tenant_id, late, columns))
            )
            found |= {run.key: run for run in _merged(query.tenant_id, rows, columns)}
        return {
            key: StoredRun(Position(key.start_time_us, key.run_id), run.fields(query.fields, prices))
            for key, run in found.items()
            if run.exists()
        }

    async def fitting(self, query: RunQuery, keys: Sequence[RunKey]) -> Sequence[RunKey]:
        """The first of the keys whose payloads take no more than the query allows; one at least."""
        columns = {PAYLOAD_FIELDS[field] for field in query.fields if field in PAYLOAD_FIELDS}
        if query.max_payload_bytes is None or not columns or not keys:
            return keys
        rows = await self._engine(payload_sizes(query.tenant_id, keys, columns))
        sizes = {(project_id, run_id): size for project_id, run_id, size in rows}
        left = query.max_payload_bytes
        for index, key in enumerate(keys):
            left -= sizes.get((key.project_id, key.run_id), 0)
            if left < 0:
                return keys[: max(1, index)]
        return keys

    async def _merged(
        self, query: RunQuery, keys: Sequence[RunKey], merged: Mapping[RunKey, StoredRun] | None
    ) -> Mapping[RunKey, StoredRun]:
        if merged is not None:
            return merged
        columns = columns_of(query.fields)
        return await self.merge(query, await self._engine(rows_of(query.tenant_id, keys, columns)), columns)

    async def _prices(self) -> Prices:
        """Every price that runs were charged by; a few hundred at most."""
        text = (
            "SELECT toString(price_model_id), any(prompt_prices), any(completion_prices) "
            "FROM model_prices GROUP BY price_model_id"
        )
        return {row[0]: (row[1], row[2]) for row in await self._engine(Statement(text, {}))}

    async def _payloads(
        self, query: RunQuery, keys: Sequence[RunKey], *, is_dense: bool
    ) -> dict[RunKey, dict[RunField, Any]]:
        columns = {PREVIEWED[field]: False for field in query.fields if field in PREVIEWED}
        columns.update({PAYLOAD_FIELDS[field]: True for field in query.fields if field in PAYLOAD_FIELDS})
        if not columns:
            return {}
        rows = await self._engine(
            payloads(query.tenant_id, keys, columns, is_dense=is_dense), bytes_columns=True
        )
        return {
            RunKey(_text(project_id), time_us, _text(run_id)): _payload_values(
                query.fields,
                {
                    column: value
                    for column, value in zip(columns, values, strict=True)
                    if present & PAYLOAD_BITS[column].value
                },
            )
            for project_id, time_us, run_id, present, *values in rows
        }

    async def _attachments(self, query: RunQuery, keys: Sequence[RunKey]) -> dict[str, dict[RunField, Any]]:
        if RunField.ATTACHMENTS not in query.fields:
            return {}
        parameters: dict[str, Any] = {"tenant": query.tenant_id}
        text = (
            "SELECT toString(run_id), name, argMax(mime_type, seq), argMax(size_bytes, seq) "
            f"FROM run_attachments WHERE tenant_id = {{tenant:UUID}} AND {bind_keys(parameters, keys)} "
            "GROUP BY project_id, start_time, run_id, name ORDER BY name"
        )
        files: dict[str, dict[str, tuple[str, int]]] = {}
        for run_id, name, mime_type, size in await self._engine(Statement(text, parameters)):
            files.setdefault(run_id, {})[name] = (mime_type, size)
        return {
            key.run_id: {RunField.ATTACHMENTS: (key, files[key.run_id])}
            for key in keys
            if key.run_id in files
        }

    async def _feedback_stats(
        self, query: RunQuery, keys: Sequence[RunKey]
    ) -> dict[str, dict[RunField, Any]]:
        if RunField.FEEDBACK_STATS not in query.fields:
            return {}
        stats = await self._feedback.stats_of_runs(query.tenant_id, [key.run_id for key in keys])
        return {run_id: {RunField.FEEDBACK_STATS: by_key} for run_id, by_key in stats.items()}

    async def _add_subtree_usage(self, query: RunQuery, runs: Sequence[StoredRun]) -> None:
        """Put what is below the runs into their usage."""
        if not query.with_subtree_usage or not runs:
            return
        trace_ids = {run.values[RunField.TRACE_ID] for run in runs}
        run_ids = [run.position.run_id for run in runs]
        usage = await self._traces.subtree_usage(query.tenant_id, trace_ids, run_ids, query.fields)
        for run in runs:
            run.values.update(usage.get(run.position.run_id, {}))


def _merged(tenant_id: str, rows: Rows, columns: Sequence[str]) -> Iterator[MergedRun]:
    """The runs of partial rows, key and these columns, in the order of the rows."""
    places = {column: place for place, column in enumerate(columns, 3)}
    by_key: dict[RunKey, list[Any]] = {}
    for row in rows:
        by_key.setdefault(RunKey(*row[:3]), []).append(row)
    return (MergedRun(tenant_id, key, places, rows) for key, rows in by_key.items())


def _payload_values(fields: Collection[RunField], columns: dict[str, Any]) -> dict[RunField, Any]:
    """The selected fields that are made of payload columns, of those that have a value."""
    values: dict[RunField, Any] = {}
    extra = None
    for value in columns.get("extra", ()):
        extra = value if extra is None else merge_extra(extra, value)
    for field, column in PAYLOAD_FIELDS.items():
        value = extra if column == "extra" else columns.get(column)
        if field is RunField.METADATA and value is not None:
            value = metadata_of(value)
        if field in fields and value is not None:
            if field is RunField.ERROR:
                value = _text(value)
            elif is_reference(value):
                value, _ = unpack(value)
            values[field] = value
    for field, column in PREVIEWED.items():
        value = columns.get(column)
        if field in fields and value is not None:
            if field is RunField.ERROR_PREVIEW:
                values[field] = error_preview(value.decode(errors="ignore"))
            else:
                values[field] = preview(unpack(value)[1] if is_reference(value) else value)
    return values


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
