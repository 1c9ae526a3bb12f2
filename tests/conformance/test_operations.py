"""Named ways in which operations build a run: each gives the one run that the contract says."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from runstore.domain import dotted_order
from runstore.domain.runs import Attachment, RunField, RunPatch, RunQuery
from runstore.domain.times import EPOCH, MAX_TIME_US, MICROSECOND, MIN_TIME_US

from .oracle import assert_same
from .pipeline import Pipeline

pytestmark = pytest.mark.engine

T0_US = (datetime(2026, 11, 20, 12, tzinfo=UTC) - EPOCH) // MICROSECOND


def new_id() -> str:
    return str(uuid.uuid4())


class Sender:
    """Makes the operations that clients send for one run."""

    def __init__(
        self,
        tenant_id: str,
        *,
        start_us: int = T0_US,
        parent: "Sender | None" = None,
        run_id: str | None = None,
    ) -> None:
        self.tenant_id = tenant_id
        self.project_id: str = parent.project_id if parent else new_id()
        self.run_id = run_id or new_id()
        self.parent_run_id = parent.run_id if parent else None
        self.start_us = start_us
        self.order: str = (
            dotted_order.child(parent.order, start_us, self.run_id)
            if parent
            else dotted_order.root(start_us, self.run_id)
        )

    def create(self, **fields: Any) -> RunPatch:
        """As an SDK's batch has it."""
        given: dict[str, Any] = {
            "name": "n",
            "run_type": "llm",
            "project_id": self.project_id,
            "dotted_order": self.order,
            "start_time_us": self.start_us,
        }
        return RunPatch(self.tenant_id, self.run_id, is_create=True, **{**given, **fields})

    def bare_create(self, **fields: Any) -> RunPatch:
        """As a single `POST /runs` has it: no dotted order, the parent alone."""
        return self.create(**{"dotted_order": None, "parent_run_id": self.parent_run_id, **fields})

    def update(self, **fields: Any) -> RunPatch:
        """As an SDK's batch has it."""
        given = {"project_id": self.project_id, "dotted_order": self.order, **fields}
        return RunPatch(self.tenant_id, self.run_id, **given)

    def bare_update(self, **fields: Any) -> RunPatch:
        """As a `PATCH /runs/{id}` has it: the id alone."""
        return RunPatch(self.tenant_id, self.run_id, **fields)


@pytest.fixture
def sender(tenant_id: str) -> Sender:
    return Sender(tenant_id)


async def check(pipeline: Pipeline, sender: Sender, *more_projects: str) -> dict[RunField, Any]:
    """Compare with the oracle, by list and by id, before and after a forced merge; the run."""
    await _look(pipeline, sender, *more_projects)
    await pipeline.merge_parts()
    return (await _look(pipeline, sender, *more_projects))[sender.run_id]


async def _look(pipeline: Pipeline, sender: Sender, *more_projects: str) -> dict[str, dict[RunField, Any]]:
    listed = await pipeline.runs(sender.tenant_id, [sender.project_id, *more_projects])
    assert_same(listed, pipeline.operations)
    assert_same(
        {run_id: await pipeline.run(sender.tenant_id, run_id) for run_id in listed}, pipeline.operations
    )
    return listed


async def test_update_before_create(pipeline: Pipeline, sender: Sender) -> None:
    """An update that comes first is kept, and the create that follows wins where both speak."""
    await pipeline.flush([sender.update(outputs=b'{"a":1}', end_time_us=T0_US + 5, tags=("early",))])
    assert await pipeline.runs(sender.tenant_id, [sender.project_id]) == {}
    await pipeline.flush([sender.create(tags=("late",))])
    run = await check(pipeline, sender)
    assert run[RunField.TAGS] == ["late"]
    assert run[RunField.STATUS] == "success"


async def test_create_and_update_in_one_batch(pipeline: Pipeline, sender: Sender) -> None:
    """A create and its update in one flush make one run with the fields of both."""
    await pipeline.flush([sender.create(inputs=b"1"), sender.update(outputs=b"2", end_time_us=T0_US + 7)])
    run = await check(pipeline, sender)
    assert (run[RunField.INPUTS], run[RunField.OUTPUTS]) == (b"1", b"2")
    assert run[RunField.LATENCY_SECONDS] == 7e-6


async def test_bare_update_finds_its_run(pipeline: Pipeline, sender: Sender) -> None:
    """An update that has nothing but the id reaches the run, remembered or not."""
    await pipeline.flush([sender.create()])
    await pipeline.flush([sender.bare_update(outputs=b"1")])
    await pipeline.restart()
    await pipeline.flush([sender.bare_update(error="boom")])
    run = await check(pipeline, sender)
    assert (run[RunField.OUTPUTS], run[RunField.STATUS]) == (b"1", "error")


