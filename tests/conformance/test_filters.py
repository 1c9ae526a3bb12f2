"""Filters on the real engine, in the cases that random questions do not reach."""

import json

import pytest

from runstore.domain.runs import Attachment, RunQuery
from runstore.query.binding import parse_condition
from runstore.storage.clickhouse import run_finder

from .pipeline import Pipeline
from .test_operations import Sender

pytestmark = pytest.mark.engine

PROJECT = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"


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


async def test_moved_run_with_more_rows_than_are_few(
    pipeline: Pipeline, tenant_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that it left in its old project do not hide those in the new one, whichever comes first."""
    monkeypatch.setattr(run_finder, "_FEW", 1)
    for old, new in ((OTHER, PROJECT), (PROJECT, OTHER)):
        sender = Sender(tenant_id)
        sender.project_id = old
        await pipeline.flush([sender.create(tags=(sender.run_id,))])
        await pipeline.flush([sender.bare_update(project_id=new)])
        condition = parse_condition(f'has(tags, "{sender.run_id}")', "filter")
        both = RunQuery(tenant_id, frozenset(), project_ids=(PROJECT, OTHER), filter=condition)
        assert [run.position.run_id for run in await pipeline.list(both)] == [sender.run_id]


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
