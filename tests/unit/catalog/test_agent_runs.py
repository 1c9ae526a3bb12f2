"""Runs and threads of graphs in the catalog: what creating, claiming, cancelling and ending do to them."""

import asyncio
import uuid
from typing import Any

import msgspec
import pytest

from runstore.catalog import Catalog
from runstore.catalog.agent_claims import LEASE_S, Released, Worker
from runstore.domain.agent_runs import (
    AgentRun,
    AgentRunError,
    AgentRunStatus,
    AgentThread,
    AgentThreadStatus,
    CancelAction,
    Claim,
    ClaimedRun,
    Finished,
    MultitaskStrategy,
    NewAgentRun,
    Outcome,
    ThreadQuery,
    ThreadSnapshot,
    Ttl,
)
from runstore.domain.assistants import Graph
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID as TENANT

WORKER = Worker(TENANT, str(uuid.uuid4()), frozenset({"steps"}), is_tracing=True)
OTHER_WORKER = Worker(TENANT, str(uuid.uuid4()), frozenset({"steps", "other"}), is_tracing=True)
IDLE = ThreadSnapshot(b'{"log":["a"]}', b"{}", has_next=False)
PAUSED = ThreadSnapshot(b'{"log":["a"]}', b'{"task":[{"id":"1","value":1}]}', has_next=True)


@pytest.fixture(autouse=True)
async def graphs(catalog: Catalog) -> None:
    await catalog.assistants.register(TENANT, [Graph("steps", "steps"), Graph("other", "Other", "two")])


async def given_run(catalog: Catalog, thread_id: str | None = None, **fields: Any) -> AgentRun:
    """A pending run of `steps` (or of `graph`), on a thread that is created when there is none."""
    assistant = await catalog.assistants.resolve(TENANT, fields.pop("graph", "steps"))
    new = NewAgentRun(
        **{"thread_id": thread_id, "creates_thread": True, "options": {}, "headers": {}, **fields}
    )
    (run,), _ = await catalog.agent_runs.create(TENANT, [(new, assistant)])
    return run


async def claimed(catalog: Catalog, worker: Worker = WORKER) -> ClaimedRun:
    found = await catalog.agent_claims.claim(worker)
    assert found is not None
    return found


async def finished(catalog: Catalog, claim: Claim, outcome: Outcome, **fields: Any) -> Released | None:
    return await catalog.agent_claims.finish(
        TENANT, Finished(**{"claim": claim, "outcome": outcome, "result": b'{"log":["a"]}', **fields})
    )


async def thread_of(catalog: Catalog, run: AgentRun) -> AgentThread:
    return await catalog.agent_threads.get(TENANT, run.thread_id)


async def statuses(catalog: Catalog, thread_id: str) -> list[AgentRunStatus]:
    """Of the thread's runs, the first due first."""
    return [run.status for run in reversed(await catalog.agent_runs.page(TENANT, thread_id, None, 0, 100))]


def new_thread_id() -> str:
    return str(uuid.uuid4())


def refused(reason: ErrorReason) -> Any:
    return pytest.raises(RunstoreError, check=lambda error: error.reason is reason)


async def test_run_goes_from_pending_to_success(catalog: Catalog) -> None:
    """Its thread is busy meanwhile, and then holds what the worker says."""
    run = await given_run(catalog, new_thread_id())
    assert (run.status, (await thread_of(catalog, run)).status) == ("pending", AgentThreadStatus.BUSY)
    claim = await claimed(catalog)
    assert (claim.run.status, claim.run.attempt, claim.run.is_traced) == ("running", 1, True)
    released = await finished(catalog, claim.claim, Outcome.SUCCESS, snapshot=IDLE)
    assert released is not None
    assert released.end is not None
    thread = await thread_of(catalog, run)
    assert (released.end.status, thread.status, thread.values) == ("success", "idle", IDLE.values)
    stored = await catalog.agent_runs.get(TENANT, run.thread_id, run.run_id)
    assert (stored.status, stored.result) == ("success", b'{"log":["a"]}')


