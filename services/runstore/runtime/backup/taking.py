"""Makes backups while the store runs.

In this order, so that what refers is copied before what it refers to: the engine's tables (between two
flushes), the catalog, the checkpoints, the blobs. Whatever was acknowledged before is in all of them; of what
comes meanwhile, a part may be.
"""

import asyncio
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import structlog

from runstore.catalog.copies import copy_out, schema_version
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.ingest.flush_pause import FlushPause
from runstore.ingest.peers import Peers
from runstore.ingest.sequence import ALL_TAKEN, sequence_at
from runstore.ingest.unused_blobs import UnusedBlobs
from runstore.ingest.visibility import Visibility
from runstore.rpc.mapping import set_time
from runstore.runtime.backup.blob_copies import BlobIndex, back_up_blobs, drop_outdated_blobs
from runstore.runtime.backup.folder import failures_named, is_backup_id, locked, usable_folder
from runstore.runtime.backup.last import note_backup
from runstore.runtime.backup.manifest import (
    BLOB_INDEX,
    BLOBS,
    EnginePart,
    File,
    Hashing,
    Manifest,
    read_manifest,
    sync_folder,
    write_manifest,
)
from runstore.runtime.clock import Clock
from runstore.runtime.settings import Settings
from runstore.storage.blobs import BlobStore, open_blob_store
from runstore.storage.clickhouse.backups import EngineCopies
from runstore.storage.clickhouse.schema import SCHEMA_VERSION
from runstore.storage.run_store import StoreUnavailable
from runstore.storage.sqlite_copy import copy_sqlite
from runstore.v1 import admin_service_pb2 as pb

_LOOK_INTERVAL_S: Final = 0.25
_PEERS_PATIENCE_S: Final = 30.0
_SPARE_BYTES: Final = 256 * 1024 * 1024
_ID_FORMAT: Final = "%Y%m%dT%H%M%S.%fZ"

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sources:
    """What is copied, and what keeps it in place meanwhile."""

    engine: EngineCopies
    blobs: BlobStore
    unused: UnusedBlobs
    visibility: Visibility
    peers: Peers
    pause: FlushPause
    store_id: str


class Backups:
    """Makes backups, one at a time."""

    def __init__(self, settings: Settings, sources: Sources, clock: Clock) -> None:
        self._settings = settings
        self._sources = sources
        self._clock = clock
        self._is_busy = False

    async def create(self, folder: str) -> AsyncGenerator[pb.CreateBackupResponse, None]:
        """Bring the backup in a folder up to date; the last message has the backup.

        Raises RunstoreError: INVALID_ARGUMENT or INCONSISTENT for a folder that cannot be used, CONFLICT
        while another backup is made, UNIMPLEMENTED on a cluster, UNAVAILABLE when a part of the store, or a
        disk, does not do its part.
        """
        if self._is_busy:
            raise RunstoreError(ErrorReason.CONFLICT, "another backup is being made")
        self._is_busy = True
        try:
            with failures_named("the backup"), locked(usable_folder(folder, self._settings.data_dir)) as root:
                async with self._sources.unused.held():
                    begun_us = self._clock.now_us()
                    backup = _Backup(self._settings, self._sources, begun_us, root)
                    async with aclosing(backup.take()) as events:
                        async for event in events:
                            if event.HasField("backup"):
                                note_backup(self._settings.data_dir, begun_us)
                            yield event
        finally:
            self._is_busy = False


