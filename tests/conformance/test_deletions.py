"""Deleted runs on the real engine: hidden at once, kept away by their number, purged from every table."""

import json
import random
import uuid
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from runstore.domain.blob_refs import BlobRef
from runstore.domain.deletions import RunDeletion
from runstore.domain.feedback import FeedbackAction, FeedbackPatch, FeedbackQuery
from runstore.domain.run_stats import StatsField, StatsQuery
from runstore.domain.runs import Attachment, AttachmentRef, RunField, RunKey, RunPatch, RunQuery

from .oracle import assert_same
from .pipeline import LARGEST_PAYLOAD, Pipeline
from .seeds import seeds
from .test_operations import T0_US, Sender, new_id

pytestmark = pytest.mark.engine

TABLES = ("runs", "run_payloads", "run_attachments", "run_keys", "feedback", "deleted_runs")


async def rows_left(pipeline: Pipeline, tenant_id: str) -> dict[str, int]:
    """Rows of a tenant by table, of those that have any."""
    counts = {}
    for table in TABLES:
        [(count,)] = await pipeline.query(
            f"SELECT count() FROM {table} WHERE tenant_id = {{tenant:UUID}}", tenant=tenant_id
        )
        counts[table] = count
    return {table: count for table, count in counts.items() if count}


async def listed(pipeline: Pipeline, sender: Sender) -> set[str]:
    """Runs of the sender's project; those by id, by trace and in statistics are the same."""
    by_project = set(await pipeline.runs(sender.tenant_id, [sender.project_id], frozenset({RunField.ID})))
    query = RunQuery(sender.tenant_id, frozenset({RunField.ID}), project_ids=(sender.project_id,))
    [stats] = await pipeline.store.stats.run_stats(StatsQuery(query, frozenset({StatsField.RUN_COUNT})))
    assert stats.values[StatsField.RUN_COUNT] == len(by_project)
    for run_id in by_project:
        assert await pipeline.run(sender.tenant_id, run_id)
    return by_project


def family(tenant_id: str, project_id: str | None = None) -> list[Sender]:
    """A root, its child and its grandchild."""
    root = Sender(tenant_id)
    root.project_id = project_id or root.project_id
    child = Sender(tenant_id, parent=root, start_us=T0_US + 1)
    return [root, child, Sender(tenant_id, parent=child, start_us=T0_US + 2)]


async def test_deleted_run_is_in_no_answer(pipeline: Pipeline, tenant_id: str) -> None:
    """Its children and its parent stay; merging parts and purging change nothing that is seen."""
    root, child, leaf = family(tenant_id)
    await pipeline.flush([sender.create(inputs=b"1") for sender in (root, child, leaf)])
    await pipeline.flush([sender.update(outputs=b"2") for sender in (root, child, leaf)])
    waiting = (await pipeline.store.figures()).deleted_runs
    await pipeline.delete(tenant_id, run_ids=(child.run_id,))
    assert (await pipeline.store.figures()).deleted_runs == waiting + 1
    for change in (pipeline.merge_parts, pipeline.purge, pipeline.merge_parts):
        assert await listed(pipeline, root) == {root.run_id, leaf.run_id}
        assert await pipeline.list(RunQuery(tenant_id, frozenset(), run_ids=(child.run_id,))) == []
        trace = RunQuery(tenant_id, frozenset(), trace_id=root.run_id)
        assert [run.position.run_id for run in await pipeline.list(trace)] == [leaf.run_id, root.run_id]
        assert await pipeline.store.places(tenant_id, [child.run_id]) == {}
        await change()
    for table in TABLES[:4]:
        found = await pipeline.query(
            f"SELECT count() FROM {table} WHERE run_id = {{run:UUID}}", run=child.run_id
        )
        assert found == [(0,)], table


