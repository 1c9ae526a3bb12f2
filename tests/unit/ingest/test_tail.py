"""The flusher process without its process: a log, its tail, and the link to a store over a real socket."""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from tests.waiting import LONGEST_WAIT_S

from runstore.domain.deletions import PendingDeletions, RunDeletion
from runstore.domain.prices import PriceBook
from runstore.domain.runs import RunKey, RunMove, RunPatch, RunPlace, RunRow
from runstore.ingest import frames
from runstore.ingest.flusher import Flusher, FlushReport
from runstore.ingest.link import Drain, Durable, FlusherEnd, Hurry, StoreEnd
from runstore.ingest.log import Log, LogReader
from runstore.ingest.offload import Offload
from runstore.ingest.placement import Placer
from runstore.ingest.tail import Demand, FlushLimits, Tail
from runstore.storage.blobs import open_blob_store
from runstore.storage.run_store import Block, BlockRefused, StoreUnavailable

TENANT, PROJECT = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
FOREVER_MS = 3_600_000


class Blocks:
    """Blocks that are the names of their runs."""

    def __init__(self) -> None:
        self.stored_blocks: list[Block] = []
        self.discarded: list[Block] = []

    def build(self, rows: Sequence[RunRow]) -> Block:
        return Block(tuple((row.patch.name or "", row.patch.run_id) for row in rows), ())

    def stored(self, block: Block) -> None:
        self.stored_blocks.append(block)

    def discard(self, block: Block) -> None:
        self.discarded.append(block)


class Engine:
    """The methods of a store that need an engine, as the store process has them."""

    def __init__(self) -> None:
        self.names: list[list[str]] = []
        self.moves: list[RunMove] = []
        self.parked_patches: list[tuple[str, RunPatch]] = []
        self.buried: list[tuple[str, str]] = []
        self.failures: list[Exception] = []
        self.held = asyncio.Event()
        self.held.set()

    async def append(self, block: Block, moves: Sequence[RunMove]) -> None:
        await self.held.wait()
        if self.failures:
            raise self.failures.pop()
        names = [name for name, _ in block.files]
        if "poison" in names:
            raise BlockRefused("poison")
        self.names.append(names)
        self.moves += moves

    async def places(self, tenant_id: str, run_ids: Collection[str]) -> Mapping[str, RunPlace]:
        known = str(uuid.UUID(int=77, version=4))
        place = RunPlace(RunKey(PROJECT, 5, known), known, "", ())
        return {known: place} if known in run_ids else {}

    async def moved_runs(self) -> set[tuple[str, str]]:
        return {(TENANT, PROJECT)}

    async def awaited_runs(self) -> Mapping[tuple[str, str], int]:
        return {(TENANT, PROJECT): 2}

    async def park(self, patches: Sequence[tuple[str, RunPatch]]) -> None:
        self.parked_patches += patches

    async def parked(self, awaited: Collection[tuple[str, str]]) -> Sequence[tuple[str, RunPatch]]:
        return [each for each in self.parked_patches if (each[1].tenant_id, each[0]) in set(awaited)]

    async def unpark(self, patches: Sequence[tuple[str, RunPatch]]) -> None:
        gone = {patch.sequence for _, patch in patches}
        self.parked_patches = [each for each in self.parked_patches if each[1].sequence not in gone]

    async def delete(self, deletion: RunDeletion) -> list[str]:
        await self.held.wait()
        self.names.append([f"deletion {deletion.sequence}"])
        return list(deletion.run_ids)

    async def pending_deletions(self, tenant_id: str, run_ids: Collection[str]) -> PendingDeletions:
        return PendingDeletions(are_any=False, sequences={})

    async def bury(self, patches: Sequence[RunPatch], reason: str) -> None:
        self.buried += [(patch.name or "", reason) for patch in patches]


