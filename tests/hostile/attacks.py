"""Hostile clients: each keeps one connection busy, in its own way, until it is stopped."""

import asyncio
import contextlib
import functools
import random
import ssl
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import zstandard

_BOMB_BYTES: Final = 1024 * 1024 * 1024
_PIECE_BYTES: Final = 16 * 1024 * 1024
_PIPELINED: Final = 50
_DRIP_S: Final = 0.5
_BOUNDARY: Final = "boundary"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Target:
    """What is attacked, and with what."""

    http_port: int
    grpc_port: int
    key: str
    """A good one, of a tenant that nobody else is in: hostile clients may have paid."""
    tls: ssl.SSLContext
    address: str | None
    """Where the hostile client is; None for where the others are."""

    async def https(self) -> Streams:
        """A connection with TLS."""
        return await self.connection(self.http_port, tls=self.tls)

    async def connection(self, port: int, tls: ssl.SSLContext | None = None) -> Streams:
        """A connection, plain unless `tls` is given."""
        origin = (self.address, 0) if self.address else None
        return await asyncio.open_connection("127.0.0.1", port, ssl=tls, local_addr=origin)

    def head(self, request: str, *, key: str = "", more: str = "") -> bytes:
        """The first lines of a request, without the empty one."""
        return f"{request} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {key or self.key}\r\n{more}".encode()


async def slow_head(target: Target, _chance: random.Random) -> None:
    """A head that comes byte by byte."""
    _, writer = await target.https()
    with contextlib.closing(writer):
        for byte in target.head("GET /sessions", more="x-more: y\r\n" * 1_000):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(_DRIP_S)


async def slow_body(target: Target, _chance: random.Random) -> None:
    """A large body that comes byte by byte, after a piece that takes memory."""
    _, writer = await target.https()
    with contextlib.closing(writer):
        more = "Content-Type: application/json\r\nContent-Length: 20000000\r\n\r\n"
        writer.write(target.head("POST /runs/batch", more=more) + b" " * 10_000_000)
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(_DRIP_S)


async def zstd_bomb(target: Target, _chance: random.Random) -> None:
    """A gigabyte in a few kilobytes."""
    await _bomb(target, "zstd", bombs()[0])


async def gzip_bomb(target: Target, _chance: random.Random) -> None:
    """A gigabyte in a megabyte."""
    await _bomb(target, "gzip", bombs()[1])


async def flood(target: Target, chance: random.Random) -> None:
    """Questions as fast as they are answered, many at once, with a good key."""
    await _flood(target, lambda: target.head(f"GET /sessions?limit=100&name={chance.random()}") + b"\r\n")


async def flood_of_strangers(target: Target, chance: random.Random) -> None:
    """The same with keys that nobody was given."""
    await _flood(
        target, lambda: target.head("GET /sessions", key=f"rsk_{chance.randbytes(16).hex()}") + b"\r\n"
    )


async def flood_of_connections(target: Target, _chance: random.Random) -> None:
    """Handshakes, and nothing after them."""
    _, writer = await target.https()
    writer.close()


async def garbage(target: Target, chance: random.Random) -> None:
    """Bytes that are no HTTP, and bytes that are no TLS."""
    _, writer = await target.https()
    writer.write(chance.randbytes(chance.randrange(1, 10_000)))
    writer.close()
    for port in (target.http_port, target.grpc_port):
        _, writer = await target.connection(port)
        writer.write(chance.randbytes(chance.randrange(1, 10_000)))
        writer.close()


async def half_open_tls(target: Target, _chance: random.Random) -> None:
    """The first half of a greeting at each port, and then silence."""
    greeting = bytes.fromhex("1603010200010001fc0303") + b"\0" * 100
    for port in (target.http_port, target.grpc_port):
        reader, writer = await target.connection(port)
        writer.write(greeting)
        asyncio.get_running_loop().call_later(30.0, writer.close)
        del reader
    await asyncio.sleep(_DRIP_S)


ATTACKS: Final[tuple[Callable[[Target, random.Random], Awaitable[None]], ...]] = (
    slow_head,
    slow_body,
    zstd_bomb,
    gzip_bomb,
    flood,
    flood_of_strangers,
    flood_of_connections,
    garbage,
    half_open_tls,
)


async def attack(target: Target, number: int, seed: int, kind: str | None) -> None:
    """One hostile client, until cancelled: what the server ends, it begins again. `kind`: None for any."""
    chance = random.Random(f"{seed} hostile {number}")
    kinds = [each for each in ATTACKS if kind in (None, each.__name__)]
    make = kinds[number % len(kinds)]
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await make(target, chance)
        await asyncio.sleep(0.01)


@functools.cache
def bombs() -> tuple[bytes, bytes]:
    """Of zstd and gzip: a part of a multipart body that goes on for a gigabyte, and never ends.

    Pieces that mean the same wherever they stand are repeated, because compressing a gigabyte takes long.
    """
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="post.1"\r\n'
        "Content-Type: application/json\r\n\r\n"
    ).encode()
    count, piece = _BOMB_BYTES // _PIECE_BYTES, b" " * _PIECE_BYTES
    zstd = zstandard.ZstdCompressor()
    gzip = zlib.compressobj(wbits=31)
    begin = gzip.compress(head) + gzip.flush(zlib.Z_FULL_FLUSH)
    again = gzip.compress(piece) + gzip.flush(zlib.Z_FULL_FLUSH)
    return zstd.compress(head) + zstd.compress(piece) * count, begin + again * count


async def _bomb(target: Target, encoding: str, body: bytes) -> None:
    more = (
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Encoding: {encoding}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    request = target.head("POST /runs/multipart", more=more) + body
    while True:
        reader, writer = await target.https()
        with contextlib.closing(writer):
            writer.write(request)
            await _read_answer(reader)


async def _flood(target: Target, request: Callable[[], bytes]) -> None:
    reader, writer = await target.https()
    with contextlib.closing(writer):
        while True:
            for _ in range(_PIPELINED):
                writer.write(request())
            for _ in range(_PIPELINED):
                await _read_answer(reader)


async def _read_answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
