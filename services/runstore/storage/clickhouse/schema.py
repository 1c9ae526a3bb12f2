"""The tables, and the versioned migrations that bring an engine to them.

Applied versions are recorded in `schema_migrations`; a version is never edited once released.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from runstore.domain.blob_refs import MAX_HEADER_BYTES, OFFLOADED_FIELDS
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.storage.clickhouse.cluster import ClusterClient
from runstore.storage.clickhouse.columns import (
    METADATA_TERMS,
    PAYLOAD_COLUMNS,
    RUN_COLUMNS,
    Column,
    Present,
)
from runstore.storage.clickhouse.feedback_sql import FEEDBACK_COLUMNS, FeedbackPresent

logger = structlog.get_logger()


class SchemaTooNew(RunstoreError):
    """The engine's tables were migrated by a later runstore; running this one could damage them."""

    def __init__(self, found: int) -> None:
        super().__init__(
            ErrorReason.UNAVAILABLE,
            f"the tables of runs have schema version {found}, this runstore knows up to {SCHEMA_VERSION}: "
            "start the version that migrated them, or a later one, or restore a backup of before",
        )


class WrongTopology(RunstoreError):
    """The tables were made for one server and a cluster is configured, or the other way round."""

    def __init__(self, *, is_clustered: bool) -> None:
        found, hint = ("a cluster", "set") if is_clustered else ("one server", "unset")
        super().__init__(
            ErrorReason.UNAVAILABLE,
            f"the tables of runs are those of {found}: {hint} RUNSTORE_CLICKHOUSE_CLUSTER, or use another "
            "database",
        )


@dataclass(frozen=True, slots=True)
class Migration:
    """One step; its statements can be repeated, because a crash may cut them short."""

    version: int
    name: str
    statements: Callable[[], Sequence[str]]


# Small granules: a list reads a thousand rows, not hundreds of thousands. A part that an insert made
# survives the loss of power, which is what lets the log forget its operations.
_DURABLE = "fsync_after_insert = 1, fsync_part_directory = 1"
# `present` keeps rows of one sequence number apart that say different things: the link of a child to its
# late parent, the mark of a move, a flush that a replay has cut elsewhere. A merge must not drop any of them.
_RUN_KEY = "tenant_id, project_id, start_time, run_id, seq, present"


# Keys of the blobs that a row's payloads refer to (`domain.blob_refs`): what the deletion of a project, and
# the sweep of unused blobs, need to know without reading payloads.
_REFERENCES = ", ".join(f"substring({field}, 1, {MAX_HEADER_BYTES})" for field in OFFLOADED_FIELDS)
_BLOB_KEYS = (
    "blob_keys Array(String) MATERIALIZED "
    "arrayMap(column -> substring(column, 2, position(column, ' ') - 2), "
    f"arrayFilter(column -> startsWith(column, '\\0'), [{_REFERENCES}]))"
)


def _columns(columns: tuple[Column, ...], codecs: dict[str, str] | None = None) -> str:
    codecs = codecs or {}
    return ", ".join(f"`{c.name}` {c.sql_type} {codecs.get(c.name, '')}".rstrip() for c in columns)


def _word_index(column: str) -> str:
    """Finds rows by a word of a payload. Words are what lies between everything that is no letter or digit,
    in lower case. Built at the insert: left to merges, an absent word would cost a scan until then."""
    return (
        f"INDEX {column}_words {column} TYPE text(tokenizer = 'splitByNonAlpha', "
        f"preprocessor = lower({column}))"
    )


def _first_tables() -> list[str]:
    return [*_run_tables(), *_key_tables(), *_other_tables()]


def _run_tables() -> list[str]:
    heavy = {c.name: "CODEC(ZSTD(1))" for c in PAYLOAD_COLUMNS if c.sql_type == "String"}
    light = {
        c.name: "CODEC(ZSTD(1))"
        for c in RUN_COLUMNS
        if c.sql_type == "String" or c.sql_type.startswith("Map")
    }
    return [
        (
            f"CREATE TABLE IF NOT EXISTS runs ({_columns(RUN_COLUMNS, light)}, "
            "INDEX by_reference_example reference_example_id TYPE bloom_filter(0.01) GRANULARITY 4) "
            f"ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(start_time) ORDER BY ({_RUN_KEY}) "
            f"SETTINGS index_granularity = 2048, {_DURABLE}"
        ),
        (
            f"CREATE TABLE IF NOT EXISTS run_payloads ({_columns(PAYLOAD_COLUMNS, heavy)}, {_BLOB_KEYS}, "
            f"{_word_index('inputs')}, {_word_index('outputs')}) "
            f"ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(start_time) ORDER BY ({_RUN_KEY}) "
            f"SETTINGS index_granularity = 512, {_DURABLE}"
        ),
        (
            "CREATE TABLE IF NOT EXISTS run_attachments (tenant_id UUID, project_id UUID, "
            "start_time DateTime64(6, 'UTC'), run_id UUID, name String, seq UInt64, mime_type String, "
            "content String CODEC(ZSTD(1)), blob_key String, size_bytes UInt64) "
            "ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(start_time) "
            "ORDER BY (tenant_id, project_id, start_time, run_id, name, seq) "
            f"SETTINGS index_granularity = 64, {_DURABLE}"
        ),
    ]