async def test_whole_traces(pipeline: Pipeline, tenant_id: str) -> None:
    """All runs of the traces go, those that only guess their trace too; other traces stay."""
    doomed, kept = family(tenant_id), family(tenant_id)
    orphan = Sender(tenant_id, parent=Sender(tenant_id, run_id=doomed[0].run_id))
    orphan.project_id = doomed[0].project_id
    await pipeline.flush([sender.create() for sender in (*doomed, *kept)])
    await pipeline.flush([orphan.bare_create()])
    await pipeline.delete(tenant_id, trace_ids=(doomed[0].run_id, new_id()))
    assert await listed(pipeline, doomed[0]) == set()
    assert await listed(pipeline, kept[0]) == {sender.run_id for sender in kept}
    await pipeline.purge()
    assert await listed(pipeline, kept[0]) == {sender.run_id for sender in kept}


async def test_only_in_one_project(pipeline: Pipeline, tenant_id: str) -> None:
    """With a project, runs and traces of other projects stay."""
    here, there = family(tenant_id), family(tenant_id)
    await pipeline.flush([sender.create() for sender in (*here, *there)])
    ids = tuple(sender.run_id for sender in (*here, *there))
    await pipeline.delete(tenant_id, run_ids=ids, project_id=here[0].project_id)
    assert await listed(pipeline, here[0]) == set()
    await pipeline.delete(tenant_id, trace_ids=ids, project_id=new_id())
    assert len(await listed(pipeline, there[0])) == 3


async def test_other_tenants_keep_theirs(pipeline: Pipeline, tenant_id: str) -> None:
    """An id says nothing without its tenant."""
    senders = family(tenant_id)
    await pipeline.flush([sender.create() for sender in senders])
    ids = tuple(sender.run_id for sender in senders)
    await pipeline.delete(new_id(), run_ids=ids, trace_ids=ids)
    await pipeline.purge()
    assert len(await listed(pipeline, senders[0])) == 3


@pytest.mark.parametrize("is_purged", [False, True])
async def test_same_id_written_again_is_a_new_run(
    pipeline: Pipeline, tenant_id: str, is_purged: bool
) -> None:
    """Nothing of the deleted run shows in it, not even what the new one does not say."""
    sender = Sender(tenant_id)
    old = sender.create(
        inputs=b'"old"', error="old", tags=("old",), extra=b'{"metadata": {"session_id": "old"}}',
        outputs=json.dumps({"usage_metadata": {"input_tokens": 5, "output_tokens": 5}}).encode(),
        attachments={"old": Attachment("a/b", b"old")},
    )  # fmt: skip
    await pipeline.flush([old])
    await pipeline.delete(tenant_id, run_ids=(sender.run_id,))
    if is_purged:
        await pipeline.purge()
    before = len(pipeline.operations)
    await pipeline.flush([sender.create(name="new")])
    await pipeline.merge_parts()
    runs = await pipeline.runs(tenant_id, [sender.project_id])
    assert_same(runs, pipeline.operations[before:])


async def test_operations_from_before_never_come_back(pipeline: Pipeline, tenant_id: str) -> None:
    """A replayed dead letter, an update that waits for its run, a link that waits for a parent."""
    sender, parent = Sender(tenant_id), Sender(tenant_id)
    await pipeline.flush([sender.create()])
    [old] = pipeline.operations[-1:]
    waiting = Sender(tenant_id)
    waiting.project_id = sender.project_id
    await pipeline.flush([waiting.bare_update(outputs=b'"secret"')])
    child = Sender(tenant_id, parent=parent)
    child.project_id = parent.project_id = sender.project_id
    await pipeline.flush([child.bare_create()])
    ids = (sender.run_id, waiting.run_id, child.run_id)
    await pipeline.delete(tenant_id, run_ids=ids)
    await pipeline._store([msgspec.structs.replace(old)])
    await pipeline.flush([waiting.create(), parent.bare_create()])
    assert await listed(pipeline, sender) == {waiting.run_id, parent.run_id}
    assert RunField.OUTPUTS not in await pipeline.run(tenant_id, waiting.run_id)
    assert (await pipeline.store.awaited_runs()).get((tenant_id, waiting.run_id)) is None