@pytest.mark.parametrize(
    ("outcome", "snapshot", "status"),
    [
        (Outcome.SUCCESS, PAUSED, "interrupted"),
        (Outcome.ERROR, PAUSED, "error"),
        (Outcome.TIMEOUT, IDLE, "error"),
        (Outcome.ERROR, None, "error"),
    ],
)
async def test_status_of_the_thread_follows(
    catalog: Catalog, outcome: Outcome, snapshot: ThreadSnapshot | None, status: str
) -> None:
    """Failed before unfinished; what the run left untouched stays."""
    run = await given_run(catalog, new_thread_id())
    error = AgentRunError("ValueError", "boom\0") if outcome is not Outcome.SUCCESS else None
    await finished(catalog, (await claimed(catalog)).claim, outcome, snapshot=snapshot, error=error)
    thread = await thread_of(catalog, run)
    assert thread.status == status
    assert thread.error == (error and AgentRunError("ValueError", "boom\ufffd"))
    await given_run(catalog, run.thread_id)
    await finished(catalog, (await claimed(catalog)).claim, Outcome.SUCCESS, snapshot=IDLE)
    thread = await thread_of(catalog, run)
    assert (thread.status, thread.error) == ("idle", None)


async def test_runs_of_a_thread_are_claimed_in_order_one_at_a_time(catalog: Catalog) -> None:
    """Another thread's run is claimed meanwhile; a delayed run is overtaken."""
    thread_id = new_thread_id()
    delayed = await given_run(catalog, thread_id, after_seconds=60)
    first, second = await given_run(catalog, thread_id), await given_run(catalog, thread_id)
    elsewhere = await given_run(catalog, new_thread_id())
    claims = [await claimed(catalog), await claimed(catalog)]
    assert {each.run.run_id for each in claims} == {first.run_id, elsewhere.run_id}
    assert await catalog.agent_claims.claim(WORKER) is None
    for each in claims:
        await finished(catalog, each.claim, Outcome.SUCCESS)
    assert (await claimed(catalog)).run.run_id == second.run_id
    assert delayed.due_at_us - delayed.created_at_us == 60_000_000


async def test_runs_are_claimed_by_workers_that_have_their_graph(catalog: Catalog) -> None:
    """A run of another graph that is due earlier blocks its thread all the same."""
    run = await given_run(catalog, new_thread_id(), graph="other")
    await given_run(catalog, run.thread_id)
    assert await catalog.agent_claims.claim(WORKER) is None
    assert (await claimed(catalog, OTHER_WORKER)).run.graph_id == "other"


async def test_two_stores_never_claim_one_run_twice(catalog: Catalog, other: Catalog) -> None:
    """Twenty runs on four threads, claimed by two stores at once: each once, never two of a thread."""
    threads = [new_thread_id() for _ in range(4)]
    for index in range(20):
        await given_run(catalog, threads[index % 4])
    taken: list[str] = []
    while True:
        found = await asyncio.gather(
            *(store.agent_claims.claim(WORKER) for store in (catalog, other) for _ in range(3))
        )
        claims = [each for each in found if each is not None]
        if not claims:
            break
        assert len({each.run.thread_id for each in claims}) == len(claims)
        for each in claims:
            taken.append(each.run.run_id)
            await finished(catalog, each.claim, Outcome.SUCCESS)
    assert len(taken) == len(set(taken)) == 20


async def test_reject_accepts_one_of_many(catalog: Catalog) -> None:
    """Five at once on an idle thread: one is created, four are refused; a delayed run counts as in flight."""
    thread_id = new_thread_id()
    await catalog.agent_threads.create(TENANT, thread_id, {})
    strategy = MultitaskStrategy.REJECT
    made = await asyncio.gather(
        *(given_run(catalog, thread_id, multitask_strategy=strategy, after_seconds=60) for _ in range(5)),
        return_exceptions=True,
    )
    refusals = [each for each in made if isinstance(each, RunstoreError)]
    assert [error.reason for error in refusals] == [ErrorReason.CONFLICT] * 4
    assert len(await statuses(catalog, thread_id)) == 1


