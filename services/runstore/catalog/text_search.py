"""Finds rows by a part of a text."""

from typing import Any, Final

from sqlalchemy import ColumnElement, false

# SQLite takes patterns of 50,000 bytes; escaping may double them.
_MAX_PART_BYTES: Final = 20_000


def has_part(column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
    """Whether a text has a part, in any case. A part longer than 20,000 bytes is in none."""
    if len(part.encode()) > _MAX_PART_BYTES:
        return false()
    return column.icontains(part, autoescape=True)
