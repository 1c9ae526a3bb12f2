"""Questions with filters on the real engine: the pages hold exactly the runs that the contract selects.

Random trees of runs, built of partial rows, are asked random filters, trace filters and tree filters; the
oracle answers from plain Python values. `TESTS_FILTER_CASES=20000` asks more, `TESTS_FILTER_SEED=7` others.
"""

import json
import os
import random
from dataclasses import replace
from typing import Any

import pytest

from runstore.domain.runs import Attachment, RunField, RunQuery, RunType
from runstore.query.binding import parse_condition
from runstore.query.filters import parse
from runstore.storage.clickhouse import run_finder

from .filter_oracle import Asked, selected
from .filter_scenes import Asker, Scene, plant
from .pipeline import Pipeline
from .test_operations import Sender

pytestmark = pytest.mark.engine

CASES = int(os.environ.get("TESTS_FILTER_CASES", "60"))
SEED = int(os.environ.get("TESTS_FILTER_SEED", "1"))
CASES_PER_SCENE = 30
FILTERS = {"filter": 0.9, "trace_filter": 0.25, "tree_filter": 0.25}
"""With the share of the questions that have each."""
PLAIN = 0.1
PLAIN_QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("eq(is_root, true)", {"is_root": True}),
    ("eq(is_root, false)", {"is_root": False}),
    ('eq(run_type, "llm")', {"run_type": RunType.LLM}),
    ('and(eq(is_root, false), eq(run_type, "tool"))', {"is_root": False, "run_type": RunType.TOOL}),
]
"""Filters, and what says the same without one; asked so by that share of the questions."""


class Case:
    """One question, which its seed fixes."""

    def __init__(self, scene: Scene, seed: str) -> None:
        self.seed = seed
        self._scene = scene
        chance = random.Random(seed)
        asker = Asker(chance, scene)
        self.texts = {name: asker.filter() for name, share in FILTERS.items() if chance.random() < share}
        plain: dict[str, Any] = {}
        if chance.random() < PLAIN:
            text, plain = chance.choice(PLAIN_QUESTIONS)
            self.texts = {"filter": text}
        self.few = chance.choice([2, 5, 1_024])
        conditions = {name: parse_condition(text, name) for name, text in self.texts.items()}
        self.query = RunQuery(
            scene.tenant_id,
            frozenset({RunField.ID}),
            project_ids=scene.project_ids if chance.random() < 0.5 else scene.project_ids[:1],
            filter=conditions.get("filter"),
            trace_filter=conditions.get("trace_filter"),
            tree_filter=conditions.get("tree_filter"),
            descending=chance.random() < 0.5,
            limit=chance.choice([1, 3, 7, 30, 100]),
        )
        if plain:
            self.query = replace(self.query, filter=None, **plain)

    def wanted(self) -> set[str]:
        """Ids of the runs that the contract selects."""
        runs = [run for run in self._scene.runs if str(run.project_id) in self.query.project_ids]
        trees = {name: parse(text) for name, text in self.texts.items()}
        return {str(run_id) for run_id in selected(runs, Asked(**trees))}

    def __repr__(self) -> str:
        return f"{self.seed}: {self.texts} few={self.few} limit={self.query.limit} {self.query.descending=}"


