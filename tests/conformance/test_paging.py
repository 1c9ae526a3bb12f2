"""Walking pages: every run that existed at the start exactly once, in order, while others write."""

import asyncio
import itertools
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.runs import RunField, RunPatch, RunQuery, StoredRun
from runstore.query.binding import parse_condition
from runstore.query.cursors import PageTokens
from runstore.query.list_runs import ListRuns

from .pipeline import Pipeline
from .query_services import NO_REFERENCES
from .test_operations import T0_US, Sender

pytestmark = pytest.mark.engine

TIMES = 12
"""Distinct start times: hundreds of runs share each."""


class NobodyWrites:
    async def see_writes(self, tenant_id: str, *_: Any, **__: Any) -> None:
        """Everything is stored already."""


@pytest.fixture
def lists(pipeline: Pipeline) -> ListRuns:
    return ListRuns(pipeline.store, NobodyWrites(), PageTokens(b"s" * 32), NO_REFERENCES)


async def given_runs(
    pipeline: Pipeline, tenant_id: str, count: int, *, projects: int = 1, seed: int = 1
) -> list[Sender]:
    """Runs with tied start times over some projects, stored in several flushes, some updated later."""
    chance = random.Random(seed)
    project_ids = [str(uuid.uuid4()) for _ in range(projects)]
    senders = []
    for _ in range(count):
        sender = Sender(tenant_id, start_us=T0_US + chance.randrange(TIMES) * 1_000)
        sender.project_id = chance.choice(project_ids)
        senders.append(sender)
    for start in range(0, count, 1 + count // 4):
        await pipeline.flush(
            [each.create(tags=("first",)) for each in senders[start : start + 1 + count // 4]]
        )
    await pipeline.flush([each.update(outputs=b"1", error="e") for each in senders[::3]])
    return senders


async def walk(lists: ListRuns, query: RunQuery, page_size: int) -> AsyncIterator[list[StoredRun]]:
    """The pages of a query; asserts that none is empty but a first."""
    token = ""
    for number in itertools.count():
        page = await lists.page(query, page_size, token)
        assert len(page.runs) <= page_size
        assert page.runs or (number == 0 and not page.next_page_token)
        yield list(page.runs)
        token = page.next_page_token
        if not token:
            return


def ids_of(runs: list[StoredRun]) -> list[str]:
    return [run.position.run_id for run in runs]


async def all_of(pages: AsyncIterator[list[StoredRun]]) -> list[StoredRun]:
    return [run async for page in pages for run in page]


def query_of(senders: list[Sender], *, descending: bool) -> RunQuery:
    projects = tuple({sender.project_id for sender in senders})
    return RunQuery(senders[0].tenant_id, frozenset({RunField.ID}), projects, descending=descending)


class Writer:
    """Inserts runs around and between those that exist, and updates them."""

    def __init__(self, pipeline: Pipeline, senders: list[Sender]) -> None:
        self._pipeline = pipeline
        self._senders = senders
        self._chance = random.Random(7)

    async def write(self) -> None:
        batch: list[RunPatch] = []
        for _ in range(min(20, len(self._senders) // 4)):
            known = self._chance.choice(self._senders)
            new = Sender(known.tenant_id, start_us=T0_US + self._chance.randrange(TIMES) * 1_000)
            new.project_id = known.project_id
            batch += [new.create(), known.update(outputs=b"2", end_time_us=T0_US)]
        await self._pipeline.flush(batch)


@pytest.mark.parametrize(
    ("count", "page_sizes"),
    [
        (30, [1]),
        (350, [7]),
        (5_000, [100, 1_000]),
        pytest.param(80, [1], marks=pytest.mark.slow),
        pytest.param(700, [7], marks=pytest.mark.slow),
    ],
)
async def test_walk_while_others_write(
    pipeline: Pipeline, lists: ListRuns, tenant_id: str, count: int, page_sizes: list[int]
) -> None:
    """Both ways through tied start times and three projects give the runs of the start once each, and
    the one order is the reverse of the other."""
    senders = await given_runs(pipeline, tenant_id, count, projects=3)
    existed = {sender.run_id for sender in senders}
    writer = Writer(pipeline, senders)
    for page_size in page_sizes:
        walks: list[list[str]] = []
        pages_between_writes = 1 + count // page_size // 5
        for descending in (True, False):
            found: list[StoredRun] = []
            writing = asyncio.create_task(writer.write())
            number = 0
            async for page in walk(lists, query_of(senders, descending=descending), page_size):
                found += page
                number += 1
                if number % pages_between_writes == 0 and number <= 5 * pages_between_writes:
                    await writing
                    # Not awaited here: it runs beside the next pages.
                    writing = asyncio.create_task(writer.write())
            await writing
            times = [run.position.start_time_us for run in found]
            assert times == sorted(times, reverse=descending)
            assert len(set(ids_of(found))) == len(found)
            walks.append([run_id for run_id in ids_of(found) if run_id in existed])
        assert len(walks[0]) == count
        assert walks[0] == walks[1][::-1]


@pytest.mark.parametrize("page_size", [1, 6, 7, 8, 100])
async def test_walk_at_sizes_around_the_number_of_runs(
    pipeline: Pipeline, lists: ListRuns, tenant_id: str, page_size: int
) -> None:
    """Seven runs of one start time come once each at any page size; the last page says so."""
    senders = [Sender(tenant_id) for _ in range(7)]
    for sender in senders[1:]:
        sender.project_id = senders[0].project_id
    await pipeline.flush([sender.create() for sender in senders])
    pages = [page async for page in walk(lists, query_of(senders, descending=True), page_size)]
    assert sorted(ids_of([run for page in pages for run in page])) == sorted(
        sender.run_id for sender in senders
    )
    assert len(pages) == -(-7 // page_size)


async def test_walk_with_filters(pipeline: Pipeline, lists: ListRuns, tenant_id: str) -> None:
    """Pages are full although few runs match, and the last one is not followed by an empty one."""
    senders = await given_runs(pipeline, tenant_id, 2_000, projects=2)
    rare = senders[5::200]
    await pipeline.flush([sender.update(tags=("rare",)) for sender in rare])
    for descending in (True, False):
        query = replace(query_of(senders, descending=descending), filter=parse_condition('has(tags, "rare")'))
        pages = [page async for page in walk(lists, query, 3)]
        assert [len(page) for page in pages] == [3, 3, 3, 1]
        assert sorted(ids_of([run for page in pages for run in page])) == sorted(
            sender.run_id for sender in rare
        )
        failed = replace(query, filter=None, has_error=True)
        found = await all_of(walk(lists, failed, 200))
        assert sorted(ids_of(found)) == sorted(sender.run_id for sender in senders[::3])


async def test_walk_over_ids(pipeline: Pipeline, lists: ListRuns, tenant_id: str) -> None:
    """A list of ids is walked like any other query, moved runs included."""
    senders = await given_runs(pipeline, tenant_id, 60, projects=2)
    await pipeline.flush([sender.bare_update(start_time_us=T0_US + 77) for sender in senders[:10]])
    query = RunQuery(tenant_id, frozenset({RunField.ID}), run_ids=tuple(each.run_id for each in senders))
    for descending in (True, False):
        found = await all_of(walk(lists, replace(query, descending=descending), 7))
        times = [run.position.start_time_us for run in found]
        assert times == sorted(times, reverse=descending)
        assert sorted(ids_of(found)) == sorted(query.run_ids)
        assert times.count(T0_US + 77) == 10


async def test_cursor_of_another_query_is_refused(
    pipeline: Pipeline, lists: ListRuns, tenant_id: str
) -> None:
    """A cursor leads on in its own query alone; fields and page size may change on the way."""
    senders = await given_runs(pipeline, tenant_id, 20)
    query = query_of(senders, descending=True)
    token = (await lists.page(query, 5, "")).next_page_token
    assert (await lists.page(replace(query, fields=frozenset({RunField.NAME})), 9, token)).runs
    for other in (
        replace(query, descending=False),
        replace(query, tenant_id=str(uuid.uuid4())),
        replace(query, is_root=True),
        replace(query, project_ids=(str(uuid.uuid4()),)),
        replace(query, filter=parse_condition('eq(name, "n")')),
        replace(query, max_start_time_us=T0_US),
    ):
        with pytest.raises(RunstoreError) as refused:
            await lists.page(other, 5, token)
        assert refused.value.reason is ErrorReason.INVALID_CURSOR
