"""Removing all that a tenant has."""

from typing import Any, Final

from runstore.storage.clickhouse.engine import Engine

TABLES: Final = (
    # First what may become rows of the others.
    "dead_letters",
    "parked_operations",
    "runs",
    "run_payloads",
    "run_attachments",
    "run_keys",
    "trace_keys",
    "feedback",
    "feedback_keys",
    "deleted_runs",
)
"""Every table with rows of tenants."""

_TENANT: Final = "tenant_id = {tenant:UUID}"


class ClickHouseTenants:
    """`TenantStore` in ClickHouse."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def purge(self, tenant_id: str, /) -> int:
        # Beside the writer, which would have to wait for it.
        return await self._engine.read(lambda client: _purge(client, tenant_id), is_limited=False)


def _purge(client: Any, tenant_id: str) -> int:
    parameters, removed = {"tenant": tenant_id}, 0
    for table in TABLES:
        [(rows,)] = client.query(
            f"SELECT count() FROM {table} WHERE {_TENANT}", parameters=parameters
        ).result_rows
        # On a server a mutation takes half a second even where there is nothing to do.
        if rows:
            client.command(f"DELETE FROM {table} WHERE {_TENANT}", parameters=parameters)
            removed += rows
    return removed
