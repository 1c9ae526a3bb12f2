"""Random lives of a thread: the catalog agrees with a model that was written from the contract alone."""

import uuid
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runstore.catalog import Catalog
from runstore.catalog.agent_claims import LEASE_S, Worker
from runstore.catalog.agent_runs import nobody
from runstore.domain.agent_runs import (
    CancelAction,
    Claim,
    Finished,
    MultitaskStrategy,
    NewAgentRun,
    Outcome,
    ThreadSnapshot,
)
from runstore.domain.assistants import Graph
from runstore.domain.errors import RunstoreError

_names = count()

FINISHES = (Outcome.SUCCESS, Outcome.ERROR, Outcome.TIMEOUT, Outcome.REQUEUE)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from(MultitaskStrategy), st.booleans()),
        st.tuples(st.just("claim")),
        st.tuples(st.just("finish"), st.sampled_from(FINISHES), st.booleans()),
        st.tuples(st.just("obey")),
        st.tuples(st.just("cancel"), st.integers(0, 3), st.sampled_from(CancelAction)),
        st.tuples(st.just("lose_worker")),
    ),
    min_size=4,
    max_size=16,
)


@dataclass
class ModelRun:
    """What the contract says of a run."""

    run_id: str
    status: str = "pending"
    begun: int = 0
    lost: int = 0
    cancel: CancelAction | None = None

    @property
    def is_in_flight(self) -> bool:
        return self.status in ("pending", "running")


@dataclass
class ModelThread:
    """What the contract says of a thread: its runs in order, and what it holds."""

    runs: list[ModelRun] = field(default_factory=list)
    has_next: bool = False
    has_failed: bool = False

    @property
    def in_flight(self) -> list[ModelRun]:
        return [run for run in self.runs if run.is_in_flight]

    @property
    def running(self) -> ModelRun | None:
        return next((run for run in self.runs if run.status == "running"), None)

    @property
    def status(self) -> str:
        if self.in_flight:
            return "busy"
        if self.has_failed:
            return "error"
        return "interrupted" if self.has_next else "idle"

    def create(self, run_id: str, strategy: MultitaskStrategy) -> None:
        for run in self.in_flight:
            if strategy in ("interrupt", "rollback"):
                self.cancel(run, CancelAction(strategy.value))
        self.runs.append(ModelRun(run_id))

    def cancel(self, run: ModelRun, action: CancelAction) -> None:
        if run.status == "pending" and not run.begun:
            if action is CancelAction.ROLLBACK:
                self.runs.remove(run)
            else:
                run.status = "interrupted"
        elif run.cancel is not CancelAction.ROLLBACK:
            run.cancel = action

    def lose_worker(self, run: ModelRun) -> None:
        run.lost += 1
        run.status = "pending"
        if run.lost >= 3 and run.cancel is not CancelAction.ROLLBACK:
            self.has_failed = run.cancel is None
            run.status = "interrupted" if run.cancel else "error"

    def finish(self, run: ModelRun, outcome: str, *, has_next: bool) -> None:
        if outcome == "requeue" or (run.cancel is CancelAction.ROLLBACK and outcome != "rollback"):
            run.status = "pending"
            return
        self.has_next = has_next
        self.has_failed = outcome in ("error", "timeout") and run.cancel is None
        if outcome == "rollback":
            self.runs.remove(run)
        else:
            run.status = "interrupted" if run.cancel else outcome