async def check(pipeline: Pipeline, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Walk the pages, and ask for all at once as statistics do."""
    # Small, so that few runs are many to the finder, and it goes by windows.
    monkeypatch.setattr(run_finder, "_FEW", case.few)
    monkeypatch.setattr(run_finder, "_FEW_IN_TRACES", case.few)
    wanted = case.wanted()
    found = await pipeline.list(case.query)
    ids = [run.position.run_id for run in found]
    assert sorted(ids) == sorted(wanted), case
    times = [run.position.start_time_us for run in found]
    assert times == sorted(times, reverse=case.query.descending), case
    # Asked again, the finder knows where they are.
    again = await pipeline.store.list_runs(case.query)
    assert [run.position.run_id for run in again.runs] == ids[: case.query.limit], case
    assert again.has_more == (len(ids) > case.query.limit), case
    matching = await pipeline.store.matching(case.query, ["name"])
    rows = await pipeline.query(f"SELECT toString(run_id) FROM ({matching.text})", **matching.parameters)
    assert sorted(row[0] for row in rows) == sorted(wanted), case


async def test_random_questions(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any filters, in any combination, order and size of pages, give what the oracle says."""
    for number in range(-(-CASES // CASES_PER_SCENE)):
        scene = await plant(pipeline, SEED * 1_000_000 + number, trees=14)
        for index in range(min(CASES_PER_SCENE, CASES)):
            await check(pipeline, Case(scene, f"{SEED}-{number}-{index}"), monkeypatch)


async def ids(pipeline: Pipeline, sender: Sender, **filters: str) -> set[str]:
    """Runs of the sender's project that satisfy the filters."""
    conditions = {name: parse_condition(text, name) for name, text in filters.items()}
    query = RunQuery(
        sender.tenant_id,
        frozenset(),
        project_ids=(sender.project_id,),
        filter=conditions.get("filter"),
        trace_filter=conditions.get("trace_filter"),
    )
    return {run.position.run_id for run in await pipeline.list(query)}


async def test_large_payload_is_searched_at_its_beginning(pipeline: Pipeline, tenant_id: str) -> None:
    """Of a payload in the blob store the first 64 KiB count, and neither its address nor its leaves."""
    sender = Sender(tenant_id)
    inputs = json.dumps({"first": "xylotheque", "filling": "z" * 100_000, "last": "quokkas"}).encode()
    await pipeline.flush([sender.create(inputs=inputs)])
    assert await ids(pipeline, sender, filter='search("xylotheque")') == {sender.run_id}
    assert await ids(pipeline, sender, filter='search("quokkas")') == set()
    assert await ids(pipeline, sender, filter=f'search("{tenant_id}")') == set()
    assert await ids(pipeline, sender, filter='eq(input_key, "first")') == set()


async def test_trace_without_its_root_matches_no_trace_filter(pipeline: Pipeline, tenant_id: str) -> None:
    """Not even one that denies; when the root comes, its trace does."""
    root = Sender(tenant_id)
    child = Sender(tenant_id, parent=root, start_us=root.start_us + 1)
    await pipeline.flush([child.create()])
    assert await ids(pipeline, root, trace_filter='neq(name, "agent")') == set()
    await pipeline.flush([root.create()])
    assert await ids(pipeline, root, trace_filter='neq(name, "agent")') == {root.run_id, child.run_id}


async def test_moved_run_is_found_once_by_everything_it_had(pipeline: Pipeline, tenant_id: str) -> None:
    """A run whose start time is corrected takes its tags, payloads and files along."""
    sender = Sender(tenant_id)
    await pipeline.flush(
        [sender.create(tags=("rare",), inputs=b'"quokkas"', attachments={"a": Attachment("image/png", b"x")})]
    )
    await pipeline.flush([sender.bare_update(start_time_us=sender.start_us + 5_000_000)])
    for text in ('has(tags, "rare")', 'search("quokkas")', 'has(attachments, "a")', 'like(inputs, "%okk%")'):
        assert await ids(pipeline, sender, filter=text) == {sender.run_id}, text


async def test_value_that_was_replaced_is_found_no_more(pipeline: Pipeline, tenant_id: str) -> None:
    """Candidates are rows, old ones too; the merged run decides."""
    sender = Sender(tenant_id)
    await pipeline.flush([sender.create(tags=("old",), inputs=b'{"q":"xylotheque"}', name="old")])
    await pipeline.flush([sender.bare_update(tags=("new",), inputs=b'{"q":"quokkas"}', name="new")])
    for text in ('has(tags, "{}")', 'eq(name, "{}")'):
        assert await ids(pipeline, sender, filter=text.format("old")) == set()
        assert await ids(pipeline, sender, filter=text.format("new")) == {sender.run_id}
    assert await ids(pipeline, sender, filter='search("xylotheque")') == set()
    assert await ids(pipeline, sender, filter='eq(input_value, "quokkas")') == {sender.run_id}