async def test_interrupt_supersedes_all_that_is_in_flight(catalog: Catalog) -> None:
    """Pending runs never run; the running one stops when its worker says so, and the new one starts then."""
    thread_id = new_thread_id()
    for _ in range(3):
        await given_run(catalog, thread_id)
    running = await claimed(catalog)
    await given_run(catalog, thread_id, multitask_strategy=MultitaskStrategy.INTERRUPT)
    assert await statuses(catalog, thread_id) == ["running", "interrupted", "interrupted", "pending"]
    assert await catalog.agent_claims.claim(WORKER) is None
    _, cancels = await catalog.agent_claims.renew(TENANT, [running.claim])
    assert [cancel.action for cancel in cancels] == [CancelAction.INTERRUPT]
    await finished(catalog, running.claim, Outcome.INTERRUPTED, snapshot=PAUSED)
    thread = await catalog.agent_threads.get(TENANT, thread_id)
    assert thread.status is AgentThreadStatus.BUSY
    assert thread.error is not None
    assert thread.error.error == "UserInterrupt"
    await finished(catalog, (await claimed(catalog)).claim, Outcome.SUCCESS, snapshot=IDLE)
    assert await statuses(catalog, thread_id) == ["interrupted", "interrupted", "interrupted", "success"]


async def test_rollback_removes_all_that_is_in_flight(catalog: Catalog) -> None:
    """Rows go at once when pending, with the worker's word when running; their ends can still be learnt."""
    thread_id = new_thread_id()
    running, pending = await given_run(catalog, thread_id), await given_run(catalog, thread_id)
    claim = await claimed(catalog)
    last = await given_run(catalog, thread_id, multitask_strategy=MultitaskStrategy.ROLLBACK)
    assert await statuses(catalog, thread_id) == ["running", "pending"]
    nothing = ThreadSnapshot(None, None, has_next=False)
    await finished(catalog, claim.claim, Outcome.ROLLED_BACK, snapshot=nothing)
    for gone in (running, pending):
        end = await catalog.agent_runs.end(TENANT, gone.run_id)
        assert end is not None
        assert end.status == "rollback"
    thread = await catalog.agent_threads.get(TENANT, thread_id)
    assert (thread.status, thread.values) == ("busy", None)
    assert (await claimed(catalog)).run.run_id == last.run_id


async def test_rollback_that_came_too_late_for_the_worker_is_made_up_for(catalog: Catalog) -> None:
    """A run that had succeeded meanwhile goes to a worker again, which only cleans up."""
    run = await given_run(catalog, new_thread_id())
    claim = await claimed(catalog)
    await catalog.agent_runs.cancel(TENANT, run.thread_id, [run.run_id], CancelAction.ROLLBACK, "no")
    released = await finished(catalog, claim.claim, Outcome.SUCCESS, snapshot=PAUSED)
    assert released is not None
    assert released.end is None
    again = await claimed(catalog, OTHER_WORKER)
    assert (again.run.run_id, again.run.cancel_action) == (run.run_id, CancelAction.ROLLBACK)
    await finished(catalog, again.claim, Outcome.ROLLED_BACK, snapshot=IDLE)
    with refused(ErrorReason.NOT_FOUND):
        await catalog.agent_runs.get(TENANT, run.thread_id, run.run_id)
    assert (await thread_of(catalog, run)).status is AgentThreadStatus.IDLE


async def test_interrupted_run_is_never_a_success(catalog: Catalog) -> None:
    """Its result is kept all the same."""
    run = await given_run(catalog, new_thread_id())
    claim = await claimed(catalog)
    await catalog.agent_runs.cancel(TENANT, run.thread_id, [run.run_id], CancelAction.INTERRUPT, "no")
    await finished(catalog, claim.claim, Outcome.SUCCESS, snapshot=IDLE)
    stored = await catalog.agent_runs.get(TENANT, run.thread_id, run.run_id)
    thread = await thread_of(catalog, run)
    assert (stored.status, thread.status) == ("interrupted", "idle")
    assert thread.error == AgentRunError("UserInterrupt", "no")