class Life:
    """Applies operations to both sides."""

    def __init__(self, catalog: Catalog, clock: Any, tenant_id: str) -> None:
        self.catalog = catalog
        self.clock = clock
        self.tenant_id = tenant_id
        self.thread_id = str(uuid.uuid4())
        self.model = ModelThread()
        self.claim: Claim | None = None
        self.worker = Worker(tenant_id, str(uuid.uuid4()), frozenset({"steps"}), is_tracing=False)

    async def apply(self, name: str, *arguments: Any) -> None:
        await getattr(self, name)(*arguments)
        await self.check()

    async def create(self, strategy: MultitaskStrategy, has_worker: bool) -> None:
        assistant = await self.catalog.assistants.resolve(self.tenant_id, "steps")
        new = NewAgentRun(
            thread_id=self.thread_id,
            creates_thread=True,
            multitask_strategy=strategy,
            options={},
            headers={},
        )
        is_refused = strategy is MultitaskStrategy.REJECT and bool(self.model.in_flight)
        if is_refused:
            with pytest.raises(RunstoreError, match="in flight"):
                await self.catalog.agent_runs.create(self.tenant_id, [(new, assistant)], self.claimant)
            return
        starts_at_once = has_worker and not self.model.in_flight
        (run,), effects = await self.catalog.agent_runs.create(
            self.tenant_id, [(new, assistant)], self.claimant if has_worker else nobody
        )
        self.model.create(run.run_id, strategy)
        assert run.status == "pending"
        assert [claimed.run.run_id for claimed in effects.claimed] == [run.run_id] * starts_at_once
        if starts_at_once:
            self.claim = effects.claimed[0].claim
            self.model.runs[-1].status, self.model.runs[-1].begun = "running", 1

    def claimant(self, graph_id: str) -> Worker:
        assert graph_id == "steps"
        return self.worker

    async def claim_next(self) -> None:
        claimed = await self.catalog.agent_claims.claim(self.worker)
        expected = None if self.model.running else next(iter(self.model.in_flight), None)
        assert (claimed and claimed.run.run_id) == (expected and expected.run_id)
        if claimed is None or expected is None:
            return
        assert claimed.run.cancel_action == expected.cancel
        expected.status, expected.begun = "running", expected.begun + 1
        assert claimed.run.attempt == expected.begun
        self.claim = claimed.claim

    async def end(self, outcome: Outcome, *, has_next: bool) -> None:
        run = self.model.running
        if self.claim is None:
            return
        snapshot = ThreadSnapshot(b"{}", b"{}", has_next)
        finished = Finished(claim=self.claim, outcome=outcome, result=b"{}", snapshot=snapshot)
        released = await self.catalog.agent_claims.finish(self.tenant_id, finished)
        # A worker that has lost its claim is told so, and has changed nothing.
        assert (released is not None) == (run is not None and run.run_id == self.claim.run_id)
        if released is not None and run is not None:
            self.model.finish(run, outcome.value, has_next=has_next)

    async def finish(self, outcome: Outcome, has_next: bool) -> None:
        await self.end(outcome, has_next=has_next)

    async def obey(self) -> None:
        """The worker does what it was told: nothing unless the run is cancelled."""
        run = self.model.running
        if run is not None and run.cancel is not None:
            rolls_back = run.cancel is CancelAction.ROLLBACK
            outcome = Outcome.ROLLED_BACK if rolls_back else Outcome.INTERRUPTED
            await self.end(outcome, has_next=not rolls_back)

    async def cancel(self, index: int, action: CancelAction) -> None:
        if not self.model.runs:
            return
        run = self.model.runs[index % len(self.model.runs)]
        cancelled, _ = await self.catalog.agent_runs.cancel(
            self.tenant_id, self.thread_id, [run.run_id], action, "told to"
        )
        assert bool(cancelled) == run.is_in_flight
        if run.is_in_flight:
            self.model.cancel(run, action)

    async def lose_worker(self) -> None:
        run = self.model.running
        self.clock.advance(LEASE_S + 1)
        expired = await self.catalog.agent_claims.expire()
        own = [each.claim.run_id for each in expired if each.tenant_id == self.tenant_id]
        assert own == ([] if run is None else [run.run_id])
        if run is not None:
            self.model.lose_worker(run)

    async def check(self) -> None:
        """What is stored is what the model says."""
        if not self.model.runs and self.claim is None:
            return
        runs = await self.catalog.agent_runs.page(self.tenant_id, self.thread_id, None, 0, 100)
        stored = [(run.run_id, run.status.value) for run in reversed(runs)]
        assert stored == [(run.run_id, run.status) for run in self.model.runs]
        thread = await self.catalog.agent_threads.get(self.tenant_id, self.thread_id)
        assert thread.status == self.model.status


async def live(catalog: Catalog, clock: Any, steps: list[tuple[Any, ...]]) -> None:
    tenant = await catalog.keys.create_tenant(f"life {next(_names)}")
    await catalog.assistants.register(tenant.id, [Graph("steps", "steps")])
    life = Life(catalog, clock, tenant.id)
    for name, *arguments in [("create", MultitaskStrategy.ENQUEUE, False), *steps]:
        await life.apply("claim_next" if name == "claim" else name, *arguments)


_UNHURRIED: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


# A thread whose run failed stays in error when one behind it never runs, also if nobody said why it failed.
FAILED_WITHOUT_A_WORD: Any = [
    ("claim",),
    ("create", MultitaskStrategy.ENQUEUE, False),
    ("finish", Outcome.ERROR, False),
    ("cancel", 1, CancelAction.INTERRUPT),
]


@settings(max_examples=40, **_UNHURRIED)
@given(steps=operations)
@example(steps=FAILED_WITHOUT_A_WORD)
async def test_catalog_agrees_with_the_model(
    catalog: Catalog, clock: Any, steps: list[tuple[Any, ...]]
) -> None:
    """Runs, their order, their statuses, and the thread's, after each step of forty lives."""
    await live(catalog, clock, steps)


@pytest.mark.slow
@settings(max_examples=2_000, **_UNHURRIED)
@given(steps=operations)
async def test_catalog_agrees_with_the_model_for_long(
    catalog: Catalog, clock: Any, steps: list[tuple[Any, ...]]
) -> None:
    """The same of two thousand lives."""
    await live(catalog, clock, steps)
