"""Deletes traces that have outlived their time: whole months first, then trace by trace.

Traces are deleted like any others, by operations in the log, so that nothing is ever half there and what
comes late finds nothing to change (docs/decisions/0010-deleting.md, 0016-retention.md). A sweep finds anew
what has expired, so one that was cut short needs no memory.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Final, Protocol

import structlog

from runstore.domain.errors import RunstoreError
from runstore.domain.retention import (
    FOREVER,
    NEVER_US,
    ExpiredTrace,
    ExpiryQuery,
    Freed,
    Month,
    RetentionRule,
    RetentionRules,
)
from runstore.ingest.purge import Suspects
from runstore.runtime.clock import Clock
from runstore.storage.run_store import RetentionStore, StoreUnavailable

TRACES_AT_ONCE: Final = 1_000
"""In one operation: writers wait while it is carried out."""
TRACES_A_BATCH: Final = 50 * TRACES_AT_ONCE
"""Deleted before they are purged together."""
_BLOBS_AT_ONCE: Final = 10_000
_LEASE: Final = "retention"
_LEASE_S: Final = 900.0
_LONGEST_REST_S: Final = 30.0

logger = structlog.get_logger()


class Rules(Protocol):
    """What a sweep needs of the catalog."""

    async def rules(self, deployment: RetentionRule) -> RetentionRules: ...

    async def freed(self, tenant_id: str, freed: Freed) -> None:
        """Count what was deleted of a tenant."""
        ...

    async def swept(self, tenant_id: str, oldest_us: int | None) -> None:
        """A sweep of a tenant has ended."""
        ...


class Leases(Protocol):
    """Keeps several stores from doing the same."""

    async def take(self, name: str, seconds: float) -> bool: ...

    async def give_back(self, name: str) -> None: ...


class Ingest(Protocol):
    """The way into the log."""

    async def write_deletion(
        self,
        tenant_id: str,
        *,
        run_ids: Sequence[str],
        trace_ids: Sequence[str],
        project_id: str | None,
        started_before_us: int | None = None,
        spares_kept: bool = False,
    ) -> int: ...


class Visibility(Protocol):
    """Waits until operations are stored."""

    async def see_sequence(self, sequence: int) -> None: ...


class Observer(Protocol):
    """Counts."""

    def freed(self, freed: Freed) -> None:
        """A step of a sweep has ended."""
        ...

    def swept(self, outcome: str) -> None:
        """A sweep has ended: `done`, `postponed` or `failed`."""
        ...


class Purge(Protocol):
    """Removes what is deleted."""

    async def purge_deleted(self) -> None: ...


class Retention:
    """Sweeps, one sweep at a time."""

    def __init__(
        self,
        store: RetentionStore,
        rules: Rules,
        leases: Leases,
        ingest: Ingest,
        visibility: Visibility,
        purge: Purge,
        unused: Suspects,
        clock: Clock,
        deployment: RetentionRule,
        *,
        observer: Observer,
        batch: int = TRACES_A_BATCH,
    ) -> None:
        self._store = store
        self._rules = rules
        self._leases = leases
        self._ingest = ingest
        self._visibility = visibility
        self._purge = purge
        self._unused = unused
        self._clock = clock
        self._deployment = deployment
        self._observer = observer
        self._batch = batch

    async def run(self, interval_s: float) -> None:
        """Sweep for ever."""
        while True:
            outcome = "done"
            try:
                await self.sweep()
            except (StoreUnavailable, RunstoreError) as error:
                outcome = "postponed"
                logger.warning("retention_postponed", error=str(error))
            except Exception:
                outcome = "failed"
                logger.exception("retention_failed")
            self._observer.swept(outcome)
            await asyncio.sleep(interval_s)

    async def sweep(self) -> None:
        """Delete what has expired, unless another store does. Raises StoreUnavailable, RunstoreError."""
        rules = await self._rules.rules(self._deployment)
        if not _limits(rules) or not await self._leases.take(_LEASE, _LEASE_S):
            return
        try:
            tenants = [each for each in await self._store.tenants() if rules.is_limited(each)]
            if tenants:
                await self._drop_months(rules)
            for tenant_id in tenants:
                await self._sweep_tenant(rules, tenant_id)
        finally:
            await self._leases.give_back(_LEASE)

    # -- whole months ----------------------------------------------------------------------------

    async def _drop_months(self, rules: RetentionRules) -> None:
        for month in await self._store.months():
            await self._leases.take(_LEASE, _LEASE_S)
            if await self._has_expired(rules, month):
                await self._drop(month)

    async def _has_expired(self, rules: RetentionRules, month: Month) -> bool:
        now_us = self._clock.now_us()
        if month.end_us > now_us:
            return False
        kept = [rules.of(*place) for place in await self._store.projects_of(month)]
        cutoff_us = min((each.cutoff_us(now_us, is_kept=False) for each in kept), default=NEVER_US)
        kept_cutoff_us = min((each.cutoff_us(now_us, is_kept=True) for each in kept), default=NEVER_US)
        return cutoff_us >= month.end_us and not await self._store.has_living(
            month, cutoff_us, kept_cutoff_us
        )

    async def _drop(self, month: Month) -> None:
        # Noted before the rows go, which are the last to know of them; the sweep deletes what is unused.
        after, blobs = "", 0
        while page := await self._store.blobs_of(month, after, _BLOBS_AT_ONCE):
            for tenant_id, keys in _by_tenant(page).items():
                await self._unused.suspect(tenant_id, keys)
            after, blobs = page[-1][0], blobs + len(page)
        for tenant_id, freed in (await self._store.drop(month)).items():
            await self._count(tenant_id, freed)
        logger.info("month_dropped", month=month.number, blobs=blobs)

    # -- trace by trace --------------------------------------------------------------------------

    async def _sweep_tenant(self, rules: RetentionRules, tenant_id: str) -> None:
        query = self._query(rules, tenant_id)
        seen: set[str] = set()
        while traces := await self._store.expired(query):
            started_s = time.perf_counter()
            await self._leases.take(_LEASE, _LEASE_S)
            await self._delete(tenant_id, query, traces)
            # What is found again has been written anew; it must not keep the sweep from ending.
            if len(traces) < query.limit or seen.issuperset(trace.trace_id for trace in traces):
                break
            seen = {trace.trace_id for trace in traces}
            await asyncio.sleep(min(time.perf_counter() - started_s, _LONGEST_REST_S))
        if (parked_us := self._parked_cutoff_us(rules, tenant_id)) > 0:
            await self._store.forget_parked(tenant_id, parked_us)
        await self._rules.swept(tenant_id, await self._store.oldest_us(tenant_id))

    def _query(self, rules: RetentionRules, tenant_id: str) -> ExpiryQuery:
        now_us = self._clock.now_us()

        def cutoffs_us(project_id: str | None) -> tuple[int, int]:
            retention = rules.of(tenant_id, project_id)
            return retention.cutoff_us(now_us, is_kept=False), retention.cutoff_us(now_us, is_kept=True)

        cutoff_us, kept_cutoff_us = cutoffs_us(None)
        return ExpiryQuery(
            tenant_id=tenant_id,
            cutoff_us=cutoff_us,
            kept_cutoff_us=kept_cutoff_us,
            cutoffs_us={project_id: cutoffs_us(project_id) for project_id in rules.projects_of(tenant_id)},
            limit=self._batch,
        )

    async def _delete(self, tenant_id: str, query: ExpiryQuery, traces: Sequence[ExpiredTrace]) -> None:
        freed = await self._store.rows_of(query, traces)
        sequence = 0
        by_rule = sorted(traces, key=lambda trace: (trace.is_kept, trace.cutoff_us, trace.last_us))
        for (is_kept, cutoff_us), alike in groupby(by_rule, lambda trace: (trace.is_kept, trace.cutoff_us)):
            trace_ids = [trace.trace_id for trace in alike]
            for start in range(0, len(trace_ids), TRACES_AT_ONCE):
                sequence = await self._ingest.write_deletion(
                    tenant_id,
                    run_ids=(),
                    trace_ids=trace_ids[start : start + TRACES_AT_ONCE],
                    project_id=None,
                    started_before_us=cutoff_us,
                    spares_kept=not is_kept,
                )
                # One after the other, so that writers need not wait for all of them.
                await self._visibility.see_sequence(sequence)
        await self._purge.purge_deleted()
        await self._store.forget(query, traces)
        await self._count(tenant_id, freed)
        logger.info("traces_expired", tenant_id=tenant_id, traces=len(traces), rows=freed.rows)

    def _parked_cutoff_us(self, rules: RetentionRules, tenant_id: str) -> int:
        """What has waited since before this time waits for a run that has expired, or never comes."""
        places = [None, *rules.projects_of(tenant_id)]
        now_us = self._clock.now_us()
        return min(rules.of(tenant_id, each).cutoff_us(now_us, is_kept=True) for each in places)

    async def _count(self, tenant_id: str, freed: Freed) -> None:
        self._observer.freed(freed)
        await self._rules.freed(tenant_id, freed)


def _limits(rules: RetentionRules) -> bool:
    """Whether any rule lets anything expire."""
    every = (rules.deployment, *rules.tenants.values(), *rules.projects.values())
    return any(days not in (None, FOREVER) for rule in every for days in (rule.short_days, rule.long_days))


def _by_tenant(page: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for key, tenant_id in page:
        keys.setdefault(tenant_id, []).append(key)
    return keys
