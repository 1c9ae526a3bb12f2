"""Threads over gRPC: rows at once, checkpoints through a worker's answers."""

import asyncio
import uuid
from collections.abc import Awaitable
from typing import Any

import grpc
import msgspec
import pytest
from tests.unit.dispatch.conftest import FakeWorker, Store
from tests.waiting import LONGEST_WAIT_S

from runstore.v1 import agent_run_pb2, error_pb2
from runstore.v1 import agent_worker_service_pb2 as pb
from runstore.v1 import thread_service_pb2 as threads_pb

BUSY = threads_pb.AGENT_THREAD_STATUS_BUSY
IDLE = threads_pb.AGENT_THREAD_STATUS_IDLE
INTERRUPTED = threads_pb.AGENT_THREAD_STATUS_INTERRUPTED
PAUSED = agent_run_pb2.ThreadSnapshot(values=b'{"log":["a"]}', interrupts=b"{}", has_next=True)


def refused(code: grpc.StatusCode) -> Any:
    return pytest.raises(grpc.aio.AioRpcError, check=lambda error: error.code() is code)


async def calling(store: Store, method: str, **fields: Any) -> Any:
    """Calls a method of the service of threads."""
    request = getattr(threads_pb, f"{method}Request")(**fields)
    return await getattr(store.threads, method)(request, metadata=store.metadata)


async def answered(worker: FakeWorker, call: Awaitable[Any], value: object, **fields: Any) -> tuple[Any, Any]:
    """The question that `call` leads to, and what the call returns once it is answered."""
    pending = asyncio.ensure_future(call)
    question = await worker.next("question")
    answer = pb.WorkerAnswer(question_id=question.question_id, value=msgspec.json.encode(value), **fields)
    await worker.say(answer=answer)
    return question, await pending


async def given_paused_thread(store: Store, worker: FakeWorker) -> str:
    run = await store.given_run(str(uuid.uuid4()))
    await worker.finish(await worker.next_run(), snapshot=PAUSED)
    return run.thread_id


async def test_thread_is_created_once(store: Store, thread_id: str) -> None:
    """A taken id is refused, or answered with the thread that has it."""
    assert await store.given_thread(thread_id=thread_id, metadata=b'{"k":1}') == thread_id
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        await store.given_thread(thread_id=thread_id)
    again = await calling(store, "CreateAgentThread", thread_id=thread_id, return_existing=True)
    assert msgspec.json.decode(again.thread.metadata) == {"k": 1}
    changed = await calling(store, "UpdateAgentThread", thread_id=thread_id, metadata=b'{"l":2}')
    assert msgspec.json.decode(changed.thread.metadata) == {"k": 1, "l": 2}


async def test_thread_that_never_ran_has_an_empty_state(store: Store, thread_id: str) -> None:
    """Nobody needs to be asked."""
    await store.given_thread(thread_id=thread_id)
    state = msgspec.json.decode((await calling(store, "GetThreadState", thread_id=thread_id)).state)
    assert (state["values"], state["next"], state["checkpoint"]) == ({}, [], None)
    assert list((await calling(store, "ListThreadHistory", thread_id=thread_id)).states) == []
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        await calling(store, "UpdateThreadState", thread_id=thread_id, values=b"{}")
    await calling(store, "DeleteAgentThread", thread_id=thread_id)


async def test_state_and_history_are_a_workers_answers(store: Store) -> None:
    """The question says which graph, how it is made, and what was asked."""
    async with FakeWorker(store) as worker:
        thread_id = await given_paused_thread(store, worker)
        asking = calling(store, "GetThreadState", thread_id=thread_id, subgraphs=True)
        question, response = await answered(worker, asking, {"values": 1})
        assert (question.graph_id, question.state.subgraphs, response.state) == (
            "steps",
            True,
            b'{"values":1}',
        )
        asking = calling(store, "ListThreadHistory", thread_id=thread_id, limit=3)
        question, response = await answered(worker, asking, [{"n": 1}, {"n": 2}])
        assert (question.history.limit, list(response.states)) == (3, [b'{"n":1}', b'{"n":2}'])