class Bench:
    """Both ends, with a log between them."""

    def __init__(self, folder: Path, limits: FlushLimits) -> None:
        self.engine = Engine()
        self.blocks = Blocks()
        self.reports: list[FlushReport] = []
        self.retries: list[str] = []
        self.changed = asyncio.Condition()
        methods = {
            name: getattr(self.engine, name)
            for name in (
                *("append", "places", "moved_runs", "park", "awaited_runs", "parked", "unpark", "bury"),
                *("delete", "pending_deletions"),
            )
        }
        self.store_end = StoreEnd(methods, on_stored=self._stored, on_retry=self._retrying)
        self.log = Log(
            folder,
            segment_bytes=500,
            max_bytes=1 << 20,
            on_durable=lambda end: self.store_end.send(Durable(end)),
        )
        self.log.start()
        self._folder, self._limits = folder, limits
        self.sequence = 0

    async def _stored(self, report: FlushReport) -> None:
        self.reports.append(report)
        self.log.trim(report.last_sequence)
        async with self.changed:
            self.changed.notify_all()

    async def _retrying(self, error: str) -> None:
        self.retries.append(error)

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        self.serving = asyncio.create_task(
            self.store_end.serve(ours, greeting=lambda: [Durable(self.log.end)])
        )
        self.end = await FlusherEnd.open(theirs, self.blocks)
        demand = Demand()
        self.following = asyncio.create_task(self.end.follow(demand))
        awaited = dict(await self.end.awaited_runs())
        assert awaited == {(TENANT, PROJECT): 2}
        placer = Placer(self.end, await self.end.moved_runs())
        offload = Offload(
            open_blob_store(str(self._folder / "blobs")), payload_bytes=1_000, attachment_bytes=100
        )
        flusher = Flusher(
            self.end, placer, PriceBook(), awaited, offload, self.end.purge_deleted, self.end.retrying
        )
        tail = Tail(LogReader(self._folder), demand, flusher, self._limits, self.end.stored)
        self.tailing = asyncio.create_task(tail.run())

    async def write(self, *names: str) -> int:
        """One batch of creations; its last sequence number."""
        patches = []
        for name in names:
            self.sequence += 1
            patches.append(
                RunPatch(
                    TENANT, str(uuid.UUID(int=self.sequence, version=4)), sequence=self.sequence, name=name,
                    is_create=True, run_type="llm", project_id=PROJECT, start_time_us=self.sequence,
                )
            )  # fmt: skip
        await self.log.append(msgspec.msgpack.encode(patches), self.sequence, lambda: None)
        return self.sequence

    async def delete(self, *run_ids: str) -> int:
        """A deletion; its sequence number."""
        self.sequence += 1
        deletion = RunDeletion(TENANT, self.sequence, run_ids)
        await self.log.append(frames.encode_alone(deletion), self.sequence, lambda: None)
        return self.sequence

    async def stored(self, sequence: int) -> None:
        """Return once everything up to this is reported as stored."""
        async with self.changed:
            await asyncio.wait_for(
                self.changed.wait_for(
                    lambda: bool(self.reports) and self.reports[-1].last_sequence >= sequence
                ),
                LONGEST_WAIT_S,
            )

    async def close(self) -> None:
        self.tailing.cancel()
        self.following.cancel()
        self.serving.cancel()
        await asyncio.gather(self.tailing, self.following, self.serving, return_exceptions=True)
        await self.log.close()


async def opened(folder: Path, **limits: int) -> Bench:
    settings = {"interval_ms": FOREVER_MS, "max_operations": 1_000, "max_bytes": 1 << 20, **limits}
    bench = Bench(folder, FlushLimits(**settings))
    await bench.start()
    return bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = await opened(tmp_path)
    yield bench
    await bench.close()


async def test_nothing_moves_until_somebody_waits(bench: Bench) -> None:
    """Operations gather, and one flush takes all that had gathered when a reader came."""
    await bench.write("a")
    last = await bench.write("b", "c")
    assert bench.reports == []
    bench.store_end.send(Hurry(last))
    await bench.stored(last)
    assert bench.engine.names == [["a", "b", "c"]]
    [report] = bench.reports
    assert (report.last_sequence, report.operations, report.runs) == (last, 3, 3)
    assert len(bench.blocks.stored_blocks) == 1


async def test_time_and_size_move_them_too(tmp_path: Path) -> None:
    """Without a reader a flush begins after the interval; a full batch does not wait for it."""
    bench = await opened(tmp_path, interval_ms=1)
    await bench.stored(await bench.write("a"))
    await bench.close()
    bench = await opened(tmp_path, max_bytes=1)
    bench.sequence = 1
    await bench.stored(await bench.write("b"))
    assert bench.engine.names == [["b"]]
    await bench.close()


async def test_flush_is_bounded(tmp_path: Path) -> None:
    """What is too much for one flush is stored by several, in order."""
    bench = await opened(tmp_path, max_operations=2)
    last = max([await bench.write(name) for name in ("a", "b", "c", "d", "e")])
    bench.store_end.send(Hurry(last))
    await bench.stored(last)
    assert bench.engine.names == [["a", "b"], ["c", "d"], ["e"]]
    await bench.close()


