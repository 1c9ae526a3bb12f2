"""Runs between callers and workers: who gets what, when, and what becomes of it when somebody goes."""

import asyncio
import uuid
from contextlib import AsyncExitStack
from typing import Any

import grpc
import msgspec
import pytest
from tests.unit.dispatch.conftest import FakeWorker, Store, finished
from tests.waiting import LONGEST_WAIT_S, until_async

from runstore.v1 import agent_run_pb2
from runstore.v1 import agent_run_service_pb2 as runs_pb
from runstore.v1 import agent_worker_service_pb2 as pb
from runstore.v1 import thread_service_pb2 as threads_pb

PENDING = agent_run_pb2.AGENT_RUN_STATUS_PENDING
RUNNING = agent_run_pb2.AGENT_RUN_STATUS_RUNNING
SUCCESS = agent_run_pb2.AGENT_RUN_STATUS_SUCCESS
INTERRUPTED = agent_run_pb2.AGENT_RUN_STATUS_INTERRUPTED
ROLLED_BACK = agent_run_pb2.AGENT_RUN_STATUS_ROLLED_BACK
IDLE = threads_pb.AGENT_THREAD_STATUS_IDLE
VALUES = agent_run_pb2.ThreadSnapshot(values=b'{"log":["a"]}', interrupts=b"{}")


def refused(code: grpc.StatusCode) -> Any:
    return pytest.raises(grpc.aio.AioRpcError, check=lambda error: error.code() is code)


async def test_run_reaches_a_worker_and_its_end_those_who_wait(store: Store, thread_id: str) -> None:
    """Events in order and then the run's own result; afterwards row and thread say the same."""
    async with FakeWorker(store) as worker:
        assert worker.welcome.lease.seconds == 30
        run = await store.given_run(thread_id, input=b'{"n":1}')
        assert run.status == PENDING
        joining = store.join(run, after_event_id="0")
        claimed = await worker.next_run()
        assert (claimed.run.run_id, claimed.graph_id, claimed.has_checkpoints) == (run.run_id, "steps", True)
        assert msgspec.json.decode(claimed.run.kwargs)["input"] == {"n": 1}
        assert (await store.run(run)).status == RUNNING
        await worker.emit(claimed, ("values", {"log": []}), ("values", {"log": ["a"]}))
        await worker.finish(claimed, result={"out": 1}, snapshot=VALUES)
        metadata, first, second, end = await joining.all()
        assert msgspec.json.decode(metadata.data) == {"run_id": run.run_id, "attempt": 1}
        assert [msgspec.json.decode(event.data)["log"] for event in (first, second)] == [[], ["a"]]
        assert (end.status, end.result) == (SUCCESS, b'{"out":1}')
        stored = await store.run(run)
        assert (stored.status, stored.attempt, stored.trace_id) == (SUCCESS, 1, run.run_id)
        assert (await store.thread(thread_id)).values == VALUES.values


async def test_events_are_sent_again_after_a_place(store: Store, thread_id: str) -> None:
    """Each event has an id of its own; following again begins after it, also when the run is over."""
    async with FakeWorker(store) as worker:
        run = await store.given_run(thread_id, stream_resumable=True)
        claimed = await worker.next_run()
        await worker.emit(claimed, *(("values", index) for index in range(20)), ("updates", "u"))
        await worker.finish(claimed)
        *events, end = await store.join(run, after_event_id="0").all()
        assert len({event.event_id for event in events}) == 22
        later = await store.join(run, after_event_id=events[10].event_id).all()
        assert [event.event_id for event in later[:-1]] == [event.event_id for event in events[11:]]
        assert await store.join(run, after_event_id="0", modes=["updates"]).all() == [events[-1], end]
        assert await store.join(run).all() == [end]
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            await store.join(run, after_event_id="no id").all()


