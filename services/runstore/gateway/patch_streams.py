"""Lists of v2 as events with JSON Patches (contract runs-v2, section 15), for `Accept: text/event-stream`.

A page is asked for in growing parts, so that its first items leave early; each part is an append.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec
from fastapi import Request
from starlette.responses import Response, StreamingResponse

from runstore.domain.errors import RunstoreError
from runstore.gateway.dialects import problem_of
from runstore.gateway.large_answers import filled, runs_response
from runstore.gateway.store_client import StoreClient

_EVENT_STREAM: Final = "text/event-stream"
_FIRST_PART: Final = 10
_GROWTH: Final = 4
_END: Final = b"event: end\n\n"


class Part(NamedTuple):
    """Items of a page, and where the list goes on; "" at its end."""

    items: list[Any]
    next_page_token: str


ReadPart = Callable[[int, str], Awaitable[Part]]
"""Reads up to so many items from behind a page token."""


def wants_events(request: Request) -> bool:
    """Whether the caller asks for the streaming form."""
    return _EVENT_STREAM in request.headers.get("accept", "").lower()


async def list_response(
    request: Request,
    store: StoreClient,
    read: ReadPart,
    page_size: int,
    page_token: str,
    cursor: Callable[[str], str | None],
) -> Response:
    """One page, whole or as a stream of patches; `cursor` makes one of a page token.

    Raises RunstoreError for what is refused at once. What fails later is an `error` event.
    """
    if not wants_events(request):
        part = await read(page_size, page_token)
        content = {"items": part.items, "next_cursor": cursor(part.next_page_token)}
        return runs_response(content, store)
    first = await read(min(page_size, _FIRST_PART), page_token)
    events = _events(request, store, read, page_size, first, cursor)
    return StreamingResponse(events, media_type=_EVENT_STREAM, headers={"Cache-Control": "no-cache"})


async def _events(
    request: Request,
    store: StoreClient,
    read: ReadPart,
    page_size: int,
    part: Part,
    cursor: Callable[[str], str | None],
) -> AsyncIterator[bytes]:
    try:
        root = {"op": "add", "path": "", "value": {"items": [], "next_cursor": None}}
        async for chunk in _event([root], store):
            yield chunk
        size, left = _FIRST_PART, page_size
        while True:
            left -= len(part.items)
            appends = [{"op": "add", "path": "/items/-", "value": item} for item in part.items]
            async for chunk in _event(appends, store):
                yield chunk
            if not part.next_page_token or left <= 0:
                break
            size *= _GROWTH
            part = await read(min(size, left), part.next_page_token)
        if part.next_page_token:
            patch = {"op": "replace", "path": "/next_cursor", "value": cursor(part.next_page_token)}
            async for chunk in _event([patch], store):
                yield chunk
        yield _END
    except RunstoreError as error:
        yield b"event: error\ndata: " + msgspec.json.encode(problem_of(error, request.url.path)) + b"\n\n"


async def _event(patches: list[Any], store: StoreClient) -> AsyncIterator[bytes]:
    """One event; nothing for no patches."""
    if not patches:
        return
    yield b"data: "
    async for chunk in filled(msgspec.json.encode(patches), store):
        # Stored JSON may be printed over several lines, which end an event's line; within a string of JSON
        # they are escaped.
        yield chunk.replace(b"\n", b" ").replace(b"\r", b" ")
    yield b"\n\n"
