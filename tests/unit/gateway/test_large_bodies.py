"""Large bodies take turns, with each other and with everything else that the gateway does."""

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zstandard
from starlette.requests import Request

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway import bodies
from runstore.gateway.bodies import BodyLimits, BodyReader, BodyStream

MIB = 1024 * 1024
LIMITS = BodyLimits(MIB, 64 * MIB, 1_000, 64 * MIB, MIB, MIB)


def request(body: bytes, encoding: str) -> Request:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-encoding", encoding.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies that are large, but not to the machine."""
    monkeypatch.setattr(bodies, "_STREAMED_BYTES", 4 * MIB)
    monkeypatch.setattr(bodies, "_TURN_BYTES", MIB)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("size", [100, MIB, 2 * MIB, 4 * MIB, 4 * MIB + 1, 9 * MIB + 7])
async def test_content(encoding: str, size: int) -> None:
    """Whole or as a stream, inline or in a thread: it is the same."""
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    packed = gzip.compress(content, 1) if encoding == "gzip" else zstandard.compress(content)
    async with BodyReader(LIMITS).read_or_stream(request(packed, encoding)) as body:
        if isinstance(body, BodyStream):
            assert size > 4 * MIB
            assert b"".join([piece async for piece in body.pieces]) == content
        else:
            assert size <= 4 * MIB
            assert body == content


async def test_others_go_on_between_two_pieces() -> None:
    """Three bombs at once: in each step of the loop at most one of them goes on by one piece."""
    reader = BodyReader(LIMITS)
    bomb = gzip.compress(bytes(12 * MIB), 1)
    steps = pieces = 0
    most_in_a_step = 0

    async def others() -> None:
        nonlocal steps, most_in_a_step
        while True:
            before = pieces
            await asyncio.sleep(0)
            steps += 1
            most_in_a_step = max(most_in_a_step, pieces - before)

    async def take(stream: AsyncIterator[bytes]) -> None:
        nonlocal pieces
        async for _ in stream:
            pieces += 1

    async def explode() -> None:
        async with reader.read_or_stream(request(bomb, "gzip")) as body:
            assert isinstance(body, BodyStream)
            await take(body.pieces)

    watching = asyncio.create_task(others())
    await asyncio.gather(explode(), explode(), explode())
    watching.cancel()
    assert pieces >= 3 * 48
    assert steps >= pieces
    # Each of the three begins with a piece of its own; from then on they wait for each other.
    assert most_in_a_step <= 3


async def test_a_bomb_in_a_thread_lets_others_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two turns of one body another one is decompressed: nobody waits for a whole bomb."""
    turns: list[int] = []
    grow = bodies._Content.grow

    def noted(self: bodies._Content, most_bytes: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            turns.append(id(self))
        grow(self, most_bytes)

    monkeypatch.setattr(bodies._Content, "grow", noted)
    reader = BodyReader(LIMITS)
    packed = gzip.compress(bytes(4 * MIB), 1)

    async def read() -> None:
        async with reader.read(request(packed, "gzip")) as body:
            assert len(body) == 4 * MIB

    await asyncio.gather(read(), read())
    first, second = turns[:2]
    assert first != second
    assert turns[:4] == [first, second, first, second]


async def test_a_bomb_stops_at_its_ratio() -> None:
    """Above the size that hurts, the ratio counts, before anything more is decompressed."""
    strict = BodyLimits(MIB, 256 * MIB, 10, 256 * MIB, MIB, MIB)
    with pytest.raises(RunstoreError, match="more than 10 times") as refused:
        async with BodyReader(strict).read(request(gzip.compress(bytes(40 * MIB), 1), "gzip")):
            raise AssertionError
    assert refused.value.reason is ErrorReason.TOO_LARGE


async def test_a_call_that_is_over_takes_no_more_memory() -> None:
    """Its thread may go on for a moment, when it was cancelled while that decompressed."""
    reader = BodyReader(LIMITS)
    free = reader._free_bytes
    with reader._holding() as hold:
        hold(MIB)
        assert reader._free_bytes == free - MIB
    hold(MIB)
    assert reader._free_bytes == free