async def test_joining_late_tells_the_result_or_what_the_thread_holds(store: Store, thread_id: str) -> None:
    """The run's own result for who waits, the thread's values for the contract's join."""
    async with FakeWorker(store) as worker:
        first = await store.given_run(thread_id)
        await worker.finish(await worker.next_run(), result="first")
        await store.given_run(thread_id)
        await worker.finish(await worker.next_run(), snapshot=VALUES)
        (end,) = await store.join(first, end_only=True).all()
        assert end.result == b'"first"'
        (end,) = await store.join(first, latest_of_thread=True).all()
        assert end.result == VALUES.values
        paused = agent_run_pb2.ThreadSnapshot(
            values=b"{}", interrupts=b'{"task":[{"id":"i","value":1}]}', has_next=True
        )
        await store.given_run(thread_id)
        await worker.finish(await worker.next_run(), snapshot=paused)
        (end,) = await store.join(first, latest_of_thread=True).all()
        assert msgspec.json.decode(end.result) == {"__interrupt__": [{"id": "i", "value": 1}]}


async def test_failure_is_told_with_its_error(store: Store, thread_id: str) -> None:
    """At once, and to who joins later."""
    error = agent_run_pb2.AgentRunError(error="ValueError", message="boom")
    result = {"__error__": {"error": "ValueError", "message": "boom"}}
    async with FakeWorker(store) as worker:
        run = await store.given_run(thread_id)
        joining = store.join(run, end_only=True)
        await worker.finish(await worker.next_run(), "ERROR", result, error=error, snapshot=VALUES)
        for end in (await joining.all(), await store.join(run, latest_of_thread=True).all()):
            assert (end[0].error, msgspec.json.decode(end[0].result)) == (error, result)
        assert (await store.thread(thread_id)).error == error


async def test_stateless_result_outlives_its_thread(store: Store) -> None:
    """The row is gone; who comes back for the result still gets it."""
    async with FakeWorker(store) as worker:
        run = await store.given_run()
        await worker.finish(await worker.next_run(), result=42)
        with refused(grpc.StatusCode.NOT_FOUND):
            await store.run(run)
        for latest in (False, True):
            (end,) = await store.join(run, latest_of_thread=latest).all()
            assert end.result == b"42"


async def test_slots_bound_what_a_worker_gets(store: Store) -> None:
    """The third run comes when a slot is free; other threads' runs fill it at once."""
    async with FakeWorker(store, slots=2) as worker:
        runs = [await store.given_run() for _ in range(3)]
        claims = [await worker.next_run(), await worker.next_run()]
        assert (await store.run(runs[2])).status == PENDING
        await worker.finish(claims[0])
        assert (await worker.next_run()).run.run_id == runs[2].run_id


async def test_no_slot_is_given_twice(store: Store) -> None:
    """Of runs that are created at one moment, a worker gets as many as it has slots for; the others follow
    as slots are free, and one that comes meanwhile is the last."""
    async with FakeWorker(store, slots=2) as worker:
        await asyncio.gather(*(store.given_run() for _ in range(6)))
        claims = [await worker.next_run(), await worker.next_run()]
        last = await store.given_run()
        for place in range(5):
            await worker.finish(claims[place])
            claims.append(await worker.next_run())
        assert len({claim.run.run_id for claim in claims}) == 7
        assert claims[-1].run.run_id == last.run_id


async def test_a_run_is_not_lost_with_the_caller(store: Store, thread_id: str) -> None:
    """A caller who leaves while its run is created: the worker gets it all the same, or nobody ever does."""
    async with FakeWorker(store) as worker:
        for place in range(6):
            request = runs_pb.CreateAgentRunRequest(
                thread_id=thread_id, assistant_id="steps", create_thread=True
            )
            call = store.runs.CreateAgentRun(request, metadata=store.metadata)
            for _ in range(20 * place):
                await asyncio.sleep(0)
            call.cancel()
        run = await store.given_run(thread_id)
        while (claimed := await worker.next_run()).run.run_id != run.run_id:
            await worker.finish(claimed)


async def test_runs_go_to_a_worker_that_has_their_graph_and_a_slot(store: Store) -> None:
    """A graph that one worker alone has goes there; then it is full and the other one gets what both have."""
    both = ("steps", "other")
    async with FakeWorker(store) as first, FakeWorker(store, graphs=both, slots=1) as second:
        await store.given_run(assistant_id="other")
        assert (await second.next_run()).graph_id == "other"
        await store.given_run()
        assert (await first.next_run()).graph_id == "steps"


