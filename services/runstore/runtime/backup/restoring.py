"""Puts a backup in place of nothing, and notices what is damaged before it is needed.

A mark in the data directory says that a restore is under way: no store starts there, and the next restore
begins by removing what the one before it has left. It is set only where everything was empty.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from runstore.catalog import copies as catalog_copies
from runstore.catalog.migrations import check_known
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.backup.blob_copies import BlobIndex, check_blobs
from runstore.runtime.backup.folder import failures_named
from runstore.runtime.backup.manifest import (
    BLOB_INDEX,
    BLOBS,
    DamagedBackup,
    Hashing,
    Manifest,
    read_manifest,
    sync_folder,
)
from runstore.runtime.data_dir import LOCK_FILE, RESTORE_MARK
from runstore.runtime.settings import Settings
from runstore.storage.blobs import BlobStore, open_blob_store
from runstore.storage.clickhouse.backups import EngineCopies, open_copies
from runstore.storage.clickhouse.schema import SCHEMA_VERSION, SchemaTooNew
from runstore.storage.sqlite_copy import settle_sqlite

_LOOK_INTERVAL_S: Final = 0.25

Show = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much."""


async def check_backup(folder: Path, show: Show) -> Manifest:
    """The backup in a folder, every byte of which is compared. Raises DamagedBackup, RunstoreError."""
    with failures_named("the check"):
        manifest = _manifest(folder)
        await _check_files(folder, manifest, show)
        await _blobs(folder, manifest, None, show)
        return manifest


async def restore_backup(settings: Settings, folder: Path, show: Show) -> Manifest:
    """Restore the backup in a folder into the data directory, which this process owns, and the databases that
    the settings name. All of them must be empty.

    Raises DamagedBackup, SchemaTooNew, RunstoreError.
    """
    with failures_named("the restore"):
        manifest = _manifest(folder)
        if settings.clickhouse_cluster:
            raise RunstoreError(
                ErrorReason.UNIMPLEMENTED, "runstore does not restore into the tables of clickhouse_cluster"
            )
        _check_schemas(manifest)
        _check_checkpoints(settings, manifest)
        mark = settings.data_dir / RESTORE_MARK
        if not mark.exists():
            await _check_empty(settings)
        await _check_files(folder, manifest, show)
        if mark.exists():
            await _remove_remains(settings)
        mark.touch(mode=0o600)
        sync_folder(settings.data_dir)
        await _blobs(folder, manifest, _blob_store(settings), show)
        await _restore_engine(settings, folder, manifest, show)
        show("Restoring the catalog", 0, 1)
        await _restore_databases(settings, folder, manifest)
        mark.unlink()
        sync_folder(settings.data_dir)
        return manifest


def _manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise RunstoreError(
            ErrorReason.NOT_FOUND, f"{folder} holds no complete backup: it has no manifest.json"
        )
    return manifest


def _check_schemas(manifest: Manifest) -> None:
    if manifest.engine.schema_version > SCHEMA_VERSION:
        raise SchemaTooNew(manifest.engine.schema_version)
    check_known(manifest.catalog_schema_version)


def _check_checkpoints(settings: Settings, manifest: Manifest) -> None:
    """langgraph keeps them in tables of another shape in either database."""
    names = {name.rpartition("/")[2] for name in manifest.files}
    if settings.agent_checkpoint_url and "checkpoints.sqlite" in names:
        raise RunstoreError(
            ErrorReason.INCONSISTENT,
            "the backup has its checkpoints from SQLite: restore it without agent_checkpoint_url",
        )
    if not settings.agent_checkpoint_url and any(name.startswith("checkpoints.c") for name in names):
        raise RunstoreError(
            ErrorReason.INCONSISTENT,
            "the backup has its checkpoints from PostgreSQL: agent_checkpoint_url "
            "(RUNSTORE_AGENT_CHECKPOINT_URL) has to name an empty database for them",
        )


