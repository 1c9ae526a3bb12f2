"""Filters on threads against the oracle: on roots, on trees, on whole traces and on whole threads."""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.runs import RunField
from runstore.domain.threads import ThreadStat
from runstore.query.binding import parse_condition
from runstore.query.thread_fields import parse_thread_condition
from runstore.storage.blobs import BlobStore
from runstore.storage.clickhouse.run_store import ClickHouseRunStore

from . import thread_oracle as oracle
from .oracle import expected_runs
from .pipeline import FIRST_SEQUENCE
from .test_operations import T0_US
from .test_threads import SECOND_US, Conversations, converse, expected_threads, walk

pytestmark = pytest.mark.engine

Runs = oracle.Runs
Turns = Sequence[oracle.Run]


class Scene:
    """Conversations with feedback on some of their runs."""

    def __init__(self, talks: Conversations) -> None:
        self.talks = talks
        self.runs: Runs = expected_runs(talks.operations)
        self.threads = oracle.threads(self.runs, talks.project_id)
        self.feedback: dict[str, list[tuple[str, float]]] = {}
        """Keys and scores by run."""

    async def judge(self) -> None:
        """Feedback on a run in seven; on none of the thread `ben`."""
        patches = []
        for number, run_id in enumerate(sorted(self.runs)):
            if number % 7 or self.runs[run_id].get(RunField.THREAD_ID) == "ben":
                continue
            key, score = ("helpful", "polite")[number % 2], float(number % 3)
            self.feedback.setdefault(run_id, []).append((key, score))
            patches.append(
                FeedbackPatch(
                    self.talks.tenant_id,
                    str(uuid.uuid4()),
                    run_id,
                    FeedbackAction.CREATE,
                    FIRST_SEQUENCE + number,
                    key=key,
                    score=score,
                    modified_at_us=T0_US,
                )
            )
        await self.talks.pipeline.store.append_feedback(patches)

    def tree(self, turn: oracle.Run) -> list[oracle.Run]:
        return oracle.trace_of(self.runs, turn[RunField.ID])

    def records(self, turns: Turns) -> list[tuple[str, float]]:
        """Feedback on any run of these traces."""
        return [
            record
            for turn in turns
            for run in self.tree(turn)
            for record in self.feedback.get(run[RunField.ID], ())
        ]

    def stats(self, turns: Turns) -> Mapping[ThreadStat, Any]:
        return oracle.stats(self.runs, {"": turns})


async def make(run_store: ClickHouseRunStore, blobs: BlobStore) -> Scene:
    scene = Scene(await converse(run_store, blobs))
    await scene.judge()
    return scene


@pytest.fixture(scope="module")
def scene(run_store: ClickHouseRunStore, blobs: BlobStore) -> Scene:
    """Written once; the tests only read it."""
    return asyncio.run(make(run_store, blobs))


def tokens(scene: Scene, turn: oracle.Run) -> int:
    total: int = oracle.usage(scene.tree(turn)).get(RunField.TOTAL_TOKENS, -1)
    return total


TRACE_FILTERS: dict[str, Callable[[Scene, oracle.Run], bool]] = {
    'eq(name, "answer")': lambda _, turn: turn[RunField.NAME] == "answer",
    "gt(total_tokens, 400)": lambda scene, turn: tokens(scene, turn) > 400,
    'and(gt(total_tokens, 300), eq(name, "plan"))': lambda scene, turn: (
        tokens(scene, turn) > 300 and turn[RunField.NAME] == "plan"
    ),
    "not(exists(total_tokens))": lambda scene, turn: tokens(scene, turn) < 0,
    "gt(prompt_token_details.cache_read, 2)": lambda scene, turn: (
        oracle.usage(scene.tree(turn)).get(RunField.PROMPT_TOKEN_DETAILS, {}).get("cache_read", 0) > 2
    ),
    'and(eq(feedback_key, "helpful"), gte(feedback_score, 1))': lambda scene, turn: any(
        key == "helpful" and score >= 1 for key, score in scene.feedback.get(turn[RunField.ID], ())
    ),
}


@pytest.mark.parametrize("text", TRACE_FILTERS)
async def test_some_trace_passes(scene: Scene, text: str) -> None:
    """A trace filter speaks of one root; usage is that of its whole trace, feedback that on the root."""
    test = TRACE_FILTERS[text]
    low_us = T0_US + 5 * SECOND_US
    for bound in (None, low_us) if "total" in text else (None,):
        query = replace(
            scene.talks.query, trace_filter=parse_condition(text, "trace_filter"), min_start_time_us=bound
        )
        wanted = [
            thread_id
            for thread_id in expected_threads(scene.talks, bound or 0)
            if any(
                test(scene, turn)
                for turn in scene.threads[thread_id]
                if turn[RunField.START_TIME] >= (bound or 0)
            )
        ]
        assert [thread.thread_id for thread in await walk(scene.talks, query, 50)] == wanted


