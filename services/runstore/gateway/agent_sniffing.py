"""Tells runs of graphs from traced runs, where both SDKs post to one path."""

import re
from collections.abc import Awaitable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runstore.domain.errors import RunstoreError
from runstore.gateway.dialects import Dialect, error_response

_ARRAY: Final = re.compile(rb"[ \t\r\n]{0,256}\[[ \t\r\n]{0,256}[^\] \t\r\n]")


class _Sniffed(msgspec.Struct):
    assistant_id: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


_SNIFFER: Final = msgspec.json.Decoder(_Sniffed)


def is_agent_run(body: bytes) -> bool:
    """Whether a body of `POST /runs` asks for a run of a graph: an object with `assistant_id`."""
    if b'"assistant_id"' not in body:
        return False
    try:
        return bool(bytes(_SNIFFER.decode(body).assistant_id))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def is_agent_batch(body: bytes) -> bool:
    """Whether a body of `POST /runs/batch` asks for runs of graphs: an array with something in it."""
    return _ARRAY.match(body) is not None


async def in_agents_dialect(request: Request, answering: Awaitable[Response]) -> Response:
    """What `answering` gives; a refusal as clients of agents read it, whatever the path's dialect is."""
    try:
        return await answering
    except RunstoreError as error:
        return error_response(Dialect.AGENT, request.url.path, error)
