"""The sixty examples of filter-language.md §11, asked of the real engine."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.query.test_filter_goldens import EXAMPLES

from runstore.domain.errors import RunstoreError
from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.runs import RunField, RunPatch, RunQuery
from runstore.domain.times import parse_time
from runstore.query.binding import parse_condition
from runstore.query.filters import parse

from .filter_oracle import Asked, selected
from .filter_scenes import Scene, store_scene
from .pipeline import FIRST_SEQUENCE, Pipeline
from .test_operations import Sender

pytestmark = pytest.mark.engine

PARENT = "a36092d2-4ad5-4fb4-9c0d-0dba9a2ed836"
TURN = "0190a1b2-c3d4-7ef0-a5b6-6ea3a82e9328"
NO_QUESTION_OF_RUNS = {"53": "trace_id expects a UUID", "58 thread_filter": "unknown field 'turn_count'"}


class Examples:
    """Runs that the examples speak of, each with its feedback."""

    def __init__(self, tenant_id: str) -> None:
        self.tenant_id = tenant_id
        self.operations: list[RunPatch] = []
        self._project_id = str(uuid.uuid4())
        self._feedback: dict[str, list[tuple[str, Any]]] = {}

    def run(
        self,
        name: str,
        *,
        start: str = "2026-11-01T06:00:00Z",
        seconds: float | None = 1,
        metadata: dict[str, Any] | None = None,
        feedback: Sequence[tuple[str, Any]] = (),
        run_id: str | None = None,
        parent: Sender | None = None,
        **fields: Any,
    ) -> Sender:
        """Send a run; `feedback` are keys with a score or a label."""
        start_us = parse_time("start", start)
        sender = Sender(self.tenant_id, start_us=start_us, parent=parent, run_id=run_id)
        sender.project_id = self._project_id
        for field in fields.keys() & {"inputs", "outputs"}:
            fields[field] = json.dumps(fields[field]).encode()
        if seconds is not None:
            fields["end_time_us"] = start_us + int(seconds * 1e6)
        if metadata:
            fields["extra"] = json.dumps({"metadata": metadata}).encode()
        self.operations.append(sender.create(name=name, **fields))
        self._feedback[sender.run_id] = list(feedback)
        return sender

    def feedback(self, run_ids: Sequence[str]) -> list[FeedbackPatch]:
        patches: list[FeedbackPatch] = []
        for run_id in run_ids:
            for key, verdict in self._feedback[run_id]:
                is_score = isinstance(verdict, int | float)
                patches.append(
                    FeedbackPatch(
                        self.tenant_id,
                        str(uuid.uuid4()),
                        run_id,
                        FeedbackAction.CREATE,
                        sequence=FIRST_SEQUENCE + len(patches),
                        key=key,
                        score=verdict if is_score else None,
                        value=None if is_score else json.dumps(verdict).encode(),
                    )
                )
        return patches


@pytest.fixture
async def scene(pipeline: Pipeline, tenant_id: str) -> Scene:
    """Something for every example to find, and something to leave."""
    given = Examples(tenant_id)
    run = given.run
    planned = {"generations": [[{"message": {"kwargs": {"tool_calls": [{"name": "Plan"}]}}}]]}
    run("extractor", seconds=6, tags=("2aa1cf4",), metadata={"user_id": "4070f233"})
    run("ChatOpenAI", metadata={"conversation_id": "69b1", "environment": "production"})
    run("ChatOpenAI", inputs={"messages": [{"content": "hi"}, {"content": "I want a Refund now"}]})
    run(
        "slow",
        run_type="chain",
        seconds=20,
        tags=("experimental", "production"),
        outputs={"t": "so SORRY"},
        metadata={"usage_metadata": {"input_tokens": 9_000, "output_tokens": 9}, "test_run": "abc"},
    )
    run(
        "pinged",
        inputs={"text": "ping"},
        outputs=planned,
        tags=("test",),
    )
    run(
        "asked",
        inputs={"input": "What is the capital of France?"},
        outputs={"documents": [{"page_content": "A"}, {"page_content": "The capital of France is Paris"}]},
    )
    run(
        "failed", run_type="tool", error="a substring of it", metadata={"conversation_id": "a1"}, tags=("v2",)
    )
    run("classifier", inputs={"task": "classification"}, outputs={"kind": "an image"}, tags=("beta",))
    run("pending", seconds=None, metadata={"other": "a1", "thread_id": "t1"})
    run("paired", metadata={"a": "1", "b": "2", "variant": "abc123"})
    run("crossed", metadata={"a": "2", "b": "1", "env": "prod", "some_tag": "some_value"})
    run("quoted", metadata={"thread_id": 'a "b"'})
    run("example", metadata={"tenant_id": 1, "some_tag": "some_value", "env": "dev"})
    run("example", metadata={"tenant_id": 2, "foo": "bar"})
    run("old", start="2024-05-01T00:00:00Z", run_id=TURN)
    run("older", start="2023-01-01T00:00:00Z", error="e")
    parent = run("parent", run_id=PARENT)
    run("child", parent=parent)
    for record in (("star_rating", 5), ("correctness", 1), ("label", "toxic"), ("out_of_scope", True)):
        run("judged", feedback=[record], error="e")
    run("judged", feedback=[("Correctness", 0), ("star_rating", 3)], error="e")
    for score in (1, 0):
        root = run("root", feedback=[("user_score", score)])
        run("RetrieveDocs", parent=root)
        run("ExpandQuery", parent=root)
    root = run("root", feedback=[("user_score", 1)])
    run("RetrieveDocs", parent=root)
    root = run("root", error="e")
    run("search", parent=root, run_type="tool", error="e")
    return await store_scene(pipeline, [given.operations[::2], given.operations[1::2]], given.feedback)


def questions() -> list[tuple[str, dict[str, str]]]:
    """Examples by number, each as the filters that it consists of."""
    asked: dict[str, dict[str, str]] = {}
    for label, text in EXAMPLES:
        number, _, name = label.partition(" ")
        if label not in NO_QUESTION_OF_RUNS:
            asked.setdefault(number, {})[name or "filter"] = text
    return list(asked.items())


async def test_every_example_selects_what_the_contract_says(pipeline: Pipeline, scene: Scene) -> None:
    """Each finds some of the runs and leaves others, and these are the oracle's."""
    for number, texts in questions():
        asked = Asked(**{name: parse(text) for name, text in texts.items()})
        conditions = {name: parse_condition(text, name) for name, text in texts.items()}
        query = RunQuery(
            scene.tenant_id,
            frozenset({RunField.ID}),
            project_ids=scene.project_ids,
            filter=conditions.get("filter"),
            trace_filter=conditions.get("trace_filter"),
            tree_filter=conditions.get("tree_filter"),
            limit=10,
        )
        found = [run.position.run_id for run in await pipeline.list(query)]
        wanted = {str(run_id) for run_id in selected(scene.runs, asked)}
        assert sorted(found) == sorted(wanted), (number, texts)
        assert 0 < len(wanted) < len(scene.runs), (number, texts)


@pytest.mark.parametrize(("label", "reason"), NO_QUESTION_OF_RUNS.items())
def test_what_no_run_can_answer_is_refused(label: str, reason: str) -> None:
    """An id that is none, and fields of threads: with the reason, rather than an empty answer."""
    with pytest.raises(RunstoreError, match=reason):
        parse_condition(dict(EXAMPLES)[label])