async def test_some_run_of_some_trace_passes(scene: Scene) -> None:
    """A tree filter speaks of any run; filters together may be met by different traces."""
    tree = parse_condition('and(eq(name, "look up"), eq(status, "error"))', "tree_filter")
    root = parse_condition('eq(name, "plan")')

    def passes(turn: oracle.Run) -> bool:
        return any(run[RunField.NAME] == "look up" and RunField.ERROR in run for run in scene.tree(turn))

    of_tree = [name for name in expected_threads(scene.talks) if any(map(passes, scene.threads[name]))]
    both = [name for name in of_tree if any(turn[RunField.NAME] == "plan" for turn in scene.threads[name])]
    assert 0 < len(of_tree) < len(scene.threads)
    query = replace(scene.talks.query, tree_filter=tree)
    assert [thread.thread_id for thread in await walk(scene.talks, query, 3)] == of_tree
    query = replace(query, filter=root)
    assert [thread.thread_id for thread in await walk(scene.talks, query, 3)] == both


def spent(stats: Mapping[ThreadStat, Any]) -> float:
    return float(stats[ThreadStat.TOTAL_COST])


def duration(stats: Mapping[ThreadStat, Any]) -> float:
    end, start = stats.get(ThreadStat.LAST_END_TIME), stats[ThreadStat.FIRST_START_TIME]
    return -1.0 if end is None else float(end - start) / 1e6


THREAD_FILTERS: dict[str, Callable[[Scene, Turns], bool]] = {
    "gt(turn_count, 5)": lambda _, turns: len(turns) > 5,
    "and(gte(run_count, 2), lt(turns, 10), neq(count, 3))": lambda _, turns: (
        2 <= len(turns) < 10 and len(turns) != 3
    ),
    "gt(num_errored_turns, 1)": lambda _, turns: sum(RunField.ERROR in turn for turn in turns) > 1,
    'eq(thread_id, "c\\"\\\\ lär")': lambda _, turns: turns[0][RunField.THREAD_ID] == 'c"\\ lär',
    'like(thread_id, "thread%")': lambda _, turns: turns[0][RunField.THREAD_ID].startswith("thread"),
    'in(thread_id, ["anna", "ben", "nobody"])': lambda _, turns: (
        turns[0][RunField.THREAD_ID] in ("anna", "ben")
    ),
    'gt(thread_duration, "6s")': lambda scene, turns: duration(scene.stats(turns)) > 6,
    "gt(trace_latency_p50, 2)": lambda scene, turns: scene.stats(turns).get(ThreadStat.LATENCY_P50, 0) > 2,
    "lte(latency_p99, 4.5)": lambda scene, turns: scene.stats(turns).get(ThreadStat.LATENCY_P99, 9) <= 4.5,
    "gt(total_tokens, 1500)": lambda scene, turns: scene.stats(turns)[ThreadStat.TOTAL_TOKENS] > 1_500,
    "lt(total_cost, 3.5)": lambda scene, turns: spent(scene.stats(turns)) < 3.5,
    "gt(completion_token_details.reasoning, 10)": lambda scene, turns: (
        scene.stats(turns).get(ThreadStat.COMPLETION_TOKEN_DETAILS, {}).get("reasoning", 0) > 10
    ),
    'and(eq(feedback_key, "helpful"), gt(feedback_score, 1))': lambda scene, turns: any(
        key == "helpful" and score > 1 for key, score in scene.records(turns)
    ),
    'and(neq(feedback_key, "polite"))': lambda scene, turns: all(
        key != "polite" for key, _ in scene.records(turns)
    ),
    "or(eq(turn_count, 1), not(gt(feedback_score, 0)))": lambda scene, turns: (
        len(turns) == 1 or not any(score > 0 for _, score in scene.records(turns))
    ),
}


@pytest.mark.parametrize("text", THREAD_FILTERS)
async def test_whole_thread_passes(scene: Scene, text: str) -> None:
    """A thread filter speaks of all traces of a thread, those outside of the window too."""
    test = THREAD_FILTERS[text]
    low_us = T0_US + 12 * SECOND_US
    query = replace(scene.talks.query, thread_filter=parse_thread_condition(text), min_start_time_us=low_us)
    wanted = [
        thread_id
        for thread_id in expected_threads(scene.talks, low_us)
        if test(scene, scene.threads[thread_id])
    ]
    assert [thread.thread_id for thread in await walk(scene.talks, query, 50)] == wanted


async def test_feedback_is_summed_up(scene: Scene) -> None:
    """Feedback on any run of a thread's traces, by thread, for one and for all."""

    def expected(turns: Turns) -> dict[str, tuple[int, float]]:
        scores: dict[str, list[float]] = {}
        for key, score in scene.records(turns):
            scores.setdefault(key, []).append(score)
        return {key: (len(each), sum(each) / len(each)) for key, each in scores.items()}

    def shown(stats: Mapping[ThreadStat, Any]) -> dict[str, tuple[int, float]]:
        return {key: (each.n, each.avg) for key, each in stats[ThreadStat.FEEDBACK_STATS].items()}

    reader, query = scene.talks.pipeline.store.threads, scene.talks.query
    threads = await walk(scene.talks, query, 100)
    found = {thread.thread_id: shown(thread.stats) for thread in threads}
    assert found == {thread_id: expected(turns) for thread_id, turns in scene.threads.items()}
    assert found["ben"] == {}
    assert found["anna"]
    everything = await reader.aggregate_stats(query, {ThreadStat.FEEDBACK_STATS})
    assert shown(everything) == expected([turn for turns in scene.threads.values() for turn in turns])
    one = await reader.thread_stats(query, "anna", {ThreadStat.FEEDBACK_STATS})
    assert shown(one) == expected(scene.threads["anna"])