async def test_same_batch_twice(pipeline: Pipeline, sender: Sender) -> None:
    """A batch that a client sends again changes nothing."""
    batch = [sender.create(inputs=b"1", extra=b'{"a":1}'), sender.update(outputs=b"2")]
    await pipeline.flush(batch)
    once = await pipeline.run(sender.tenant_id, sender.run_id)
    await pipeline.flush(batch)
    await pipeline.restart()
    await pipeline.flush(batch)
    await check(pipeline, sender)
    assert await pipeline.run(sender.tenant_id, sender.run_id) == once


async def test_updates_hours_apart(pipeline: Pipeline, sender: Sender) -> None:
    """An update for a run that nobody remembers lands on it."""
    await pipeline.flush([sender.create()])
    for number in range(3):
        await pipeline.restart()
        await pipeline.flush([sender.update(outputs=str(number).encode())])
    run = await check(pipeline, sender)
    assert run[RunField.OUTPUTS] == b"2"


async def test_start_time_beside_the_dotted_order(pipeline: Pipeline, sender: Sender) -> None:
    """A start time that differs from the dotted order's (JavaScript counts siblings there) holds, and
    later updates that have the dotted order alone reach the run."""
    told = dotted_order.root(T0_US + 1, sender.run_id)
    await pipeline.flush([sender.create(dotted_order=told)])
    await pipeline.restart()
    await pipeline.flush([sender.update(dotted_order=told, outputs=b"1")])
    run = await check(pipeline, sender)
    assert (run[RunField.START_TIME], run[RunField.OUTPUTS]) == (T0_US, b"1")


async def test_update_from_another_project_moves_the_run(pipeline: Pipeline, sender: Sender) -> None:
    """The project is a field like others: the last one told holds, even if the run was forgotten."""
    other = new_id()
    await pipeline.flush([sender.create(inputs=b"1")])
    await pipeline.restart()
    await pipeline.flush([sender.update(project_id=other, outputs=b"2")])
    run = await check(pipeline, sender, other)
    assert (run[RunField.PROJECT_ID], run[RunField.INPUTS], run[RunField.OUTPUTS]) == (other, b"1", b"2")
    assert await pipeline.runs(sender.tenant_id, [sender.project_id]) == {}


USAGE = b'{"usage_metadata":{"input_tokens":1000,"output_tokens":100,"total_tokens":1100}}'
MORE_USAGE = b'{"usage_metadata":{"input_tokens":2000,"output_tokens":300,"total_tokens":2300}}'
MODEL = b'{"metadata":{"ls_model_name":"gpt-4o","ls_provider":"openai"}}'
OTHER_MODEL = b'{"metadata":{"ls_model_name":"gpt-4o-mini","ls_provider":"openai"}}'
TOLD_COST = (
    b'{"metadata":{"usage_metadata":{"input_tokens":1,"output_tokens":2,"total_tokens":3,"total_cost":0.5}}}'
)
TIERED_MODEL = b'{"metadata":{"ls_model_name":"gemini-2.5-pro","ls_provider":"google_genai"}}'
CACHED = (
    b'{"usage_metadata":{"input_tokens":1000,"output_tokens":100,"total_tokens":1100,"input_token_details":'
    b'{"cache_read":400,"cache_creation":300,"ephemeral_5m_input_tokens":200},"output_token_details":'
    b'{"reasoning":50}}}'
)
CACHING_MODEL = b'{"metadata":{"ls_model_name":"claude-sonnet-4-5","ls_provider":"anthropic"}}'
MORE_CACHED_THAN_THERE_IS = (
    b'{"usage_metadata":{"input_tokens":10,"output_tokens":1,"total_tokens":11,"input_token_details":'
    b'{"cache_read":400}}}'
)


