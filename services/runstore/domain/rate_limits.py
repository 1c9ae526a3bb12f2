"""How much a key, and a tenant with all its keys, may do in a second; and who has done too much."""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.expiring import ExpiringMap
from runstore.domain.principals import Principal
from runstore.runtime.clock import Clock

_MAX_BUCKETS: Final = 50_000
_MAX_TENANTS: Final = 10_000
# Limits that another process has changed hold here within this time.
_OVERRIDES_TTL_S: Final = 3.0
# Longer waits than this are not told: SDKs would not wait so long.
_LONGEST_RETRY_S: Final = 60
# Of streams. Not for long at once: limits change, and others take from the same bucket.
_SHORTEST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 1.0


class Measure(StrEnum):
    """What is counted."""

    RUNS = "runs"
    """Operations on runs, and records of feedback."""
    BYTES = "bytes"
    """Of these, as messages and uploads."""
    QUERIES = "queries"
    """Calls that read."""


class Scope(StrEnum):
    """Whose doings are counted together."""

    KEY = "key"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """So much in a second; 0 is without limit, None is as the settings of the deployment say."""

    runs: float | None = None
    bytes: float | None = None
    queries: float | None = None

    def over(self, general: "RateLimits") -> "RateLimits":
        """These limits, and where they say nothing the general ones."""
        given = {measure: value for measure in Measure if (value := getattr(self, measure)) is not None}
        return replace(general, **given)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits:
    """Limits of one tenant, or of each."""

    key: RateLimits = RateLimits()
    """Of each of its keys."""
    tenant: RateLimits = RateLimits()
    """Of all its keys together."""

    def over(self, general: "TenantLimits") -> "TenantLimits":
        """These limits, and where they say nothing the general ones."""
        return TenantLimits(key=self.key.over(general.key), tenant=self.tenant.over(general.tenant))


class Overrides(Protocol):
    """Knows which tenants have limits of their own."""

    async def of(self, tenant_id: str, /) -> TenantLimits:
        """What differs for this tenant. May raise UNAVAILABLE."""
        ...


_Owner = tuple[Scope, str, str, Measure]
"""Whose bucket: tenant, and its key or "" for all. A key of an organisation has one in each tenant."""


class RateLimiter:
    """Token buckets, one for each key or tenant and each measure; a second's worth fits into one.

    A call is let in while there is anything left, and may then take more than there is: what it overdraws,
    the next ones wait for. So a batch is never too large for a limit, and on average the limit holds.

    Bounded in memory: of very many callers, those that were not seen for longest are forgotten. Lives on one
    event loop, and counts for its own process alone.
    """

    def __init__(
        self,
        general: TenantLimits,
        overrides: Overrides,
        clock: Clock,
        on_refusal: Callable[[Measure, Scope], None] = lambda _measure, _scope: None,
    ) -> None:
        """`general`: of tenants without limits of their own; what is None there is not limited."""
        self._general = general
        self._overrides = overrides
        self._clock = clock
        self._on_refusal = on_refusal
        # Owner → what is left, and when that was so.
        self._left: dict[_Owner, tuple[float, float]] = {}
        self._limits: ExpiringMap[str, TenantLimits] = ExpiringMap(
            clock, max_entries=_MAX_TENANTS, ttl_s=_OVERRIDES_TTL_S, name="tenant_limits"
        )

    async def take(self, principal: Principal, amounts: Mapping[Measure, float]) -> None:
        """Counts what a call does. Raises RATE_LIMITED, with nothing counted, when it comes too early."""
        buckets = await self._buckets(principal, amounts)
        if (refused := self._longest_wait(buckets)) is not None:
            wait_s, (scope, *_, measure), rate = refused
            self._on_refusal(measure, scope)
            whose = "of this API key" if scope is Scope.KEY else "of this tenant"
            raise RunstoreError(
                ErrorReason.RATE_LIMITED,
                f"more than {rate:g} {measure} per second {whose}",
                retry_after_s=max(1, min(math.ceil(wait_s), _LONGEST_RETRY_S)),
            )
        self._spend(buckets, amounts)

    async def add(self, principal: Principal, amounts: Mapping[Measure, float]) -> None:
        """Counts what became known only after the call was let in."""
        self._spend(await self._buckets(principal, amounts), amounts)

    async def take_in_turn(self, principal: Principal, amounts: Mapping[Measure, float]) -> None:
        """As `take`, but returns once it is no longer too early: for streams, which can be slowed down."""
        while True:
            buckets = await self._buckets(principal, amounts)
            if (refused := self._longest_wait(buckets)) is None:
                self._spend(buckets, amounts)
                return
            await asyncio.sleep(min(max(refused[0], _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S))

    async def _buckets(self, principal: Principal, measures: Iterable[Measure]) -> list[tuple[_Owner, float]]:
        """The limited buckets that a call takes from, each with what flows into it in a second."""
        tenant_id = principal.tenant_id
        limits = await self.limits_of(tenant_id)
        found: list[tuple[_Owner, float]] = []
        for measure in measures:
            if rate := getattr(limits.key, measure):
                found.append(((Scope.KEY, tenant_id, principal.key_id or "", measure), rate))
            if rate := getattr(limits.tenant, measure):
                found.append(((Scope.TENANT, tenant_id, "", measure), rate))
        return found

    def forget(self, tenant_id: str) -> None:
        """The limits of a tenant have changed."""
        self._limits.forget(tenant_id)

    async def limits_of(self, tenant_id: str) -> TenantLimits:
        """What holds for a tenant, as it was at most three seconds ago; None where there is no limit."""
        limits = self._limits.get(tenant_id)
        if limits is None:
            ticket = self._limits.ticket()
            limits = (await self._overrides.of(tenant_id)).over(self._general)
            self._limits.put(tenant_id, limits, ticket)
        return limits

    def _longest_wait(self, buckets: list[tuple[_Owner, float]]) -> tuple[float, _Owner, float] | None:
        """Seconds until every bucket has something in it, and which is the last; None when all have now."""
        waits = [
            (-left / rate, owner, rate) for owner, rate in buckets if (left := self._now_in(owner, rate)) <= 0
        ]
        return max(waits, default=None)

    def _spend(self, buckets: list[tuple[_Owner, float]], amounts: Mapping[Measure, float]) -> None:
        now = self._clock.monotonic()
        for owner, rate in buckets:
            left = self._now_in(owner, rate) - amounts[owner[3]]
            self._left.pop(owner, None)  # So that the dict's order is that of the last use.
            if len(self._left) >= _MAX_BUCKETS:
                del self._left[next(iter(self._left))]
            self._left[owner] = (left, now)

    def _now_in(self, owner: _Owner, rate: float) -> float:
        full = max(rate, 1.0)
        left, since = self._left.get(owner, (full, 0.0))
        return min(full, left + (self._clock.monotonic() - since) * rate)
