"""Tokens of writes: a caller that brings one back reads what it wrote, whichever store it comes to."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

HEADER: Final = "x-runstore-visible"
"""Of the answers to writes, of requests that are to see them, and of the metadata of calls to the store."""

_MAX_CHARS: Final = 4_096


@dataclass(slots=True)
class Visible:
    """The tokens of one HTTP call."""

    asked: str = ""
    """What the caller wants to see."""
    written: list[str] = field(default_factory=list)
    """What the call has written."""


current_visible: ContextVar[Visible] = ContextVar("current_visible")
"""Set for the duration of an HTTP call."""


def visible_from(headers: list[tuple[bytes, bytes]]) -> Visible:
    """What a caller asks for; a text that cannot be a token is left for the store to refuse."""
    for name, value in headers:
        if name == HEADER.encode():
            text = value.decode("latin-1")[:_MAX_CHARS]
            return Visible(text if text.isascii() and text.isprintable() else "?")
    return Visible()


def note_write(token: str) -> None:
    """The store has acknowledged a write."""
    visible = current_visible.get(None)
    if visible is not None and token and token not in visible.written:
        visible.written.append(token)
