"""Page tokens: where a page ended, sealed so that only the same query can go on from there.

A token is 48 bytes in URL-safe base64 (64 characters):

    version 1 | start time 8 | run id 16 | query hash 8 | HMAC-SHA256 15

Integers are big-endian. The seal covers everything before it. 48 bytes leave no spare bits in
base64, so that no two texts are the same token.
"""

import base64
import hashlib
import hmac
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.runs import Position

TOKEN_VERSION = 1
MIN_SECRET_BYTES = 16

_BODY = struct.Struct(">Bq16s8s")
_SEAL_BYTES = 15
_TOKEN = re.compile(r"[A-Za-z0-9_-]{64}")
_TOKEN_START = re.compile(r"[A-Za-z0-9_-]{4}")
_MAX_TOKEN_VERSION = 15
_FIELD = "cursor"


def query_hash(*parts: object) -> bytes:
    """32 bytes that tell one query from another: equal for equal parts, in any process.

    A part is None, a bool, int, str, bytes, Decimal, UUID, aware datetime, enum member, dataclass,
    sequence, set or mapping of such; sets and mappings count regardless of their order. Pass
    everything that decides which runs a walk returns and in what order, the tenant included; leave
    out the page size and the token, which may change from page to page. Raises TypeError for a part
    of any other type.
    """
    digest = hashlib.sha256()
    for chunk in _canonical(parts):
        digest.update(chunk)
    return digest.digest()


class PageTokens:
    """Issues and checks page tokens under one secret, which all replicas share.

    Position and query hash travel readably: a token keeps nobody from learning a start time and a
    run id that the page has shown anyway. What it prevents is that anybody else makes one.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret of page tokens needs at least {MIN_SECRET_BYTES} bytes")
        self._secret = secret

    def encode(self, position: Position, query_hash: bytes) -> str:
        """The token that leads on from `position` in the query with this `query_hash`."""
        run_id = UUID(position.run_id).bytes
        body = _BODY.pack(TOKEN_VERSION, position.start_time_us, run_id, query_hash[:8])
        return base64.urlsafe_b64encode(body + self._seal(body, query_hash)).decode()

    def decode(self, token: str, query_hash: bytes) -> Position:
        """The position in a token that `encode` made for the same query.

        Raises RunstoreError INVALID_CURSOR when it was altered or made by another server, for
        another query, or by a version of runstore with other tokens.
        """
        sealed = _unarmour(token)
        body, seal = sealed[: _BODY.size], sealed[_BODY.size :]
        _, start_time_us, run_id, issued_for = _BODY.unpack(body)
        if not hmac.compare_digest(issued_for, query_hash[:8]):
            raise _refused("the cursor belongs to another query; start again without a cursor")
        if not hmac.compare_digest(seal, self._seal(body, query_hash)):
            raise _refused("the cursor was altered, or made by another server")
        return Position(start_time_us, str(UUID(bytes=run_id)))

    def _seal(self, body: bytes, query_hash: bytes) -> bytes:
        # The body names the query by 8 bytes, to tell the two errors apart; the seal binds all 32.
        message = body + query_hash
        return hmac.digest(self._secret, message, "sha256")[:_SEAL_BYTES]


def _unarmour(token: str) -> bytes:
    """The bytes of a token that has this version's form."""
    # Every version has its number in the first byte; anything higher is no token at all.
    start = _TOKEN_START.match(token)
    version = base64.urlsafe_b64decode(start.group())[0] if start else None
    if version is not None and version != TOKEN_VERSION and version <= _MAX_TOKEN_VERSION:
        raise _refused("the cursor was made by another version of runstore; start again without a cursor")
    if version is None or not _TOKEN.fullmatch(token):
        raise _refused("not a cursor of this server")
    return base64.urlsafe_b64decode(token)


def _refused(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.INVALID_CURSOR, message, field=_FIELD)


def _canonical(part: object) -> Iterator[bytes]:
    """Encode one part: its type, its length, its content. No two parts share an encoding."""
    match part:
        case None:
            yield b"n"
        case Enum():
            # Before str and int, which some enums are as well.
            yield from _sized(b"e", f"{type(part).__name__}.{part.name}".encode())
        case bool():
            yield b"t" if part else b"f"
        case int():
            yield from _sized(b"i", str(part).encode())
        case str():
            yield from _sized(b"s", part.encode())
        case bytes():
            yield from _sized(b"b", part)
        case Decimal():
            yield from _sized(b"d", str(part).encode())
        case UUID():
            yield from _sized(b"u", part.bytes)
        case datetime() if part.tzinfo is not None:
            yield from _sized(b"m", part.astimezone(UTC).isoformat().encode())
        case _:
            yield from _canonical_container(part)


def _canonical_container(part: object) -> Iterator[bytes]:
    match part:
        case Mapping():
            yield from _counted(b"M", sorted(b"".join(_canonical(item)) for item in part.items()))
        case AbstractSet():
            yield from _counted(b"S", sorted(b"".join(_canonical(item)) for item in part))
        case Sequence():
            yield from _counted(b"L", [b"".join(_canonical(item)) for item in part])
        case _ if is_dataclass(part):
            values = [type(part).__name__, *(getattr(part, field.name) for field in fields(part))]
            yield from _counted(b"D", [b"".join(_canonical(value)) for value in values])
        case _:
            raise TypeError(f"no canonical encoding for {type(part).__name__}")


def _sized(tag: bytes, content: bytes) -> Iterator[bytes]:
    yield b"%b%d:" % (tag, len(content))
    yield content


def _counted(tag: bytes, items: Sequence[bytes]) -> Iterator[bytes]:
    yield b"%b%d:" % (tag, len(items))
    yield from items