@pytest.mark.parametrize(
    ("action", "outcome", "status"),
    [("INTERRUPT", "INTERRUPTED", INTERRUPTED), ("ROLLBACK", "ROLLED_BACK", ROLLED_BACK)],
)
async def test_cancel_reaches_the_worker(
    store: Store, thread_id: str, action: str, outcome: str, status: int
) -> None:
    """At once; the run ends when the worker has stopped it."""
    async with FakeWorker(store) as worker:
        run = await store.given_run(thread_id)
        claimed = await worker.next_run()
        joining = store.join(run, end_only=True)
        await store.cancel(run, action)
        cancel = await worker.next("cancel")
        assert (cancel.claim, cancel.action) == (
            claimed.claim,
            agent_run_pb2.CancelAction.Value(f"CANCEL_ACTION_{action}"),
        )
        await worker.finish(claimed, outcome, {"log": ["a"]}, snapshot=VALUES)
        (end,) = await joining.all()
        assert (end.status, end.result) == (status, b'{"log":["a"]}')
        assert (await store.thread(thread_id)).status == IDLE
        with refused(grpc.StatusCode.NOT_FOUND):
            await store.cancel(run)


async def test_pending_run_is_cancelled_without_a_worker(store: Store, thread_id: str) -> None:
    """Who waits for it gets what the thread holds."""
    async with FakeWorker(store):
        run = await store.given_run(thread_id, after_seconds=60)
        joining = store.join(run, end_only=True)
        await store.cancel(run)
        (end,) = await joining.all()
        assert (end.status, end.result) == (INTERRUPTED, b"{}")


async def test_worker_that_comes_again_keeps_its_runs(store: Store, thread_id: str) -> None:
    """A broken stream costs nothing when the worker renews in time, and its word counts as before."""
    async with FakeWorker(store) as worker:
        run = await store.given_run(thread_id)
        claimed = await worker.next_run()
    foreign = pb.AgentRunClaim(run_id=run.run_id, claim_token="f" * 32)
    async with FakeWorker(store, worker_id=worker.hello.worker_id, claims=[claimed.claim, foreign]) as again:
        assert await again.next("lost") == foreign
        await again.finish(claimed)
        assert (await store.run(run)).status == SUCCESS


async def test_run_of_a_lost_worker_goes_to_another(store: Store, thread_id: str) -> None:
    """Within seconds of the broken stream; the lost worker's word is refused."""
    async with AsyncExitStack() as stack:
        async with FakeWorker(store) as worker:
            run = await store.given_run(thread_id)
            claimed = await worker.next_run()
            other = await stack.enter_async_context(FakeWorker(store))
        await until_async(lambda: has_gone(store, worker), "the store knows that it has gone")
        store.clock.ahead_s += 6  # Less than a lease.
        again = await other.next_run()
        assert (again.run.run_id, again.run.attempt) == (run.run_id, 2)
        assert again.run.trace_id not in ("", run.run_id)
        async with FakeWorker(store, worker_id=worker.hello.worker_id, claims=[claimed.claim]) as late:
            assert await late.next("lost") == claimed.claim
            await late.say(finished=finished(claimed.claim, "SUCCESS"))
            assert await late.next("lost") == claimed.claim
        await other.finish(again)
        assert (await store.run(run)).status == SUCCESS


async def test_stalled_worker_gets_nothing_more(store: Store, thread_id: str) -> None:
    """Its stream is open, but it does not renew: the run goes to another one, though that has less room."""
    async with FakeWorker(store, slots=3) as stalled:
        run = await store.given_run(thread_id)
        claimed = await stalled.next_run()
        async with FakeWorker(store, slots=1) as other:
            store.clock.ahead_s += 31
            again = await other.next_run()
            # One more when it was just being claimed for the stalled one.
            assert (again.run.run_id, again.run.attempt in (2, 3)) == (run.run_id, True)
            await other.finish(again)
        assert await stalled.next("lost") == claimed.claim
        assert not isinstance(await stalled.call.read(), pb.WorkResponse), "its stream has ended"