async def test_dead_letters_go_too(pipeline: Pipeline, tenant_id: str) -> None:
    """What could not be stored of a deleted run must not be replayed."""
    sender, other = Sender(tenant_id), Sender(tenant_id)
    letters = [replace_sequence(each.create(), number) for number, each in enumerate((sender, other), 1)]
    await pipeline.store.bury(letters, "reason")
    await pipeline.delete(tenant_id, run_ids=(sender.run_id,))
    left = await pipeline.query(
        "SELECT toString(run_id) FROM dead_letters WHERE tenant_id = {tenant:UUID}", tenant=tenant_id
    )
    assert left == [(other.run_id,)]


def replace_sequence(patch: RunPatch, sequence: int) -> RunPatch:
    return msgspec.structs.replace(patch, sequence=sequence)


async def test_moved_run_goes_from_all_its_places(pipeline: Pipeline, tenant_id: str) -> None:
    """Also from those that it has left."""
    sender = Sender(tenant_id)
    first = sender.project_id
    await pipeline.flush([sender.create(inputs=b"1")])
    second = new_id()
    await pipeline.flush([sender.bare_update(project_id=second)])
    await pipeline.flush([sender.bare_update(project_id=second, start_time_us=T0_US + 60_000_000)])
    await pipeline.delete(tenant_id, run_ids=(sender.run_id,))
    assert await pipeline.runs(tenant_id, [first, second]) == {}
    await pipeline.purge()
    assert await rows_left(pipeline, tenant_id) == {}


async def test_feedback_and_files_go_with_the_run(pipeline: Pipeline, tenant_id: str) -> None:
    """They cannot be read any more before they are purged; blobs are known to the purge."""
    sender = Sender(tenant_id)
    large = b'{"text": "%s"}' % (b"x" * LARGEST_PAYLOAD)
    file = Attachment("a/b", b"small")
    await pipeline.flush([sender.create(inputs=large, attachments={"file": file})])
    run = await pipeline.run(tenant_id, sender.run_id)
    inputs = run[RunField.INPUTS]
    assert isinstance(inputs, BlobRef)
    deletion_after = pipeline.operations[-1].sequence
    record = FeedbackPatch(
        tenant_id, new_id(), sender.run_id, FeedbackAction.CREATE, sequence=deletion_after, key="k", score=1.0
    )
    await pipeline.store.feedback.append([record])
    ref = AttachmentRef(tenant_id, RunKey(sender.project_id, T0_US, sender.run_id), "file")
    assert await pipeline.store.attachment(ref) == file
    await pipeline.delete(tenant_id, run_ids=(sender.run_id,))
    assert await pipeline.store.attachment(ref) is None
    assert await pipeline.store.feedback.page(FeedbackQuery(tenant_id)) == []
    [step] = [step for step in await pipeline.store.deletions.purge_steps() if step.tenant_id == tenant_id]
    assert await pipeline.store.deletions.deleted_blobs(step) == [inputs.key]
    await pipeline.purge()
    assert await rows_left(pipeline, tenant_id) == {}


