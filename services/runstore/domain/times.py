"""Reads and writes points in time: microseconds since the Unix epoch, UTC.

The wire has ISO 8601 with or without an offset (contract runs-v1, section 4.2: naive means UTC).
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from runstore.domain.errors import RunstoreError, invalid

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NAIVE_EPOCH: Final = EPOCH.replace(tzinfo=None)  # Saves making every naive time aware first.
MICROSECOND: Final = timedelta(microseconds=1)

# The years that Python, ClickHouse's DateTime64(6) (1900 to 2299) and most readers of nanoseconds
# (up to 2262) can all hold.
MIN_TIME_US: Final = (datetime(1900, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
MAX_TIME_US: Final = (datetime(2263, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND - 1

# fromisoformat alone would let pass any separator, a NUL after the seconds and letters in the fraction.
_ISO_8601: Final = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:[Zz]|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)


def parse_time(field: str, text: str) -> int:
    """Microseconds since the epoch of an ISO 8601 time; a date alone is its midnight.

    Without an offset the time is UTC. Fractions beyond microseconds are cut off, not rounded.
    Raises `invalid(field, ...)` for anything else and for years outside 1900 to 2262.
    """
    if _ISO_8601.fullmatch(text) is None:
        raise invalid(field, "not an ISO 8601 time")
    if text[-1] == "z":  # fromisoformat knows the capital only
        text = text[:-1] + "Z"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise invalid(field, f"not an ISO 8601 time: {error}") from error
    time_us = (moment - (NAIVE_EPOCH if moment.tzinfo is None else EPOCH)) // MICROSECOND
    if not MIN_TIME_US <= time_us <= MAX_TIME_US:
        raise out_of_range(field)
    return time_us


def out_of_range(field: str) -> RunstoreError:
    """The refusal of a time that can be read but not stored."""
    return invalid(field, "year outside 1900 to 2262")


def format_time(time_us: int) -> str:
    """RFC 3339 in UTC with six digits: `2024-04-29T00:49:12.090000+00:00`."""
    return (EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds")


def format_naive(time_us: int) -> str:
    """As v1 answers, UTC without saying so: `2024-04-29T00:49:12.090000`."""
    return (NAIVE_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds")


def format_utc(time_us: int) -> str:
    """RFC 3339 in UTC with a `Z`: `2024-04-29T00:49:12.090000Z`."""
    return format_naive(time_us) + "Z"