async def test_refusal_of_a_worker_is_the_callers(store: Store) -> None:
    """With its reason and its text."""
    async with FakeWorker(store) as worker:
        thread_id = await given_paused_thread(store, worker)
        asking = calling(store, "UpdateThreadState", thread_id=thread_id, values=b"{}", as_node="zzz")
        pending = asyncio.ensure_future(asking)
        question = await worker.next("question")
        refusal = pb.WorkerRefusal(reason=error_pb2.ERROR_REASON_INCONSISTENT, message="no node zzz")
        await worker.say(answer=pb.WorkerAnswer(question_id=question.question_id, refusal=refusal))
        with pytest.raises(grpc.aio.AioRpcError, match="no node zzz"):
            await pending


async def test_updated_state_is_the_threads(store: Store) -> None:
    """Its values and its status follow; a busy thread is not updated."""
    async with FakeWorker(store) as worker:
        thread_id = await given_paused_thread(store, worker)
        assert (await store.thread(thread_id)).status == INTERRUPTED
        after = agent_run_pb2.ThreadSnapshot(values=b'{"log":["x"]}', interrupts=b"{}")
        asking = calling(store, "UpdateThreadState", thread_id=thread_id, values=b'{"log":["x"]}')
        await answered(worker, asking, {"checkpoint_id": "c"}, snapshot=after)
        thread = await store.thread(thread_id)
        assert (thread.status, thread.values) == (IDLE, b'{"log":["x"]}')
        await store.given_run(thread_id, after_seconds=60)
        with refused(grpc.StatusCode.ABORTED):
            await calling(store, "UpdateThreadState", thread_id=thread_id, values=b"{}")


async def test_worker_that_goes_answers_nothing(store: Store) -> None:
    """Who asked is told, and may ask again."""
    async with FakeWorker(store) as worker:
        thread_id = await given_paused_thread(store, worker)
        pending = asyncio.ensure_future(calling(store, "GetThreadState", thread_id=thread_id))
        await worker.next("question")
    with refused(grpc.StatusCode.UNAVAILABLE):
        await pending


async def test_question_waits_for_a_worker(store: Store) -> None:
    """A worker that comes within the time is asked."""
    async with FakeWorker(store) as worker:
        thread_id = await given_paused_thread(store, worker)
    pending = asyncio.ensure_future(calling(store, "GetThreadState", thread_id=thread_id))
    async with FakeWorker(store) as worker:
        question, response = await answered(worker, pending, {"values": 2})
        assert (question.state.thread_id, response.state) == (thread_id, b'{"values":2}')


async def test_deleted_thread_takes_runs_and_checkpoints(store: Store) -> None:
    """What runs is stopped first; the row goes last."""
    async with FakeWorker(store) as worker:
        thread_id = await given_paused_thread(store, worker)
        await store.given_run(thread_id)
        claimed = await worker.next_run()
        pending = asyncio.ensure_future(calling(store, "DeleteAgentThread", thread_id=thread_id))
        assert (await worker.next("cancel")).claim == claimed.claim
        await worker.finish(claimed, "ROLLED_BACK", {}, snapshot=PAUSED)
        question, _ = await answered(worker, pending, None)
        assert question.delete_checkpoints == pb.DeleteCheckpoints(thread_id=thread_id)
        with refused(grpc.StatusCode.NOT_FOUND):
            await store.thread(thread_id)


async def test_copy_holds_what_its_source_does(store: Store) -> None:
    """Values and metadata from the row, checkpoints by a worker; a missing source is a conflict."""
    async with FakeWorker(store) as worker:
        thread_id = await given_paused_thread(store, worker)
        copying = calling(store, "CopyAgentThread", thread_id=thread_id)
        question, response = await answered(worker, copying, None)
        made = response.thread
        assert question.copy_checkpoints == pb.CopyCheckpoints(
            source_thread_id=thread_id, target_thread_id=made.thread_id
        )
        assert (made.values, made.status, made.metadata) == (
            PAUSED.values,
            IDLE,
            (await store.thread(thread_id)).metadata,
        )
        assert await store.thread(made.thread_id) == made
        with refused(grpc.StatusCode.ABORTED):
            await calling(store, "CopyAgentThread", thread_id=str(uuid.uuid4()))