async def test_walk_while_runs_are_deleted(pipeline: Pipeline, tenant_id: str) -> None:
    """Runs that are not deleted come exactly once, deleted ones at most once and not after their deletion."""
    senders = [Sender(tenant_id, start_us=T0_US + number // 3) for number in range(60)]
    for sender in senders:
        sender.project_id = senders[0].project_id
    await pipeline.flush([sender.create() for sender in senders])
    doomed = [sender.run_id for sender in senders[::2]]
    chance = random.Random(5)
    seen: list[str] = []
    deleted: set[str] = set()
    query = RunQuery(tenant_id, frozenset(), project_ids=(senders[0].project_id,), limit=7)
    while True:
        page = await pipeline.store.list_runs(query)
        found = [run.position.run_id for run in page.runs]
        assert not deleted & set(found)
        seen += found
        if not page.has_more:
            break
        assert found
        query = replace(query, after=page.runs[-1].position)
        victims = chance.sample(doomed, 4)
        deleted.update(victims)
        await pipeline.delete(tenant_id, run_ids=tuple(victims))
        if chance.random() < 0.3:
            await pipeline.purge()
    assert len(seen) == len(set(seen))
    assert set(seen) >= {sender.run_id for sender in senders} - set(doomed)


class Story:
    """Operations and deletions of one tenant in their order: what the log has."""

    def __init__(self, tenant_id: str, chance: random.Random) -> None:
        self.chance = chance
        self.senders = [Sender(tenant_id, start_us=T0_US + number) for number in range(6)]
        for sender in self.senders:
            sender.project_id = self.senders[0].project_id
        self.log: list[RunPatch | RunDeletion] = []

    def operation(self) -> RunPatch:
        chance = self.chance
        sender = chance.choice(self.senders)
        fields: dict[str, Any] = {
            "outputs": b"%d" % chance.randrange(100), "tags": (chance.choice("xyz"),), "error": "e",
            "extra": json.dumps({"metadata": {chance.choice("ab"): chance.randrange(9)}}).encode(),
            "attachments": {chance.choice("ab"): Attachment("a/b", b"f" * chance.randrange(9))},
        }  # fmt: skip
        chosen = {key: fields[key] for key in chance.sample(sorted(fields), chance.randrange(4))}
        if chance.random() < 0.5:
            return sender.create(name=f"n{chance.randrange(9)}", **chosen)
        return sender.update(**chosen)

    @property
    def surviving(self) -> list[RunPatch]:
        """Operations that no later deletion means."""
        deleted: dict[str, int] = {}
        for each in self.log:
            if isinstance(each, RunDeletion):
                deleted |= dict.fromkeys((*each.run_ids, *each.trace_ids), each.sequence)
        return [
            each
            for each in self.log
            if isinstance(each, RunPatch) and each.sequence > deleted.get(each.run_id, 0)
        ]


@pytest.mark.parametrize("seed", seeds(3, 30))
async def test_random_stories_with_replays(pipeline: Pipeline, seed: int) -> None:
    """In whatever order operations, deletions, purges, restarts and replays of the log come: the runs are
    what the operations after the last deletion make."""
    chance = random.Random(seed)
    tenant_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    story = Story(tenant_id, chance)
    checkpoint = 0
    for _ in range(chance.randrange(4, 12)):
        match chance.choice(["write", "write", "write", "delete", "delete", "purge", "replay", "checkpoint"]):
            case "write":
                before = len(pipeline.operations)
                await pipeline.flush([story.operation() for _ in range(chance.randrange(1, 8))])
                story.log += pipeline.operations[before:]
            case "delete":
                ids = tuple(sender.run_id for sender in chance.sample(story.senders, 2))
                what: dict[str, Any] = {chance.choice(["run_ids", "trace_ids"]): ids}
                story.log.append(await pipeline.delete(tenant_id, **what))
            case "purge":
                await pipeline.purge()
            case "checkpoint":
                checkpoint = len(story.log)
            case "replay":
                await replay(pipeline, story.log[checkpoint:], chance)
        if chance.random() < 0.2:
            await pipeline.merge_parts()
    await replay(pipeline, story.log[checkpoint:], chance)
    for _ in range(2):
        assert_same(await pipeline.runs(tenant_id, [story.senders[0].project_id]), story.surviving)
        await pipeline.purge()


async def replay(pipeline: Pipeline, log: list[RunPatch | RunDeletion], chance: random.Random) -> None:
    """Everything again as after a crash, in batches that end before deletions."""
    await pipeline.restart()
    batch: list[RunPatch] = []
    for each in log:
        if isinstance(each, RunDeletion):
            await pipeline._store(batch)
            batch = []
            await (await pipeline._open_flusher()).delete(each)
        else:
            batch.append(msgspec.structs.replace(each))
            if chance.random() < 0.2:
                await pipeline._store(batch)
                batch = []
    await pipeline._store(batch)
