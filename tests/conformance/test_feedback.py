"""Feedback on the real engine: partial rows in any order merge to what the contract says, and sum up."""

import json
import random
import statistics
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from runstore.domain.feedback import Feedback, FeedbackAction, FeedbackPatch, FeedbackQuery, FeedbackStats
from runstore.domain.runs import RunField, RunQuery
from runstore.storage.clickhouse.run_store import ClickHouseRunStore

from .pipeline import FIRST_SEQUENCE, Pipeline
from .seeds import seeds
from .test_operations import Sender

pytestmark = pytest.mark.engine

T0_US = 1_795_000_000_000_000
KEYS = ("correctness", 'it\'s "quoted" \\ {k:String}', "ünï☃")
CHANGED = ("score", "value", "comment", "correction")


class Sent:
    """Operations of one tenant, numbered as ingest does."""

    def __init__(self, tenant_id: str) -> None:
        self.tenant_id = tenant_id
        self.patches: list[FeedbackPatch] = []

    def create(self, feedback_id: str, run_id: str | None, **fields: Any) -> FeedbackPatch:
        fields = {"key": "correctness", "source_type": "api", "created_at_us": self._now_us, **fields}
        return self._send(feedback_id, run_id, FeedbackAction.CREATE, **fields)

    def update(self, feedback_id: str, run_id: str | None, **fields: Any) -> FeedbackPatch:
        return self._send(feedback_id, run_id, FeedbackAction.UPDATE, **fields)

    def delete(self, feedback_id: str, run_id: str | None) -> FeedbackPatch:
        return self._send(feedback_id, run_id, FeedbackAction.DELETE)

    @property
    def _now_us(self) -> int:
        return T0_US + len(self.patches) * 1_000_000

    def _send(
        self, feedback_id: str, run_id: str | None, action: FeedbackAction, **fields: Any
    ) -> FeedbackPatch:
        patch = FeedbackPatch(
            self.tenant_id,
            feedback_id,
            run_id,
            action,
            sequence=FIRST_SEQUENCE + len(self.patches),
            modified_at_us=self._now_us,
            **fields,
        )
        self.patches.append(patch)
        return patch


def expected(patches: Sequence[FeedbackPatch]) -> dict[str, FeedbackPatch]:
    """The records that operations make, by id: creations replace, updates of the same run change them."""
    records: dict[str, FeedbackPatch] = {}
    for patch in sorted(patches, key=lambda each: each.sequence):
        record = records.get(patch.feedback_id)
        if patch.action is FeedbackAction.CREATE:
            records[patch.feedback_id] = msgspec.structs.replace(patch)
        elif record is not None and record.run_id == patch.run_id:
            if patch.action is FeedbackAction.DELETE:
                del records[patch.feedback_id]
                continue
            record.modified_at_us = patch.modified_at_us
            for field in CHANGED:
                if (value := getattr(patch, field)) is not None:
                    setattr(record, field, value)
    return records