@pytest.mark.parametrize("action", list(CancelAction))
async def test_pending_run_is_cancelled_at_once(catalog: Catalog, action: CancelAction) -> None:
    """Its thread is what it was before."""
    run = await given_run(catalog, new_thread_id())
    count, effects = await catalog.agent_runs.cancel(TENANT, run.thread_id, [run.run_id], action, "no")
    assert (count, [end.run_id for end in effects.ends], effects.cancels) == (1, [run.run_id], [])
    assert (await thread_of(catalog, run)).status is AgentThreadStatus.IDLE
    assert len(await statuses(catalog, run.thread_id)) == (action is CancelAction.INTERRUPT)
    count, _ = await catalog.agent_runs.cancel(TENANT, run.thread_id, [run.run_id], action, "no")
    assert count == 0


async def test_expired_lease_gives_the_run_to_another_worker(catalog: Catalog, clock: Any) -> None:
    """The late worker's word is worth nothing, and neither is its renewal."""
    run = await given_run(catalog, new_thread_id())
    lost = await claimed(catalog)
    clock.advance(LEASE_S - 1)
    assert await catalog.agent_claims.renew(TENANT, [lost.claim]) == ([], [])
    clock.advance(LEASE_S - 1)
    assert await catalog.agent_claims.expire() == []
    clock.advance(2)
    assert [each.end for each in await catalog.agent_claims.expire()] == [None]
    assert (await thread_of(catalog, run)).status is AgentThreadStatus.BUSY
    again = await claimed(catalog, OTHER_WORKER)
    assert (again.run.run_id, again.run.attempt) == (run.run_id, 2)
    assert await finished(catalog, lost.claim, Outcome.SUCCESS, snapshot=IDLE) is None
    assert await catalog.agent_claims.renew(TENANT, [lost.claim]) == ([lost.claim], [])
    await finished(catalog, again.claim, Outcome.SUCCESS, snapshot=PAUSED)
    assert (await thread_of(catalog, run)).status is AgentThreadStatus.INTERRUPTED


async def test_attempts_are_bounded(catalog: Catalog, clock: Any) -> None:
    """A run that three workers have lost fails; giving it back while draining does not count."""
    run = await given_run(catalog, new_thread_id())
    await finished(catalog, (await claimed(catalog)).claim, Outcome.REQUEUE)
    ends = []
    for _ in range(3):
        await claimed(catalog)
        clock.advance(LEASE_S + 1)
        ends += [released.end for released in await catalog.agent_claims.expire()]
    assert ends[:2] == [None, None]
    assert ends[2] is not None
    assert (ends[2].status, b"__error__" in ends[2].result) == ("error", True)
    assert await catalog.agent_claims.claim(WORKER) is None
    assert (await thread_of(catalog, run)).status is AgentThreadStatus.ERROR


async def test_cancel_survives_its_worker(catalog: Catalog, clock: Any) -> None:
    """Whoever claims the run afterwards is told not to run it; the new run waits for that."""
    run = await given_run(catalog, new_thread_id())
    await claimed(catalog)
    following = await given_run(catalog, run.thread_id, multitask_strategy=MultitaskStrategy.INTERRUPT)
    await catalog.agent_claims.shorten(WORKER.worker_id)
    clock.advance(6)
    await catalog.agent_claims.expire()
    again = await claimed(catalog, OTHER_WORKER)
    assert (again.run.run_id, again.run.cancel_action) == (run.run_id, CancelAction.INTERRUPT)
    await finished(catalog, again.claim, Outcome.INTERRUPTED, snapshot=PAUSED)
    assert (await claimed(catalog)).run.run_id == following.run_id