@pytest.mark.parametrize(
    "steps",
    [
        [{"outputs": USAGE}, {"extra": MODEL}],
        [{"extra": MODEL}, {"outputs": USAGE}],
        [{"outputs": USAGE, "extra": MODEL}, {"outputs": MORE_USAGE}],
        [{"outputs": USAGE, "extra": MODEL}, {"extra": OTHER_MODEL}],
        [{"outputs": USAGE}, {"extra": TOLD_COST}],
        [{"extra": TOLD_COST}, {"outputs": USAGE}],
        [{"extra": TOLD_COST}, {"extra": MODEL}],
        [{"extra": TIERED_MODEL}, {"outputs": USAGE}],
        [{"outputs": CACHED}, {"extra": CACHING_MODEL}],
        [{"outputs": MORE_CACHED_THAN_THERE_IS}, {"extra": CACHING_MODEL}],
        [{"extra": MODEL, "outputs": USAGE}, {"extra": TOLD_COST}],
    ],
    ids=[
        "price later", "usage later", "new usage without model", "new model", "lower rank later",
        "higher rank without cost later", "told cost, price later", "small prompt of a tiered model",
        "cached tokens", "too many cached tokens", "told cost of a lower rank later",
    ],
)  # fmt: skip
@pytest.mark.parametrize("in_one_flush", [False, True])
async def test_usage_and_price_meet(
    pipeline: Pipeline, sender: Sender, steps: list[dict[str, Any]], in_one_flush: bool
) -> None:
    """Tokens and costs are the same, whether usage and model come in one flush or in several."""
    operations = [sender.create(), *(sender.update(**step) for step in steps)]
    if in_one_flush:
        await pipeline.flush(operations)
    else:
        for operation in operations:
            await pipeline.flush([operation])
    await check(pipeline, sender)


@pytest.mark.parametrize(
    ("cost", "stored"),
    [
        ("1.2000000000000002e-05", "0.000012"),
        ("0.1234567890123456789012345678901234567", "0.123456789012345679"),
        ("999999999999999999.9", "999999999999999999.9"),
        ("1e-30", "0"),
    ],
)
async def test_costs_of_any_precision_are_stored(
    pipeline: Pipeline, sender: Sender, cost: str, stored: str
) -> None:
    """A cost that a client computed in binary floats is rounded; the run is not refused for it."""
    told = f'"input_tokens":1,"total_cost":{cost},"input_cost_details":{{"a":{cost}}}'
    usage = f'{{"usage_metadata":{{{told}}}}}'
    await pipeline.flush([sender.create(outputs=usage.encode())])
    run = await check(pipeline, sender)
    assert f"{run[RunField.TOTAL_COST]:f}".rstrip("0").rstrip(".") == stored


async def test_extra_merges_by_key(pipeline: Pipeline, sender: Sender) -> None:
    """Keys of extra, and of its metadata, accumulate over flushes; a null erases nothing."""
    for extra in (
        b'{"runtime":{"a":1},"metadata":{"x":1,"y":[1],"session_id":"s"}}',
        b'{"runtime":{"b":2},"metadata":{"y":[2],"x":null,"thread_id":"t"}}',
        b'{"invocation_params":{},"metadata":{"z":null}}',
    ):
        operation = sender.update if pipeline.operations else sender.create
        await pipeline.flush([operation(extra=extra)])
    run = await check(pipeline, sender)
    assert json.loads(run[RunField.EXTRA]) == {
        "runtime": {"b": 2},
        "metadata": {"x": 1, "y": [2], "session_id": "s", "thread_id": "t", "z": None},
        "invocation_params": {},
    }
    assert run[RunField.THREAD_ID] == "s"


async def test_empty_tags_differ_from_none(pipeline: Pipeline, sender: Sender) -> None:
    """No tags in an update leave the run's tags; an empty list removes them."""
    await pipeline.flush([sender.create(tags=("a", "b"))])
    await pipeline.flush([sender.update(outputs=b"1")])
    assert (await check(pipeline, sender))[RunField.TAGS] == ["a", "b"]
    await pipeline.flush([sender.update(tags=())])
    assert (await check(pipeline, sender))[RunField.TAGS] == []


async def test_attachments_accumulate_by_name(pipeline: Pipeline, sender: Sender) -> None:
    """Each update adds its files; one of the same name replaces, with its type."""
    await pipeline.flush([sender.create(attachments={"a": Attachment("text/plain", b"1")})])
    await pipeline.flush([sender.update(attachments={"b": Attachment("image/png", b"22")})])
    await pipeline.flush([sender.update(attachments={"a": Attachment("text/html", b"333")})])
    run = await check(pipeline, sender)
    _, files = run[RunField.ATTACHMENTS]
    assert files == {"a": ("text/html", 3), "b": ("image/png", 2)}


async def test_newer_events_replace_the_first_token(pipeline: Pipeline, sender: Sender) -> None:
    """The time of the first token is that of the events which the run has, not of earlier ones."""
    token = b'[{"name":"new_token","time":"2026-11-20T12:00:01Z"}]'
    await pipeline.flush([sender.create(events=token)])
    await pipeline.flush([sender.update(events=b'[{"name":"end","time":"2026-11-20T12:00:02Z"}]')])
    run = await check(pipeline, sender)
    assert RunField.FIRST_TOKEN_TIME not in run


