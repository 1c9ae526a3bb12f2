"""Rules of retention in the catalog, and what was done by them."""

from dataclasses import replace

from sqlalchemy import ColumnElement, Row, and_, delete, insert, select, update

from runstore.catalog.database import Conflict, Database
from runstore.catalog.retention_tables import retention_progress, retention_rules
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.expiring import ExpiringMap
from runstore.domain.retention import (
    MAX_DAYS,
    NO_RULE,
    Freed,
    RetentionProgress,
    RetentionRule,
    RetentionRules,
    TraceTier,
)
from runstore.runtime.clock import Clock

# Another store's change of a rule is seen within this time.
_CACHE_TTL_S = 10.0

_rules = retention_rules.c
_progress = retention_progress.c
_PROGRESS = [column.name for column in _progress]


class RetentionCatalog:
    """Reads and writes rules and progress. Every method may raise RunstoreError UNAVAILABLE."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._cached: ExpiringMap[RetentionRule, RetentionRules] = ExpiringMap(
            clock, max_entries=1, ttl_s=_CACHE_TTL_S, name="retention_rules"
        )

    async def rules(self, deployment: RetentionRule) -> RetentionRules:
        """All rules, at most ten seconds old, with that of the deployment's settings."""
        if (cached := self._cached.get(deployment)) is not None:
            return cached
        ticket = self._cached.ticket()
        tenants: dict[str, RetentionRule] = {}
        projects: dict[tuple[str, str], RetentionRule] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(select(retention_rules)):
                if row.project_id:
                    projects[row.tenant_id, row.project_id] = _rule(row)
                else:
                    tenants[row.tenant_id] = _rule(row)
        rules = RetentionRules(deployment, tenants, projects)
        self._cached.put(deployment, rules, ticket)
        return rules

    async def rule(self, tenant_id: str, project_id: str | None) -> RetentionRule:
        """The rule of a project, or with None of the tenant: what it says itself."""
        query = select(retention_rules).where(_is(tenant_id, project_id))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return NO_RULE if row is None else _rule(row)

    async def set_rule(self, tenant_id: str, project_id: str | None, rule: RetentionRule) -> None:
        """Replace the rule of a project, or with None of the tenant.

        Raises INVALID_ARGUMENT for days that are none, NOT_FOUND for an unknown tenant.
        """
        for name in ("short_days", "long_days"):
            days = getattr(rule, name)
            if days is not None and not 0 <= days <= MAX_DAYS:
                raise invalid(name, f"must be 1 to {MAX_DAYS} days, or 0 for ever")
        try:
            async with self._database.write() as connection:
                await connection.execute(delete(retention_rules).where(_is(tenant_id, project_id)))
                if rule != NO_RULE:
                    await connection.execute(
                        insert(retention_rules).values(
                            tenant_id=tenant_id,
                            project_id=project_id or "",
                            trace_tier=None if rule.trace_tier is None else rule.trace_tier.value,
                            short_days=rule.short_days,
                            long_days=rule.long_days,
                            modified_at_us=self._clock.now_us(),
                        )
                    )
        except Conflict as error:
            raise RunstoreError(ErrorReason.NOT_FOUND, "no such tenant", field="tenant_id") from error
        finally:
            self._cached.forget_all()

    async def set_tier(self, tenant_id: str, project_id: str, tier: TraceTier) -> None:
        """Give a project a tier; the periods of its rule stay."""
        rule = await self.rule(tenant_id, project_id)
        await self.set_rule(tenant_id, project_id, replace(rule, trace_tier=tier))

    async def progress(self) -> list[RetentionProgress]:
        """Of every tenant that was ever swept."""
        query = select(retention_progress).order_by(_progress.tenant_id)
        async with self._database.read() as connection:
            return [RetentionProgress(**row._mapping) for row in await connection.execute(query)]

    async def freed(self, tenant_id: str, freed: Freed) -> None:
        """Count what was deleted of a tenant."""
        await self._note(
            tenant_id,
            rows=_progress.rows + freed.rows,
            bytes=_progress.bytes + freed.bytes,
        )

    async def swept(self, tenant_id: str, oldest_us: int | None) -> None:
        """A sweep of a tenant has ended."""
        await self._note(tenant_id, swept_at_us=self._clock.now_us(), oldest_us=oldest_us)

    async def _note(self, tenant_id: str, **values: object) -> None:
        nothing = RetentionProgress(tenant_id=tenant_id, swept_at_us=0)
        statement = update(retention_progress).where(_progress.tenant_id == tenant_id).values(**values)
        async with self._database.write() as connection:
            if (await connection.execute(statement)).rowcount:
                return
        try:
            async with self._database.write() as connection:
                await connection.execute(
                    insert(retention_progress).values({name: getattr(nothing, name) for name in _PROGRESS})
                )
        except Conflict:
            if not await self._exists(tenant_id):
                return  # Runs of a tenant that the catalog does not know, any more.
        await self._note(tenant_id, **values)

    async def _exists(self, tenant_id: str) -> bool:
        query = select(_progress.tenant_id).where(_progress.tenant_id == tenant_id)
        async with self._database.read() as connection:
            return (await connection.execute(query)).one_or_none() is not None


def _is(tenant_id: str, project_id: str | None) -> ColumnElement[bool]:
    return and_(_rules.tenant_id == tenant_id, _rules.project_id == (project_id or ""))


def _rule(row: Row[tuple[object, ...]]) -> RetentionRule:
    tier = row.trace_tier
    return RetentionRule(
        trace_tier=None if tier is None else TraceTier(tier),
        short_days=row.short_days,
        long_days=row.long_days,
    )
