"""Blobs of a backup: copied once, since a blob never changes, and checked against their checksums.

The index beside them says which backup a blob was copied for first, and for which it was there last. So a
backup that is broken off takes nothing from the one before it, and the next one goes on from there.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from runstore.ingest.unused_blobs import HOLDS
from runstore.runtime.backup.manifest import BlobPart, DamagedBackup
from runstore.storage.blobs import BlobMissing, BlobStore

_COPIED_AT_ONCE: Final = 8
_COPIED_TOGETHER: Final = 64
_LISTED_TOGETHER: Final = 1_000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS blobs (
  key TEXT PRIMARY KEY, size_bytes INTEGER, sha256 TEXT, first_backup TEXT, last_backup TEXT NOT NULL
) WITHOUT ROWID
"""
_OF_BACKUP: Final = "FROM blobs WHERE first_backup <= :backup AND last_backup >= :backup"

CopiedBlob = tuple[str, int, str]
"""Key, size in bytes, SHA-256 in hexadecimal digits."""


class BlobIndex:
    """Which blobs a folder of backups has. Use from one thread at a time. Raises sqlite3.Error."""

    def __init__(self, path: Path, *, is_written: bool) -> None:
        """One that is not written must be there."""
        mode = "rwc" if is_written else "ro"
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        if is_written:
            with self._database:
                self._database.execute(_SCHEMA)

    def close(self) -> None:
        """Use it no more."""
        self._database.close()

    def want(self, backup: str, keys: Sequence[str]) -> None:
        """These blobs belong to a backup."""
        statement = (
            "INSERT INTO blobs (key, last_backup) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET last_backup = excluded.last_backup"
        )
        with self._database:
            self._database.executemany(statement, [(key, backup) for key in keys])

    def missing(self, backup: str) -> list[str]:
        """Some of a backup's blobs that were not copied yet; none when all were."""
        query = "SELECT key FROM blobs WHERE last_backup = ? AND first_backup IS NULL LIMIT ?"
        return [key for (key,) in self._database.execute(query, (backup, _COPIED_TOGETHER))]

    def count_missing(self, backup: str) -> int:
        """How many those are."""
        query = "SELECT count(*) FROM blobs WHERE last_backup = ? AND first_backup IS NULL"
        return int(self._database.execute(query, (backup,)).fetchone()[0])

    def copied(self, backup: str, blobs: Sequence[CopiedBlob]) -> None:
        """These were copied for a backup, durably."""
        statement = "UPDATE blobs SET size_bytes = ?, sha256 = ?, first_backup = ? WHERE key = ?"
        with self._database:
            self._database.executemany(statement, [(size, sha, backup, key) for key, size, sha in blobs])

    def forget(self, keys: Sequence[str]) -> None:
        """These are not there any more."""
        with self._database:
            self._database.executemany("DELETE FROM blobs WHERE key = ?", [(key,) for key in keys])

    def outdated(self, backup: str) -> list[str]:
        """Blobs that only earlier backups had."""
        query = "SELECT key FROM blobs WHERE last_backup < ? LIMIT ?"
        return [key for (key,) in self._database.execute(query, (backup, _LISTED_TOGETHER))]

    def total(self, backup: str) -> BlobPart:
        """How many blobs a backup has."""
        query = f"SELECT count(*), coalesce(sum(size_bytes), 0) {_OF_BACKUP}"
        count, size_bytes = self._database.execute(query, {"backup": backup}).fetchone()
        return BlobPart(count, size_bytes)

    def blobs(self, backup: str, after: str) -> list[CopiedBlob]:
        """Some blobs of a backup behind a key, in the order of their keys."""
        query = f"SELECT key, size_bytes, sha256 {_OF_BACKUP} AND key > :after ORDER BY key LIMIT :limit"
        parameters = {"backup": backup, "after": after, "limit": _COPIED_TOGETHER}
        return list(self._database.execute(query, parameters))


async def back_up_blobs(
    source: BlobStore, target: BlobStore, index: BlobIndex, backup: str
) -> AsyncIterator[tuple[int, int]]:
    """Copy every blob that `target` does not have yet; yields how many of how many are.

    No blob may be deleted meanwhile. Raises StoreUnavailable, sqlite3.Error.
    """
    keys: list[str] = []
    async for key, _ in source.list(""):
        if key.startswith(f"{HOLDS}/"):
            continue
        keys.append(key)
        if len(keys) == _LISTED_TOGETHER:
            await asyncio.to_thread(index.want, backup, keys)
            keys = []
    await asyncio.to_thread(index.want, backup, keys)
    done, total = 0, index.count_missing(backup)
    while some := await asyncio.to_thread(index.missing, backup):
        blobs = await _copy_all(source, target, some)
        await asyncio.to_thread(index.copied, backup, blobs)
        found = {key for key, _, _ in blobs}
        await asyncio.to_thread(index.forget, [key for key in some if key not in found])
        done += len(some)
        yield done, total


async def drop_outdated_blobs(target: BlobStore, index: BlobIndex, backup: str) -> None:
    """Forget what the folder's backup does not need. Safe to repeat."""
    while keys := await asyncio.to_thread(index.outdated, backup):
        await target.delete(keys)
        await asyncio.to_thread(index.forget, keys)


async def check_blobs(
    source: BlobStore, index: BlobIndex, backup: str, target: BlobStore | None
) -> AsyncIterator[int]:
    """Compare every blob of a backup with its checksum, on its way to `target` if there is one.

    Yields how many are done. Raises DamagedBackup, StoreUnavailable.
    """
    done, after = 0, ""
    while some := await asyncio.to_thread(index.blobs, backup, after):
        found = await _copy_all(source, target, [key for key, _, _ in some])
        if damaged := set(some).difference(found):
            raise DamagedBackup(f"the blob {min(damaged)[0]} is not what was copied")
        done, after = done + len(some), some[-1][0]
        yield done


async def _copy_all(source: BlobStore, target: BlobStore | None, keys: Sequence[str]) -> list[CopiedBlob]:
    """Those that there are, with what was read of them."""
    limit = asyncio.Semaphore(_COPIED_AT_ONCE)

    async def copy(key: str) -> CopiedBlob | None:
        async with limit:
            try:
                return await _copy(source, target, key)
            except BlobMissing:
                return None

    tasks = [asyncio.create_task(copy(key)) for key in keys]
    try:
        return [blob for blob in await asyncio.gather(*tasks) if blob is not None]
    finally:
        for task in tasks:
            task.cancel()


async def _copy(source: BlobStore, target: BlobStore | None, key: str) -> CopiedBlob:
    size_bytes, sha256 = 0, hashlib.sha256()

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal size_bytes
        async for chunk in source.read(key):
            size_bytes += len(chunk)
            sha256.update(chunk)
            yield chunk

    if target is None:
        async for _ in chunks():
            pass
    else:
        await target.put(key, chunks())
    return key, size_bytes, sha256.hexdigest()