async def test_stalled_worker_is_not_given_its_own_runs_again(store: Store) -> None:
    """Of several that are taken back one by one, those that are free already wait for another worker."""
    async with FakeWorker(store, slots=4) as stalled:
        runs = [await store.given_run(await store.given_thread()) for _ in range(4)]
        claims = {(await stalled.next_run()).claim.run_id for _ in runs}
        tenant_id = next(iter(store.agents.dispatcher._workers.tenants()))
        store.clock.ahead_s += 31

        async def is_told() -> list[Any]:
            told = []
            while isinstance(response := await stalled.call.read(), pb.WorkResponse):
                told.append(response)
            return told

        telling = asyncio.create_task(is_told())
        async with asyncio.timeout(LONGEST_WAIT_S):
            while not telling.done():
                store.agents.dispatcher.wake(tenant_id)
                await asyncio.sleep(0)
        assert [message.WhichOneof("message") for message in telling.result()] == ["lost"] * 4
        assert {message.lost.run_id for message in telling.result()} == claims
    async with FakeWorker(store, slots=4) as other:
        assert {(await other.next_run()).run.run_id for _ in runs} == claims


def has_gone(store: Store, worker: FakeWorker) -> bool:
    """Whether the end of a worker's stream has had its effect."""
    dispatcher = store.agents.dispatcher
    ids = [each.worker.worker_id for each in dispatcher._workers]
    return worker.hello.worker_id not in ids and not dispatcher._shortening


async def test_draining_worker_gives_back(store: Store, thread_id: str) -> None:
    """It gets nothing more; what it gives back goes to another, and does not count as a failure."""
    async with FakeWorker(store) as worker:
        await store.given_run(thread_id)
        claimed = await worker.next_run()
        await worker.say(draining=pb.WorkerDraining())
        await worker.finish(claimed, "REQUEUE")
        async with FakeWorker(store) as other:
            again = await other.next_run()
            assert (again.run.run_id, again.run.attempt) == (claimed.run.run_id, 2)
            await other.finish(again)


async def test_renewal_tells_what_is_lost_and_cancelled(store: Store, thread_id: str) -> None:
    """So that a worker learns of both also when its stream is held up."""
    async with FakeWorker(store) as worker:
        run = await store.given_run(thread_id)
        claimed = await worker.next_run()
        foreign = pb.AgentRunClaim(run_id=str(uuid.uuid4()), claim_token="0" * 32)
        request = pb.RenewClaimsRequest(claims=[claimed.claim, foreign])
        renewed = await store.workers.RenewClaims(request, metadata=store.metadata)
        assert (list(renewed.lost), list(renewed.cancels)) == ([foreign], [])
        await store.cancel(run)
        renewed = await store.workers.RenewClaims(request, metadata=store.metadata)
        assert [cancel.claim for cancel in renewed.cancels] == [claimed.claim]


async def test_events_of_a_lost_claim_are_dropped(store: Store, thread_id: str) -> None:
    """A stalled worker that wakes cannot speak for the run."""
    async with FakeWorker(store) as worker, FakeWorker(store, graphs=()) as stranger:
        run = await store.given_run(thread_id)
        claimed = await worker.next_run()
        await stranger.emit(claimed, ("values", "forged"))
        await stranger.say(finished=finished(pb.AgentRunClaim(run_id=run.run_id, claim_token="x"), "SUCCESS"))
        await stranger.next("lost")
        await worker.finish(claimed)
        assert [step.mode for step in (await store.join(run, after_event_id="0").all())[:-1]] == ["metadata"]


async def test_deleting_a_running_run_stops_it(store: Store, thread_id: str) -> None:
    """The deletion is over when the worker has stopped; run and thread are as if it had never been."""
    async with FakeWorker(store) as worker:
        run = await store.given_run(thread_id)
        claimed = await worker.next_run()
        request = runs_pb.DeleteAgentRunRequest(thread_id=thread_id, run_id=run.run_id)
        deleting = asyncio.ensure_future(store.runs.DeleteAgentRun(request, metadata=store.metadata))
        assert (await worker.next("cancel")).action == agent_run_pb2.CANCEL_ACTION_ROLLBACK
        await worker.finish(claimed, "ROLLED_BACK", {}, snapshot=agent_run_pb2.ThreadSnapshot())
        await deleting
        with refused(grpc.StatusCode.NOT_FOUND):
            await store.run(run)
        assert (await store.thread(thread_id)).status == IDLE


