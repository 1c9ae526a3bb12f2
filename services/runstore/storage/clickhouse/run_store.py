"""Runs in ClickHouse: the one implementation of `RunStore`."""

import math
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import structlog

from runstore.domain.blob_refs import BlobRef
from runstore.domain.deletions import PendingDeletions, RunDeletion
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.retention import TraceKeep
from runstore.domain.runs import (
    Attachment,
    AttachmentRef,
    Position,
    RunField,
    RunKey,
    RunMove,
    RunPage,
    RunPatch,
    RunPlace,
    RunQuery,
    RunRow,
    StoredRun,
)
from runstore.storage.clickhouse import schema
from runstore.storage.clickhouse.backups import EngineCopies
from runstore.storage.clickhouse.blocks import BlockBuilder
from runstore.storage.clickhouse.columns import Present, sql_time
from runstore.storage.clickhouse.dead_letters import ClickHouseDeadLetters
from runstore.storage.clickhouse.deletions import ClickHouseDeletions
from runstore.storage.clickhouse.engine import Engine, ReadLimits
from runstore.storage.clickhouse.feedback import ClickHouseFeedback
from runstore.storage.clickhouse.figures import engine_figures
from runstore.storage.clickhouse.list_sql import Statement, bind_keys
from runstore.storage.clickhouse.query_watch import QueryWatch, watched
from runstore.storage.clickhouse.retention import ClickHouseRetention
from runstore.storage.clickhouse.run_finder import RunFinder
from runstore.storage.clickhouse.run_reader import RunReader
from runstore.storage.clickhouse.run_stats import ClickHouseRunStats
from runstore.storage.clickhouse.tenants import ClickHouseTenants
from runstore.storage.clickhouse.threads import ClickHouseThreads
from runstore.storage.clickhouse.traces import ClickHouseTraces
from runstore.storage.metrics import StorageMetrics
from runstore.storage.run_store import Block, BlockRefused, EngineFigures, StoreUnavailable

logger = structlog.get_logger()

# Every blob of a tenant with the project of a row that refers to it.
_BLOB_KEYS = (
    "SELECT arrayJoin(blob_keys) AS key, project_id FROM run_payloads "
    "WHERE tenant_id = {tenant:UUID} AND notEmpty(blob_keys) "
    "UNION ALL SELECT blob_key AS key, project_id FROM run_attachments "
    "WHERE tenant_id = {tenant:UUID} AND blob_key != ''"
)
_PATCH = msgspec.msgpack.Decoder(RunPatch)


@asynccontextmanager
async def open_run_store(
    dsn: str,
    block_folder: Path | None = None,
    *,
    cluster: str = "",
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
    may_be_away: bool = False,
    slow_query_s: float = math.inf,
    metrics: StorageMetrics | None = None,
) -> AsyncIterator["ClickHouseRunStore"]:
    """Connect to `chdb://…` or `http(s)://…` and bring its schema up to date.

    `cluster` names the cluster that the tables are on; empty for one server.
    `block_folder` is for blocks that are built in this process; a temporary folder when None. An engine that
    `may_be_away` gets its schema by the first call that reaches it, for which all others wait; while a server
    is away, every call raises StoreUnavailable.
    Raises StoreUnavailable, SchemaTooNew, WrongTopology.
    """
    engine = Engine(dsn, limits=limits, cluster=cluster, prepare=_migrate, metrics=metrics)
    with TemporaryDirectory() as temporary:
        try:
            try:
                await engine.probe(schema.check)
                if not may_be_away:
                    await engine.write(lambda _client: None)
            except StoreUnavailable as error:
                if not may_be_away or engine.is_embedded:
                    raise
                logger.warning("engine_unavailable", error=str(error))
            yield ClickHouseRunStore(
                engine, BlockBuilder(block_folder or Path(temporary)), QueryWatch(slow_query_s, metrics)
            )
        finally:
            engine.close()


def _migrate(client: Any) -> None:
    try:
        schema.migrate(client)
    except (schema.SchemaTooNew, schema.WrongTopology) as error:
        # It has come, or was migrated, after the start: nothing can be done until the store is replaced.
        raise StoreUnavailable(str(error)) from error


