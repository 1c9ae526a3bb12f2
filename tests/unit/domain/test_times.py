"""Times: what is accepted, to the microsecond, and how they are written."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstore.domain.errors import RunstoreError
from runstore.domain.times import (
    MAX_TIME_US,
    MIN_TIME_US,
    format_naive,
    format_time,
    format_utc,
    parse_time,
)

BASE_US = 1_714_351_752_000_000
TIMES = st.integers(MIN_TIME_US, MAX_TIME_US)


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("2024-04-29T00:49:12", BASE_US),
        ("2024-04-29T00:49:12Z", BASE_US),
        ("2024-04-29t00:49:12z", BASE_US),
        ("2024-04-29 00:49:12", BASE_US),
        ("2024-04-29T00:49:12.09", BASE_US + 90_000),
        ("2024-04-29T00:49:12,5", BASE_US + 500_000),
        ("2024-04-29T00:49:12.123456789Z", BASE_US + 123_456),
        ("2024-04-29T00:49:12.9999999Z", BASE_US + 999_999),
        ("2024-04-29T06:19:12+05:30", BASE_US),
        ("2024-04-28T17:49:12.000001-0700", BASE_US + 1),
        ("2024-04-29T02:49:12+02", BASE_US),
        ("2024-04-29T00:49", BASE_US - 12_000_000),
        ("2024-04-29", 1_714_348_800_000_000),
        ("1900-01-01T00:00:00Z", MIN_TIME_US),
        ("2262-12-31T23:59:59.999999", MAX_TIME_US),
    ],
)
def test_iso_8601_is_read(text: str, time_us: int) -> None:
    """Naive is UTC, any offset counts, and digits beyond microseconds are cut off."""
    assert parse_time("start_time", text) == time_us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1714351752",
        "1714351752.5",
        "20240429",
        "2024-W18-1",
        "2024-04-31",
        "2024-04-29T",
        "2024-04-29T24:00:00",
        "2024-04-29x00:49:12",
        "2024-04-29T00:49:12.",
        "2024-04-29T00:49:12.1234567890",
        "2024-04-29T00:49:12\x00",
        "2024-04-29T00:49:12\n",
        "2024-04-29T00:49:12 UTC",
        "2024-04-29T00:49:12+25:00",
        "٢٠٢٤-04-29",
        "1899-12-31T23:59:59.999999Z",
        "1900-01-01T00:00:00+01:00",
        "2263-01-01",
        "9999-12-31T23:59:59-12:00",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    """Numbers, other notations, impossible dates and years outside 1900 to 2262 name the field."""
    with pytest.raises(RunstoreError) as refusal:
        parse_time("end_time", text)
    assert refusal.value.field == "end_time"


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but RunstoreError comes out of a text."""
    try:
        time_us = parse_time("start_time", text)
    except RunstoreError:
        return
    assert MIN_TIME_US <= time_us <= MAX_TIME_US


@given(TIMES)
def test_written_times_read_back(time_us: int) -> None:
    """Each of the three notations holds every microsecond."""
    for write in (format_time, format_naive, format_utc):
        assert parse_time("start_time", write(time_us)) == time_us


@given(TIMES, st.integers(-23 * 60, 23 * 60))
def test_offsets_name_the_same_moment(time_us: int, offset_minutes: int) -> None:
    """A moment is the same in whatever zone its client lives."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    local = moment.astimezone(timezone(timedelta(minutes=offset_minutes)))
    assert parse_time("start_time", local.isoformat()) == time_us


def test_notations() -> None:
    """Six digits always; v1 leaves the zone out."""
    assert format_time(BASE_US) == "2024-04-29T00:49:12.000000+00:00"
    assert format_naive(BASE_US + 90_000) == "2024-04-29T00:49:12.090000"
    assert format_utc(-1) == "1969-12-31T23:59:59.999999Z"
