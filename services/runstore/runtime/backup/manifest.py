"""What a backup consists of, as its folder says; a folder whose manifest is missing holds none.

manifest.json        what is below, with checksums; replaced in one step when a backup is complete
<id>/engine.tar      the engine's tables, as the engine copies them
<id>/catalog.sqlite  the catalog, whatever database it comes from
<id>/checkpoints.sqlite
blobs/               blobs, which backups in this folder share
blobs.sqlite         their sizes and checksums
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from runstore.domain.errors import ErrorReason, RunstoreError

MANIFEST: Final = "manifest.json"
BLOBS: Final = "blobs"
BLOB_INDEX: Final = "blobs.sqlite"
LOCK: Final = "backup.lock"
FORMAT: Final = 1

_HASHED_AT_ONCE_BYTES: Final = 16 * 1024 * 1024


class File(msgspec.Struct, frozen=True):
    """A file of a backup."""

    size_bytes: int
    sha256: str


class EnginePart(msgspec.Struct, frozen=True):
    """The engine's tables."""

    place: str
    """Name of the file in the backup, or the place where the server that made the copy has put it."""
    is_file: bool
    """Whether it is a file of the backup."""
    database: str
    """Name of the database that was copied."""
    schema_version: int
    size_bytes: int


class BlobPart(msgspec.Struct, frozen=True):
    """The blobs."""

    count: int
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A complete backup."""

    format: int = FORMAT
    id: str
    """Ids of later backups are greater."""
    store_id: str
    runstore_version: str
    snapshot_time: str
    """Everything acknowledged before is in the backup; RFC 3339."""
    watermark: int
    """Sequence number of the last operation on runs that is."""
    engine: EnginePart
    catalog_schema_version: str
    files: dict[str, File]
    """By their paths in the backup's folder."""
    blobs: BlobPart
    left_out: list[str]
    """What has to be restored by other means, one sentence each."""

    @property
    def engine_file(self) -> str:
        """Path of the engine's tables in the folder; meaningful if they are there."""
        return f"{self.id}/engine.tar"

    @property
    def catalog_file(self) -> str:
        """Path of the catalog in the folder."""
        return f"{self.id}/catalog.sqlite"

    @property
    def checkpoints_file(self) -> str:
        """Path of the checkpoints in the folder, if the backup has any."""
        return f"{self.id}/checkpoints.sqlite"


class DamagedBackup(RunstoreError):
    """The backup is not what it was; the text names what is damaged."""

    def __init__(self, what: str) -> None:
        super().__init__(ErrorReason.INCONSISTENT, f"the backup is damaged: {what}")


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's backup, None when there is none. Raises DamagedBackup, OSError."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        found = msgspec.json.decode(data)
        if isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] > FORMAT:
            raise RunstoreError(
                ErrorReason.INCONSISTENT,
                f"{path} is of format {found['format']}, this runstore knows up to {FORMAT}: "
                f"restore it with runstore {found.get('runstore_version', '')} or later",
            )
        return msgspec.convert(found, Manifest)
    except msgspec.MsgspecError as error:
        raise DamagedBackup(f"{path} cannot be read ({error})") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """From here on the folder holds this backup: complete or not at all, and durable. Raises OSError."""
    new = folder / f"{MANIFEST}.new"
    with new.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / MANIFEST)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Hashing:
    """Computes a file's checksum piece by piece; iterating yields the bytes of each."""

    def __init__(self, path: Path, *, is_new: bool = False) -> None:
        """A new file is made durable, too."""
        self._path = path
        self._is_new = is_new
        self._size_bytes = 0
        self._sha256 = hashlib.sha256()

    def __iter__(self) -> Iterator[int]:
        with self._path.open("rb", buffering=0) as file:
            while data := file.read(_HASHED_AT_ONCE_BYTES):
                self._sha256.update(data)
                self._size_bytes += len(data)
                yield len(data)
            if self._is_new:
                os.fsync(file.fileno())

    @property
    def result(self) -> File:
        """What was found, once the iteration has ended."""
        return File(self._size_bytes, self._sha256.hexdigest())
