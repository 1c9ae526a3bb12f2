"""The scheduler of crons, on a clock that stands still."""

from dataclasses import dataclass, field, replace

import pytest

from runstore.dispatch.cron_scheduler import CronScheduler
from runstore.domain.crons import Cron, run_id_at
from runstore.domain.errors import ErrorReason, RunstoreError

MINUTE_US = 60_000_000


@dataclass
class Clock:
    us: int

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1_000_000


def a_cron(number: int, due_us: int) -> Cron:
    return Cron(
        id=str(number),
        tenant_id="t",
        assistant_id="a",
        thread_id=None,
        user_id=None,
        schedule="* * * * *",
        timezone=None,
        end_time_us=100 * MINUTE_US,
        enabled=True,
        run=b"",
        metadata=b"{}",
        next_run_at_us=due_us,
        created_at_us=0,
        updated_at_us=0,
    )


@dataclass
class MemoryCrons:
    clock: Clock
    crons: dict[str, Cron]

    async def due(self, limit: int) -> list[Cron]:
        due = [
            c
            for c in self.crons.values()
            if c.next_run_at_us is not None and c.next_run_at_us <= self.clock.us
        ]
        return due[:limit]

    async def advance(self, cron: Cron, next_run_at_us: int | None) -> None:
        if self.crons[cron.id] == cron:
            self.crons[cron.id] = replace(cron, next_run_at_us=next_run_at_us)


@dataclass
class Runs:
    """Creates runs, once each, and fails as it is told to."""

    made: list[str] = field(default_factory=list)
    failures: list[ErrorReason] = field(default_factory=list)
    defects: list[Exception] = field(default_factory=list)

    async def create(self, cron: Cron, run_id: str) -> None:
        if self.defects:
            raise self.defects.pop(0)
        if self.failures:
            raise RunstoreError(self.failures.pop(0), "as told")
        if run_id in self.made:
            raise RunstoreError(ErrorReason.ALREADY_EXISTS, "made before")
        self.made.append(run_id)


def given(*due_us: int, now_us: int) -> tuple[MemoryCrons, Runs, CronScheduler]:
    clock = Clock(now_us)
    crons = MemoryCrons(clock, {str(n): a_cron(n, due) for n, due in enumerate(due_us)})
    runs = Runs()
    return crons, runs, CronScheduler(crons, runs.create, clock)


def next_times(crons: MemoryCrons) -> list[int | None]:
    return [cron.next_run_at_us for cron in crons.crons.values()]


async def test_what_is_due_is_created_once() -> None:
    """Each due cron makes one run and waits for its next time."""
    crons, runs, scheduler = given(MINUTE_US, MINUTE_US, 2 * MINUTE_US, now_us=MINUTE_US)
    await scheduler.create_due()
    await scheduler.create_due()
    assert runs.made == [run_id_at("0", MINUTE_US), run_id_at("1", MINUTE_US)]
    assert next_times(crons) == [2 * MINUTE_US] * 3


async def test_missed_times_are_made_good_once() -> None:
    """After a long pause there is one run, not one for each time that passed; at the end there is none."""
    crons, runs, scheduler = given(MINUTE_US, now_us=50 * MINUTE_US + 1)
    await scheduler.create_due()
    assert runs.made == [run_id_at("0", MINUTE_US)]
    assert next_times(crons) == [51 * MINUTE_US]
    crons.clock.us = 100 * MINUTE_US
    await scheduler.create_due()
    assert next_times(crons) == [None]
    assert len(runs.made) == 2


async def test_whoever_died_in_between_is_followed_up() -> None:
    """A run that was made before the cron advanced is not made again, and the cron advances."""
    crons, runs, scheduler = given(MINUTE_US, now_us=MINUTE_US)
    runs.made.append(run_id_at("0", MINUTE_US))
    await scheduler.create_due()
    assert len(runs.made) == 1
    assert next_times(crons) == [2 * MINUTE_US]


async def test_a_refused_run_is_passed_over() -> None:
    """A busy thread with `reject` costs the cron one time, not all."""
    crons, runs, scheduler = given(MINUTE_US, now_us=MINUTE_US)
    runs.failures = [ErrorReason.CONFLICT]
    await scheduler.create_due()
    assert runs.made == []
    assert next_times(crons) == [2 * MINUTE_US]


async def test_a_database_that_is_away_loses_no_run() -> None:
    """The time stays due until the run is there."""
    crons, runs, scheduler = given(MINUTE_US, now_us=MINUTE_US)
    runs.failures = [ErrorReason.UNAVAILABLE]
    with pytest.raises(RunstoreError):
        await scheduler.create_due()
    assert next_times(crons) == [MINUTE_US]
    await scheduler.create_due()
    assert runs.made == [run_id_at("0", MINUTE_US)]


async def test_a_defect_with_one_cron_does_not_hold_up_others() -> None:
    """It loses one time of that cron, and its calendar that is not understood any more ends it."""
    crons, runs, scheduler = given(MINUTE_US, MINUTE_US, now_us=MINUTE_US)
    crons.crons["0"] = replace(crons.crons["0"], timezone="Gone/Away")
    runs.defects = [ZeroDivisionError()]
    await scheduler.create_due()
    assert runs.made == [run_id_at("1", MINUTE_US)]
    assert next_times(crons) == [None, 2 * MINUTE_US]
