"""Batches on a stream: their order, their errors, and back-pressure instead of refusals."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.manual_clock import ManualClock
from tests.waiting import LONGEST_WAIT_S

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.principals import Principal
from runstore.domain.rate_limits import RateLimiter, RateLimits, TenantLimits
from runstore.domain.runs import RunPatch
from runstore.ingest.metrics import IngestMetrics
from runstore.rpc.authentication import current_principal
from runstore.rpc.call_line import CallLine, current_call
from runstore.rpc.call_metrics import CallMetrics
from runstore.rpc.run_ingest import MAX_OPERATIONS, RunIngestServicer
from runstore.runtime.clock import SystemClock
from runstore.v1 import error_pb2, run_pb2
from runstore.v1 import run_ingest_service_pb2 as pb

TENANT = str(uuid.UUID(int=1))
NO_CONTEXT: Any = None
LIMITS = TenantLimits(tenant=RateLimits(runs=1_000_000))
"""More than any test here sends but the one about them."""


class NoOverrides:
    async def of(self, tenant_id: str) -> TenantLimits:
        return TenantLimits()


class FakeIngest:
    """Notes what is written in which order; the project `slow` takes its time to be found."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.slow_project = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.waited = asyncio.Event()
        self.refusal: RunstoreError | None = None

    async def wait_for_room(self, tenant_id: str) -> None:
        self.waited.set()
        await self.room.wait()

    async def find_projects(self, patches: Sequence[RunPatch]) -> dict[int, RunstoreError]:
        if any(patch.project_name == "slow" for patch in patches):
            await self.slow_project.wait()
        return {
            index: invalid("project_id", "there is none")
            for index, patch in enumerate(patches)
            if patch.project_name == "none"
        }

    async def write(self, patches: Sequence[RunPatch], *, has_room: bool = False) -> int:
        if self.refusal is not None:
            raise self.refusal
        assert has_room or self.room.is_set()
        self.written += [patch.name or "" for patch in patches]
        return len(self.written)


class FakeVisibility:
    def __init__(self) -> None:
        self.seen: list[int] = []

    async def see_sequence(self, sequence: int) -> None:
        self.seen.append(sequence)


@pytest.fixture
async def ingest() -> FakeIngest:
    return FakeIngest()


@pytest.fixture
def visibility() -> FakeVisibility:
    return FakeVisibility()


@pytest.fixture
async def servicer(ingest: FakeIngest, visibility: FakeVisibility) -> RunIngestServicer:
    uploads: Any = None  # Nothing here was uploaded before.
    metrics = IngestMetrics(CollectorRegistry())
    limiter = RateLimiter(LIMITS, NoOverrides(), SystemClock())
    return RunIngestServicer(ingest, visibility, uploads, metrics, limiter)  # type: ignore[arg-type]  # as much as it uses


def operation(name: str, *, project: str = "p", run_id: str | None = None) -> pb.RunOperation:
    return pb.RunOperation(
        create=pb.RunFields(
            id=run_id or str(uuid.uuid4()), name=name, run_type=run_pb2.RUN_TYPE_LLM, project_name=project
        )
    )


def begin_call() -> None:
    """What the interceptor does before every call."""
    current_principal.set(Principal(TENANT, None))
    metrics = CallMetrics(CollectorRegistry())
    current_call.set(CallLine("/runstore.v1.S/M", is_stream=True, metrics=metrics))


async def stream(
    servicer: RunIngestServicer, batches: Sequence[pb.StreamRunsRequest]
) -> list[pb.StreamRunsResponse]:
    async def requests() -> AsyncIterator[pb.StreamRunsRequest]:
        for batch in batches:
            yield batch

    begin_call()
    return [reply async for reply in servicer.StreamRuns(requests(), NO_CONTEXT)]


def batch(name: str, **options: Any) -> pb.StreamRunsRequest:
    return pb.StreamRunsRequest(batch_id=name, operations=[operation(name, **options)])


async def test_batches_never_overtake_each_other(servicer: RunIngestServicer, ingest: FakeIngest) -> None:
    """A batch whose project is yet to be found holds up those behind it, in the log and in the replies."""
    task = asyncio.create_task(
        stream(servicer, [batch("first", project="slow"), *(batch(str(number)) for number in range(40))])
    )
    for _ in range(200):  # Turns of the event loop: more than all of them together would take.
        await asyncio.sleep(0)
    assert ingest.written == []
    ingest.slow_project.set()
    replies = await asyncio.wait_for(task, LONGEST_WAIT_S)
    names = ["first", *map(str, range(40))]
    assert ingest.written == names
    assert [reply.batch_id for reply in replies] == names


