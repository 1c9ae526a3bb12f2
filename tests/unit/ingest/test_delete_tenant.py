"""The end of a tenant, step by step: begun at once, repeated until nothing can come, safe to be cut short."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.manual_clock import ManualClock

from runstore.domain.principals import TenantDeletion
from runstore.ingest.delete_tenant import SETTLE_S, DeleteTenants
from runstore.ingest.sequence import sequence_at
from runstore.storage.run_store import StoreUnavailable

TENANT, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
EVERYTHING = 2**64 - 1


class Died(Exception):
    """The process was killed."""


class World:
    """What a tenant has in catalog, engine, blobs and checkpoints; every call may be the last."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.known: dict[str, TenantDeletion] = {}
        self.tenants = {TENANT, OTHER}
        self.rows, self.engine_rows, self.blobs = {TENANT: 3}, {TENANT: 5}, {TENANT: 2}
        self.thread_ids = [str(number) for number in range(3)]
        self.checkpoints = set(self.thread_ids)
        self.stored = EVERYTHING
        self.shut: list[str] = []
        self.calls_left = 10_000
        self.backup = False

    def process(self) -> DeleteTenants:
        """One that has just started."""
        return DeleteTenants(
            self,
            Engine(self),
            self,
            self.delete_checkpoints,
            self,
            self,
            self.clock,
            on_shut=self.shut.append,
        )

    def step(self) -> None:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise Died

    async def begin(self, tenant_id: str, name: str) -> TenantDeletion:
        self.step()
        deletion = TenantDeletion(tenant_id=tenant_id, name=name, deleted_at_us=self.clock.now_us())
        return self.known.setdefault(tenant_id, deletion)

    async def pending(self) -> list[TenantDeletion]:
        return list(self.known.values())

    async def note(self, tenant_id: str, *, rows: int = 0, blobs: int = 0, waits_for: str) -> None:
        self.step()
        if (known := self.known.get(tenant_id)) is not None:
            self.known[tenant_id] = replace(
                known, rows=known.rows + rows, blobs=known.blobs + blobs, waits_for=waits_for
            )

    async def purge(self, tenant_id: str) -> int:
        self.step()
        return self.rows.pop(tenant_id, 0)

    async def delete_tenant(self, tenant_id: str) -> int:
        self.step()
        if self.backup:
            raise StoreUnavailable("a backup")
        return self.blobs.pop(tenant_id, 0)

    async def threads(self, tenant_id: str, limit: int) -> list[str]:
        return self.thread_ids[:1]

    async def forget_threads(self, thread_ids: Sequence[str]) -> None:
        self.step()
        assert self.checkpoints.isdisjoint(thread_ids)
        self.thread_ids = [each for each in self.thread_ids if each not in thread_ids]

    async def delete_checkpoints(self, thread_ids: Sequence[str]) -> None:
        self.step()
        self.checkpoints -= set(thread_ids)

    async def finish(self, tenant_id: str) -> bool:
        self.step()
        if tenant_id in self.rows or self.thread_ids:
            return False
        self.known.pop(tenant_id, None)
        self.tenants.discard(tenant_id)
        return True

    async def see_sequence(self, sequence: int) -> None: ...

    async def stored_everywhere(self) -> int:
        return self.stored

    async def take(self, name: str, seconds: float) -> bool:
        return True

    async def give_back(self, name: str) -> None: ...

    @property
    def waits_for(self) -> str:
        return self.known[TENANT].waits_for


class Engine:
    """The rows of runs."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def purge(self, tenant_id: str) -> int:
        self._world.step()
        return self._world.engine_rows.pop(tenant_id, 0)


async def test_waits_until_nothing_can_come() -> None:
    """Calls under way, logs of other stores, a backup: the tenant is forgotten after all of them."""
    world = World()
    process = world.process()
    await process.delete(TENANT, "research")
    assert world.shut == [TENANT]
    await world.process().purge()  # Another store, which has to end the tenant's streams, too.
    assert world.shut == [TENANT] * 2
    assert (world.known[TENANT].rows, world.known[TENANT].blobs) == (8, 2)
    assert "under way" in world.waits_for
    world.engine_rows[TENANT] = 7  # Of a call that was under way.
    world.clock.advance(SETTLE_S)
    world.stored = sequence_at(world.clock.now_us()) - 1
    await process.purge()
    assert "store that is away" in world.waits_for
    assert len(world.checkpoints) == 3
    world.stored = sequence_at(world.clock.now_us())
    world.backup = True
    await process.purge()
    assert "a backup" in world.waits_for
    world.backup = False
    await process.purge()
    assert world.tenants == {OTHER}
    assert (world.rows, world.engine_rows, world.blobs, world.checkpoints) == ({}, {}, {}, set())
    await process.purge()


async def test_rows_that_come_during_the_last_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tenant for another one."""
    world = World()
    await world.process().delete(TENANT, "research")
    world.clock.advance(SETTLE_S)
    deleted = world.delete_checkpoints

    async def late(thread_ids: Sequence[str]) -> None:
        await deleted(thread_ids)
        world.rows[TENANT] = 1

    monkeypatch.setattr(world, "delete_checkpoints", late)
    await world.process().purge()
    assert "meanwhile" in world.waits_for
    await world.process().purge()
    assert world.tenants == {OTHER}


@pytest.mark.parametrize("calls", range(13))
async def test_cut_short_anywhere(calls: int) -> None:
    """The next process ends what was begun; what was not begun is asked for again."""
    world = World()
    world.calls_left = calls
    try:
        await world.process().delete(TENANT, "research")
        world.clock.advance(SETTLE_S)
        await world.process().purge()
    except Died:
        pass
    world.calls_left = 10_000
    if TENANT in world.tenants:
        await world.process().delete(TENANT, "research")
    world.clock.advance(SETTLE_S)
    for _ in range(2):
        await world.process().purge()
    assert world.tenants == {OTHER}
    assert (world.rows, world.engine_rows, world.blobs, world.checkpoints) == ({}, {}, {}, set())