def expected_stats(records: Sequence[FeedbackPatch]) -> dict[str, dict[str, Any]]:
    """What `FeedbackStats` says of records, by key, its comments aside."""
    by_key: dict[str, list[FeedbackPatch]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(record)
    stats = {}
    for key, group in by_key.items():
        scores = [record.score for record in group if record.score is not None]
        labels = [json.loads(r.value) for r in group if r.value is not None and r.value.startswith(b'"')]
        stats[key] = {
            "n": len(scores) or len(labels),
            "avg": pytest.approx(statistics.fmean(scores)) if scores else None,
            "min": min(scores, default=None),
            "max": max(scores, default=None),
            "stdev": pytest.approx(statistics.stdev(scores), abs=1e-9) if len(scores) > 1 else None,
            "values": {label: labels.count(label) for label in labels},
            "errors": sum(record.error for record in group),
            "sources": tuple(sorted({record.source_type for record in group})),
        }
    return stats


def assert_stats(found: dict[str, FeedbackStats] | Any, records: Sequence[FeedbackPatch]) -> None:
    without_comments = {
        key: {field: getattr(stats, field) for field in stats.__struct_fields__ if field != "comments"}
        for key, stats in found.items()
    }
    assert without_comments == expected_stats(records)
    for key, stats in found.items():
        comments = [record.comment for record in records if record.key == key and record.comment]
        assert len(stats.comments) == min(len(comments), 10)
        assert set(stats.comments) <= set(comments)


async def assert_stored(store: ClickHouseRunStore, sent: Sent) -> None:
    """Lists, reads and statistics say what the operations make."""
    records = expected(sent.patches)
    found = await store.feedback.page(FeedbackQuery(sent.tenant_id, limit=1_000))
    newest_first = [record.created_at_us for record in found]
    assert newest_first == sorted(newest_first, reverse=True)
    assert {record.id: comparable(record) for record in found} == {
        feedback_id: comparable(record) for feedback_id, record in records.items()
    }
    assert len(found) == len(records)
    assert_stats(await store.feedback.stats(FeedbackQuery(sent.tenant_id)), list(records.values()))
    runs = {patch.run_id for patch in sent.patches if patch.run_id is not None}
    by_run = await store.feedback.stats_of_runs(sent.tenant_id, runs)
    for run_id in runs:
        assert_stats(by_run.get(run_id, {}), [each for each in records.values() if each.run_id == run_id])
    for feedback_id in {patch.feedback_id for patch in sent.patches}:
        record = await store.feedback.get(sent.tenant_id, feedback_id)
        assert (record is not None) == (feedback_id in records)


def comparable(record: Feedback | FeedbackPatch) -> dict[str, Any]:
    names = [name for name in Feedback.__slots__ if name != "id"]
    return {name: getattr(record, name) for name in names}


def some_fields(chance: random.Random) -> dict[str, Any]:
    values = [b'"yes"', b'"n\\u00f6"', b"0.5", b"true", b'{"a":[1]}']
    every: dict[str, Any] = {
        "score": chance.choice([0.0, 1.0, -2.5, 1e-9]),
        "value": chance.choice(values),
        "comment": chance.choice(["", "good", "it's 'bad'\n\\ ☃"]),
        "correction": chance.choice([b'{"right":1}', b'"x"']),
    }
    return {name: every[name] for name in chance.sample(sorted(every), chance.randrange(5))}


def some_creation(chance: random.Random) -> dict[str, Any]:
    ids = [None, str(uuid.UUID(int=chance.getrandbits(128)))]
    return {
        **some_fields(chance),
        "key": chance.choice(KEYS),
        "error": chance.random() < 0.2,
        "source_type": chance.choice(["api", "model", "app"]),
        "source_user_id": chance.choice([None, "ann"]),
        "source_user_name": chance.choice([None, "Ann"]),
        "source_metadata": chance.choice([None, b'{"__run":{"run_id":"x"}}']),
        "extra": chance.choice([None, b"{}"]),
        "project_id": chance.choice(ids),
        "trace_id": chance.choice(ids),
        "comparative_experiment_id": chance.choice(ids),
        "feedback_group_id": chance.choice(ids),
        "run_start_time_us": chance.choice([None, T0_US - 5]),
    }


@pytest.mark.parametrize("seed", seeds(4, 40))
async def test_operations_in_any_order_make_the_same_records(
    run_store: ClickHouseRunStore, pipeline: Pipeline, seed: int
) -> None:
    """However operations are ordered, cut and repeated, the records are the oracle's; the same after a forced
    merge, and after all of them were appended again."""
    chance = random.Random(seed)
    sent = Sent(str(uuid.uuid4()))
    runs = [None, *(str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(2))]
    ids = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(5)]
    for _ in range(chance.randrange(1, 30)):
        feedback_id, run_id = chance.choice(ids), chance.choice(runs)
        match chance.randrange(5):
            case 0:
                sent.delete(feedback_id, run_id)
            case 1 | 2:
                sent.update(feedback_id, run_id, **some_fields(chance))
            case _:
                sent.create(feedback_id, run_id, **some_creation(chance))
    shuffled = sent.patches + chance.sample(sent.patches, chance.randrange(len(sent.patches)))
    chance.shuffle(shuffled)
    while shuffled:
        size = chance.choice([1, 3, 100])
        await run_store.feedback.append(shuffled[:size])
        shuffled = shuffled[size:]
    await assert_stored(run_store, sent)
    for table in ("feedback", "feedback_keys"):
        await pipeline.command(f"OPTIMIZE TABLE {table} FINAL")
    await assert_stored(run_store, sent)
    await run_store.feedback.append(sent.patches)
    await assert_stored(run_store, sent)


