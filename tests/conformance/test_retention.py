"""Traces that outlive their time, on the real engine and a clock that tests move.

Runs of these tests began long ago, in months of their own: whole months are dropped for all tenants at once.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from runstore.domain.blob_refs import BlobRef
from runstore.domain.feedback import FeedbackAction, FeedbackPatch, FeedbackQuery
from runstore.domain.retention import (
    Freed,
    RetentionRule,
    RetentionRules,
    TraceTier,
)
from runstore.domain.runs import Attachment, RunField, RunQuery
from runstore.ingest.metrics import RetentionMetrics
from runstore.ingest.purge import Purge
from runstore.ingest.retention import Retention
from runstore.ingest.unused_blobs import SUSPECT_AGE_S, UnusedBlobs

from .pipeline import LARGEST_ATTACHMENT, LARGEST_PAYLOAD, Pipeline
from .test_operations import Sender, new_id

pytestmark = pytest.mark.engine

DAY_US = 86_400_000_000
KEYED = ("runs", "run_payloads", "run_attachments", "run_keys", "trace_keys", "feedback", "deleted_runs")
_YEARS = itertools.count(1971)


class Died(Exception):
    """The process was killed."""


@dataclass
class World:
    """A deployment of which only the tenants of one test are swept, at a time of its own."""

    pipeline: Pipeline
    t0_us: int
    """The middle of a month that nobody else has runs in, nor in the months around it."""
    current: RetentionRules = field(default_factory=lambda: RetentionRules(RetentionRule()))
    days: float = 0
    """Since `t0_us`."""
    counted: dict[str, int] = field(default_factory=dict)
    oldest_us: dict[str, int | None] = field(default_factory=dict)
    dies_at: str = ""
    """The call at which a sweep is cut short."""

    def now_us(self) -> int:
        return self.t0_us + round(self.days * DAY_US)

    def monotonic(self) -> float:
        return self.now_us() / 1e6

    def family(self, tenant_id: str, days: float = 0, project_id: str | None = None) -> list[Sender]:
        """A root that began so many days after `t0_us`, and its child."""
        root = Sender(tenant_id, start_us=self.t0_us + round(days * DAY_US))
        root.project_id = project_id or root.project_id
        return [root, Sender(tenant_id, parent=root, start_us=root.start_us + 1)]

    async def store(self, *senders: Sender, **fields: Any) -> None:
        await self.pipeline.flush([sender.create(**fields) for sender in senders])

    def limit(self, tenant_id: str, **rule: Any) -> None:
        """Give a tenant a rule."""
        tenants = {**self.current.tenants, tenant_id: RetentionRule(**rule)}
        self.current = RetentionRules(self.current.deployment, tenants, self.current.projects)

    def limit_project(self, tenant_id: str, project_id: str, **rule: Any) -> None:
        projects = {**self.current.projects, (tenant_id, project_id): RetentionRule(**rule)}
        self.current = RetentionRules(self.current.deployment, self.current.tenants, projects)

    async def sweep(self, *, days: float, batch: int = 100) -> None:
        """Sweep, so many days after `t0_us`; as a process that has just started."""
        self.days = days
        await self._retention(batch).sweep()

    def _retention(self, batch: int = 100) -> Retention:
        store = self.pipeline.store.retention
        return Retention(
            store, self, self, self, self, self, self.unused(), self, self.current.deployment,
            observer=RetentionMetrics(CollectorRegistry()), batch=batch,
        )  # fmt: skip

    def unused(self) -> UnusedBlobs:
        return UnusedBlobs(self.pipeline.blobs, self.pipeline.store, self, self)

    async def listed(self, *senders: Sender) -> list[bool]:
        """Which of the runs are there, by id and in their project."""
        there = []
        for sender in senders:
            [by_project] = [await self.pipeline.runs(sender.tenant_id, [sender.project_id], frozenset())]
            query = RunQuery(sender.tenant_id, frozenset({RunField.ID}), run_ids=(sender.run_id,))
            by_id = await self.pipeline.list(query)
            assert (sender.run_id in by_project) == bool(by_id)
            there.append(bool(by_id))
        return there

    async def rows_left(self, tenant_id: str) -> dict[str, int]:
        """Rows of a tenant by table, of those that have any; of keys those of runs."""
        counts = {}
        for table in KEYED:
            of_marks = " AND trace_id != toUUID('00000000-0000-0000-0000-000000000000')"
            [(count,)] = await self.pipeline.query(
                f"SELECT count() FROM {table} WHERE tenant_id = {{tenant:UUID}}"
                + (of_marks if table == "trace_keys" else ""),
                tenant=tenant_id,
            )
            counts[table] = count
        return {table: count for table, count in counts.items() if count}

    # -- the catalog, the log and the purge, as far as a sweep needs them -----------------------------

    async def rules(self, deployment: RetentionRule) -> RetentionRules:
        return self.current

    async def freed(self, tenant_id: str, freed: Freed) -> None:
        self.counted[tenant_id] = self.counted.get(tenant_id, 0) + freed.rows
        assert freed.bytes > 0 or not freed.rows

    async def swept(self, tenant_id: str, oldest_us: int | None) -> None:
        self.oldest_us[tenant_id] = oldest_us

    async def take(self, name: str, seconds: float) -> bool:
        return True

    async def give_back(self, name: str) -> None: ...

    async def write_deletion(self, tenant_id: str, **what: Any) -> int:
        self._may_die("write_deletion")
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in what.items()}
        return (await self.pipeline.delete(tenant_id, **given)).sequence

    async def see_sequence(self, sequence: int) -> None: ...

    async def purge_deleted(self) -> None:
        self._may_die("purge_deleted")
        await Purge(self.pipeline.deletions, self.unused(), self).purge_deleted()

    async def stored_everywhere(self) -> int:
        return 2**66

    def _may_die(self, call: str) -> None:
        if call == self.dies_at:
            raise Died


@pytest.fixture
def world(pipeline: Pipeline) -> World:
    middle = datetime(next(_YEARS), 6, 15, tzinfo=UTC)
    return World(pipeline, round(middle.timestamp() * 1e6))


async def test_traces_go_when_their_time_is_over(world: World, tenant_id: str) -> None:
    """With everything that belongs to them; a trace that is younger stays, and so does another tenant's."""
    old, young, foreign = world.family(tenant_id), world.family(tenant_id, 2), world.family(new_id())
    young[0].project_id = young[1].project_id = old[0].project_id
    for family in (old, young, foreign):
        await world.store(*family, inputs=b"1", attachments={"a": Attachment("a/b", b"a")})
    world.limit(tenant_id, short_days=7)
    await world.sweep(days=6.9)
    assert await world.listed(*old, *young) == [True] * 4
    await world.sweep(days=7.1)
    assert await world.listed(*old, *young, *foreign) == [False, False, True, True, True, True]
    assert world.counted[tenant_id] == 2
    assert world.oldest_us[tenant_id] == young[0].start_us
    await world.sweep(days=9.1)
    assert await world.rows_left(tenant_id) == {}
    assert world.oldest_us[tenant_id] is None
    assert world.counted[tenant_id] == 4
    assert foreign[0].tenant_id not in world.counted
    assert await world.listed(*foreign) == [True, True]