def _key_tables() -> list[str]:
    return [
        # Where a run is, by its id alone.
        (
            "CREATE TABLE IF NOT EXISTS run_keys (tenant_id UUID, run_id UUID, project_id UUID, "
            "start_time DateTime64(6, 'UTC'), seq UInt64, gone Bool) ENGINE = ReplacingMergeTree "
            "ORDER BY (tenant_id, run_id, project_id, start_time, seq, gone) SETTINGS index_granularity = "
            f"512, {_DURABLE}"
        ),
        (
            "CREATE MATERIALIZED VIEW IF NOT EXISTS run_keys_feed TO run_keys AS SELECT tenant_id, run_id, "
            f"project_id, start_time, seq, bitAnd(present, {Present.GONE.value}) != 0 AS gone FROM runs"
        ),
        # Where a trace is, and between which times.
        (
            "CREATE TABLE IF NOT EXISTS trace_keys (tenant_id UUID, trace_id UUID, project_id UUID, "
            "first_start SimpleAggregateFunction(min, DateTime64(6, 'UTC')), "
            "last_start SimpleAggregateFunction(max, DateTime64(6, 'UTC'))) ENGINE = AggregatingMergeTree "
            f"ORDER BY (tenant_id, trace_id, project_id) SETTINGS index_granularity = 512, {_DURABLE}"
        ),
        (
            "CREATE MATERIALIZED VIEW IF NOT EXISTS trace_keys_feed TO trace_keys AS SELECT "
            "tenant_id, trace_id, "
            "project_id, min(start_time) AS first_start, max(start_time) AS last_start FROM runs "
            "GROUP BY tenant_id, trace_id, project_id"
        ),
    ]


def _other_tables() -> list[str]:
    return [
        # Prices that runs were charged by; kept, because later prices do not apply to them.
        (
            "CREATE TABLE IF NOT EXISTS model_prices (price_model_id UUID, "
            "prompt_prices Map(String, Decimal(38, 18)), completion_prices Map(String, Decimal(38, 18))) "
            f"ENGINE = ReplacingMergeTree ORDER BY price_model_id SETTINGS {_DURABLE}"
        ),
        # Operations that wait for the creation of the run they await.
        (
            "CREATE TABLE IF NOT EXISTS parked_operations (tenant_id UUID, awaited_run_id UUID, run_id UUID, "
            "seq UInt64, done Bool, operation String CODEC(ZSTD(1))) ENGINE = ReplacingMergeTree "
            f"ORDER BY (tenant_id, awaited_run_id, seq, run_id, done) SETTINGS {_DURABLE}"
        ),
        # Operations that the engine refuses.
        (
            "CREATE TABLE IF NOT EXISTS dead_letters (tenant_id UUID, run_id UUID, seq UInt64, "
            "reason String, "
            "operation String CODEC(ZSTD(1))) ENGINE = ReplacingMergeTree ORDER BY (tenant_id, seq, run_id) "
            f"SETTINGS {_DURABLE}"
        ),
    ]


def _burials() -> list[str]:
    # A letter that is refused again while its replay is under way must not go with the letter it was.
    return [
        (
            "ALTER TABLE dead_letters ADD COLUMN IF NOT EXISTS burial UUID, "
            "ADD COLUMN IF NOT EXISTS buried_at DateTime64(6, 'UTC')"
        )
    ]


def _wider_merges() -> list[str]:
    # A merge waits for more parts of its size, so that a row is written less often before it rests: merges,
    # which build word indexes anew, took as much of the processor as inserts (docs/performance.md).
    tables = ("runs", "run_payloads", "run_keys", "trace_keys")
    return [f"ALTER TABLE {table} MODIFY SETTING merge_selector_base = 16" for table in tables]


def _feedback() -> list[str]:
    columns = ", ".join(f"{name} {sql_type}" for name, sql_type in FEEDBACK_COLUMNS.items())
    return [
        (
            f"CREATE TABLE IF NOT EXISTS feedback ({columns}) ENGINE = ReplacingMergeTree "
            "ORDER BY (tenant_id, run_id, feedback_id, seq, present) "
            f"SETTINGS index_granularity = 512, {_DURABLE}"
        ),
        # What a record is about, by the record's id alone.
        (
            "CREATE TABLE IF NOT EXISTS feedback_keys (tenant_id UUID, feedback_id UUID, run_id UUID, "
            "seq SimpleAggregateFunction(max, UInt64)) ENGINE = AggregatingMergeTree "
            f"ORDER BY (tenant_id, feedback_id, run_id) SETTINGS index_granularity = 512, {_DURABLE}"
        ),
        (
            "CREATE MATERIALIZED VIEW IF NOT EXISTS feedback_keys_feed TO feedback_keys AS SELECT "
            "tenant_id, feedback_id, run_id, max(seq) AS seq FROM feedback "
            f"WHERE bitAnd(present, {FeedbackPresent.CREATED.value}) != 0 "
            "GROUP BY tenant_id, feedback_id, run_id"
        ),
    ]


