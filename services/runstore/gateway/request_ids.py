"""The name of a request, by which its log lines in the gateway and in the store find each other."""

import secrets
from contextvars import ContextVar
from typing import Final

HEADER: Final = "x-request-id"
"""Of HTTP requests, their answers, and the metadata of calls to the store."""

_MAX_CHARS: Final = 128

current_request_id: ContextVar[str] = ContextVar("current_request_id", default="")
"""Set for the duration of an HTTP call."""


def request_id_from(headers: list[tuple[bytes, bytes]]) -> str:
    """The caller's name for its request, if it is fit to be logged and sent on, else a new one."""
    for name, value in headers:
        if name == HEADER.encode() and 0 < len(value) <= _MAX_CHARS:
            text = value.decode("latin-1")
            if text.isascii() and text.isprintable():
                return text
    return secrets.token_hex(8)