async def test_stateless_run_leaves_its_result(catalog: Catalog, clock: Any) -> None:
    """Run and thread go with the end; how it ended can be learnt for an hour."""
    run = await given_run(catalog)
    claim = await claimed(catalog)
    assert not claim.run.has_checkpoints
    await finished(catalog, claim.claim, Outcome.SUCCESS)
    with refused(ErrorReason.NOT_FOUND):
        await thread_of(catalog, run)
    clock.advance(3_000)
    await catalog.agent_runs.forget_results()
    end = await catalog.agent_runs.end(TENANT, run.run_id)
    assert end is not None
    assert (end.status, end.result, end.thread_id) == ("success", b'{"log":["a"]}', run.thread_id)
    clock.advance(1_000)
    await catalog.agent_runs.forget_results()
    with refused(ErrorReason.NOT_FOUND):
        await catalog.agent_runs.end(TENANT, run.run_id)


async def test_kept_thread_of_a_stateless_run_is_an_ordinary_one(catalog: Catalog) -> None:
    """It has checkpoints, and holds what the run left."""
    run = await given_run(catalog, keeps_thread=True)
    claim = await claimed(catalog)
    assert claim.run.has_checkpoints
    await finished(catalog, claim.claim, Outcome.SUCCESS, snapshot=PAUSED)
    assert (await thread_of(catalog, run)).status is AgentThreadStatus.INTERRUPTED


async def test_unknown_thread_is_created_or_refused(catalog: Catalog) -> None:
    """Concurrent creators of one id all succeed; another tenant's thread is as good as none."""
    thread_id = new_thread_id()
    with refused(ErrorReason.NOT_FOUND):
        await given_run(catalog, thread_id, creates_thread=False)
    config = {"metadata": {"k": 1, "both": 1}}
    await asyncio.gather(
        *(given_run(catalog, thread_id, config=config, metadata={"both": 2, "run_id": "x"}) for _ in range(3))
    )
    assert len(await statuses(catalog, thread_id)) == 3
    thread = await catalog.agent_threads.get(TENANT, thread_id)
    assistant_id = (await catalog.assistants.resolve(TENANT, "steps")).assistant_id
    wanted = {"graph_id": "steps", "assistant_id": assistant_id, "k": 1, "both": 2}
    assert msgspec.json.decode(thread.metadata) == wanted
    tenant = await catalog.keys.create_tenant("another")
    await catalog.assistants.register(tenant.id, [Graph("steps", "steps")])
    assistant = await catalog.assistants.resolve(tenant.id, "steps")
    new = NewAgentRun(thread_id=thread_id, creates_thread=True, options={}, headers={})
    with refused(ErrorReason.NOT_FOUND):
        await catalog.agent_runs.create(tenant.id, [(new, assistant)])


async def test_request_is_merged_over_thread_and_assistant(catalog: Catalog) -> None:
    """What the store knows wins over all; a caller cannot pretend to be another run."""
    config = {"tags": ["t"], "configurable": {"a": 1, "thread_id": "evil"}, "metadata": {"m": 1}}
    run = await given_run(
        catalog,
        new_thread_id(),
        config=config,
        input=b'{"n":1}',
        metadata={"assistant_id": "evil"},
        headers={"baggage": "b"},
        project_name="X",
        example_id="e",
        options={"stream_mode": ["values", "updates"], "durability": "sync"},
    )
    kwargs = msgspec.json.decode(run.kwargs)
    assert (kwargs["input"], kwargs["stream_mode"]) == ({"n": 1}, ["values", "updates"])
    assert (kwargs["durability"], kwargs["config"]["tags"]) == ("sync", ["t"])
    configurable = kwargs["config"]["configurable"]
    assert (configurable["a"], configurable["baggage"]) == (1, "b")
    assert configurable["thread_id"] == run.thread_id
    assert configurable["run_id"] == run.run_id
    assert configurable["__langsmith_project__"] == "X"
    wanted = {"created_by": "system", "m": 1, "assistant_id": run.assistant_id}
    assert msgspec.json.decode(run.metadata) == wanted


