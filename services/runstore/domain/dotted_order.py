"""Reads and writes dotted orders: the path from a trace's root to a run, sortable as text.

One segment per run, root first, joined by dots; a segment is the run's start time as
`%Y%m%dT%H%M%S%fZ` (six digits of fraction) and its id. Source: contract runs-v1, section 9.
"""

import re
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec

from runstore.domain.errors import RunstoreError, invalid
from runstore.domain.times import (
    MAX_TIME_US,
    MICROSECOND,
    MIN_TIME_US,
    NAIVE_EPOCH,
    format_naive,
    out_of_range,
)

MAX_SEGMENTS: Final = 1_000

_FIELD: Final = "dotted_order"
_TIME_CHARS: Final = 22  # 20240429T004912090000Z
_SEGMENT_CHARS: Final = _TIME_CHARS + 36
_STRIDE: Final = _SEGMENT_CHARS + 1  # and its dot
_MINUTE_US: Final = 60_000_000

_TIME_PATTERN: Final = r"\d{8}T\d{12}Z"
_UUID_PATTERN: Final = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_TIME: Final = re.compile(_TIME_PATTERN, re.ASCII)
_UUID: Final = re.compile(_UUID_PATTERN)
_SEGMENT: Final = re.compile(_TIME_PATTERN + _UUID_PATTERN, re.ASCII)
_PARENTS: Final = re.compile(rf"(?:{_TIME_PATTERN}{_UUID_PATTERN}\.)*+", re.ASCII)

# Siblings, and the create and update of a run, share the path above them. Only paths of usual depth
# are kept, so that the cache holds at most about 10 MB.
_CACHED_PARENTS: Final = 8_192
_CACHED_CHARS: Final = 8 * _STRIDE


class DottedOrder(msgspec.Struct, frozen=True, gc=False):
    """What a dotted order says; ids are dashed lower-case UUIDs."""

    trace_id: str
    run_id: str
    parent_run_ids: tuple[str, ...]
    """Root first, direct parent last; () for a root."""
    start_time_us: int
    """Start of the run (the last segment) since the Unix epoch, UTC."""


def parse(text: str) -> DottedOrder:
    """The ids and the start time in `text`.

    The times of the segments above the last are checked for their form only.
    Raises `invalid("dotted_order", ...)` naming the segment (1 is the root's) at fault.
    """
    split = len(text) - _SEGMENT_CHARS
    if split < 0 or _SEGMENT.fullmatch(text, split) is None:
        raise _fault(text)
    read_parents = _cached_parent_ids if split <= _CACHED_CHARS else _parent_ids
    parents = read_parents(text[:split])
    if parents is None:
        raise _fault(text)
    run_id = text[split + _TIME_CHARS :].lower()
    return DottedOrder(
        trace_id=parents[0] if parents else run_id,
        run_id=run_id,
        parent_run_ids=parents,
        start_time_us=_time_us(text, split),
    )


def ancestors(text: str) -> tuple[str, ...]:
    """The ids above the run in a text that `parse` has accepted, root first."""
    split = len(text) - _SEGMENT_CHARS
    read_parents = _cached_parent_ids if split <= _CACHED_CHARS else _parent_ids
    return read_parents(text[:split]) or ()


def segment(start_time_us: int, run_id: str) -> str:
    """One segment; `run_id` is a dashed UUID in either case.

    Raises `invalid` for an id of another form and for a time outside 1900 to 2262.
    """
    if _UUID.fullmatch(run_id) is None:
        raise invalid(_FIELD, "run id is not a dashed UUID")
    if not MIN_TIME_US <= start_time_us <= MAX_TIME_US:
        raise out_of_range(_FIELD)
    time = format_naive(start_time_us).replace("-", "").replace(":", "").replace(".", "")
    return f"{time}Z{run_id.lower()}"


def root(start_time_us: int, run_id: str) -> str:
    """The dotted order of a run without parent. Raises as `segment` does."""
    return segment(start_time_us, run_id)


def child(parent_dotted_order: str, start_time_us: int, run_id: str) -> str:
    """The dotted order of a run below the run that `parent_dotted_order` leads to.

    `parent_dotted_order` is taken as it is. Raises as `segment` does, and when the path becomes
    longer than `MAX_SEGMENTS`.
    """
    if len(parent_dotted_order) + _STRIDE > MAX_SEGMENTS * _STRIDE - 1:
        raise _too_long()
    return f"{parent_dotted_order}.{segment(start_time_us, run_id)}"


def _parent_ids(prefix: str) -> tuple[str, ...] | None:
    """The ids in `prefix`, each segment followed by its dot; None if it is anything else."""
    if len(prefix) > (MAX_SEGMENTS - 1) * _STRIDE or _PARENTS.fullmatch(prefix) is None:
        return None
    prefix = prefix.lower()
    return tuple(prefix[at + _TIME_CHARS : at + _SEGMENT_CHARS] for at in range(0, len(prefix), _STRIDE))


_cached_parent_ids: Final = lru_cache(maxsize=_CACHED_PARENTS)(_parent_ids)


def _time_us(text: str, at: int) -> int:
    """The time of the segment that begins at `at`, whose form has been checked."""
    within_minute_us = int(text[at + 13 : at + 21])  # Seconds and six digits of fraction.
    if within_minute_us >= _MINUTE_US:
        raise invalid(_FIELD, f"segment {at // _STRIDE + 1}: no such time")
    try:
        time_us = _minute_us(text[at : at + 13]) + within_minute_us
    except ValueError as error:
        raise invalid(_FIELD, f"segment {at // _STRIDE + 1}: no such time: {error}") from error
    if not MIN_TIME_US <= time_us <= MAX_TIME_US:
        raise out_of_range(_FIELD)
    return time_us


@lru_cache(maxsize=1_024)
def _minute_us(minute: str) -> int:
    """The beginning of a minute `YYYYMMDDTHHMM`; a stream of runs knows few. Raises ValueError for none."""
    return (datetime.fromisoformat(minute) - NAIVE_EPOCH) // MICROSECOND


def _fault(text: str) -> RunstoreError:
    """Says what is wrong with a text that is not a dotted order."""
    if not text:
        return invalid(_FIELD, "empty")
    if len(text) > MAX_SEGMENTS * _STRIDE - 1:
        return _too_long()
    segments = text.split(".")
    for number, part in enumerate(segments, start=1):
        where = f"segment {number} of {len(segments)}"
        if _TIME.fullmatch(part[:_TIME_CHARS]) is None:
            return invalid(_FIELD, f"{where}: does not begin with a time as %Y%m%dT%H%M%S%fZ")
        if _UUID.fullmatch(part[_TIME_CHARS:]) is None:
            return invalid(_FIELD, f"{where}: the time is not followed by a dashed UUID")
    return invalid(_FIELD, "not segments joined by dots")


def _too_long() -> RunstoreError:
    return invalid(_FIELD, f"more than {MAX_SEGMENTS} segments")