@pytest.mark.slow
async def test_trace_lives_as_long_as_its_last_run(world: World, tenant_id: str) -> None:
    """Its older runs with it, in another month and after a merge of the keys."""
    root, child = world.family(tenant_id)
    late = Sender(tenant_id, parent=root, start_us=world.t0_us + 30 * DAY_US)
    await world.store(root, child)
    await world.store(late)
    world.limit(tenant_id, short_days=7)
    await world.pipeline.merge_parts()
    await world.sweep(days=36.9)
    assert await world.listed(root, child, late) == [True] * 3
    await world.sweep(days=37.1)
    assert await world.listed(root, child, late) == [False] * 3
    assert await world.rows_left(tenant_id) == {}


@pytest.mark.slow
async def test_rule_of_a_project_goes_before_that_of_its_tenant(world: World, tenant_id: str) -> None:
    """Each project by its own: longer, shorter, for ever, by the tier alone, and as the tenant says."""
    plain, longer, shorter, endless, tiered = (world.family(tenant_id) for _ in range(5))
    families = (plain, longer, shorter, endless, tiered)
    for family in families:
        await world.store(*family)
    world.limit(tenant_id, short_days=7, long_days=20)
    world.limit_project(tenant_id, longer[0].project_id, short_days=10)
    world.limit_project(tenant_id, shorter[0].project_id, short_days=2)
    world.limit_project(tenant_id, endless[0].project_id, short_days=0)
    world.limit_project(tenant_id, tiered[0].project_id, trace_tier=TraceTier.LONGLIVED)
    for days, left in ((3, "11011"), (8, "01011"), (11, "00011"), (21, "00010"), (9_000, "00010")):
        await world.sweep(days=days)
        there = await world.listed(*(family[0] for family in families))
        assert "".join(str(int(each)) for each in there) == left, days


@pytest.mark.slow
async def test_deployments_rule_is_the_last_to_be_asked(world: World, tenant_id: str) -> None:
    """A tenant may keep for ever what the deployment does not; here only a project takes part."""
    mine, exempt = world.family(tenant_id), world.family(tenant_id)
    await world.store(*mine, *exempt)
    world.current = RetentionRules(RetentionRule(short_days=0))
    world.limit(tenant_id, trace_tier=TraceTier.SHORTLIVED)
    world.limit_project(tenant_id, mine[0].project_id, short_days=1)
    await world.sweep(days=400)
    assert await world.listed(*mine, *exempt) == [False, False, True, True]