def _filter_indexes() -> list[str]:
    """What is rare among runs need not be rare among granules; an index of type text names the rows."""
    by_run = {
        "by_tag": "tags TYPE text(tokenizer = 'array')",
        "by_metadata": f"{METADATA_TERMS} TYPE text(tokenizer = 'array')",
        "by_thread": "thread_id TYPE bloom_filter(0.01) GRANULARITY 1",
    }
    # `lower` is part of the expression and no preprocessor: only so is LIKE answered by the words.
    by_payload = {
        f"by_{column}_words": f"lower({column}) TYPE text(tokenizer = 'splitByNonAlpha')"
        for column in ("inputs", "outputs")
    }
    return [
        *_add_indexes("runs", by_run),
        "ALTER TABLE run_payloads DROP INDEX IF EXISTS inputs_words, DROP INDEX IF EXISTS outputs_words",
        *_add_indexes("run_payloads", by_payload),
    ]


def _add_indexes(table: str, indexes: dict[str, str]) -> list[str]:
    """Also for the rows that are there, in the background: until then these are scanned."""
    return [
        statement
        for name, definition in indexes.items()
        for statement in (
            f"ALTER TABLE {table} ADD INDEX IF NOT EXISTS {name} {definition}",
            f"ALTER TABLE {table} MATERIALIZE INDEX {name}",
        )
    ]


def _deletions() -> list[str]:
    return [
        # Runs that are deleted and not purged yet.
        (
            "CREATE TABLE IF NOT EXISTS deleted_runs (tenant_id UUID, seq UInt64, run_id UUID) "
            f"ENGINE = ReplacingMergeTree ORDER BY (tenant_id, seq, run_id) SETTINGS {_DURABLE}"
        )
    ]


def _trace_index() -> list[str]:
    # The runs of a trace lie together, so that few granules have any.
    return _add_indexes("runs", {"by_trace": "trace_id TYPE bloom_filter(0.01) GRANULARITY 1"})


def _kept_traces() -> list[str]:
    return [
        "ALTER TABLE trace_keys ADD COLUMN IF NOT EXISTS kept SimpleAggregateFunction(max, UInt8)",
    ]


MIGRATIONS = (
    Migration(1, "first tables", _first_tables),
    Migration(2, "burials", _burials),
    Migration(3, "wider merges", _wider_merges),
    Migration(4, "feedback", _feedback),
    Migration(5, "indexes for filters", _filter_indexes),
    Migration(6, "deletions", _deletions),
    Migration(7, "index on traces", _trace_index),
    Migration(8, "kept traces", _kept_traces),
)

SCHEMA_VERSION = MIGRATIONS[-1].version
"""The newest migration."""


# Otherwise the embedded engine would build an index for all rows first, which takes hours.
_IN_THE_BACKGROUND = {"mutations_sync": 0}


def check(client: Any) -> None:
    """Raises SchemaTooNew for tables of a later runstore, WrongTopology; changes nothing."""
    _check_topology(client)
    if client.command("EXISTS TABLE schema_migrations"):
        _applied(client)


def migrate(client: Any) -> None:
    """Apply what is missing, in order; several stores may do so at once.

    No statement waits for the rows that there are: indexes are built for them in the background.
    Raises SchemaTooNew rather than touch a later schema, WrongTopology rather than take tables of one server
    for those of a cluster.
    """
    _check_topology(client)
    client.command(
        "CREATE TABLE IF NOT EXISTS schema_migrations (version UInt32, name String, "
        "applied_at DateTime('UTC') DEFAULT now()) ENGINE = ReplacingMergeTree ORDER BY version"
    )
    applied = _applied(client)
    for migration in MIGRATIONS:
        if migration.version in applied:
            continue
        for statement in migration.statements():
            client.command(statement, settings=_IN_THE_BACKGROUND)
        client.insert("schema_migrations", [[migration.version, migration.name]], ["version", "name"])
        logger.info("schema_migrated", version=migration.version, name=migration.name)


def _applied(client: Any) -> set[int]:
    applied = {row[0] for row in client.query("SELECT version FROM schema_migrations").result_rows}
    if (newest := max(applied, default=0)) > SCHEMA_VERSION:
        raise SchemaTooNew(newest)
    return applied


def _check_topology(client: Any) -> None:
    text = (
        "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = 'schema_migrations'"
    )
    for (engine,) in client.query(text).result_rows:
        is_clustered = engine == "Distributed"
        if is_clustered != isinstance(client, ClusterClient):
            raise WrongTopology(is_clustered=is_clustered)
