"""References to payloads and files that are kept in the blob store, and how a payload's column holds one.

JSON never begins with NUL, so a payload's bytes that do are a reference:
`NUL <key> SP <size in bytes> LF <head>`. The head is the beginning of the payload as it is: previews are made
of it and words in it are found. It may end in the middle of a character.
"""

import uuid
from hashlib import blake2b
from typing import Final

import msgspec

HEAD_BYTES: Final = 64 * 1024
"""How much of a payload stays in its row."""

MAX_HEADER_BYTES: Final = 256
"""Longest reference without its head."""

OFFLOADED_FIELDS: Final = ("inputs", "outputs", "events", "manifest")
"""Payloads that may live in the blob store. `extra` merges key by key, and `error` is a text."""

_MARK: Final = b"\0"
_KEY_BYTES: Final = 16


class BlobRef(msgspec.Struct, frozen=True, gc=False):
    """A blob that is durable, by its key."""

    key: str
    size_bytes: int


def new_key(tenant_id: str) -> str:
    """A key that nobody can guess: `<tenant>/<two hex digits>/<UUID>`."""
    return _key(tenant_id, uuid.uuid4())


def content_key(tenant_id: str, run_id: str, content: bytes) -> str:
    """The key of a payload or file of a run; repeated for the same content, so that a replay makes no second
    blob."""
    digest = blake2b(content, key=uuid.UUID(run_id).bytes, digest_size=_KEY_BYTES)
    return _key(tenant_id, uuid.UUID(bytes=digest.digest(), version=4))


def _key(tenant_id: str, name: uuid.UUID) -> str:
    # Folders of a local store stay small.
    return f"{tenant_id}/{name.hex[:2]}/{name}"


def tenant_of(key: str) -> str:
    """Id of the tenant whose blob has the key."""
    return key.partition("/")[0]


def pack(ref: BlobRef, head: bytes) -> bytes:
    """What the payload's column holds instead of the payload; of `head` the first `HEAD_BYTES` are kept."""
    return b"%b%b %d\n%b" % (_MARK, ref.key.encode(), ref.size_bytes, head[:HEAD_BYTES])


def is_reference(column: bytes) -> bool:
    """Whether a payload's column, or its first 256 bytes, hold a reference rather than JSON."""
    return column[:1] == _MARK


def unpack(column: bytes) -> tuple[BlobRef, bytes]:
    """The reference in a payload's column, and the head as far as the column was read."""
    header, _, head = column[1:].partition(b"\n")
    key, _, size = header.partition(b" ")
    return BlobRef(key.decode(), int(size)), head