async def test_full_queue_slows_the_stream(servicer: RunIngestServicer, ingest: FakeIngest) -> None:
    """A stream waits for room instead of being refused."""
    ingest.room.clear()
    task = asyncio.create_task(stream(servicer, [batch(str(number)) for number in range(20)]))
    await asyncio.wait_for(ingest.waited.wait(), LONGEST_WAIT_S)
    assert ingest.written == []
    ingest.room.set()
    assert len(await asyncio.wait_for(task, LONGEST_WAIT_S)) == 20


async def test_bad_operations_do_not_cost_their_neighbours(
    servicer: RunIngestServicer, ingest: FakeIngest
) -> None:
    """Refusals come by index, in order, with reason, field and id as sent; the others are written."""
    operations = [
        operation("a"),
        operation("b", project="none"),
        operation("c", run_id="X"),
        pb.RunOperation(),
        operation("e"),
    ]
    [reply] = await stream(servicer, [pb.StreamRunsRequest(operations=operations)])
    assert ingest.written == ["a", "e"]
    assert [(error.index, error.field) for error in reply.errors] == [
        (1, "project_id"),
        (2, "id"),
        (3, "operation"),
    ]
    assert reply.errors[1].run_id == "X"
    assert {error.reason for error in reply.errors} == {error_pb2.ERROR_REASON_INVALID_ARGUMENT}


async def test_failed_batch_ends_the_stream_behind_the_good_ones(servicer: RunIngestServicer) -> None:
    """Replies to earlier batches arrive before the error of a batch as a whole."""
    too_many = pb.StreamRunsRequest(operations=[operation("x")] * (MAX_OPERATIONS + 1))
    for bad in (too_many, pb.StreamRunsRequest(batch_id="b" * 257)):

        async def requests(bad: pb.StreamRunsRequest = bad) -> AsyncIterator[pb.StreamRunsRequest]:
            yield batch("good")
            yield bad

        begin_call()
        replies = servicer.StreamRuns(requests(), NO_CONTEXT)
        assert (await anext(replies)).batch_id == "good"
        with pytest.raises(RunstoreError):
            await anext(replies)


async def test_abandoned_stream_leaves_no_task_behind(
    servicer: RunIngestServicer, ingest: FakeIngest
) -> None:
    """When the log refuses or the client goes, the reader ends although its queue is full."""
    ingest.refusal = RunstoreError(ErrorReason.UNAVAILABLE, "no disk")
    before = asyncio.all_tasks()
    with pytest.raises(RunstoreError):
        await stream(servicer, [batch(str(number)) for number in range(100)])
    left = asyncio.all_tasks() - before
    if left:
        _, pending = await asyncio.wait(left, timeout=LONGEST_WAIT_S)
        assert not pending
        for task in left:
            if not task.cancelled():
                task.exception()


@pytest.mark.parametrize("token", ["x", "-1", "\u0661", "9" * 5_000])
async def test_bad_write_token_is_refused(servicer: RunIngestServicer, token: str) -> None:
    """A token that no reply had is refused by name."""
    with pytest.raises(RunstoreError) as refused:
        await servicer.WaitVisible(pb.WaitVisibleRequest(write_token=token), NO_CONTEXT)
    assert refused.value.field == "write_token"


async def test_wait_without_token_is_for_everything(
    servicer: RunIngestServicer, visibility: FakeVisibility
) -> None:
    """An empty token waits for whatever is acknowledged so far, a token for its own write."""
    await servicer.WaitVisible(pb.WaitVisibleRequest(write_token="7"), NO_CONTEXT)
    await servicer.WaitVisible(pb.WaitVisibleRequest(), NO_CONTEXT)
    assert visibility.seen[0] == 7
    assert visibility.seen[1] > 2**63


async def test_too_much_in_a_second_is_refused_whole(ingest: FakeIngest, visibility: FakeVisibility) -> None:
    """Of a call that comes too early nothing is stored; streams wait instead."""
    uploads: Any = None
    clock = ManualClock()
    limiter = RateLimiter(TenantLimits(tenant=RateLimits(runs=2)), NoOverrides(), clock)
    metrics = IngestMetrics(CollectorRegistry())
    servicer = RunIngestServicer(ingest, visibility, uploads, metrics, limiter)  # type: ignore[arg-type]  # as above
    begin_call()
    four = pb.WriteRunsRequest(operations=[operation(str(number)) for number in range(4)])
    await servicer.WriteRuns(four, NO_CONTEXT)
    with pytest.raises(RunstoreError) as refused:
        await servicer.WriteRuns(four, NO_CONTEXT)
    assert (refused.value.reason, refused.value.retry_after_s) == (ErrorReason.RATE_LIMITED, 1)
    assert len(ingest.written) == 4
    clock.advance(1.1)
    await servicer.WriteRuns(four, NO_CONTEXT)
    assert len(ingest.written) == 8
    streamed = asyncio.create_task(stream(servicer, [batch("later")]))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(ingest.written) == 8
    clock.advance(5)
    await asyncio.wait_for(streamed, LONGEST_WAIT_S)
    assert ingest.written[-1] == "later"
