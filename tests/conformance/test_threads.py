"""Threads and traces against the oracle: random conversations, in a random order over many flushes."""

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from runstore.domain.runs import Position, RunField, RunPatch, RunQuery
from runstore.domain.threads import LISTED_STATS, Thread, ThreadQuery, ThreadStat
from runstore.domain.times import EPOCH
from runstore.domain.traces import USAGE_FIELDS
from runstore.query.binding import parse_condition
from runstore.storage.blobs import BlobStore
from runstore.storage.clickhouse.run_store import ClickHouseRunStore

from . import thread_oracle as oracle
from .oracle import expected_runs
from .pipeline import Pipeline
from .test_operations import T0_US, Sender

pytestmark = pytest.mark.engine

SECOND_US = 1_000_000
COMPUTED = frozenset(ThreadStat) - {ThreadStat.FEEDBACK_STATS}
NAMES = ("plan", "answer", "look up")


class Conversations:
    """Traces of one project, most of them turns of a thread."""

    def __init__(self, pipeline: Pipeline, tenant_id: str, seed: int) -> None:
        self.pipeline = pipeline
        self.tenant_id = tenant_id
        self.project_id = str(uuid.uuid4())
        self._chance = random.Random(seed)
        self._turns = 0
        self.operations: list[RunPatch] = []

    @property
    def query(self) -> ThreadQuery:
        return ThreadQuery(self.tenant_id, self.project_id)

    @property
    def runs(self) -> dict[str, dict[RunField, Any]]:
        return expected_runs(self.operations)

    async def write(self, traces: int, *, flush_size: int = 100) -> None:
        """More traces, their operations shuffled: children before parents, updates before creations."""
        operations = [step for _ in range(traces) for step in self._trace()]
        self._chance.shuffle(operations)
        await self.flush(operations, flush_size=flush_size)

    async def flush(self, operations: list[RunPatch], *, flush_size: int = 1_000) -> None:
        for start in range(0, len(operations), flush_size):
            before = len(self.pipeline.operations)
            await self.pipeline.flush(operations[start : start + flush_size])
            self.operations += self.pipeline.operations[before:]

    def root(self, thread_id: str | None, start_us: int) -> list[RunPatch]:
        """A trace of one run."""
        sender = self._sender(start_us)
        metadata = {"thread_id": thread_id} if thread_id else {}
        return [sender.create(extra=json.dumps({"metadata": metadata}).encode())]

    def _sender(self, start_us: int, parent: Sender | None = None) -> Sender:
        sender = Sender(self.tenant_id, start_us=start_us, parent=parent)
        sender.project_id = self.project_id
        return sender

    def _trace(self) -> list[RunPatch]:
        chance = self._chance
        self._turns += 1
        # Some traces overlap, and some start together.
        start_us = T0_US + self._turns // 3 * SECOND_US + chance.choice((0, 0, 300_000))
        senders = [self._sender(start_us)]
        thread_id = chance.choice(("anna", "ben", 'c"\\ lär', None, f"thread {self._turns // 8}"))
        for _ in range(chance.randrange(5)):
            senders.append(
                self._sender(start_us + chance.randrange(-50, 2_000) * 1_000, parent=chance.choice(senders))
            )
        operations = []
        for sender in senders:
            extra = self._extra(thread_id)
            late = chance.random() < 0.4
            create = sender.bare_create if chance.random() < 0.2 else sender.create
            operations.append(
                create(name=chance.choice(NAMES), run_type="llm", **({} if late else {"extra": extra}))
            )
            if late:
                operations.append(sender.bare_update(extra=extra))
            if chance.random() < 0.8:
                operations.append(sender.bare_update(**self._end(sender)))
        return operations

    def _extra(self, thread_id: str | None) -> bytes:
        metadata: dict[str, Any] = {} if thread_id is None else {"session_id": None, "thread_id": thread_id}
        if self._chance.random() < 0.5:
            metadata |= {"ls_provider": "openai", "ls_model_name": "gpt-4o"}
        return json.dumps({"metadata": metadata}).encode()

    def _end(self, sender: Sender) -> dict[str, Any]:
        chance = self._chance
        end_us = sender.start_us + chance.randrange(1, 5_000) * 1_000
        fields: dict[str, Any] = {"end_time_us": end_us, "inputs": b'{"q":"%d"}' % chance.randrange(99)}
        if chance.random() < 0.3:
            fields["error"] = f"failed at {end_us}"
        if chance.random() < 0.6:
            usage = {"input_tokens": chance.randrange(1, 99), "output_tokens": chance.randrange(1, 99)}
            details = {"input_token_details": {"cache_read": 1}, "output_token_details": {"reasoning": 2}}
            told = (
                {"input_cost": 0.25, "output_cost": 0.5, "total_cost": 0.75} if chance.random() < 0.3 else {}
            )
            usage["total_tokens"] = sum(usage.values())
            fields["outputs"] = json.dumps(
                {"a": chance.randrange(99), "usage_metadata": {**usage, **details, **told}}
            ).encode()
        if chance.random() < 0.4:
            token = EPOCH + timedelta(microseconds=sender.start_us + chance.randrange(900) * 1_000)
            fields["events"] = json.dumps([{"name": "new_token", "time": token.isoformat()}]).encode()
        return fields


