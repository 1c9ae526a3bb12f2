"""The windows of start times that v2 lists look in, the last day unless told otherwise, and their cursors."""

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.time_fields import to_timestamp

_DAY_US: Final = 24 * 3600 * 1_000_000
_CURSOR: Final = re.compile(r"w(-?\d{1,17})\.(-?\d{1,17})\.(.+)", re.ASCII)


class Windowed(Protocol):
    """A body with a window."""

    min_start_time: int | None
    max_start_time: int | None


class Window(NamedTuple):
    """A window of start times and a place in it.

    The store refuses a page token that comes with other bounds, but a client that relies on the
    default window repeats no bounds, and "now" has moved on. So the window travels in the cursor;
    the store's own signature covers it.
    """

    min_start_time_us: int
    max_start_time_us: int
    page_token: str

    def since(self, times_us: Iterable[int]) -> "Window":
        """The window from the earliest of these times on, if there is any."""
        return self._replace(min_start_time_us=min(times_us, default=self.min_start_time_us))

    def next_cursor(self, next_page_token: str) -> str | None:
        """What the client sends for the next page; None at the end."""
        if not next_page_token:
            return None
        return f"w{self.min_start_time_us}.{self.max_start_time_us}.{next_page_token}"


def window_of(body: Windowed, now_us: int, cursor: str | None = None) -> Window:
    """The window of a list, and where it is to go on. Raises INVALID_CURSOR."""
    first, last = body.min_start_time, body.max_start_time
    if not cursor:
        return Window(now_us - _DAY_US if first is None else first, now_us if last is None else last, "")
    parsed = _CURSOR.fullmatch(cursor)
    if parsed is None:
        raise _refused("not a cursor of this server")
    window = Window(int(parsed[1]), int(parsed[2]), parsed[3])
    if window.next_cursor(window.page_token) != cursor:  # Digits that nobody issued.
        raise _refused("not a cursor of this server")
    if first not in (None, window.min_start_time_us) or last not in (None, window.max_start_time_us):
        raise _refused("the cursor belongs to another query; start again without a cursor")
    return window


def _refused(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.INVALID_CURSOR, message, field="cursor")


def set_feedback_window(request: Any, body: Any) -> None:
    """Copies the bounds of the feedback that filters look at, as far as they are given."""
    for name in ("min_feedback_modified_at", "max_feedback_modified_at"):
        time_us = getattr(body, name)
        if time_us is not None:
            getattr(request, name).CopyFrom(to_timestamp(time_us))
