"""Schedules of runs: calendars in cron's notation, and when they are next due."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

from runstore.domain.errors import invalid
from runstore.domain.times import EPOCH, MICROSECOND

MAX_CRON_PAGE: Final = 1_000

_MAX_SCHEDULE_CHARACTERS: Final = 200
_MAX_TIMEZONE_CHARACTERS: Final = 64
_RUNS: Final = uuid.UUID("0a3f4f0e-8f6e-4f0c-9d39-5ac0a41f7c52")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A schedule of runs of one assistant."""

    id: str
    tenant_id: str
    assistant_id: str
    thread_id: str | None
    """None: each run has a thread of its own."""
    user_id: str | None
    schedule: str
    timezone: str | None
    """IANA name; None is UTC."""
    end_time_us: int | None
    enabled: bool
    run: bytes
    """What each run is created with; only who creates runs can read it."""
    metadata: bytes
    """JSON object, that of the runs."""
    next_run_at_us: int | None
    """None when it is not enabled, or has ended."""
    created_at_us: int
    updated_at_us: int


class CronOrder(Enum):
    """What crons are listed by."""

    CREATE_TIME = "created_at_us"
    UPDATE_TIME = "updated_at_us"
    CRON_ID = "id"
    ASSISTANT_ID = "assistant_id"
    THREAD_ID = "thread_id"
    NEXT_RUN_TIME = "next_run_at_us"
    END_TIME = "end_time_us"


@dataclass(frozen=True, slots=True, kw_only=True)
class CronFilter:
    """Which crons to list, and how. Conditions left at None do not restrict."""

    assistant_id: str | None = None
    thread_id: str | None = None
    enabled: bool | None = None
    metadata: dict[str, object] | None = None
    """What theirs contains."""
    order: CronOrder = CronOrder.CREATE_TIME
    ascending: bool = False
    offset: int = 0
    limit: int = 10


def next_time_us(
    schedule: str, timezone: str | None, *, after_us: int, end_time_us: int | None = None
) -> int | None:
    """The first time of a calendar later than `after_us`, in microseconds; None beyond `end_time_us`.

    Times that a change to summer time leaves out are moved behind the gap, those that occur twice count
    twice.
    Raises INVALID_ARGUMENT for a schedule or time zone that does not exist, or a schedule that is never due.
    """
    if len(schedule) > _MAX_SCHEDULE_CHARACTERS:
        raise invalid("schedule", f"longer than {_MAX_SCHEDULE_CHARACTERS} characters")
    start = (EPOCH + timedelta(microseconds=after_us)).astimezone(_zone(timezone))
    try:
        due: datetime = croniter(schedule, start).get_next(datetime)
    except (CroniterError, ValueError, OverflowError) as error:
        raise invalid("schedule", "not a calendar in cron's notation that is ever due") from error
    due_us = (due.astimezone(UTC) - EPOCH) // MICROSECOND
    return due_us if end_time_us is None or due_us <= end_time_us else None


def _zone(name: str | None) -> ZoneInfo:
    if name is None:
        return ZoneInfo("UTC")
    try:
        if len(name) > _MAX_TIMEZONE_CHARACTERS:
            raise ValueError
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise invalid("timezone", "not the IANA name of a time zone") from error


def run_id_at(cron_id: str, due_us: int) -> str:
    """The id of the run of one time of a cron, so that no two stores create it twice."""
    return str(uuid.uuid5(_RUNS, f"{cron_id}/{due_us}"))