async def test_conditions(run_store: ClickHouseRunStore, tenant_id: str, pipeline: Pipeline) -> None:
    """Each condition of a list finds exactly the records that it is about, hostile texts included."""
    sent, ids = Sent(tenant_id), [str(uuid.uuid4()) for _ in range(5)]
    sender = Sender(tenant_id)
    await pipeline.flush([sender.create()])
    run_id, other_run, project_id, experiment = sender.run_id, *(str(uuid.uuid4()) for _ in range(3))
    hostile = "') OR 1 = 1 --"
    sent.create(ids[0], run_id, score=1.0, source_type="model", comparative_experiment_id=experiment)
    sent.create(ids[1], other_run, key=hostile, comment="c", source_user_id=hostile, project_id=project_id)
    sent.create(ids[2], None, project_id=project_id, source_type="app", comment="")
    sent.create(ids[3], other_run, source_type=hostile)
    await run_store.feedback.append(sent.patches)
    conditions: list[tuple[dict[str, Any], set[int]]] = [
        ({}, {0, 1, 2, 3}),
        ({"feedback_ids": (ids[1], ids[4])}, {1}),
        ({"run_ids": (run_id,)}, {0}),
        ({"run_ids": (run_id, other_run)}, {0, 1, 3}),
        ({"run_ids": (str(uuid.uuid4()),)}, set()),
        ({"project_ids": (project_id,)}, {1, 2}),
        ({"project_ids": (sender.project_id,)}, {0}),
        ({"keys": (hostile,)}, {1}),
        ({"keys": ("correctness", hostile)}, {0, 1, 2, 3}),
        ({"source_types": ("model", hostile)}, {0, 3}),
        ({"user_ids": (hostile,)}, {1}),
        ({"has_score": True}, {0}),
        ({"has_score": False}, {1, 2, 3}),
        ({"has_comment": True}, {1}),
        ({"has_comment": False}, {0, 2, 3}),
        ({"is_on_run": True}, {0, 1, 3}),
        ({"is_on_run": False}, {2}),
        ({"min_created_at_us": T0_US + 1_000_000, "max_created_at_us": T0_US + 2_000_000}, {1, 2}),
        ({"comparative_experiment_id": experiment}, {0}),
        ({"comparative_experiment_id": str(uuid.uuid4())}, set()),
        ({"has_score": True, "is_on_run": False}, set()),
    ]
    for condition, wanted in conditions:
        found = await run_store.feedback.page(FeedbackQuery(tenant_id, **condition))
        assert {ids.index(record.id) for record in found} == wanted, condition
        stats = await run_store.feedback.stats(FeedbackQuery(tenant_id, **condition))
        assert_stats(stats, [sent.patches[number] for number in wanted])
    assert await run_store.feedback.page(FeedbackQuery(str(uuid.uuid4()))) == []


@pytest.mark.parametrize("size", [1, 2, 6, 7, 8])
async def test_pages_yield_each_record_once(run_store: ClickHouseRunStore, tenant_id: str, size: int) -> None:
    """Walking seven records, some created at the same moment, yields each once."""
    sent = Sent(tenant_id)
    for number in range(7):
        sent.create(str(uuid.uuid4()), None, project_id=tenant_id, created_at_us=T0_US + number // 3)
    await run_store.feedback.append(sent.patches)
    found: list[Feedback] = []
    while page := await run_store.feedback.page(FeedbackQuery(tenant_id, offset=len(found), limit=size)):
        found += page
    assert sorted(record.id for record in found) == sorted(patch.feedback_id for patch in sent.patches)


async def test_runs_carry_their_statistics(
    run_store: ClickHouseRunStore, tenant_id: str, pipeline: Pipeline
) -> None:
    """A run listed with `feedback_stats` has those of its own feedback, given before it came or after."""
    sender, sibling = Sender(tenant_id), Sender(tenant_id)
    sibling.project_id = sender.project_id
    sent = Sent(tenant_id)
    sent.create(str(uuid.uuid4()), sender.run_id, score=1.0, comment="early")
    await run_store.feedback.append(sent.patches)
    await pipeline.flush([sender.create(), sibling.create()])
    sent.create(str(uuid.uuid4()), sender.run_id, score=0.0)
    sent.create(str(uuid.uuid4()), sender.run_id, key="label", value=b'"good"')
    await run_store.feedback.append(sent.patches)
    fields = frozenset({RunField.ID, RunField.FEEDBACK_STATS})
    page = await run_store.list_runs(RunQuery(tenant_id, fields, project_ids=(sender.project_id,)))
    values = {run.position.run_id: run.values for run in page.runs}
    assert_stats(values[sender.run_id][RunField.FEEDBACK_STATS], sent.patches)
    assert RunField.FEEDBACK_STATS not in values[sibling.run_id]


async def test_deleting(run_store: ClickHouseRunStore, tenant_id: str, pipeline: Pipeline) -> None:
    """Feedback goes with its runs, and with its project, told or not; all else stays."""
    sender, sent = Sender(tenant_id), Sent(tenant_id)
    await pipeline.flush([sender.create()])
    other_run, ids = str(uuid.uuid4()), [str(uuid.uuid4()) for _ in range(4)]
    sent.create(ids[0], sender.run_id)
    sent.create(ids[1], None, project_id=sender.project_id)
    sent.create(ids[2], other_run)
    sent.create(ids[3], None, project_id=str(uuid.uuid4()))
    await run_store.feedback.append(sent.patches)

    async def left() -> set[int]:
        found = await run_store.feedback.page(FeedbackQuery(tenant_id))
        return {ids.index(record.id) for record in found}

    await run_store.feedback.delete_of_runs(tenant_id, [other_run])
    assert await left() == {0, 1, 3}
    await run_store.delete_project(tenant_id, sender.project_id)
    assert await left() == {3}
