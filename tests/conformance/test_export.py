"""Exports: every run of the start exactly once, in messages of bounded bytes, resumable anywhere."""

import asyncio
import random
from dataclasses import replace

import pytest

from runstore.domain.blob_refs import BlobRef
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.runs import RunField, RunQuery, StoredRun
from runstore.query.binding import parse_condition
from runstore.query.cursors import PageTokens
from runstore.query.list_runs import EXPORT_PAGE_BYTES, ListRuns, Page

from .pipeline import LARGEST_PAYLOAD, Pipeline
from .query_services import NO_REFERENCES
from .test_operations import T0_US, Sender
from .test_paging import NobodyWrites, Writer, given_runs, ids_of, query_of

pytestmark = pytest.mark.engine


@pytest.fixture
def lists(pipeline: Pipeline) -> ListRuns:
    return ListRuns(pipeline.store, NobodyWrites(), PageTokens(b"s" * 32), NO_REFERENCES)


async def exported(lists: ListRuns, query: RunQuery, page_size: int = 0, token: str = "") -> list[Page]:
    return [page async for page in lists.export(query, page_size, token)]


def runs_of(pages: list[Page]) -> list[StoredRun]:
    return [run for page in pages for run in page.runs]


@pytest.mark.parametrize(("count", "page_size", "most_writes"), [(12, 1, 0), (300, 40, 3), (2_500, 1_000, 3)])
async def test_export_while_others_write(
    pipeline: Pipeline, lists: ListRuns, tenant_id: str, count: int, page_size: int, most_writes: int
) -> None:
    """The runs of the start come once each and in order, both ways, while runs are added and updated."""
    senders = await given_runs(pipeline, tenant_id, count, projects=3)
    existed = {sender.run_id for sender in senders}
    writer = Writer(pipeline, senders)
    for descending in (True, False):
        found: list[StoredRun] = []
        writes = 0
        writing = asyncio.create_task(writer.write())
        async for page in lists.export(query_of(senders, descending=descending), page_size, ""):
            assert 1 <= len(page.runs) <= page_size
            found += page.runs
            if writing.done() and writes < most_writes:
                writes += 1
                writing = asyncio.create_task(writer.write())
        await writing
        times = [run.position.start_time_us for run in found]
        assert times == sorted(times, reverse=descending)
        assert len(set(ids_of(found))) == len(found)
        assert existed <= set(ids_of(found))


async def test_export_goes_on_behind_any_message(pipeline: Pipeline, lists: ListRuns, tenant_id: str) -> None:
    """From each message's token, the last one's too, the rest follows; its conditions must be the same."""
    senders = await given_runs(pipeline, tenant_id, 50, projects=2)
    query = query_of(senders, descending=False)
    pages = await exported(lists, query, 7)
    whole = ids_of(runs_of(pages))
    assert sorted(whole) == sorted(sender.run_id for sender in senders)
    for index, page in enumerate(pages):
        rest = await exported(lists, query, 11, page.next_page_token)
        assert ids_of(runs_of(rest)) == whole[7 * (index + 1) :]
    late = Sender(tenant_id, start_us=T0_US + 3_600_000_000)
    late.project_id = senders[0].project_id
    await pipeline.flush([late.create()])
    assert ids_of(runs_of(await exported(lists, query, 7, pages[-1].next_page_token))) == [late.run_id]
    with pytest.raises(RunstoreError) as refused:
        await exported(lists, replace(query, is_root=True), 7, pages[0].next_page_token)
    assert refused.value.reason is ErrorReason.INVALID_CURSOR


async def test_messages_are_bounded_by_bytes(pipeline: Pipeline, lists: ListRuns, tenant_id: str) -> None:
    """Many large payloads make short messages; a run above the bound is alone; blobs count as references."""
    chance = random.Random(3)
    senders = [Sender(tenant_id, start_us=T0_US + number) for number in range(60)]
    sizes = {sender.run_id: chance.choice([10, 400_000, 900_000]) for sender in senders}
    sizes[senders[20].run_id] = EXPORT_PAGE_BYTES + 1
    for sender in senders[1:]:
        sender.project_id = senders[0].project_id
    await pipeline.flush([each.create(error="e" * sizes[each.run_id], inputs=b"{}") for each in senders])
    blob = b'"%s"' % (b"b" * LARGEST_PAYLOAD)
    await pipeline.flush([each.update(outputs=blob) for each in senders[40:]])
    query = replace(
        query_of(senders, descending=True),
        fields=frozenset({RunField.ERROR, RunField.OUTPUTS, RunField.EXTRA}),
    )
    pages = await exported(lists, query, 1_000)
    assert ids_of(runs_of(pages)) == [sender.run_id for sender in reversed(senders)]
    for page in pages:
        size = sum(len(run.values[RunField.ERROR]) for run in page.runs)
        assert size <= EXPORT_PAGE_BYTES or len(page.runs) == 1
        for run in page.runs:
            assert len(run.values[RunField.ERROR]) == sizes[run.position.run_id]
    references = [run.values[RunField.OUTPUTS] for run in runs_of(pages)[:20]]
    assert all(isinstance(value, BlobRef) and value.size_bytes == len(blob) for value in references)
    # Without payloads nothing is to be bounded.
    assert len(await exported(lists, replace(query, fields=frozenset({RunField.ID})), 1_000)) == 1


async def test_export_of_what_a_list_refuses_or_lacks(
    pipeline: Pipeline, lists: ListRuns, tenant_id: str
) -> None:
    """Ids, filters and empty answers are as in lists; so is a query without bounds."""
    senders = await given_runs(pipeline, tenant_id, 30)
    query = query_of(senders, descending=True)
    some = tuple(sender.run_id for sender in senders[::2])
    by_ids = RunQuery(tenant_id, query.fields, run_ids=some)
    assert sorted(ids_of(runs_of(await exported(lists, by_ids, 4)))) == sorted(some)
    failed = replace(query, filter=parse_condition('eq(status, "error")'))
    assert len(runs_of(await exported(lists, failed, 4))) == 10
    assert await exported(lists, replace(query, filter=parse_condition('eq(name, "none")'))) == []
    with pytest.raises(RunstoreError) as refused:
        await exported(lists, RunQuery(tenant_id, query.fields))
    assert refused.value.field == "project_ids"
