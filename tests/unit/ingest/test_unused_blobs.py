"""Blobs that no row refers to are deleted, a day after they were noted and not before."""

import time
from collections.abc import Collection
from pathlib import Path

import pytest

from runstore.ingest.peers import EVERYTHING
from runstore.ingest.sequence import sequence_at
from runstore.ingest.unused_blobs import SUSPECT_AGE_S, UnusedBlobs
from runstore.storage.blobs import BlobStore, open_blob_store
from runstore.storage.run_store import StoreUnavailable


class FakeRows:
    def __init__(self) -> None:
        self.used: set[str] = set()
        self.waited = 0
        self.stored_sequence = EVERYTHING

    async def blobs_in_use(self, tenant_id: str, keys: Collection[str], /) -> set[str]:
        assert self.waited
        return {key for key in keys if key in self.used and key.startswith(tenant_id)}

    async def see_sequence(self, sequence: int) -> None:
        self.waited += 1

    async def stored_everywhere(self) -> int:
        return self.stored_sequence


class FakeClock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_us(self) -> int:
        return time.time_ns() // 1_000 + int(self.ahead_s * 1e6)

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return open_blob_store(str(tmp_path))


async def keys(blobs: BlobStore, prefix: str) -> list[str]:
    return sorted([key async for key, _ in blobs.list(prefix)])


async def test_swept_a_day_later_unless_in_use(blobs: BlobStore) -> None:
    """Of two tenants' uploads, those that no operation named go; the notes of all go."""
    rows, clock = FakeRows(), FakeClock()
    unused = UnusedBlobs(blobs, rows, rows, clock)
    for key in ("t1/aa/used", "t1/bb/unused", "t2/aa/unused"):
        await unused.suspect(key.partition("/")[0], [key])
        await blobs.put(key, b"x")
    await unused.suspect("t2", ["t2/aa/never-put"])
    rows.used = {"t1/aa/used"}
    clock.ahead_s = SUSPECT_AGE_S - 60
    assert await unused.sweep() == 0
    assert len(await keys(blobs, "notes")) == 4
    clock.ahead_s = SUSPECT_AGE_S + 60
    assert await unused.sweep() == 3
    assert await keys(blobs, "notes") == []
    assert [await keys(blobs, tenant) for tenant in ("t1", "t2")] == [["t1/aa/used"], []]


async def test_log_of_a_store_that_is_away_may_name_blobs(blobs: BlobStore) -> None:
    """Nothing is deleted until it has come back and stored what it had acknowledged."""
    rows, clock = FakeRows(), FakeClock()
    unused = UnusedBlobs(blobs, rows, rows, clock)
    await unused.suspect("t", ["t/aa/x"])
    await blobs.put("t/aa/x", b"x")
    clock.ahead_s = SUSPECT_AGE_S + 60
    rows.stored_sequence = sequence_at(time.time_ns() // 1_000)
    with pytest.raises(StoreUnavailable):
        await unused.sweep()
    assert await keys(blobs, "t") == ["t/aa/x"]
    rows.stored_sequence = sequence_at(clock.now_us())
    assert await unused.sweep() == 1


async def test_deletion_cut_short_is_completed(blobs: BlobStore) -> None:
    """A process that dies between the rows and the blobs of a project leaves its note to the sweep."""
    rows, clock = FakeRows(), FakeClock()
    condemned = [f"t/aa/{number}" for number in range(3)]
    for key in condemned:
        await blobs.put(key, b"x")
    await UnusedBlobs(blobs, rows, rows, clock).suspect("t", condemned)
    clock.ahead_s = SUSPECT_AGE_S + 60
    assert await UnusedBlobs(blobs, rows, rows, clock).sweep() == 3
    assert await keys(blobs, "t") == []


async def test_nothing_is_deleted_while_held(blobs: BlobStore) -> None:
    """Not even what is known to be unused; a hold that a crash has left ends by itself."""
    rows, clock = FakeRows(), FakeClock()
    unused, other_store = (UnusedBlobs(blobs, rows, rows, clock) for _ in range(2))
    for key in ("t/aa/1", "t/aa/2"):
        await blobs.put(key, b"x")
    note = await unused.suspect("t", ["t/aa/1"])
    other = await unused.suspect("t", ["t/aa/2"])
    await blobs.put("holds/left-by-a-crash", b"")
    async with unused.held():
        await other_store.delete(other, ["t/aa/2"])
        assert await keys(blobs, "t") == ["t/aa/1", "t/aa/2"]
    assert await keys(blobs, "holds") == ["holds/left-by-a-crash"]
    clock.ahead_s = SUSPECT_AGE_S + 60
    assert await other_store.sweep() == 2
    assert note not in await keys(blobs, "notes")