@pytest.mark.parametrize(
    "how",
    ["feedback", *(pytest.param(how, marks=pytest.mark.slow) for how in ("told trace", "run", "trace"))],
)
async def test_kept_traces_stay_for_the_long_period(world: World, tenant_id: str, how: str) -> None:
    """Also when the rule changes; and they go whole, however they were kept."""
    kept, other = world.family(tenant_id), world.family(tenant_id)
    await world.store(*kept, *other)
    await _keep(world, kept, how)
    assert await world.pipeline.store.retention.kept(tenant_id, [kept[0].run_id, other[0].run_id]) == {
        kept[0].run_id
    }
    world.limit(tenant_id, short_days=7)
    await world.sweep(days=300)
    assert await world.listed(*kept, *other) == [True, True, False, False]
    world.limit(tenant_id, short_days=1, long_days=400)
    await world.sweep(days=399)
    assert await world.listed(*kept) == [True, True]
    await world.sweep(days=401)
    assert await world.listed(*kept) == [False, False]
    assert await world.rows_left(tenant_id) == {}


async def _keep(world: World, family: Sequence[Sender], how: str) -> None:
    root, child = family
    if how == "run":
        await world.pipeline.keep(root.tenant_id, run_ids=(child.run_id,))
    elif how == "trace":
        await world.pipeline.keep(root.tenant_id, trace_ids=(root.run_id,))
    else:
        trace_id = root.run_id if how == "told trace" else None
        await world.pipeline.store.append_feedback([_feedback(child, trace_id=trace_id)])


def _feedback(sender: Sender, **fields: Any) -> FeedbackPatch:
    return FeedbackPatch(
        sender.tenant_id,
        new_id(),
        sender.run_id,
        FeedbackAction.CREATE,
        sequence=2**60,
        key="k",
        score=1.0,
        **fields,
    )


@pytest.mark.slow
async def test_kept_before_its_first_run_came(world: World, tenant_id: str) -> None:
    """What is said of a trace may come before it; feedback may also say that it keeps nothing."""
    family, other = world.family(tenant_id), world.family(tenant_id)
    await world.pipeline.keep(tenant_id, run_ids=(family[0].run_id,))
    await world.store(*family, *other)
    await world.pipeline.store.append_feedback([_feedback(other[0], keeps_trace=False)])
    world.limit(tenant_id, short_days=7)
    await world.sweep(days=8)
    assert await world.listed(*family, *other) == [True, True, False, False]
    assert await world.pipeline.store.feedback.page(FeedbackQuery(tenant_id)) == []


async def test_what_goes_on_or_is_kept_meanwhile_stays(world: World, tenant_id: str) -> None:
    """A deletion that was decided on spares what is not so any more once it is carried out."""
    kept, longer, gone = (world.family(tenant_id) for _ in range(3))
    await world.store(*kept, *longer, *gone)
    traces = tuple(family[0].run_id for family in (kept, longer, gone))
    await world.pipeline.keep(tenant_id, trace_ids=traces[:1])
    await world.store(Sender(tenant_id, parent=longer[0], start_us=world.t0_us + 10 * DAY_US))
    before_us = world.t0_us + DAY_US
    await world.pipeline.delete(tenant_id, trace_ids=traces, started_before_us=before_us, spares_kept=True)
    assert await world.listed(kept[0], longer[0], gone[0]) == [True, True, False]


async def test_late_update_of_an_expired_run(world: World, tenant_id: str) -> None:
    """Brings nothing back, and what waits for the run does not wait for ever."""
    root, child = world.family(tenant_id)
    await world.store(root, child)
    world.limit(tenant_id, short_days=7, long_days=7)
    await world.sweep(days=8)
    await world.pipeline.flush([root.bare_update(outputs=b"1")])
    await world.pipeline.restart()
    await world.pipeline.flush([child.update(outputs=b"1")])
    assert await world.listed(root, child) == [False, False]
    waiting = "SELECT count() FROM parked_operations WHERE tenant_id = {tenant:UUID}"
    assert (await world.pipeline.query(waiting, tenant=tenant_id))[0][0] > 0
    await world.pipeline.store.retention.forget_parked(tenant_id, 2**51)
    assert await world.pipeline.query(waiting, tenant=tenant_id) == [(0,)]
    await world.store(root)
    assert await world.listed(root, child) == [True, False]
    await world.sweep(days=8.1)
    assert await world.listed(root) == [False]