async def test_move_by_start_time(pipeline: Pipeline, sender: Sender) -> None:
    """A run whose start time changes is listed once, at its new place, with all its content; updates
    with the old dotted order follow it, remembered or not."""
    file = {"a": Attachment("text/plain", b"1")}
    await pipeline.flush([sender.create(inputs=b"1", attachments=file)])
    await pipeline.flush([sender.update(start_time_us=T0_US + 3_600_000_000)])
    assert (await check(pipeline, sender))[RunField.START_TIME] == T0_US + 3_600_000_000
    await pipeline.flush([sender.update(outputs=b"2")])
    await pipeline.restart()
    await pipeline.flush([sender.update(error="3")])
    run = await check(pipeline, sender)
    assert (run[RunField.INPUTS], run[RunField.OUTPUTS], run[RunField.ERROR]) == (b"1", b"2", "3")


async def test_move_there_and_back(pipeline: Pipeline, sender: Sender) -> None:
    """A run that moves away and back, with updates at every stop, keeps everything."""
    other = new_id()
    await pipeline.flush([sender.create(inputs=b"1")])
    await pipeline.flush([sender.update(project_id=other, tags=("a",))])
    await pipeline.flush([sender.bare_update(outputs=b"2")])
    await pipeline.flush([sender.update(end_time_us=T0_US + 9)])
    run = await check(pipeline, sender, other)
    assert run[RunField.PROJECT_ID] == sender.project_id
    await pipeline.append_again()
    await check(pipeline, sender, other)
    await pipeline.replay(pipeline.operations[1:], flush_size=1)
    await check(pipeline, sender, other)


async def test_move_again_after_a_lost_answer(pipeline: Pipeline, sender: Sender) -> None:
    """A block with a move that is stored a second time changes nothing."""
    await pipeline.flush([sender.create(inputs=b"1")])
    await pipeline.flush([sender.update(start_time_us=T0_US + 60_000_000)])
    for _ in range(2):
        await pipeline.append_again()
        await check(pipeline, sender)


async def test_child_before_its_parents(pipeline: Pipeline, tenant_id: str) -> None:
    """Descendants without a dotted order that come first are settled by the ancestors' arrival."""
    root = Sender(tenant_id)
    child = Sender(tenant_id, start_us=T0_US + 1, parent=root)
    leaf = Sender(tenant_id, start_us=T0_US + 2, parent=child)
    await pipeline.flush([leaf.bare_create(inputs=b"1")])
    run = (await pipeline.runs(tenant_id, [root.project_id]))[leaf.run_id]
    assert run[RunField.IS_ROOT] is False
    await pipeline.flush([child.bare_create()])
    await pipeline.restart()
    await pipeline.flush([leaf.bare_update(outputs=b"2")])
    await pipeline.flush([root.bare_create()])
    await check(pipeline, root)
    run = await pipeline.run(tenant_id, leaf.run_id)
    assert run[RunField.DOTTED_ORDER] == leaf.order
    assert run[RunField.TRACE_ID] == root.run_id
    assert run[RunField.PARENT_RUN_IDS] == [root.run_id, child.run_id]
    assert (run[RunField.INPUTS], run[RunField.OUTPUTS]) == (b"1", b"2")


async def test_child_before_its_parents_in_one_flush(pipeline: Pipeline, tenant_id: str) -> None:
    """The order inside a batch does not matter either."""
    root = Sender(tenant_id)
    child = Sender(tenant_id, start_us=T0_US + 1, parent=root)
    leaf = Sender(tenant_id, start_us=T0_US + 2, parent=child)
    await pipeline.flush([leaf.bare_create(), child.bare_create(), root.bare_create()])
    await check(pipeline, root)


async def test_parked_updates_survive_a_restart(pipeline: Pipeline, sender: Sender) -> None:
    """Bare updates of an unknown run wait in the store; the create brings them in, in their order."""
    await pipeline.flush([sender.bare_update(outputs=b"1", tags=("parked",))])
    await pipeline.flush([sender.bare_update(outputs=b"2", error="parked")])
    await pipeline.restart()
    await pipeline.flush([sender.create(error="created")])
    run = await check(pipeline, sender)
    assert (run[RunField.OUTPUTS], run[RunField.TAGS]) == (b"2", ["parked"])
    assert run[RunField.ERROR] == "created"
    assert (sender.tenant_id, sender.run_id) not in await pipeline.store.awaited_runs()