async def _check_empty(settings: Settings) -> None:
    """Nothing is there that a restore could overwrite or mix with. Raises INCONSISTENT."""
    for entry in sorted(settings.data_dir.iterdir()):
        if entry.name != LOCK_FILE:
            raise _not_empty(f"the data directory {settings.data_dir}", entry.name)
    if not await catalog_copies.is_empty(settings.catalog_location):
        raise _not_empty("the database of catalog_url", "a catalog")
    if settings.agent_checkpoint_url:
        from runstore.agents import checkpoint_copies

        if not await checkpoint_copies.is_empty(settings.agent_checkpoint_url):
            raise _not_empty("the database of agent_checkpoint_url", "the table checkpoints")
    if settings.blob_url:
        async for key, _ in _blob_store(settings).list(""):
            raise _not_empty(f"the blob store {settings.blob_location}", key)
    if settings.clickhouse_dsn:
        async with _engine(settings) as engine:
            if tables := await engine.tables():
                raise _not_empty("the database of clickhouse_dsn", f"the table {tables[0]}")


def _not_empty(where: str, what: str) -> RunstoreError:
    return RunstoreError(
        ErrorReason.INCONSISTENT,
        f"{where} is not empty (there is {what}): restore into a new one, or empty it",
    )


async def _remove_remains(settings: Settings) -> None:
    """What a restore that was broken off has left: everything was empty before it."""
    await catalog_copies.remove(settings.catalog_location)
    if settings.clickhouse_dsn:
        async with _engine(settings) as engine:
            await engine.drop_tables()
    if settings.agent_checkpoint_url:
        from runstore.agents import checkpoint_copies

        await checkpoint_copies.remove(settings.agent_checkpoint_url)
    if settings.blob_url:
        blobs = _blob_store(settings)
        await blobs.delete([key async for key, _ in blobs.list("")])
    for entry in settings.data_dir.iterdir():
        if entry.name in (LOCK_FILE, RESTORE_MARK):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


async def _check_files(folder: Path, manifest: Manifest, show: Show) -> None:
    done, total = 0, sum(file.size_bytes for file in manifest.files.values())
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise DamagedBackup(f"{path} is missing")
        hashing = Hashing(path)
        for size in hashing:
            done += size
            show("Checking the backup", done, total)
        if hashing.result != expected:
            raise DamagedBackup(f"{path} is not what was written")


async def _blobs(folder: Path, manifest: Manifest, target: BlobStore | None, show: Show) -> None:
    if not (folder / BLOB_INDEX).is_file():
        raise DamagedBackup(f"{folder / BLOB_INDEX} is missing")
    index = BlobIndex(folder / BLOB_INDEX, is_written=False)
    try:
        if index.total(manifest.id) != manifest.blobs:
            raise DamagedBackup(f"{folder / BLOB_INDEX} does not list the blobs that were copied")
        source = open_blob_store(str(folder / BLOBS))
        async for done in check_blobs(source, index, manifest.id, target):
            show("Checking blobs" if target is None else "Restoring blobs", done, manifest.blobs.count)
    finally:
        index.close()


def _blob_store(settings: Settings) -> BlobStore:
    return open_blob_store(settings.blob_location, endpoint=settings.blob_endpoint)


async def _restore_engine(settings: Settings, folder: Path, manifest: Manifest, show: Show) -> None:
    part = manifest.engine
    place = str(folder / manifest.id / part.place) if part.is_file else part.place
    async with _engine(settings) as engine:
        name = f"restore-{manifest.id}"
        await engine.start_restore(name, place, part.database)
        while not (found := await engine.progress(name)).is_done:
            show("Restoring runs", min(found.done_bytes, part.size_bytes), part.size_bytes)
            await asyncio.sleep(_LOOK_INTERVAL_S)
        await engine.migrate()


async def _restore_databases(settings: Settings, folder: Path, manifest: Manifest) -> None:
    copy = settings.data_dir / "restored.sqlite"
    await asyncio.to_thread(shutil.copyfile, folder / manifest.id / "catalog.sqlite", copy)
    await catalog_copies.copy_in(copy, settings.catalog_location)
    copy.unlink()
    if settings.agent_checkpoint_url:
        from runstore.agents import checkpoint_copies

        await checkpoint_copies.copy_in(folder / manifest.id, settings.agent_checkpoint_url)
        return
    checkpoints = f"{manifest.id}/checkpoints.sqlite"
    if checkpoints in manifest.files:
        path = settings.data_dir / "checkpoints.sqlite"
        await asyncio.to_thread(shutil.copyfile, folder / checkpoints, path)
        await asyncio.to_thread(settle_sqlite, path)


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[EngineCopies]:
    copies, engine = open_copies(settings.clickhouse_location)
    try:
        yield copies
    finally:
        await asyncio.to_thread(engine.close)