async def test_deleting_an_ended_run_takes_its_checkpoints(store: Store, thread_id: str) -> None:
    """Asked of a worker before the row goes."""
    async with FakeWorker(store) as worker:
        run = await store.given_run(thread_id)
        await worker.finish(await worker.next_run(), snapshot=VALUES)
        request = runs_pb.DeleteAgentRunRequest(thread_id=thread_id, run_id=run.run_id)
        deleting = asyncio.ensure_future(store.runs.DeleteAgentRun(request, metadata=store.metadata))
        asked = await worker.next("question")
        assert asked.delete_checkpoints == pb.DeleteCheckpoints(thread_id=thread_id, run_id=run.run_id)
        assert (await store.run(run)).status == SUCCESS
        await worker.say(answer=pb.WorkerAnswer(question_id=asked.question_id, value=b"null"))
        await deleting
        with refused(grpc.StatusCode.NOT_FOUND):
            await store.run(run)


async def test_runs_are_cancelled_by_status_or_ids(store: Store, thread_id: str) -> None:
    """One of both, and something must be in flight."""

    async def cancelled(**fields: Any) -> int:
        request = runs_pb.CancelAgentRunsRequest(**fields)
        answer = await store.runs.CancelAgentRuns(request, metadata=store.metadata)
        count: int = answer.cancelled_count
        return count

    async with FakeWorker(store, slots=1):
        runs = [await store.given_run(thread_id, after_seconds=60) for _ in range(3)]
        assert await cancelled(thread_id=thread_id, run_ids=[runs[0].run_id, str(uuid.uuid4())]) == 1
        assert await cancelled(status=PENDING) == 2
        for wrong in ({}, {"all_in_flight": True, "run_ids": [runs[0].run_id]}, {"status": SUCCESS}):
            with refused(grpc.StatusCode.INVALID_ARGUMENT):
                await cancelled(**wrong)
        with refused(grpc.StatusCode.NOT_FOUND):
            await cancelled(all_in_flight=True)


async def test_tenants_do_not_meet(store: Store, thread_id: str) -> None:
    """A worker runs its own tenant's runs; another tenant's caller finds nothing."""
    tenant = await store.catalog.keys.create_tenant("theirs")
    _, key = await store.catalog.keys.create_key(tenant.id, "test")
    theirs = Store.__new__(Store)
    theirs.__dict__ = {**store.__dict__, "metadata": (("x-api-key", key),)}
    async with FakeWorker(theirs) as stranger, FakeWorker(store) as worker:
        run = await store.given_run(thread_id)
        claimed = await worker.next_run()
        for call in (theirs.run(run), theirs.cancel(run), theirs.join(run).all(), theirs.thread(thread_id)):
            with refused(grpc.StatusCode.NOT_FOUND):
                await call
        with refused(grpc.StatusCode.NOT_FOUND):
            await theirs.given_run(thread_id)
        await stranger.say(finished=finished(claimed.claim, "ERROR"))
        assert await stranger.next("lost") == claimed.claim
        await worker.finish(claimed)


@pytest.mark.parametrize(
    "fields",
    [
        {"assistant_id": "unknown"},
        {"thread_id": "no id"},
        {"input": b"{"},
        {"config": b"[]"},
        {"config": b'{"configurable":1}'},
        {"interrupt_before": b'"b"'},
        {"after_seconds": -1.0},
        {"checkpoint_id": "no id"},
        {"multitask_strategy": 9},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_bad_requests_are_refused(store: Store, fields: dict[str, Any]) -> None:
    """Each with its field; nothing is created."""
    async with FakeWorker(store):
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            await store.given_run(**fields)


async def test_fields_that_exclude_each_other_are_refused(store: Store) -> None:
    """Context beside configurable, and a resume without a thread."""
    async with FakeWorker(store):
        together: list[dict[str, Any]] = [
            {"context": b'{"a":1}', "config": b'{"configurable":{"a":1}}'},
            {"command": b'{"resume":false}'},
        ]
        for fields in together:
            with refused(grpc.StatusCode.FAILED_PRECONDITION):
                await store.given_run(**fields)


@pytest.mark.parametrize(
    "hello",
    [
        pb.WorkRequest(draining=pb.WorkerDraining()),
        pb.WorkRequest(hello=pb.WorkerHello(worker_id=str(uuid.uuid4()))),
        pb.WorkRequest(hello=pb.WorkerHello(worker_id="no id", slots=1)),
    ],
    ids=["not first", "no slots", "no id"],
)
async def test_worker_must_introduce_itself(store: Store, hello: pb.WorkRequest) -> None:
    """Before anything else, with what the store has to know."""
    call = store.workers.Work(metadata=store.metadata)
    await call.write(hello)
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        await call.read()