class ClickHouseRunStore:
    """`RunStore` on an engine whose schema is up to date."""

    def __init__(self, engine: Engine, blocks: BlockBuilder, watch: QueryWatch | None = None) -> None:
        self._watch = watch = watch or QueryWatch()
        self._engine = engine
        self._blocks = blocks
        self.dead_letters = ClickHouseDeadLetters(engine)
        self.traces = ClickHouseTraces(engine, watch)
        self.threads = ClickHouseThreads(engine, self, watch)
        self.feedback = ClickHouseFeedback(engine, watch)
        self.stats = ClickHouseRunStats(engine, self, watch)
        self._reader = RunReader(self._rows, self.feedback, self.traces)
        self._finder = RunFinder(self._rows, self, self._reader)
        self.deletions = ClickHouseDeletions(engine, self)
        self.copies = EngineCopies(engine)
        self.retention = ClickHouseRetention(engine, self)
        self.tenants = ClickHouseTenants(engine)

    # -- writing ---------------------------------------------------------------------------------

    def block(self, rows: Sequence[RunRow], /) -> Block:
        return self._blocks.build(rows)

    async def append(self, block: Block, moves: Sequence[RunMove], /) -> None:
        try:
            await self.insert(block, moves)
        except BlockRefused:
            self._blocks.discard(block)
            raise
        self._blocks.stored(block)

    async def insert(self, block: Block, moves: Sequence[RunMove], /) -> None:
        """As `append`, for a block that another process has built and keeps."""
        for move in moves:
            await self._engine.write(partial(_move, move))
        for table, path in block.files:
            await self._engine.insert_file(table, path)

    async def park(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        await self._engine.write(lambda client: _insert_parked(client, patches, done=False))

    async def unpark(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        if patches:
            await self._engine.write(lambda client: _insert_parked(client, patches, done=True))

    async def bury(self, patches: Sequence[RunPatch], reason: str, /) -> None:
        await self.dead_letters.bury(patches, reason)

    async def append_feedback(self, patches: Sequence[FeedbackPatch], /) -> None:
        await self.feedback.append(patches)
        await self.retention.keep_judged(patches)

    async def bury_feedback(self, patches: Sequence[FeedbackPatch], reason: str, /) -> None:
        await self.dead_letters.bury(patches, reason)

    async def delete(self, deletion: RunDeletion, /) -> list[str]:
        return await self.deletions.delete(deletion)

    async def keep(self, keep: TraceKeep, /) -> None:
        await self.retention.keep(keep)

    async def pending_deletions(self, tenant_id: str, run_ids: Collection[str], /) -> PendingDeletions:
        return await self.deletions.pending_deletions(tenant_id, run_ids)

    async def delete_project(self, tenant_id: str, project_id: str, /) -> None:
        parameters = {"tenant": tenant_id, "project": project_id}
        where = "tenant_id = {tenant:UUID} AND project_id = {project:UUID}"
        await self.feedback.delete_of_project(tenant_id, project_id)

        def delete(client: Any) -> None:
            for table in ("runs", "run_keys", "trace_keys", "run_payloads", "run_attachments"):
                # On a server a mutation takes half a second even where there is nothing to do.
                if client.query(f"SELECT 1 FROM {table} WHERE {where} LIMIT 1", parameters).result_rows:
                    client.command(f"DELETE FROM {table} WHERE {where}", parameters=parameters)

        # Not the writer: after an upgrade, mutations wait for the indexes that are built for old rows.
        await self._engine.read(delete, is_limited=False)

    async def project_blobs(self, tenant_id: str, project_id: str, /) -> Sequence[str]:
        # Rows of a run that has moved are still in its old project, and so a blob may be in two.
        text = f"SELECT key FROM ({_BLOB_KEYS}) GROUP BY key HAVING min(project_id = {{project:UUID}})"
        statement = Statement(text, {"tenant": tenant_id, "project": project_id})
        return [key for (key,) in await self._rows(statement, is_limited=False)]

    async def blobs_in_use(self, tenant_id: str, keys: Collection[str], /) -> set[str]:
        parameters = {"tenant": tenant_id, "keys": list(keys)}
        waiting = " UNION ALL ".join(
            "SELECT arrayJoin(arrayFilter(key -> position(operation, key) > 0, {keys:Array(String)})) "
            f"FROM {table} WHERE tenant_id = {{tenant:UUID}}"
            for table in ("parked_operations", "dead_letters")
        )
        text = (
            f"SELECT DISTINCT key FROM (SELECT key FROM ({_BLOB_KEYS}) WHERE key IN {{keys:Array(String)}} "
        )
        rows = await self._rows(Statement(f"{text} UNION ALL {waiting})", parameters), is_limited=False)
        return {key for (key,) in rows}

    async def figures(self) -> EngineFigures:
        """What the engine says of itself."""
        return await self._engine.read(partial(engine_figures, cluster=self._engine.cluster))

    # -- finding ---------------------------------------------------------------------------------

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]:
        keys = await self.keys_of(tenant_id, run_ids)
        if not keys:
            return {}
        parameters: dict[str, Any] = {"tenant": tenant_id}
        latest = f"(bitAnd(present, {Present.SETTLED.value}), seq)"
        text = (
            "SELECT toString(project_id), toUnixTimestamp64Micro(start_time), toString(run_id), "
            f"toString(argMax(trace_id, {latest})), argMax(dotted_order, {latest}), "
            f"arrayMap(id -> toString(id), argMax(parent_run_ids, {latest})), "
            f"bitAnd(groupBitOr(present), {Present.SETTLED.value}) != 0 "
            f"FROM runs WHERE tenant_id = {{tenant:UUID}} AND {bind_keys(parameters, keys)} "
            "GROUP BY project_id, start_time, run_id"
        )
        return {
            run_id: RunPlace(
                RunKey(project_id, time_us, run_id), trace_id, order, tuple(parents), is_settled=bool(settled)
            )
            for project_id, time_us, run_id, trace_id, order, parents, settled in await self._rows(
                Statement(text, parameters)
            )
        }

    async def keys_of(self, tenant_id: str, run_ids: Collection[str]) -> list[RunKey]:
        """Current keys of the runs that are stored."""
        text = (
            "SELECT toString(run_id), "
            "argMax((toString(project_id), toUnixTimestamp64Micro(start_time)), last) FROM (SELECT "
            "run_id, project_id, start_time, max(seq) AS last FROM run_keys "
            "WHERE tenant_id = {tenant:UUID} AND run_id IN {runs:Array(UUID)} "
            "GROUP BY run_id, project_id, start_time HAVING NOT argMax(gone, (seq, gone))) GROUP BY run_id"
        )
        rows = await self._rows(Statement(text, {"tenant": tenant_id, "runs": list(run_ids)}))
        return [RunKey(project_id, time_us, run_id) for run_id, (project_id, time_us) in rows]

    async def moved_runs(self) -> set[tuple[str, str]]:
        text = "SELECT DISTINCT toString(tenant_id), toString(run_id) FROM run_keys WHERE gone"
        rows = await self._rows(Statement(text, {}), is_limited=False)
        return {(tenant_id, run_id) for tenant_id, run_id in rows}

    async def awaited_runs(self) -> Mapping[tuple[str, str], int]:
        text = (
            "SELECT toString(tenant_id), toString(awaited_run_id), count() FROM (SELECT tenant_id, "
            "awaited_run_id "
            "FROM parked_operations GROUP BY tenant_id, awaited_run_id, run_id, seq HAVING NOT max(done)) "
            "GROUP BY tenant_id, awaited_run_id"
        )
        rows = await self._rows(Statement(text, {}), is_limited=False)
        return {(tenant_id, run_id): count for tenant_id, run_id, count in rows}

    async def parked(self, awaited: Collection[tuple[str, str]], /) -> Sequence[tuple[str, RunPatch]]:
        found: list[tuple[str, RunPatch]] = []
        text = (
            "SELECT toString(awaited_run_id), any(operation) FROM parked_operations "
            "WHERE tenant_id = {tenant:UUID} AND awaited_run_id IN {runs:Array(UUID)} "
            "GROUP BY awaited_run_id, run_id, seq HAVING NOT max(done) ORDER BY seq"
        )
        for tenant_id in {tenant_id for tenant_id, _ in awaited}:
            runs = [run_id for tenant, run_id in awaited if tenant == tenant_id]
            rows = await self._rows(Statement(text, {"tenant": tenant_id, "runs": runs}), bytes_columns=True)
            found += [(_text(awaited_id), _PATCH.decode(operation)) for awaited_id, operation in rows]
        return found

    # -- reading ---------------------------------------------------------------------------------

    @watched()
    async def list_runs(self, query: RunQuery, /) -> RunPage:
        if query.with_subtree_usage:
            query = replace(query, fields=query.fields | {RunField.TRACE_ID})
        while True:
            found = await self._finder.page(query)
            keys = await self._reader.fitting(query, found.keys[: query.limit])
            runs = await self._reader.read(query, keys, found.runs, is_dense=found.is_dense)
            has_more = len(found.keys) > len(keys)
            # Runs can be deleted meanwhile, but a page that is empty is the last one.
            if runs or not has_more:
                return RunPage(runs, has_more)

    async def read_existing(self, query: RunQuery, keys: Sequence[RunKey], /) -> Sequence[StoredRun]:
        """The payload fields of the query of the runs with these keys, which are known to exist."""
        known = {key: StoredRun(Position(key.start_time_us, key.run_id), {}) for key in keys}
        return await self._reader.read(query, keys, known)

    async def matching(self, query: RunQuery, expressions: Iterable[str], /) -> Statement:
        """SQL of the runs that a query means, whatever its page; see `merged_sql.matching_runs`."""
        return await self._finder.matching(query, expressions)

    async def attachment(self, ref: AttachmentRef, /) -> Attachment | None:
        parameters: dict[str, Any] = {"tenant": ref.tenant_id, "name": ref.name}
        key = f"tenant_id = {{tenant:UUID}} AND {bind_keys(parameters, [ref.key])}"
        is_deleted = f"bitAnd(present, {Present.DELETED.value}) != 0"
        text = (
            "SELECT argMax((mime_type, content, blob_key, size_bytes), seq) AS last, last.1, last.2, last.3, "
            "last.4 FROM run_attachments "
            f"WHERE {key} AND name = {{name:String}} "
            f"AND seq > (SELECT max(seq) FROM runs WHERE {key} AND {is_deleted}) HAVING count() > 0"
        )
        rows = await self._rows(Statement(text, parameters), bytes_columns=True)
        if not rows:
            return None
        _, mime_type, content, blob_key, size_bytes = rows[0]
        blob = BlobRef(_text(blob_key), size_bytes) if blob_key else None
        return Attachment(_text(mime_type), bytes(content), blob)

    async def _rows(
        self, statement: Statement, *, bytes_columns: bool = False, is_limited: bool = True
    ) -> Sequence[Sequence[Any]]:
        """Result rows; strings as bytes if asked, so that payloads are not decoded to be encoded again."""
        formats = {"String": "bytes"} if bytes_columns else None

        def query(client: Any) -> Sequence[Sequence[Any]]:
            found = client.query(statement.text, parameters=statement.parameters, query_formats=formats)
            rows: Sequence[Sequence[Any]] = found.result_rows
            return rows

        return await self._engine.read(query, is_limited=is_limited)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _insert_parked(client: Any, patches: Sequence[tuple[str, RunPatch]], *, done: bool) -> None:
    values = [
        [
            patch.tenant_id,
            awaited_run_id,
            patch.run_id,
            patch.sequence,
            done,
            b"" if done else msgspec.msgpack.encode(patch),
        ]
        for awaited_run_id, patch in patches
    ]
    names = ["tenant_id", "awaited_run_id", "run_id", "seq", "done", "operation"]
    client.insert("parked_operations", values, names)


def _move(move: RunMove, client: Any) -> None:
    """Copy every partial row under the new key and mark the old one gone, safe to repeat.

    The mark itself stays behind: under the new key it would hide the run. So do rows that are newer than
    the move: a replay repeats it after the run has come back, or gone on, and they are there already.
    """
    parameters = {
        "tenant": move.tenant_id,
        "run": move.run_id,
        "seq": move.sequence,
        "old_project": move.old.project_id,
        "old_time": sql_time(move.old.start_time_us),
        "project": move.new.project_id,
        "time": sql_time(move.new.start_time_us),
    }
    old = (
        "tenant_id = {tenant:UUID} AND project_id = {old_project:UUID} "
        "AND start_time = {old_time:DateTime64(6, 'UTC')} AND run_id = {run:UUID} AND seq <= {seq:UInt64}"
    )
    new_key = "{project:UUID} AS project_id, {time:DateTime64(6, 'UTC')} AS start_time"
    for table in ("run_payloads", "run_attachments"):
        client.command(
            f"INSERT INTO {table} SELECT * REPLACE ({new_key}) FROM (SELECT * FROM {table} WHERE {old})",
            parameters=parameters,
        )
    # One statement, so that the run is never under both keys or under neither.
    gone = f"toUInt32({Present.GONE.value}) AS present, {{seq:UInt64}} AS seq"
    rows = f"(SELECT * FROM runs WHERE {old} AND bitAnd(present, {Present.GONE.value}) = 0)"
    client.command(
        f"INSERT INTO runs SELECT * REPLACE ({new_key}) FROM {rows} "
        f"UNION ALL SELECT * REPLACE ({gone}) FROM {rows} LIMIT 1 BY tenant_id",
        parameters=parameters,
    )