async def converse(run_store: ClickHouseRunStore, blobs: BlobStore) -> Conversations:
    """Sixty traces of one project, and some of another tenant in the same project's name."""
    pipeline = Pipeline(run_store, blobs)
    foreign = Conversations(pipeline, str(uuid.uuid4()), 7)
    talks = Conversations(pipeline, str(uuid.uuid4()), 8)
    foreign.project_id = talks.project_id
    await foreign.write(10)
    await talks.write(60)
    return talks


@pytest.fixture(scope="module")
def talks(run_store: ClickHouseRunStore, blobs: BlobStore) -> Conversations:
    """Written once; the tests only read it."""
    return asyncio.run(converse(run_store, blobs))


def starting_at(low_us: int) -> Callable[[oracle.Run], bool]:
    """Whether a run starts then or later."""
    return lambda run: bool(run[RunField.START_TIME] >= low_us)


def comparable(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Floats to nine digits, costs without trailing zeros."""
    return {name: _comparable(value) for name, value in values.items()}


def _comparable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _comparable(each) for key, each in value.items()}
    if isinstance(value, float):
        return round(value, 9)
    return value.normalize() if isinstance(value, Decimal) else value


async def walk(talks: Conversations, query: ThreadQuery, page_size: int) -> list[Thread]:
    """All threads, page by page."""
    threads: list[Thread] = []
    query = replace(query, limit=page_size)
    while True:
        page = await talks.pipeline.store.threads.list_threads(query)
        threads += page.threads
        assert page.threads or not page.has_more
        if not page.has_more:
            return threads
        query = replace(query, after=page.threads[-1].position)


def expected_threads(talks: Conversations, low_us: int = 0, high_us: int = 2**62) -> list[str]:
    """Ids of the threads in a window, the latest first."""
    threads = oracle.threads(
        talks.runs, talks.project_id, lambda run: low_us <= run[RunField.START_TIME] <= high_us
    )
    return sorted(threads, key=lambda name: oracle.root_order(threads[name][-1]), reverse=True)


@pytest.mark.parametrize("page_size", [3, 100])
async def test_threads_are_listed_by_their_latest_trace(talks: Conversations, page_size: int) -> None:
    """Walking at any page size yields every thread of the window once, the latest first."""
    low_us, high_us = T0_US + 4 * SECOND_US, T0_US + 14 * SECOND_US
    for bounds in ((None, None), (low_us, high_us), (high_us, low_us)):
        query = replace(talks.query, min_start_time_us=bounds[0], max_start_time_us=bounds[1])
        found = [thread.thread_id for thread in await walk(talks, query, page_size)]
        assert found == expected_threads(talks, bounds[0] or 0, bounds[1] or 2**62)


async def test_threads_are_summed_up(talks: Conversations) -> None:
    """Everything that a list says of a thread, in a window and without, before and after a forced merge."""
    runs = talks.runs
    for _ in range(2):
        for low_us in (0, T0_US + 7 * SECOND_US):
            roots = oracle.threads(runs, talks.project_id, starting_at(low_us))
            query = replace(talks.query, min_start_time_us=low_us or None)
            for thread in await walk(talks, query, 5):
                turns = roots[thread.thread_id]
                wanted = oracle.stats(runs, {thread.thread_id: turns})
                assert comparable(thread.stats) == comparable(
                    {stat: value for stat, value in wanted.items() if stat in LISTED_STATS}
                    | {ThreadStat.FEEDBACK_STATS: {}}
                )
                first, last = turns[0], turns[-1]
                failed = [root for root in turns if RunField.ERROR in root]
                assert (thread.first_trace_id, thread.last_trace_id) == (
                    first[RunField.ID],
                    last[RunField.ID],
                )
                assert thread.first_inputs_preview == first.get(RunField.INPUTS_PREVIEW)
                assert thread.last_outputs_preview == last.get(RunField.OUTPUTS_PREVIEW)
                assert thread.last_error_preview == (failed[-1][RunField.ERROR_PREVIEW] if failed else None)
        await talks.pipeline.merge_parts()


async def test_all_threads_together(talks: Conversations) -> None:
    """The sum over all threads of a window, and over none."""
    runs, reader = talks.runs, talks.pipeline.store.threads
    for low_us in (0, T0_US + 7 * SECOND_US, T0_US * 2):
        roots = oracle.threads(runs, talks.project_id, starting_at(low_us))
        query = replace(talks.query, min_start_time_us=low_us or None)
        found = await reader.aggregate_stats(query, COMPUTED)
        assert comparable(found) == comparable(oracle.stats(runs, roots))


async def test_one_thread_with_and_without_a_filter(talks: Conversations) -> None:
    """The sum over one thread, over those of its traces that a filter leaves, and over none."""
    runs, reader = talks.runs, talks.pipeline.store.threads
    for thread_id, turns in list(oracle.threads(runs, talks.project_id).items())[:4]:
        found = await reader.thread_stats(talks.query, thread_id, COMPUTED)
        assert comparable(found) == comparable(oracle.stats(runs, {thread_id: turns}))
        failed = replace(talks.query, filter=parse_condition('eq(status, "error")'))
        found = await reader.thread_stats(failed, thread_id, COMPUTED)
        failing = [turn for turn in turns if RunField.ERROR in turn]
        assert comparable(found) == comparable(oracle.stats(runs, {thread_id: failing}))
        numbers = await reader.turn_numbers(
            talks.tenant_id, talks.project_id, thread_id, [turn[RunField.ID] for turn in turns]
        )
        assert numbers == {turn[RunField.ID]: number for number, turn in enumerate(turns, 1)}


async def test_filter_leaves_threads_with_such_a_root(talks: Conversations) -> None:
    """A filter keeps the threads some root of which satisfies it, and all of their traces."""
    query = replace(talks.query, filter=parse_condition('eq(name, "plan")'))
    roots = oracle.threads(talks.runs, talks.project_id)
    wanted = [
        thread_id
        for thread_id in expected_threads(talks)
        if any(root[RunField.NAME] == "plan" for root in roots[thread_id])
    ]
    assert 0 < len(wanted) < len(roots)
    for page_size in (3, 100):
        assert [thread.thread_id for thread in await walk(talks, query, page_size)] == wanted
    found = await talks.pipeline.store.threads.aggregate_stats(query, COMPUTED)
    kept = {thread_id: roots[thread_id] for thread_id in wanted}
    assert comparable(found) == comparable(oracle.stats(talks.runs, kept))


async def test_traces_and_subtrees_are_summed_up(talks: Conversations) -> None:
    """What every trace, and every run with what is below it, used."""
    runs, reader = talks.runs, talks.pipeline.store.traces
    trace_ids = {run[RunField.TRACE_ID] for run in runs.values()}
    found = await reader.trace_usage(talks.tenant_id, talks.project_id, trace_ids, USAGE_FIELDS)
    for trace_id in trace_ids:
        wanted = oracle.usage(oracle.trace_of(runs, trace_id))
        assert comparable(found.get(trace_id, {})) == comparable(wanted)
    found = await reader.subtree_usage(talks.tenant_id, trace_ids, runs, USAGE_FIELDS)
    for run_id in runs:
        below = [run for run in runs.values() if run_id in (run[RunField.ID], *run[RunField.PARENT_RUN_IDS])]
        assert comparable(found.get(run_id, {})) == comparable(oracle.usage(below))


async def test_only_the_asked_fields_are_summed_up(talks: Conversations) -> None:
    """Usage has the fields that were asked for; fields that nobody can sum up are passed over."""
    trace_id = next(iter(talks.runs.values()))[RunField.TRACE_ID]
    fields = {RunField.TOTAL_TOKENS, RunField.NAME}
    reader = talks.pipeline.store.traces
    found = await reader.trace_usage(talks.tenant_id, talks.project_id, [trace_id], fields)
    assert all(usage.keys() <= {RunField.TOTAL_TOKENS} for usage in found.values())
    assert await reader.trace_usage(talks.tenant_id, talks.project_id, [trace_id], [RunField.NAME]) == {}
    assert await reader.trace_usage(talks.tenant_id, talks.project_id, [str(uuid.uuid4())], fields) == {}


async def test_category_of_no_tokens_costs_nothing(pipeline: Pipeline, tenant_id: str) -> None:
    """Nor is it among the costs of a trace when the price came behind the usage, as it is not in the run."""
    sender = Sender(tenant_id)
    usage = {
        "input_tokens": 5,
        "output_tokens": 7,
        "total_tokens": 12,
        "input_token_details": {"cache_read": 0},
    }
    await pipeline.flush([sender.create(outputs=json.dumps({"usage_metadata": usage}).encode())])
    await pipeline.flush([sender.update(extra=b'{"metadata":{"ls_model_name":"gpt-4o"}}')])
    run = await pipeline.run(tenant_id, sender.run_id)
    assert run[RunField.PROMPT_COST_DETAILS] == {}
    reader = pipeline.store.traces
    found = await reader.trace_usage(tenant_id, sender.project_id, [sender.run_id], USAGE_FIELDS)
    assert found[sender.run_id][RunField.PROMPT_COST] == run[RunField.PROMPT_COST] > 0
    assert RunField.PROMPT_COST_DETAILS not in found[sender.run_id]


async def test_a_walk_shows_threads_as_the_first_page_found_them(pipeline: Pipeline, tenant_id: str) -> None:
    """Threads that get newer traces between two pages, or are new, neither vanish nor come twice."""
    talks = Conversations(pipeline, tenant_id, 9)
    await talks.write(20)
    wanted = expected_threads(talks)
    query = replace(talks.query, limit=2, as_of=talks.pipeline.operations[-1].sequence)
    seen: list[str] = []
    for step in range(100):
        page = await talks.pipeline.store.threads.list_threads(query)
        seen += [thread.thread_id for thread in page.threads]
        if not page.has_more:
            break
        query = replace(query, after=page.threads[-1].position)
        start_us = T0_US + (500 + step) * SECOND_US
        news = [talks.root(thread_id, start_us) for thread_id in (*wanted, f"new {step}")]
        await talks.flush([operation for operations in news for operation in operations])
    assert seen == wanted


async def test_thread_id_that_comes_late(pipeline: Pipeline, tenant_id: str) -> None:
    """A root that names its thread in an update belongs to it from then on; a changed mind moves it."""
    talks = Conversations(pipeline, tenant_id, 1)
    [create] = talks.root(None, T0_US)
    await talks.flush([create])
    assert await walk(talks, talks.query, 5) == []
    for thread_id in ("first", "second"):
        metadata = json.dumps({"metadata": {"thread_id": thread_id}}).encode()
        await talks.flush([RunPatch(tenant_id, create.run_id, extra=metadata)])
        [thread] = await walk(talks, talks.query, 5)
        assert (thread.thread_id, thread.last_trace_id) == (thread_id, create.run_id)
        assert thread.position == Position(T0_US, create.run_id)


async def test_traces_of_a_thread_are_found_by_any_list(talks: Conversations) -> None:
    """The list of root runs with the thread's id is the thread, oldest first."""
    for thread_id, turns in list(oracle.threads(talks.runs, talks.project_id).items())[:4]:
        query = RunQuery(
            talks.tenant_id,
            frozenset({RunField.ID}),
            project_ids=(talks.project_id,),
            is_root=True,
            filter=parse_condition(f"eq(thread_id, {json.dumps(thread_id)})"),
            descending=False,
            limit=3,
        )
        found = [run.position.run_id for run in await talks.pipeline.list(query)]
        assert found == [turn[RunField.ID] for turn in turns]
