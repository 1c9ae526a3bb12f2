"""The folder of a backup: whether it can be used, by one at a time, and what goes wrong with it in words."""

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.runtime.backup.manifest import BLOB_INDEX, BLOBS, LOCK, MANIFEST
from runstore.storage.run_store import StoreUnavailable

_ID: Final = re.compile(r"\d{8}T\d{6}\.\d{6}Z")


def is_backup_id(name: str) -> bool:
    """Whether this is the name of a backup."""
    return _ID.fullmatch(name) is not None


def usable_folder(path: str, data_dir: Path) -> Path:
    """A folder that is empty, missing, or one of backups. Raises INVALID_ARGUMENT, INCONSISTENT."""
    folder = Path(path)
    if not folder.is_absolute():
        raise invalid("folder", "must be an absolute path on the machine of the store")
    if folder.resolve().is_relative_to(data_dir.resolve()):
        raise invalid("folder", f"must not be in the data directory {data_dir}, which it is to replace")
    if folder.exists() and not folder.is_dir():
        raise invalid("folder", f"{folder} is not a folder")
    if folder.is_dir() and not (folder / MANIFEST).exists():
        names = {entry.name for entry in folder.iterdir() if not is_backup_id(entry.name)}
        own = {LOCK, BLOBS, BLOB_INDEX, f"{BLOB_INDEX}-journal", f"{MANIFEST}.new"}
        if foreign := sorted(names - own):
            raise RunstoreError(
                ErrorReason.INCONSISTENT,
                f"{folder} is not empty and holds no backup: there is {foreign[0]}",
                field="folder",
            )
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """The folder, made if need be, for nobody else. Raises CONFLICT, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunstoreError(ErrorReason.CONFLICT, f"{folder} is in use by another backup") from None
        yield folder
    finally:
        os.close(descriptor)


@contextmanager
def failures_named(what: str) -> Iterator[None]:
    """Failures of disks and databases inside become RunstoreError UNAVAILABLE."""
    try:
        yield
    except (StoreUnavailable, OSError, sqlite3.Error) as error:
        raise RunstoreError(ErrorReason.UNAVAILABLE, f"{what} was broken off: {error}") from error
