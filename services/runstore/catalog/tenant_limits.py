"""Limits of tenants that differ from those in the settings."""

from dataclasses import fields
from typing import Any

from sqlalchemy import Row, delete, insert, select

from runstore.catalog import tables
from runstore.catalog.database import Conflict, Database
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.rate_limits import Measure, RateLimits, TenantLimits

_limits = tables.tenant_limits.c
_SCOPES = tuple(field.name for field in fields(TenantLimits))


class TenantLimitCatalog:
    """What an operator has set for single tenants. May raise UNAVAILABLE."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, tenant_id: str) -> TenantLimits:
        """What differs for the tenant; nothing for one that has no limits of its own."""
        query = select(tables.tenant_limits).where(_limits.tenant_id == tenant_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return TenantLimits() if row is None else _limits_of(row)

    async def all(self) -> dict[str, TenantLimits]:
        """By tenant id, of those that have limits of their own."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(tables.tenant_limits))
            return {row.tenant_id: _limits_of(row) for row in rows}

    async def set(self, tenant_id: str, limits: TenantLimits) -> None:
        """Sets what differs for the tenant, in place of what did. Raises NOT_FOUND, INVALID_ARGUMENT."""
        values = {
            _column(scope, measure): getattr(getattr(limits, scope), measure)
            for scope in _SCOPES
            for measure in Measure
        }
        for name, value in values.items():
            if value is not None and not 0 <= value < float("inf"):
                raise invalid(name, "must be a number of at least 0, where 0 is no limit")
        try:
            async with self._database.write() as connection:
                await self._replace(connection, tenant_id, values)
        except Conflict as error:
            raise RunstoreError(ErrorReason.NOT_FOUND, "no such tenant", field="tenant_id") from error

    async def _replace(self, connection: Any, tenant_id: str, values: dict[str, float | None]) -> None:
        await connection.execute(delete(tables.tenant_limits).where(_limits.tenant_id == tenant_id))
        if any(value is not None for value in values.values()):
            await connection.execute(insert(tables.tenant_limits).values(tenant_id=tenant_id, **values))


def _limits_of(row: Row[Any]) -> TenantLimits:
    found = row._mapping
    return TenantLimits(
        **{
            scope: RateLimits(**{measure: found[_column(scope, measure)] for measure in Measure})
            for scope in _SCOPES
        }
    )


def _column(scope: str, measure: Measure) -> str:
    return f"{scope}_{measure}_per_s"
