"""Large payloads and files as blobs: in a folder, or in a bucket of S3, Google Cloud Storage or Azure."""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from runstore.storage.run_store import StoreUnavailable

READ_CHUNK_BYTES: Final = 1024 * 1024
"""Largest chunk that `BlobStore.read` yields, but for the last of a network packet."""

# S3 takes at most 10,000 parts of an upload: 1 GB and more, in 8 MiB each. Two of them are in memory.
_PART_BYTES: Final = 8 * 1024 * 1024
_CONCURRENT_PARTS: Final = 2
# Callers try again themselves, for as long as it takes; three minutes, the default, would hide an outage.
_RETRIES: Final[Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
# S3 deletes at most 1,000 keys at once.
_DELETED_AT_ONCE: Final = 1_000


class BlobMissing(Exception):
    """There is no blob of that key."""


class BlobStore(Protocol):
    """Keeps blobs by key (`a/b/c`); a blob is never changed once it is there.

    Every method raises StoreUnavailable when the storage cannot be reached or refuses the call.
    """

    async def put(self, key: str, chunks: AsyncIterable[bytes] | bytes | Path, /) -> None:
        """Keep a blob; durable when this returns, absent when it raises.

        Holds no more than 24 MiB of `chunks` in memory. What `chunks` raises is raised on.
        """
        ...

    def read(self, key: str, /, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `offset` on, at most `length` of them, in chunks of about 1 MiB.

        Raises BlobMissing before the first chunk.
        """
        ...

    async def delete(self, keys: Sequence[str], /) -> None:
        """Forget blobs; those that are not there are passed over."""
        ...

    def list(self, prefix: str, /) -> AsyncIterator[tuple[str, datetime]]:
        """Keys below a folder such as `a/b`, with the time at which each was put."""
        ...


def open_blob_store(location: str, *, endpoint: str = "") -> BlobStore:
    """The store at an absolute folder, `s3://bucket/…`, `gs://bucket/…` or `az://account/container/…`.

    Credentials and region of a bucket come from the usual variables of its provider (AWS_…, GOOGLE_…,
    AZURE_…); `endpoint` is the URL of a service that speaks its protocol, "" for the provider's own.
    Connects when it is used. Raises ValueError for a location that is none of these.
    """
    if location.startswith("/"):
        return _FolderBlobStore(Path(location))
    scheme, separator, _ = location.partition("://")
    if not separator or scheme not in ("s3", "gs", "az"):
        raise ValueError(f"{location!r} is not an absolute folder, s3://…, gs://… or az://…")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ValueError(f"the endpoint {endpoint!r} is not http://… or https://…")
    options: Any = {"endpoint": endpoint} if endpoint else {}
    client: Any = {"allow_http": True} if endpoint.startswith("http://") else None
    try:
        return _ObjectBlobStore(
            from_url(location, config=options, client_options=client, retry_config=_RETRIES)
        )
    except (BaseError, ValueError) as error:
        raise ValueError(f"{location!r}: {error}") from error


class _ObjectBlobStore:
    """Blobs in whatever `obstore` can reach."""

    def __init__(self, store: Any) -> None:
        self._store = store

    async def put(self, key: str, chunks: AsyncIterable[bytes] | bytes | Path, /) -> None:
        with _translated():
            await obstore.put_async(
                self._store, key, chunks, chunk_size=_PART_BYTES, max_concurrency=_CONCURRENT_PARTS
            )

    async def read(self, key: str, /, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        if length == 0:
            return
        wanted: Any = {"offset": offset} if length is None else (offset, offset + length)
        options: Any = {"range": wanted} if offset or length is not None else {}
        with _translated():
            found = await obstore.get_async(self._store, key, options=options)
            async for chunk in found.stream(min_chunk_size=READ_CHUNK_BYTES):
                yield bytes(chunk)

    async def delete(self, keys: Sequence[str], /) -> None:
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            with _translated():
                await obstore.delete_async(self._store, keys[start : start + _DELETED_AT_ONCE])

    async def list(self, prefix: str, /) -> AsyncIterator[tuple[str, datetime]]:
        with _translated():
            async for page in obstore.list(self._store, prefix):
                for found in page:
                    yield found["path"], found["last_modified"]


class _FolderBlobStore(_ObjectBlobStore):
    """Blobs as files. `obstore` renames a file into its place, but leaves it to the system when to write."""

    def __init__(self, folder: Path) -> None:
        super().__init__(LocalStore(folder, mkdir=True))
        self._folder = folder

    async def put(self, key: str, chunks: AsyncIterable[bytes] | bytes | Path, /) -> None:
        await super().put(key, chunks)
        with _translated():
            await asyncio.to_thread(self._sync, self._folder / key)

    async def delete(self, keys: Sequence[str], /) -> None:
        with _translated():
            await asyncio.to_thread(self._unlink, keys)

    def _sync(self, path: Path) -> None:
        """The file, its entry in its folder, and the entries of folders that may be new."""
        _fsync(path)
        for folder in path.parents:
            _fsync(folder)
            if folder == self._folder:
                break
        _fsync(self._folder.parent)

    def _unlink(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self._folder / key
            path.unlink(missing_ok=True)
            # What a process that was killed had written so far.
            for left in path.parent.glob(f"{path.name}#*"):
                left.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BlobMissing(str(error)) from error
    except (BaseError, OSError) as error:
        raise StoreUnavailable(f"blob store: {error}") from error
