"""Token buckets: averages hold, batches are never too large, keys and tenants are counted apart."""

from collections import Counter
from types import SimpleNamespace

import pytest
from tests.manual_clock import ManualClock

from runstore.domain import rate_limits
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import Principal
from runstore.domain.rate_limits import Measure, RateLimiter, RateLimits, Scope, TenantLimits

ALICE = Principal("tenant-1", "alice")
BOB = Principal("tenant-1", "bob")
CAROL = Principal("tenant-2", "carol")


class Overrides(dict[str, TenantLimits]):
    """Limits of single tenants; counts how often it is asked."""

    asked = 0

    async def of(self, tenant_id: str) -> TenantLimits:
        self.asked += 1
        return self.get(tenant_id, TenantLimits())


class Limited:
    """A limiter, its clock and what it has refused."""

    def __init__(self, **limits: RateLimits) -> None:
        self.clock = ManualClock()
        self.overrides = Overrides()
        self.refused: Counter[tuple[Measure, Scope]] = Counter()
        self.limiter = RateLimiter(
            TenantLimits(**limits), self.overrides, self.clock, lambda *what: self.refused.update([what])
        )

    async def takes(self, principal: Principal, **amounts: float) -> int:
        """Seconds to wait that a refusal names; 0 when the call is let in."""
        try:
            await self.limiter.take(principal, {Measure(name): amount for name, amount in amounts.items()})
        except RunstoreError as error:
            return error.retry_after_s if error.reason is ErrorReason.RATE_LIMITED else -1
        return 0


async def test_an_average_holds() -> None:
    """A client that sends as fast as it is let in gets through what the limit says, and a second's more."""
    limited = Limited(key=RateLimits(runs=100))
    done = 0
    for _ in range(600):
        if not await limited.takes(ALICE, runs=30):
            done += 30
        limited.clock.advance(0.1)
    assert 60 * 100 <= done <= 62 * 100


async def test_a_batch_is_never_too_large() -> None:
    """What is above the limit of a second is let in, and waited for afterwards."""
    limited = Limited(tenant=RateLimits(bytes=1_000))
    assert await limited.takes(ALICE, bytes=21_000) == 0
    assert await limited.takes(ALICE, bytes=1) == 20
    limited.clock.advance(19.5)
    assert await limited.takes(ALICE, bytes=1) == 1
    limited.clock.advance(1)
    assert await limited.takes(ALICE, bytes=1) == 0


async def test_a_key_of_an_organisation_in_each_of_its_tenants() -> None:
    """What it does in one, where it may do much, is not held against it in another."""
    limited = Limited()
    limited.overrides["tenant-1"] = TenantLimits(key=RateLimits(runs=1_000))
    limited.overrides["tenant-2"] = TenantLimits(key=RateLimits(runs=1))
    there, here = Principal("tenant-1", "key"), Principal("tenant-2", "key")
    assert await limited.takes(there, runs=10_000) == 0
    assert await limited.takes(there, runs=1) == 9
    assert await limited.takes(here, runs=1) == 0
    assert await limited.takes(here, runs=1) == 1


async def test_the_longest_wait_that_is_told() -> None:
    """Nobody is told to come back tomorrow."""
    limited = Limited(key=RateLimits(bytes=1))
    await limited.takes(ALICE, bytes=1_000_000)
    assert await limited.takes(ALICE, bytes=1) == 60


async def test_keys_are_counted_apart_and_tenants_together() -> None:
    """One key's load is its own; the tenant's limit is that of all its keys, and of no other tenant's."""
    limited = Limited(key=RateLimits(queries=5), tenant=RateLimits(queries=8))
    assert [await limited.takes(ALICE, queries=1) for _ in range(6)] == [0] * 5 + [1]
    assert limited.refused == {(Measure.QUERIES, Scope.KEY): 1}
    assert [await limited.takes(BOB, queries=1) for _ in range(4)] == [0] * 3 + [1]
    assert limited.refused[Measure.QUERIES, Scope.TENANT] == 1
    assert await limited.takes(CAROL, queries=1) == 0


async def test_a_refusal_costs_nothing() -> None:
    """Whoever is refused for one measure has taken nothing of the others."""
    limited = Limited(key=RateLimits(runs=1_000, bytes=10))
    await limited.takes(ALICE, runs=1, bytes=100)
    for _ in range(50):
        assert await limited.takes(ALICE, runs=1_000, bytes=0) > 0
    limited.clock.advance(10)
    assert await limited.takes(ALICE, runs=1_000, bytes=1) == 0


async def test_limits_of_one_tenant() -> None:
    """They replace the general ones where they say something; 0 lifts one; changes hold within seconds."""
    limited = Limited(key=RateLimits(runs=10), tenant=RateLimits(queries=1))
    limited.overrides["tenant-1"] = TenantLimits(key=RateLimits(runs=0))
    for _ in range(100):
        assert await limited.takes(ALICE, runs=100) == 0
    assert [await limited.takes(ALICE, queries=1) for _ in range(2)] == [0, 1]
    assert [await limited.takes(CAROL, runs=100) for _ in range(2)] == [0, 9]
    asked = limited.overrides.asked
    limited.overrides["tenant-1"] = TenantLimits(key=RateLimits(runs=5))
    await limited.takes(ALICE, runs=100)
    assert limited.overrides.asked == asked
    limited.clock.advance(3.1)
    await limited.takes(ALICE, runs=100)
    assert await limited.takes(ALICE, runs=1) > 0


async def test_streams_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be slowed down is not refused: it goes on once there is something left."""
    limited = Limited(key=RateLimits(runs=10))
    await limited.takes(ALICE, runs=30)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        limited.clock.advance(seconds + 0.001)

    # Not of the whole process: others have event loops in it.
    monkeypatch.setattr(rate_limits, "asyncio", SimpleNamespace(sleep=sleep))
    await limited.limiter.take_in_turn(ALICE, {Measure.RUNS: 1})
    assert sum(slept) == pytest.approx(2, abs=0.01)
    assert not limited.refused


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more callers than there is room for, those that were not seen for longest are forgotten."""
    monkeypatch.setattr(rate_limits, "_MAX_BUCKETS", 10)
    limited = Limited(key=RateLimits(runs=1))
    for number in range(100):
        await limited.takes(Principal("tenant", str(number)), runs=5)
        await limited.takes(ALICE, runs=0.5)
    assert len(limited.limiter._left) == 10
    assert await limited.takes(Principal("tenant", "99"), runs=1) > 0
    assert await limited.takes(Principal("tenant", "1"), runs=1) == 0