async def test_drain_stores_everything_and_ends(bench: Bench) -> None:
    """It ends by itself, once all that was durable is stored."""
    last = max([await bench.write(name) for name in ("a", "b", "c")])
    bench.store_end.send(Drain())
    await asyncio.wait_for(bench.tailing, LONGEST_WAIT_S)
    await bench.stored(last)
    assert not bench.log.has_unflushed


async def test_next_flusher_goes_on_behind_the_last_report(bench: Bench) -> None:
    """A flusher that is lost in mid-flush is replaced by one that stores the same operations."""
    last = await bench.write("a")
    bench.store_end.send(Hurry(last))
    await bench.stored(last)
    bench.engine.held.clear()
    last = await bench.write("b")
    bench.store_end.send(Hurry(last))
    await asyncio.sleep(0)
    bench.tailing.cancel()
    bench.following.cancel()
    await asyncio.gather(bench.tailing, bench.following, return_exceptions=True)
    bench.end._stream.close()
    bench.engine.held.set()
    await asyncio.wait_for(bench.serving, LONGEST_WAIT_S)
    await bench.start()
    bench.store_end.send(Hurry(last))
    await bench.stored(last)
    assert bench.engine.names[0] == ["a"]
    assert bench.engine.names[-1] == ["b"]


async def test_errors_of_the_store_keep_their_kind(bench: Bench) -> None:
    """An engine that is away is retried and told; a refused block is split; a defect is no refusal."""
    bench.engine.failures = [ZeroDivisionError("defect"), StoreUnavailable("away")]
    last = await bench.write("a", "poison", "b")
    bench.store_end.send(Hurry(last))
    await bench.stored(last)
    assert bench.retries == ["away", "ZeroDivisionError: defect"]
    assert sorted(name for names in bench.engine.names for name in names) == ["a", "b"]
    assert bench.engine.buried == [("poison", "poison")]
    assert bench.blocks.discarded
    assert bench.reports[-1].dead_letters == 1


async def test_parked_operations_travel(bench: Bench) -> None:
    """An update of an unknown run is parked and comes back with its run; one of a known run is placed."""
    bench.sequence = 3
    run_id, known = (str(uuid.UUID(int=number, version=4)) for number in (4, 77))
    updates = [RunPatch(TENANT, each, sequence=3, outputs=b"1") for each in (run_id, known)]
    await bench.log.append(msgspec.msgpack.encode(updates), 3, lambda: None)
    bench.store_end.send(Hurry(3))
    await bench.stored(3)
    assert [patch.run_id for _, patch in bench.engine.parked_patches] == [run_id]
    assert bench.engine.names == [[""]]
    last = await bench.write("a")
    bench.store_end.send(Hurry(last))
    await bench.stored(last)
    assert bench.engine.parked_patches == []
    assert bench.engine.names == [[""], ["a"], [""]]


async def test_deletion_comes_between_what_was_before_and_behind_it(bench: Bench) -> None:
    """However much gathers: all before is stored first, and nothing behind it sooner; each is reported."""
    await bench.write("a", "b")
    first = await bench.delete("x")
    second = await bench.delete("y")
    await bench.write("c")
    third = await bench.delete("z")
    bench.store_end.send(Hurry(third))
    await bench.stored(third)
    stored = [["a", "b"], [f"deletion {first}"], [f"deletion {second}"], ["c"], [f"deletion {third}"]]
    assert bench.engine.names == stored
    assert [report.last_sequence for report in bench.reports] == [2, first, second, 5, third]
    assert [report.operations for report in bench.reports] == [2, 1, 1, 1, 1]


async def test_deletion_is_repeated_by_the_next_flusher(bench: Bench) -> None:
    """One that was not reported is carried out again."""
    bench.engine.held.clear()
    last = await bench.delete("x")
    bench.store_end.send(Hurry(last))
    await asyncio.sleep(0)
    bench.tailing.cancel()
    bench.following.cancel()
    await asyncio.gather(bench.tailing, bench.following, return_exceptions=True)
    bench.end._stream.close()
    bench.engine.held.set()
    await asyncio.wait_for(bench.serving, LONGEST_WAIT_S)
    await bench.start()
    bench.store_end.send(Hurry(last))
    await bench.stored(last)
    assert bench.engine.names[-1] == [f"deletion {last}"]
    assert not bench.log.has_unflushed
