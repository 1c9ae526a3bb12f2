"""The flusher on a store in memory: what is retried, what is buried, what waits for another run."""

import asyncio
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest
from tests.waiting import LONGEST_WAIT_S

from runstore.domain.blob_refs import BlobRef, pack, unpack
from runstore.domain.deletions import PendingDeletions, RunDeletion
from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.prices import PriceBook
from runstore.domain.runs import Attachment, RunMove, RunPatch, RunPlace, RunRow
from runstore.ingest.flusher import Flusher, FlushReport, merge_by_run
from runstore.ingest.offload import Offload
from runstore.ingest.placement import Placer
from runstore.storage.blobs import BlobStore, open_blob_store
from runstore.storage.run_store import Block, BlockRefused, StoreUnavailable

TENANT, PROJECT = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
PRICES = PriceBook()


class FakeStore:
    """Keeps rows in a list; can be away, and refuses runs named `poison`, and builds no blocks of any
    named `unholdable`."""

    def __init__(self) -> None:
        self.rows: list[RunRow] = []
        self.moves: list[RunMove] = []
        self.built: list[list[RunRow]] = []
        self.buried: list[tuple[str, str]] = []
        self.parked_patches: list[tuple[str, RunPatch]] = []
        self.is_away = False
        self.attempts = 0
        self.defect: type[Exception] = BlockRefused
        self.attempted = asyncio.Event()
        self.is_full = False
        self.feedback: list[str] = []
        self.deleted: dict[str, int] = {}
        self.asked_for_deletions = 0

    def block(self, rows: Sequence[RunRow], /) -> Block:
        if self.is_full:
            self.attempted.set()
            raise StoreUnavailable("no space left")
        if any(row.patch.name == "unholdable" for row in rows):
            raise BlockRefused("unholdable")
        self.built.append(list(rows))
        return Block(((str(len(self.built) - 1), ""),), ())

    async def append(self, block: Block, moves: Sequence[RunMove], /) -> None:
        rows = self.built[int(block.files[0][0])]
        self.attempts += 1
        self.attempted.set()
        if self.is_away:
            raise StoreUnavailable("away")
        if any(row.patch.name == "poison" for row in rows):
            raise self.defect("poison")
        self.rows += rows
        self.moves += moves

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]:
        return {
            row.patch.run_id: row.place
            for row in self.rows
            if row.patch.tenant_id == tenant_id and row.patch.run_id in run_ids
        }

    async def delete(self, deletion: RunDeletion, /) -> list[str]:
        self.deleted |= dict.fromkeys(deletion.run_ids, deletion.sequence)
        return list(deletion.run_ids)

    async def pending_deletions(self, tenant_id: str, run_ids: Collection[str], /) -> PendingDeletions:
        self.asked_for_deletions += 1
        return PendingDeletions(
            bool(self.deleted), {key: self.deleted[key] for key in set(run_ids) & self.deleted.keys()}
        )

    async def purge_deleted(self) -> None:
        self.rows = [row for row in self.rows if row.patch.sequence > self.deleted.get(row.patch.run_id, 0)]
        self.deleted.clear()

    async def park(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        self.parked_patches += patches

    async def parked(self, awaited: Collection[tuple[str, str]], /) -> Sequence[tuple[str, RunPatch]]:
        return [each for each in self.parked_patches if (each[1].tenant_id, each[0]) in awaited]

    async def unpark(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        gone = {(awaited, patch.run_id, patch.sequence) for awaited, patch in patches}
        self.parked_patches = [
            each for each in self.parked_patches if (each[0], each[1].run_id, each[1].sequence) not in gone
        ]

    async def append_feedback(self, patches: Sequence[FeedbackPatch], /) -> None:
        self.attempted.set()
        if self.is_away:
            raise StoreUnavailable("away")
        if any(patch.key == "poison" for patch in patches):
            raise self.defect("poison")
        self.feedback += [patch.feedback_id for patch in patches]

    async def bury_feedback(self, patches: Sequence[FeedbackPatch], reason: str, /) -> None:
        self.buried += [(patch.feedback_id, reason) for patch in patches]

    async def bury(self, patches: Sequence[RunPatch], reason: str, /) -> None:
        self.buried += [(patch.run_id, reason) for patch in patches]


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def retries() -> list[str]:
    return []


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return open_blob_store(str(tmp_path / "blobs"))


@pytest.fixture
def flusher(store: FakeStore, retries: list[str], blobs: BlobStore) -> Flusher:
    offload = Offload(blobs, payload_bytes=1_000, attachment_bytes=100)
    # As much of a store as a flusher uses.
    return Flusher(store, Placer(store), PRICES, {}, offload, store.purge_deleted, retries.append)  # type: ignore[arg-type]


def create(
    sequence: int, name: str = "n", project_id: str = PROJECT, start_us: int | None = None
) -> RunPatch:
    return RunPatch(
        TENANT, str(uuid.UUID(int=sequence, version=4)), sequence=sequence, is_create=True, name=name,
        run_type="llm", project_id=project_id, start_time_us=sequence if start_us is None else start_us,
    )  # fmt: skip


async def flush(flusher: Flusher, *patches: RunPatch) -> FlushReport:
    report = FlushReport(patches[-1].sequence, len(patches))
    return await flusher.insert(await flusher.prepare(list(patches), report))


async def test_engine_away_and_back(flusher: Flusher, store: FakeStore, retries: list[str]) -> None:
    """What cannot be stored is tried again until the engine is back, and the reason is told."""
    store.is_away = True
    flushing = asyncio.create_task(flush(flusher, create(1)))
    await store.attempted.wait()
    assert not flushing.done()
    store.is_away = False
    report = await asyncio.wait_for(flushing, LONGEST_WAIT_S)
    assert [row.patch.sequence for row in store.rows] == [1]
    assert store.attempts > 1
    assert set(retries) == {"away"}
    assert (report.last_sequence, report.runs, report.dead_letters) == (1, 1, 0)


async def test_full_disk_is_waited_out(flusher: Flusher, store: FakeStore, retries: list[str]) -> None:
    """Blocks that cannot be written are no fault of their rows: nothing is buried."""
    store.is_full = True
    flushing = asyncio.create_task(flush(flusher, create(1), create(2)))
    await store.attempted.wait()
    store.is_full = False
    report = await asyncio.wait_for(flushing, LONGEST_WAIT_S)
    assert [row.patch.sequence for row in store.rows] == [1, 2]
    assert (report.dead_letters, set(retries) <= {"no space left"}) == (0, True)


@pytest.mark.parametrize("name", ["poison", "unholdable"])
@pytest.mark.parametrize("defect", [BlockRefused, ZeroDivisionError])
async def test_poison_is_buried_alone(
    flusher: Flusher, store: FakeStore, defect: type[Exception], name: str
) -> None:
    """Of a refused block every neighbour is stored; the operations at fault become dead letters."""
    store.defect = defect
    patches = [create(number, name if number in (3, 40) else "n") for number in range(1, 51)]
    report = await flush(flusher, *patches)
    assert {run_id for run_id, _ in store.buried} == {patches[2].run_id, patches[39].run_id}
    assert len(store.rows) == 48
    assert report.dead_letters == 2
    await flush(flusher, create(51))
    assert len(store.rows) == 49


async def test_moves_go_with_their_rows(flusher: Flusher, store: FakeStore) -> None:
    """When a block is stored in parts, each run is moved once, with the part that has its row."""
    await flush(flusher, *(create(number) for number in range(1, 9)))
    moved = [create(number, start_us=1_000 + number) for number in range(1, 9)]
    moved[4].name = "poison"
    await flush(flusher, *moved)
    expected = {patch.run_id for patch in moved} - {moved[4].run_id}
    assert sorted(move.run_id for move in store.moves) == sorted(expected)


async def test_patch_without_a_place_is_buried(flusher: Flusher, store: FakeStore) -> None:
    """Placing refuses a path that is too deep; it is kept with the reason."""
    root = create(1)
    await flush(flusher, root)
    order = ".".join(["20261120T120000000000Z" + root.run_id] * 1_000)
    place = store.rows[0].place
    flusher._placer._recent.clear()
    store.rows[0] = RunRow(root, RunPlace(place.key, root.run_id, order, ()), store.rows[0].facts)
    child = create(2)
    child.parent_run_id = root.run_id
    await flush(flusher, child, create(3))
    assert [run_id for run_id, _ in store.buried] == [child.run_id]
    assert [row.patch.sequence for row in store.rows] == [1, 3]


async def test_parked_updates_keep_their_place_in_the_order(flusher: Flusher, store: FakeStore) -> None:
    """Updates of an unknown run wait, each is forgotten once its run has come, and they stay older."""
    run_id = create(3).run_id
    for sequence in (1, 2):
        patch = RunPatch(TENANT, run_id, sequence=sequence, outputs=str(sequence).encode())
        assert (await flush(flusher, patch)).parked == 1
    assert len(store.parked_patches) == 2
    await flush(flusher, create(3))
    assert store.parked_patches == []
    assert [(row.patch.sequence, row.patch.outputs) for row in store.rows] == [(3, None), (2, b"2")]


async def test_next_batch_can_be_prepared_meanwhile(flusher: Flusher, store: FakeStore) -> None:
    """A batch that was prepared before the one ahead of it was inserted is stored behind it."""
    first = await flusher.prepare([create(1)], FlushReport(1, 1))
    update = RunPatch(TENANT, create(1).run_id, sequence=2, outputs=b"1")
    second = await flusher.prepare([update], FlushReport(2, 1))
    assert second.placement.parked == []
    await flusher.insert(first)
    await flusher.insert(second)
    assert [row.patch.sequence for row in store.rows] == [1, 2]


def test_merge_by_run_keeps_the_order() -> None:
    """One patch per run, with the later's fields; runs in the order in which they first came."""
    first, second = create(1), create(2)
    update = RunPatch(TENANT, first.run_id, sequence=3, name="later", outputs=b"1")
    merged = merge_by_run([first, second, update])
    assert [(patch.sequence, patch.name) for patch in merged] == [(3, "later"), (2, "n")]
    assert merged[0].is_create


async def test_large_payloads_leave_their_rows(flusher: Flusher, store: FakeStore, blobs: BlobStore) -> None:
    """The row keeps a reference and the beginning; facts are of the whole; a replay makes no second blob."""
    outputs = b'{"pad": "%s", "usage_metadata": {"input_tokens": 2, "output_tokens": 3}}' % (b"x" * 2_000)
    files = {"big": Attachment("text/plain", b"y" * 101), "small": Attachment("text/plain", b"z" * 100)}
    for _ in range(2):
        patch = create(1)
        patch.inputs, patch.outputs, patch.attachments = b'{"a": 1}', outputs, dict(files)
        await flush(flusher, patch)
        row = store.rows[-1]
        assert row.patch.outputs is not None
        ref, head = unpack(row.patch.outputs)
        assert (ref.size_bytes, head) == (len(outputs), outputs)
        assert row.patch.inputs == b'{"a": 1}'
        assert row.facts.usage is not None
        assert row.facts.usage.total_tokens == 5
        assert row.patch.attachments is not None
        assert row.patch.attachments["small"] == files["small"]
        blob = row.patch.attachments["big"].blob
        assert blob is not None
        assert b"".join([chunk async for chunk in blobs.read(blob.key)]) == files["big"].content
        assert b"".join([chunk async for chunk in blobs.read(ref.key)]) == outputs
        assert len([key async for key, _ in blobs.list(TENANT)]) == 2


async def test_facts_of_an_upload_are_read_back(flusher: Flusher, store: FakeStore, blobs: BlobStore) -> None:
    """A payload that came apart counts its tokens, too; one that is lost costs nothing else."""
    outputs = b'{"usage_metadata": {"input_tokens": 2, "output_tokens": 3}}'
    await blobs.put("t/aa/there", outputs)
    patches = [create(1), create(2)]
    patches[0].outputs = pack(BlobRef("t/aa/there", len(outputs)), outputs[:5])
    patches[1].outputs = pack(BlobRef("t/aa/lost", len(outputs)), outputs)
    patches[1].extra = b'{"metadata": {"k": "v"}}'
    await flush(flusher, *patches)
    first, second = store.rows
    assert first.facts.usage is not None
    assert first.facts.usage.total_tokens == 5
    assert second.facts.usage is None
    assert second.facts.extra is not None
    assert second.facts.extra.metadata == {"k": '"v"'}


async def test_payloads_stay_inline_when_moving_them_fails(
    flusher: Flusher, store: FakeStore, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of the blob store loses no run."""

    async def put(key: str, content: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(blobs, "put", put)
    patch = create(1)
    patch.outputs = b'"%s"' % (b"x" * 2_000)
    await flush(flusher, patch)
    assert store.rows[0].patch.outputs == b'"%s"' % (b"x" * 2_000)


async def test_defects_hold_nobody_up(
    flusher: Flusher, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch that cannot be merged is stored apart; one that cannot be placed is buried; others go on."""

    def broken_merge(self: RunPatch, later: RunPatch) -> None:
        raise ZeroDivisionError("merge")

    monkeypatch.setattr(RunPatch, "merge", broken_merge)
    first = create(1)
    update = RunPatch(TENANT, first.run_id, sequence=2, outputs=b"1")
    await flush(flusher, first, update, create(3))
    assert [row.patch.sequence for row in store.rows] == [1, 3, 2]

    def broken_place(patch: RunPatch, known: object, outcome: object) -> None:
        if patch.sequence == 4:
            raise ZeroDivisionError("place")
        place(patch, known, outcome)  # type: ignore[arg-type]

    place = flusher._placer._place
    monkeypatch.setattr(flusher._placer, "_place", broken_place)
    report = await flush(flusher, create(4), create(5))
    assert (report.dead_letters, store.buried) == (1, [(create(4).run_id, "ZeroDivisionError: place")])
    assert store.rows[-1].patch.sequence == 5


def feedback(number: int, key: str = "k") -> FeedbackPatch:
    return FeedbackPatch(TENANT, f"feedback {number}", None, FeedbackAction.CREATE, sequence=number, key=key)


@pytest.mark.parametrize("defect", [BlockRefused, ValueError])
async def test_refused_feedback_is_buried_alone(
    store: FakeStore, flusher: Flusher, defect: type[Exception]
) -> None:
    """A record that the engine refuses, or a defect in storing it, costs neither the others nor the runs."""
    store.defect = defect
    given = [feedback(number, "poison" if number == 3 else "k") for number in range(7)]
    report = FlushReport(7, 8)
    await flusher.insert(await flusher.prepare([create(1)], report, given))
    assert len(store.rows) == 1
    assert store.feedback == [f"feedback {number}" for number in (0, 1, 2, 4, 5, 6)]
    [(feedback_id, reason)] = store.buried
    assert (feedback_id, "poison" in reason, report.dead_letters) == ("feedback 3", True, 1)


async def test_feedback_waits_for_the_engine(store: FakeStore, flusher: Flusher, retries: list[str]) -> None:
    """An engine that is away gets the records when it is back, and nothing is buried."""
    store.is_away = True
    prepared = await flusher.prepare([], FlushReport(1, 1), [feedback(1)])
    inserting = asyncio.create_task(flusher.insert(prepared))
    await store.attempted.wait()
    store.is_away = False
    await inserting
    assert (store.feedback, store.buried, retries) == (["feedback 1"], [], ["away"])


async def test_what_is_older_than_a_deletion_stays_away(flusher: Flusher, store: FakeStore) -> None:
    """A replay of an older operation is dropped; what is newer waits until the old rows are gone."""
    old = create(1)
    await flush(flusher, old)
    await flusher.delete(RunDeletion(TENANT, 5, (old.run_id,)))
    await flush(flusher, create(1), create(6))
    assert [row.patch.sequence for row in store.rows] == [1, 6]
    again = create(1)
    again.sequence = 7
    await flush(flusher, again)
    assert [row.patch.sequence for row in store.rows] == [6, 7]


async def test_deletions_are_asked_for_only_while_there_are_some(flusher: Flusher, store: FakeStore) -> None:
    """Once after a start, and again after a deletion until everything is purged."""
    for number in range(1, 4):
        await flush(flusher, create(number))
    assert store.asked_for_deletions == 1
    await flusher.delete(RunDeletion(TENANT, 5, ("x",)))
    for number in range(6, 9):
        await flush(flusher, create(number))
    assert store.asked_for_deletions == 4
    await store.purge_deleted()
    for number in range(9, 12):
        await flush(flusher, create(number))
    assert store.asked_for_deletions == 5
