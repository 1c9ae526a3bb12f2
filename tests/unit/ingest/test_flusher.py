"""The flusher on a store in memory: what waits, what is retried, what is buried, who is woken."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

import pytest

from runstore.domain.prices import PriceBook
from runstore.domain.runs import RunKey, RunMove, RunPatch, RunPlace, RunRow
from runstore.ingest.flusher import Flusher, FlushLimits, merge_by_run
from runstore.ingest.placement import Placer
from runstore.storage.run_store import BlockRefused, StoreUnavailable

TENANT, PROJECT = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
PRICES = PriceBook()


class FakeStore:
    """Keeps rows in a list; can be away, and refuses runs named `poison`."""

    def __init__(self) -> None:
        self.rows: list[RunRow] = []
        self.buried: list[tuple[str, str]] = []
        self.parked_patches: list[tuple[str, RunPatch]] = []
        self.is_away = False
        self.attempts = 0
        self.defect: type[Exception] = BlockRefused
        self.attempted = asyncio.Event()

    async def append(self, rows: Sequence[RunRow], moves: Sequence[RunMove], /) -> None:
        self.attempts += 1
        self.attempted.set()
        if self.is_away:
            raise StoreUnavailable("away")
        if any(row.patch.name == "poison" for row in rows):
            raise self.defect("poison")
        self.rows += rows

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]:
        return {
            row.patch.run_id: row.place
            for row in self.rows
            if row.patch.tenant_id == tenant_id and row.patch.run_id in run_ids
        }

    async def park(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        self.parked_patches += patches

    async def parked(self, awaited: Collection[tuple[str, str]], /) -> Sequence[tuple[str, RunPatch]]:
        return [each for each in self.parked_patches if (each[1].tenant_id, each[0]) in awaited]

    async def unpark(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        gone = {(awaited, patch.run_id, patch.sequence) for awaited, patch in patches}
        self.parked_patches = [
            each for each in self.parked_patches if (each[0], each[1].run_id, each[1].sequence) not in gone
        ]

    async def bury(self, patches: Sequence[RunPatch], reason: str, /) -> None:
        self.buried += [(patch.run_id, reason) for patch in patches]


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
async def flusher(store: FakeStore) -> AsyncIterator[Flusher]:
    flusher = Flusher(
        store,  # type: ignore[arg-type]  # as much of a store as a flusher uses
        Placer(store),  # type: ignore[arg-type]
        PRICES,
        FlushLimits(interval_ms=60_000, max_runs=100, max_bytes=1 << 20),
        {},
        lambda _: None,
    )
    flusher.start()
    yield flusher
    await flusher.abandon()


def create(sequence: int, name: str = "n", project_id: str = PROJECT) -> RunPatch:
    return RunPatch(
        TENANT, str(uuid.UUID(int=sequence, version=4)), sequence=sequence, is_create=True, name=name,
        run_type="llm", project_id=project_id, start_time_us=sequence,
    )  # fmt: skip


async def test_engine_away_and_back(flusher: Flusher, store: FakeStore) -> None:
    """What cannot be stored waits; readers wait with it; it is stored when the engine is back."""
    store.is_away = True
    flusher.submit([create(1)])
    reader = asyncio.create_task(flusher.see_writes(TENANT))
    await store.attempted.wait()
    assert not reader.done()
    store.is_away = False
    await asyncio.wait_for(reader, 10)
    assert [row.patch.sequence for row in store.rows] == [1]
    assert store.attempts > 1


@pytest.mark.parametrize("defect", [BlockRefused, ZeroDivisionError])
async def test_poison_is_buried_alone(flusher: Flusher, store: FakeStore, defect: type[Exception]) -> None:
    """Of a refused block every neighbour is stored; the operations at fault become dead letters."""
    store.defect = defect
    patches = [create(number, "poison" if number in (3, 40) else "n") for number in range(1, 51)]
    flusher.submit(patches)
    await asyncio.wait_for(flusher.see_sequence(50), 10)
    assert {run_id for run_id, _ in store.buried} == {patches[2].run_id, patches[39].run_id}
    assert len(store.rows) == 48
    flusher.submit([create(51)])
    await asyncio.wait_for(flusher.see_sequence(51), 10)


async def test_path_that_is_too_deep_stops_nobody(flusher: Flusher, store: FakeStore) -> None:
    """A run whose ancestors are more than a dotted order holds is buried; others go on."""
    root = create(1)
    flusher.submit([root])
    await asyncio.wait_for(flusher.see_sequence(1), 10)
    order = ".".join(["20261120T120000000000Z" + root.run_id] * 1_000)
    key = RunKey(PROJECT, 1, root.run_id)
    store.rows[0] = RunRow(root, RunPlace(key, root.run_id, order, ()), store.rows[0].facts)
    flusher._placer._recent.clear()
    child = create(2)
    child.parent_run_id = root.run_id
    flusher.submit([child, create(3)])
    await asyncio.wait_for(flusher.see_sequence(3), 10)
    assert [run_id for run_id, _ in store.buried] == [child.run_id]
    assert [row.patch.sequence for row in store.rows] == [1, 3]


async def test_readers_wait_for_their_projects_alone(flusher: Flusher, store: FakeStore) -> None:
    """Writes of another project or tenant keep nobody waiting; those without a project concern all."""
    store.is_away = True
    flusher.submit([create(1)])
    other = str(uuid.UUID(int=9))
    await asyncio.wait_for(flusher.see_writes(TENANT, [other]), 10)
    await asyncio.wait_for(flusher.see_writes(other), 10)
    update = RunPatch(TENANT, create(1).run_id, sequence=2, outputs=b"1")
    flusher.submit([update])
    reader = asyncio.create_task(flusher.see_writes(TENANT, [other]))
    await store.attempted.wait()
    assert not reader.done()
    store.is_away = False
    await asyncio.wait_for(reader, 10)


async def test_numbers_that_never_came_keep_nobody_waiting(flusher: Flusher) -> None:
    """A token of an earlier process, or of a write that failed, waits for what there is."""
    await asyncio.wait_for(flusher.see_sequence(1 << 60), 10)
    flusher.submit([create(1)])
    await asyncio.wait_for(flusher.see_sequence(1 << 60), 10)
    assert flusher.waiting_bytes == 0


async def test_room_returns_when_the_engine_does(flusher: Flusher, store: FakeStore) -> None:
    """Memory counts until operations are stored; whoever waits for room is woken then."""
    store.is_away = True
    flusher.submit([create(1)])
    assert flusher.waiting_bytes > 0
    waiter = asyncio.create_task(flusher.wait_for_room(1))
    reader = asyncio.create_task(flusher.see_sequence(1))
    await store.attempted.wait()
    assert not waiter.done()
    store.is_away = False
    await asyncio.wait_for(asyncio.gather(waiter, reader), 10)
    assert flusher.waiting_bytes == 0


async def test_parked_updates_keep_their_place_in_the_order(flusher: Flusher, store: FakeStore) -> None:
    """Updates of an unknown run wait, each is forgotten once its run has come, and they stay older."""
    run_id = create(3).run_id
    for sequence in (1, 2):
        flusher.submit([RunPatch(TENANT, run_id, sequence=sequence, outputs=str(sequence).encode())])
        await asyncio.wait_for(flusher.see_sequence(sequence), 10)
    assert len(store.parked_patches) == 2
    flusher.submit([create(3)])
    await asyncio.wait_for(flusher.see_sequence(3), 10)
    assert store.parked_patches == []
    assert [(row.patch.sequence, row.patch.outputs) for row in store.rows] == [(3, None), (2, b"2")]


async def test_close_stores_what_waits(flusher: Flusher, store: FakeStore) -> None:
    """Closing does not wait for the interval, and leaves nothing behind."""
    flusher.submit([create(number) for number in range(1, 251)])
    await asyncio.wait_for(flusher.close(), 10)
    assert len(store.rows) == 250


def test_merge_by_run_keeps_the_order() -> None:
    """One patch per run, with the later's fields; runs in the order in which they first came."""
    first, second = create(1), create(2)
    update = RunPatch(TENANT, first.run_id, sequence=3, name="later", outputs=b"1")
    merged = merge_by_run([first, second, update])
    assert [(patch.sequence, patch.name) for patch in merged] == [(3, "later"), (2, "n")]
    assert merged[0].is_create
