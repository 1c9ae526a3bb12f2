"""Calendars of crons."""

from datetime import UTC, datetime

import pytest

from runstore.domain.crons import next_time_us, run_id_at
from runstore.domain.errors import RunstoreError


def at(text: str) -> int:
    """Microseconds of a time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("schedule", "timezone", "after", "following"),
    [
        ("0 9 * * *", None, "2026-01-01 08:59:59", "2026-01-01 09:00:00"),
        ("0 9 * * *", None, "2026-01-01 09:00:00", "2026-01-02 09:00:00"),
        ("0 9 * * 1-5", None, "2026-01-02 09:00:00", "2026-01-05 09:00:00"),
        ("*/15 * * * *", None, "2026-01-01 23:50:00", "2026-01-02 00:00:00"),
        ("* * * * * */10", None, "2026-01-01 00:00:05", "2026-01-01 00:00:10"),
        ("0 9 * * *", "America/New_York", "2026-01-01 00:00:00", "2026-01-01 14:00:00"),
        ("0 9 * * *", "America/New_York", "2026-07-01 00:00:00", "2026-07-01 13:00:00"),
        # 02:30 does not exist on this day, 01:30 exists twice on that one.
        ("30 2 * * *", "America/New_York", "2026-03-08 05:00:00", "2026-03-08 07:00:00"),
        ("30 1 * * *", "America/New_York", "2026-11-01 05:30:00", "2026-11-01 06:30:00"),
        ("0 0 29 2 *", None, "2026-01-01 00:00:00", "2028-02-29 00:00:00"),
    ],
)
def test_next_time_is_the_calendars(schedule: str, timezone: str | None, after: str, following: str) -> None:
    """The first time later than a moment, in the calendar's own zone."""
    assert next_time_us(schedule, timezone, after_us=at(after)) == at(following)


def test_nothing_is_due_after_the_end() -> None:
    """A run at the last moment is due, one after it is not."""
    after, end = at("2026-01-01 08:00:00"), at("2026-01-01 09:00:00")
    assert next_time_us("0 9 * * *", None, after_us=after, end_time_us=end) == end
    assert next_time_us("0 9 * * *", None, after_us=after, end_time_us=end - 1) is None
    assert next_time_us("0 9 * * *", None, after_us=end, end_time_us=end) is None


@pytest.mark.parametrize(
    ("field", "schedule", "timezone"),
    [
        ("schedule", "", None),
        ("schedule", "every day", None),
        ("schedule", "61 * * * *", None),
        ("schedule", "* * * *", None),
        ("schedule", "0 0 31 2 *", None),
        ("schedule", "* " * 200, None),
        ("timezone", "* * * * *", ""),
        ("timezone", "* * * * *", "Mars/Olympus"),
        ("timezone", "* * * * *", "../../etc/passwd"),
        ("timezone", "* * * * *", "a\0b"),
        ("timezone", "* * * * *", "x" * 100_000),
    ],
)
def test_what_is_no_calendar_is_refused(field: str, schedule: str, timezone: str | None) -> None:
    """The field at fault is named."""
    with pytest.raises(RunstoreError) as refusal:
        next_time_us(schedule, timezone, after_us=0)
    assert refusal.value.field == field


def test_each_time_of_a_cron_has_one_run() -> None:
    """Whoever creates the run of one time gives it the same id; other times and crons have others."""
    assert run_id_at("a", 1) == run_id_at("a", 1)
    assert len({run_id_at("a", 1), run_id_at("a", 2), run_id_at("b", 1)}) == 3
