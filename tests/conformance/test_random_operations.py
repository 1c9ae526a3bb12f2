"""Random splits, orders and repetitions of operations, with restarts and moves, against the oracle."""

import json
import random
import uuid
from typing import Any

import pytest

from runstore.domain.runs import Attachment, RunPatch, RunType

from .oracle import assert_same
from .pipeline import Pipeline
from .seeds import seeds
from .test_operations import T0_US, Sender

pytestmark = pytest.mark.engine

MODELS = ("gpt-4o", "claude-sonnet-4-5", "of nobody")


def scattered(
    chance: random.Random, sender: Sender, *, is_bare: bool, projects: list[str]
) -> tuple[list[RunPatch], list[RunPatch]]:
    """One run as operations: a create, and updates with some of its fields each, any of them repeated.

    Those of the first list come before all of the second. A run that moves is created first: a create
    is taken at its word, so one that comes late or again would not find a run that had moved before the
    store was restarted (docs/decisions/0002-keys-of-runs.md).
    """
    create = sender.bare_create if is_bare else sender.create
    created = create(**{**_fields(chance), "run_type": chance.choice(list(RunType)).value, "name": "n"})
    updates = []
    is_moving = not is_bare and chance.random() < 0.3
    for _ in range(chance.randrange(5)):
        fields = _fields(chance)
        if chance.random() < 0.5:
            updates.append(sender.bare_update(**fields))
            continue
        fields["project_id"] = sender.project_id
        if is_moving and chance.random() < 0.5:
            fields["start_time_us"] = sender.start_us + chance.randrange(3) * 1_000_000
        if is_moving and chance.random() < 0.5:
            fields["project_id"] = chance.choice(projects)
        updates.append(sender.bare_update(**fields) if is_bare else sender.update(**fields))
    first, rest = ([created], updates) if is_moving else ([], [created, *updates])
    rest += chance.sample(rest, chance.randrange(len(rest) + 1))
    chance.shuffle(rest)
    return first, rest


def _fields(chance: random.Random) -> dict[str, Any]:
    number = chance.randrange(1_000)
    # Outputs always have usage: a later one without would have to take back the earlier's.
    usage = {"input_tokens": number, "output_tokens": 2, "total_tokens": number + 2}
    metadata = {
        "session_id": chance.choice("pq"),
        "ls_model_name": chance.choice(MODELS),
        "ls_user_id": "u",
        f"k{number % 3}": number,
    }
    kept = chance.sample(sorted(metadata), chance.randrange(len(metadata)))
    event = {"name": chance.choice(["new_token", "x"]), "time": f"2026-11-20T12:00:0{number % 10}Z"}
    extra = {f"r{number % 2}": number, "metadata": {key: metadata[key] for key in kept}}
    every: dict[str, Any] = {
        "end_time_us": T0_US + number,
        "inputs": json.dumps({"messages": [{"role": "user", "content": f"i{number}"}]}).encode(),
        "outputs": json.dumps({"usage_metadata": usage, "text": f"o{number}"}).encode(),
        "error": f"e{number}",
        "events": json.dumps([event]).encode(),
        "extra": json.dumps(extra).encode(),
        "manifest": str(number).encode(),
        "tags": tuple(chance.sample("xyz", chance.randrange(3))),
        "reference_example_id": str(uuid.UUID(int=number)),
        "attachments": {chance.choice("ab"): Attachment("text/plain", b"f" * (number % 9))},
        "name": f"n{number}",
    }  # fmt: skip
    return {key: every[key] for key in chance.sample(sorted(every), chance.randrange(5))}


def tree(chance: random.Random, tenant_id: str, projects: list[str]) -> list[RunPatch]:
    """Operations on a few related runs, most often in no order."""
    is_bare = chance.random() < 0.5
    senders: list[Sender] = []
    operations: list[RunPatch] = []
    created: list[RunPatch] = []
    for depth in range(chance.randrange(1, 4)):
        parent = chance.choice(senders) if senders else None
        run_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        sender = Sender(tenant_id, start_us=T0_US + depth * 1_000, parent=parent, run_id=run_id)
        sender.project_id = projects[0]
        senders.append(sender)
        first, rest = scattered(chance, sender, is_bare=is_bare, projects=projects)
        created += first
        operations += rest
    if chance.random() < 0.8:
        chance.shuffle(operations)
    return created + operations


@pytest.mark.parametrize("seed", seeds(4, 40))
async def test_operations_in_any_order_make_the_same_runs(pipeline: Pipeline, seed: int) -> None:
    """However trees of runs are cut into operations and flushes, the runs are the oracle's; the same after
    a forced merge, after every block was appended again, and after a replay in other flushes."""
    chance = random.Random(seed)
    tenant_id = str(uuid.uuid4())
    projects = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(2)]
    operations: list[RunPatch] = []
    for _ in range(4):
        operations += tree(chance, tenant_id, projects)
    start = 0
    while start < len(operations):
        size = chance.choice([1, 3, 10, 100])
        await pipeline.flush(operations[start : start + size])
        start += size
        if chance.random() < 0.3:
            await pipeline.restart()
    assert_same(await pipeline.runs(tenant_id, projects), pipeline.operations)
    await pipeline.merge_parts()
    assert_same(await pipeline.runs(tenant_id, projects), pipeline.operations)
    await pipeline.append_again()
    assert_same(await pipeline.runs(tenant_id, projects), pipeline.operations)
    checkpoint = chance.choice(pipeline.flush_starts)
    await pipeline.replay(pipeline.operations[checkpoint:], flush_size=chance.choice([2, 50]))
    await pipeline.merge_parts()
    assert_same(await pipeline.runs(tenant_id, projects), pipeline.operations)
    await pipeline.restart()