async def test_latest_graph_is_the_threads(catalog: Catalog) -> None:
    """A run that waited for another graph's gives the thread its own once it starts."""
    run = await given_run(catalog, new_thread_id())
    await given_run(catalog, run.thread_id, graph="other")
    assert (await thread_of(catalog, run)).graph_id == "steps"
    await finished(catalog, (await claimed(catalog)).claim, Outcome.SUCCESS)
    await claimed(catalog, OTHER_WORKER)
    thread = await thread_of(catalog, run)
    assert (thread.graph_id, msgspec.json.decode(thread.metadata)["graph_id"]) == ("other", "other")


async def test_batch_is_stored_whole_or_not_at_all(catalog: Catalog) -> None:
    """A refused member takes the others with it."""
    assistant = await catalog.assistants.resolve(TENANT, "steps")
    good = NewAgentRun(thread_id=new_thread_id(), creates_thread=True, options={}, headers={})
    bad = NewAgentRun(thread_id=new_thread_id(), options={}, headers={})
    with refused(ErrorReason.NOT_FOUND):
        await catalog.agent_runs.create(TENANT, [(good, assistant), (bad, assistant)])
    assert await catalog.agent_claims.claim(WORKER) is None
    runs, _ = await catalog.agent_runs.create(TENANT, [(good, assistant), (good, assistant)])
    assert (await claimed(catalog)).run.run_id == runs[0].run_id


async def test_batches_over_the_same_threads_do_not_hold_each_other_up(
    catalog: Catalog, other: Catalog
) -> None:
    """Two stores that are given the same threads in opposite orders: all runs are there."""
    assistant = await catalog.assistants.resolve(TENANT, "steps")
    threads = [(await given_run(catalog, new_thread_id())).thread_id for _ in range(8)]
    batch = [NewAgentRun(thread_id=thread_id, options={}, headers={}) for thread_id in threads]
    requests = [(new, assistant) for new in batch]
    await asyncio.gather(
        *(catalog.agent_runs.create(TENANT, requests) for _ in range(4)),
        *(other.agent_runs.create(TENANT, requests[::-1]) for _ in range(4)),
    )
    for thread_id in threads:
        assert len(await catalog.agent_runs.page(TENANT, thread_id, None, 0, 100)) == 9


async def test_threads_are_searched(catalog: Catalog) -> None:
    """By status, ids, and what metadata and values contain; with the number of all."""
    runs = [await given_run(catalog, new_thread_id(), metadata={"n": index % 2}) for index in range(4)]
    ended = await claimed(catalog)
    await finished(catalog, ended.claim, Outcome.SUCCESS, snapshot=IDLE)
    ids = [ended.run.thread_id, *(run.thread_id for run in runs if run.run_id != ended.run.run_id)]

    async def found(**fields: Any) -> tuple[list[str], int]:
        threads, count = await catalog.agent_threads.search(TENANT, ThreadQuery(**fields))
        assert await catalog.agent_threads.count(TENANT, ThreadQuery(**fields)) == count
        return [thread.thread_id for thread in threads], count

    assert await found(status=AgentThreadStatus.IDLE) == ([ids[0]], 1)
    assert await found(values={"log": ["a"]}) == ([ids[0]], 1)
    assert (await found(metadata={"n": 1}, limit=1))[1] == 2
    assert await found(thread_ids=(ids[2],)) == ([ids[2]], 1)
    page, count = await found(is_ascending=True, limit=2, offset=3)
    assert (len(page), count) == (1, 4)


async def test_thread_expires(catalog: Catalog, clock: Any) -> None:
    """Its time starts again with each change of its state."""
    thread_id = new_thread_id()
    await catalog.agent_threads.create(TENANT, thread_id, {}, ttl=Ttl(10, "delete"))
    clock.advance(500)
    await catalog.agent_threads.set_state(TENANT, thread_id, IDLE)
    clock.advance(500)
    assert await catalog.agent_threads.expired(10) == []
    clock.advance(101)
    assert [thread.thread_id for thread in await catalog.agent_threads.expired(10)] == [thread_id]