async def test_threads_are_pruned(store: Store) -> None:
    """Unknown and busy ones are passed over; of those kept only the latest checkpoint stays."""
    async with FakeWorker(store) as worker:
        kept = await given_paused_thread(store, worker)
        busy = (await store.given_run(str(uuid.uuid4()), after_seconds=60)).thread_id
        ids = [kept, busy, str(uuid.uuid4())]
        pruning = calling(store, "PruneAgentThreads", thread_ids=ids, keep_latest=True)
        question, response = await answered(worker, pruning, None)
        assert (question.delete_checkpoints.keep_latest, response.pruned_count) == (True, 1)
        pruning = calling(store, "PruneAgentThreads", thread_ids=ids)
        _, response = await answered(worker, pruning, None)
        assert response.pruned_count == 1
        with refused(grpc.StatusCode.NOT_FOUND):
            await store.thread(kept)
        assert (await store.thread(busy)).status == BUSY


@pytest.mark.parametrize("strategy", ["delete", "keep_latest"])
async def test_thread_expires(store: Store, thread_id: str, strategy: str) -> None:
    """Its time over, it goes, or its old checkpoints do and its time begins again."""
    async with FakeWorker(store) as worker:
        ttl = threads_pb.AgentThreadTtl(minutes=10, strategy=strategy)
        await store.given_thread(thread_id=thread_id, ttl=ttl)
        await store.given_run(thread_id)
        await worker.finish(await worker.next_run(), snapshot=PAUSED)
        await store.agents.sweeper.sweep()
        store.clock.ahead_s += 601
        question, _ = await answered(worker, store.agents.sweeper.sweep(), None)
        assert question.delete_checkpoints.keep_latest == (strategy == "keep_latest")
        if strategy == "keep_latest":
            left_s = (await store.thread(thread_id)).ttl.expire_time.seconds - store.clock.now_us() / 1e6
            assert left_s == pytest.approx(600, abs=5)
        else:
            with refused(grpc.StatusCode.NOT_FOUND):
                await store.thread(thread_id)


async def test_thread_is_followed_through_its_runs(store: Store, thread_id: str) -> None:
    """Each step with its run; only the modes that were asked for."""
    await store.given_thread(thread_id=thread_id)
    request = threads_pb.JoinAgentThreadRequest(thread_id=thread_id, modes=["lifecycle"])
    call: Any = store.threads.JoinAgentThread(request, metadata=store.metadata)
    async with FakeWorker(store) as worker:
        await call.wait_for_connection()
        steps = []
        runs = []
        for _ in range(2):
            runs.append(await store.given_run(thread_id))
            claimed = await worker.next_run()
            await worker.emit(claimed, ("values", 1))
            await worker.finish(claimed)
            steps += [await asyncio.wait_for(call.read(), LONGEST_WAIT_S) for _ in range(2)]
    assert [(step.run_id, step.WhichOneof("step")) for step in steps] == [
        (run.run_id, kind) for run in runs for kind in ("event", "end")
    ]
    call.cancel()


async def test_first_checkpoints_are_made_with_the_thread(store: Store, thread_id: str) -> None:
    """By a worker that has the graph; without one in the metadata the thread is refused."""
    supersteps = b'[{"updates":[{"values":{"log":["s"]}}]}]'
    async with FakeWorker(store) as worker:
        creating = calling(
            store,
            "CreateAgentThread",
            thread_id=thread_id,
            metadata=b'{"graph_id":"steps"}',
            supersteps=supersteps,
        )
        question, response = await answered(worker, creating, None, snapshot=PAUSED)
        assert question.apply_supersteps == pb.ApplySupersteps(thread_id=thread_id, supersteps=supersteps)
        assert (response.thread.status, response.thread.values) == (INTERRUPTED, PAUSED.values)
        with refused(grpc.StatusCode.FAILED_PRECONDITION):
            await store.given_thread(supersteps=supersteps)


async def test_threads_are_searched_and_counted(store: Store) -> None:
    """The page, and how many there are."""
    for index in range(3):
        await store.given_thread(metadata=b'{"n":%d}' % (index % 2))
    condition = threads_pb.AgentThreadCondition(metadata=b'{"n":0}', status=IDLE)
    found = await calling(store, "SearchAgentThreads", condition=condition, page_size=1)
    assert (len(found.threads), found.total_count) == (1, 2)
    assert (await calling(store, "CountAgentThreads", condition=condition)).count == 2
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        await calling(store, "SearchAgentThreads", offset=-1)
