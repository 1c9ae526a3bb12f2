"""What the engine says of itself: sizes of our tables, and what waits in three of them."""

from typing import Any

from runstore.storage.run_store import EngineFigures, TableFigures

_TABLES = (
    "SELECT replaceRegexpOne(table, '_local$', '') AS name, count(), sum(rows), sum(bytes_on_disk), "
    "sum(data_uncompressed_bytes) FROM {parts} "
    "WHERE active AND database = currentDatabase() GROUP BY name ORDER BY name"
)
_WAITING = (
    "SELECT (SELECT uniqExact(tenant_id, run_id, seq) FROM dead_letters), "
    "(SELECT count() FROM (SELECT 1 FROM parked_operations GROUP BY tenant_id, awaited_run_id, run_id, seq "
    "HAVING NOT max(done))), (SELECT uniqExact(tenant_id, run_id) FROM deleted_runs), version()"
)


def engine_figures(client: Any, cluster: str = "") -> EngineFigures:
    """Ask the engine; a few milliseconds, whatever it holds. Of a cluster, one replica of each shard."""
    parts = f"cluster('{cluster}', system.parts)" if cluster else "system.parts"
    [(dead_letters, parked, deleted, version)] = client.query(_WAITING).result_rows
    tables = tuple(TableFigures(*row) for row in client.query(_TABLES.format(parts=parts)).result_rows)
    return EngineFigures(version, tables, dead_letters, parked, deleted)