async def test_parked_update_does_not_move_its_run(pipeline: Pipeline, sender: Sender) -> None:
    """A start time that was sent before the creation gives way to the creation's."""
    await pipeline.flush([sender.bare_update(outputs=b"1", start_time_us=T0_US + 60_000_000)])
    await pipeline.flush([sender.create()])
    run = await check(pipeline, sender)
    assert (run[RunField.START_TIME], run[RunField.OUTPUTS]) == (T0_US, b"1")


async def test_replay_of_a_move_there_and_back(pipeline: Pipeline, sender: Sender) -> None:
    """Moves that were one flush, replayed one by one after the run is where it belongs, leave it there."""
    other = new_id()
    away = sender.update(project_id=other)
    await pipeline.flush([sender.create(inputs=b"1"), away, sender.update(), sender.update(outputs=b"2")])
    await pipeline.replay(pipeline.operations, flush_size=1)
    await check(pipeline, sender, other)
    assert await pipeline.runs(sender.tenant_id, [other]) == {}


async def test_parked_updates_are_nobody_elses(pipeline: Pipeline, sender: Sender) -> None:
    """A run of the same id in another tenant does not take them."""
    await pipeline.flush([sender.bare_update(outputs=b"1")])
    foreign = Sender(new_id())
    foreign.run_id, foreign.order = sender.run_id, sender.order
    await pipeline.flush([foreign.create()])
    listed = await pipeline.runs(foreign.tenant_id, [foreign.project_id])
    assert RunField.OUTPUTS not in listed[sender.run_id]
    assert (sender.tenant_id, sender.run_id) in await pipeline.store.awaited_runs()


async def test_create_without_any_time_starts_when_accepted(pipeline: Pipeline, sender: Sender) -> None:
    """A create that says no time gets that of its acceptance, and keeps it when it is sent again."""
    await pipeline.flush([sender.create(start_time_us=None, dotted_order=None)])
    [first] = await pipeline.list(RunQuery(sender.tenant_id, frozenset(), project_ids=(sender.project_id,)))
    assert first.position.start_time_us == pipeline.operations[0].sequence >> 12
    await pipeline.restart()
    await pipeline.flush([sender.create(start_time_us=None, dotted_order=None, outputs=b"1")])
    again = await pipeline.runs(sender.tenant_id, [sender.project_id])
    assert again[sender.run_id][RunField.START_TIME] == first.position.start_time_us
    assert again[sender.run_id][RunField.OUTPUTS] == b"1"


@pytest.mark.parametrize("start_us", [MIN_TIME_US, -1, 0, MAX_TIME_US])
async def test_any_storable_start_time(pipeline: Pipeline, tenant_id: str, start_us: int) -> None:
    """The first and last storable microseconds, and those around the epoch, come back exactly."""
    sender = Sender(tenant_id, start_us=start_us)
    await pipeline.flush([sender.create(end_time_us=start_us)])
    await pipeline.flush([sender.bare_update(outputs=b"1")])
    await check(pipeline, sender)


async def test_odd_texts_come_back_exactly(pipeline: Pipeline, sender: Sender) -> None:
    """Quotes, backslashes, NUL, emoji and line ends survive in every text."""
    odd = "a'b\"c\\d\x00e\n\t\r{f:String}%s😀\u2028"
    payload = json.dumps({odd: odd}).encode()
    await pipeline.flush(
        [
            sender.create(
                name=odd, error=odd, tags=(odd, ""), inputs=payload, outputs=payload, manifest=payload,
                extra=json.dumps({"metadata": {odd: odd, "session_id": odd, "ls_user_id": odd}}).encode(),
                attachments={odd: Attachment(odd, b"\x00\xff")},
            )
        ]
    )  # fmt: skip
    run = await check(pipeline, sender)
    assert run[RunField.NAME] == odd
    assert list(run[RunField.ATTACHMENTS][1]) == [odd]


async def test_many_bare_updates_at_once(pipeline: Pipeline, tenant_id: str) -> None:
    """A flush of thousands of updates that must be looked up works like a small one."""
    senders = [Sender(tenant_id, start_us=T0_US + number) for number in range(5_000)]
    for sender in senders:
        sender.project_id = senders[0].project_id
    await pipeline.flush([sender.create() for sender in senders])
    await pipeline.restart()
    await pipeline.flush([sender.bare_update(outputs=b"1") for sender in senders])
    listed = await pipeline.runs(
        tenant_id, [senders[0].project_id], frozenset({RunField.OUTPUTS, RunField.START_TIME})
    )
    assert len(listed) == len(senders)
    assert {run[RunField.OUTPUTS] for run in listed.values()} == {b"1"}