class _Backup:
    """One backup on its way."""

    def __init__(self, settings: Settings, sources: Sources, now_us: int, root: Path) -> None:
        self._settings = settings
        self._sources = sources
        self._now_us = now_us
        self._root = root
        time = datetime.fromtimestamp(now_us / 1e6, UTC)
        self._id = time.strftime(_ID_FORMAT)
        self._snapshot_time = time.isoformat()
        self._folder = root / self._id
        self._left_out: list[str] = []
        self._place = self._engine_place()

    async def take(self) -> AsyncGenerator[pb.CreateBackupResponse, None]:
        """Make it. Until it is complete, the folder holds what it held before."""
        self._check_owner()
        yield _progress(pb.BACKUP_STAGE_SETTLING)
        await self._settle()
        data_bytes = await self._sources.engine.data_bytes()
        self._check_space(data_bytes)
        self._folder.mkdir(mode=0o700)
        try:
            async with self._engine_copy() as (copy, watermark):
                yield _progress(pb.BACKUP_STAGE_CATALOG)
                await self._copy_databases()
                while not (found := await self._sources.engine.progress(copy)).is_done:
                    yield _progress(pb.BACKUP_STAGE_ENGINE, found.done_bytes, data_bytes)
                    await asyncio.sleep(_LOOK_INTERVAL_S)
            files: dict[str, File] = {}
            async for done, total in self._hash_files(files):
                yield _progress(pb.BACKUP_STAGE_CHECKSUMS, done, total)
            index = BlobIndex(self._root / BLOB_INDEX, is_written=True)
            try:
                async for event in self._finish(index, files, watermark, data_bytes):
                    yield event
            finally:
                index.close()
        finally:
            await asyncio.to_thread(self._remove_others)

    async def _finish(
        self, index: BlobIndex, files: dict[str, File], watermark: int, data_bytes: int
    ) -> AsyncIterator[pb.CreateBackupResponse]:
        """The blobs, and the manifest, which makes it a backup."""
        target = open_blob_store(str(self._root / BLOBS))
        copied = 0
        async for copied, total in back_up_blobs(self._sources.blobs, target, index, self._id):
            yield _progress(pb.BACKUP_STAGE_BLOBS, copied, total)
        engine_file = files.get(f"{self._id}/engine.tar")
        manifest = Manifest(
            id=self._id,
            store_id=self._sources.store_id,
            runstore_version=version("runstore"),
            snapshot_time=self._snapshot_time,
            watermark=watermark,
            engine=EnginePart(
                place="engine.tar" if engine_file else self._place,
                is_file=engine_file is not None,
                database=await self._sources.engine.database(),
                schema_version=SCHEMA_VERSION,
                size_bytes=engine_file.size_bytes if engine_file else data_bytes,
            ),
            catalog_schema_version=schema_version(self._folder / "catalog.sqlite"),
            files=files,
            blobs=index.total(self._id),
            left_out=self._left_out,
        )
        await asyncio.to_thread(write_manifest, self._root, manifest)
        await drop_outdated_blobs(target, index, self._id)
        logger.info("backup_made", id=self._id, folder=str(self._root), blobs=manifest.blobs.count)
        yield _message(manifest, self._now_us, copied)

    def _check_owner(self) -> None:
        before = read_manifest(self._root)
        if before is not None and before.store_id != self._sources.store_id:
            raise RunstoreError(
                ErrorReason.INCONSISTENT, f"{self._root} holds the backup of another store", field="folder"
            )

    def _engine_place(self) -> str:
        """Where the engine is to write."""
        if not self._settings.clickhouse_dsn:
            return str(self._folder / "engine.tar")
        if not self._settings.clickhouse_backup:
            raise RunstoreError(
                ErrorReason.INCONSISTENT,
                "clickhouse_backup (RUNSTORE_CLICKHOUSE_BACKUP) has to say where the ClickHouse server "
                "writes its part: disk:NAME, https://… of a bucket's folder, or a folder of its machine",
            )
        return f"{self._settings.clickhouse_backup.rstrip('/')}/runstore-{self._id}"

    def _check_space(self, data_bytes: int) -> None:
        needed = _SPARE_BYTES + (0 if self._settings.clickhouse_dsn else data_bytes)
        free = shutil.disk_usage(self._root).free
        if free < needed:
            raise RunstoreError(
                ErrorReason.UNAVAILABLE,
                f"{self._root} has {free >> 20} MiB free; the tables alone need {needed >> 20} MiB",
            )

    async def _settle(self) -> None:
        """Return once everything acknowledged so far is in the engine."""
        if self._sources.visibility.is_engine_away:
            raise StoreUnavailable(self._sources.visibility.last_error)
        await self._sources.visibility.see_sequence(ALL_TAKEN)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PEERS_PATIENCE_S):
                begin = sequence_at(self._now_us)
                # The catalog does not tell.
                while await self._sources.peers.stored_everywhere() < begin:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_INTERVAL_S)
                return
        raise RunstoreError(
            ErrorReason.UNAVAILABLE,
            "another store has acknowledged operations that only its log has: wait until it has caught up, "
            "start it, or forget it if it never comes back (runstore stores)",
        )

    @asynccontextmanager
    async def _engine_copy(self) -> AsyncIterator[tuple[str, int]]:
        """The engine copies inside: the copy's name, and the last operation that is in it."""
        name = f"runstore-{self._id}"
        try:
            async with self._sources.pause.held():
                watermark = self._sources.visibility.stored_sequence
                await self._sources.engine.start_backup(name, self._place)
            yield name, watermark
        except BaseException:
            with suppress(StoreUnavailable):
                await self._sources.engine.cancel(name)
            raise

    async def _copy_databases(self) -> None:
        # The catalog after the engine: no run is without its project. The checkpoints after the catalog: no
        # run has ended without its state.
        await copy_out(self._settings.catalog_location, self._folder / "catalog.sqlite")
        if self._settings.agent_checkpoint_url:
            await self._copy_checkpoints(self._settings.agent_checkpoint_url)
            return
        checkpoints = self._settings.data_dir / "checkpoints.sqlite"
        if checkpoints.is_file():
            await asyncio.to_thread(copy_sqlite, checkpoints, self._folder / checkpoints.name)

    async def _copy_checkpoints(self, url: str) -> None:
        try:
            from runstore.agents import checkpoint_copies
        except ModuleNotFoundError as error:
            self._left_out.append(
                f"The checkpoints of graphs, because {error.name} is missing: pip install "
                "'runstore[agents]', or copy the database of agent_checkpoint_url by pg_dump."
            )
            return
        await checkpoint_copies.copy_out(url, self._folder)

    async def _hash_files(self, files: dict[str, File]) -> AsyncIterator[tuple[int, int]]:
        """Fill `files` with what there is, made durable; yields the bytes done of all."""
        paths = sorted(path for path in self._folder.iterdir() if path.is_file())
        done, total = 0, sum(path.stat().st_size for path in paths)
        for path in paths:
            hashing = Hashing(path, is_new=True)
            pieces = iter(hashing)
            while size := await asyncio.to_thread(next, pieces, 0):
                done += size
                yield done, total
            files[f"{self._id}/{path.name}"] = hashing.result
        await asyncio.to_thread(sync_folder, self._folder)

    def _remove_others(self) -> None:
        """What is left of earlier backups, or of this one if it was broken off."""
        current = read_manifest(self._root)
        for folder in self._root.iterdir():
            if is_backup_id(folder.name) and (current is None or folder.name != current.id):
                shutil.rmtree(folder, ignore_errors=True)


def _progress(stage: pb.BackupStage.ValueType, done: int = 0, total: int = 0) -> pb.CreateBackupResponse:
    return pb.CreateBackupResponse(progress=pb.BackupProgress(stage=stage, done=done, total=total))


def _message(manifest: Manifest, snapshot_us: int, copied_blobs: int) -> pb.CreateBackupResponse:
    backup = pb.Backup(
        id=manifest.id,
        size_bytes=sum(file.size_bytes for file in manifest.files.values()),
        blobs=manifest.blobs.count,
        blob_bytes=manifest.blobs.size_bytes,
        copied_blobs=copied_blobs,
        engine_location=manifest.engine.place,
        left_out=manifest.left_out,
    )
    set_time(backup.snapshot_time, snapshot_us)
    return pb.CreateBackupResponse(backup=backup)