async def test_whole_months_are_dropped(world: World, tenant_id: str) -> None:
    """With the keys and the feedback of their runs, at no operation in the log; but not while a trace with a
    run there is kept, or goes on behind the month, or a project there has another rule."""
    other_id = new_id()
    lone, second = world.family(tenant_id), world.family(other_id)
    await world.store(*lone, *second)
    await world.pipeline.store.append_feedback([_feedback(lone[0], keeps_trace=False)])
    world.limit(tenant_id, short_days=7)
    world.dies_at = "write_deletion"
    with pytest.raises(Died):  # The other tenant keeps the month, so trace by trace it is.
        await world.sweep(days=30)
    world.limit(other_id, short_days=20)
    with pytest.raises(Died):
        await world.sweep(days=30)
    assert await world.listed(*lone, *second) == [True] * 4
    await world.sweep(days=36)
    assert await world.rows_left(tenant_id) == await world.rows_left(other_id) == {}
    assert world.counted == {tenant_id: 2, other_id: 2}
    assert await world.pipeline.store.feedback.page(FeedbackQuery(tenant_id)) == []


async def test_what_stays_for_ever_may_be_older_than_the_epoch(world: World, tenant_id: str) -> None:
    """Its month, and it itself among projects that have a rule, outlive those that expire."""
    world.t0_us = int(datetime(1965, 6, 15, tzinfo=UTC).timestamp()) * 1_000_000
    mine, others, forever = world.family(tenant_id), world.family(new_id()), world.family(tenant_id)
    await world.store(*mine, *others, *forever)
    world.limit(tenant_id, short_days=7)
    world.limit_project(tenant_id, forever[0].project_id, short_days=0)
    await world.sweep(days=60)
    assert await world.listed(*mine, *others, *forever) == [False] * 2 + [True] * 4


@pytest.mark.slow
@pytest.mark.parametrize("why", ["kept", "goes on"])
async def test_month_with_a_living_trace_stays(world: World, tenant_id: str, why: str) -> None:
    """Only its other traces go."""
    living, expired = world.family(tenant_id), world.family(tenant_id)
    await world.store(*living, *expired)
    if why == "kept":
        await world.pipeline.keep(tenant_id, trace_ids=(living[0].run_id,))
    else:
        await world.store(Sender(tenant_id, parent=living[0], start_us=world.t0_us + 35 * DAY_US))
    world.limit(tenant_id, short_days=7)
    await world.sweep(days=40)
    assert await world.listed(*living, *expired) == [True, True, False, False]


async def test_blobs_follow(world: World, tenant_id: str) -> None:
    """A day after their rows, whether these went trace by trace or with their month."""
    large = b'{"a":"' + b"x" * LARGEST_PAYLOAD + b'"}'
    for offset, days in ((0, 8), (0, 40)):
        family = world.family(tenant_id, offset)
        file = Attachment("a/b", b"y" * (LARGEST_ATTACHMENT + 1))
        await world.store(*family, inputs=large, attachments={"f": file})
        run = await world.pipeline.run(tenant_id, family[0].run_id)
        blob = run[RunField.INPUTS]
        assert isinstance(blob, BlobRef)
        world.limit(tenant_id, short_days=7)
        await world.sweep(days=days)
        assert await world.listed(*family) == [False, False]
        assert [key async for key, _ in world.pipeline.blobs.list(tenant_id)] != []
        world.days += 100 * 365 + SUSPECT_AGE_S  # Notes are as old as the files that they are.
        await world.unused().sweep()
        assert [key async for key, _ in world.pipeline.blobs.list(tenant_id)] == []


@pytest.mark.parametrize("call", ["purge_deleted", pytest.param("write_deletion", marks=pytest.mark.slow)])
async def test_restart_in_the_middle_of_a_sweep(world: World, tenant_id: str, call: str) -> None:
    """The next sweep goes on; nothing is seen in part, and nothing stays behind."""
    families = [world.family(tenant_id, number / 1_000) for number in range(3)]
    for family in families:
        await world.store(*family)
    world.limit(tenant_id, short_days=7)
    world.dies_at = call
    with pytest.raises(Died):
        await world.sweep(days=8, batch=2)
    for family in families:
        assert len(set(await world.listed(*family))) == 1
    await world.pipeline.restart()
    world.dies_at = ""
    await world.sweep(days=8, batch=2)
    assert await world.rows_left(tenant_id) == {}


@pytest.mark.slow
async def test_moved_runs_and_guessed_traces(world: World, tenant_id: str) -> None:
    """Keys of places and traces that runs have left go, too; the runs go with the trace they are in."""
    root, child = world.family(tenant_id)
    await world.pipeline.flush([child.bare_create()])
    await world.pipeline.flush(
        [root.create(), root.create(start_time_us=root.start_us + 5, dotted_order=None)]
    )
    await world.store(*world.family(tenant_id, 20))
    world.limit(tenant_id, short_days=7)
    await world.sweep(days=8)
    assert await world.listed(root, child) == [False, False]
    assert (await world.rows_left(tenant_id))["trace_keys"] == 1
