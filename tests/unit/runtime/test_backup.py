"""The folder of a backup: what is copied once, what is refused, and how damage is noticed."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.backup.blob_copies import BlobIndex, back_up_blobs, drop_outdated_blobs
from runstore.runtime.backup.folder import locked, usable_folder
from runstore.runtime.backup.manifest import (
    FORMAT,
    BlobPart,
    DamagedBackup,
    EnginePart,
    File,
    Hashing,
    Manifest,
    read_manifest,
    write_manifest,
)
from runstore.runtime.backup.restoring import check_backup, restore_backup
from runstore.runtime.data_dir import RESTORE_MARK, check_whole
from runstore.runtime.failures import CannotStart
from runstore.runtime.settings import load_settings
from runstore.storage.blobs import BlobStore, open_blob_store

FIRST, SECOND, THIRD = (f"2026112{day}T120000.000000Z" for day in (1, 2, 3))
ENGINE = f"{FIRST}/engine.tar"


def manifest(**fields: Any) -> Manifest:
    engine = EnginePart("engine.tar", is_file=True, database="default", schema_version=1, size_bytes=1)
    values = {
        "id": FIRST,
        "store_id": "s",
        "runstore_version": "9.9.9",
        "snapshot_time": "2026-11-21T12:00:00+00:00",
        "watermark": 1,
        "engine": engine,
        "catalog_schema_version": "0001",
        "files": {},
        "blobs": BlobPart(0, 0),
        "left_out": [],
    }
    return Manifest(**{**values, **fields})


async def copy_blobs(source: BlobStore, folder: Path, backup: str) -> int:
    """As a backup does, up to its manifest; how many blobs were copied."""
    index = BlobIndex(folder / "blobs.sqlite", is_written=True)
    target = open_blob_store(str(folder / "blobs"))
    copied = [done async for done, _ in back_up_blobs(source, target, index, backup)]
    index.close()
    return max(copied, default=0)


async def blobs_of(folder: Path) -> set[str]:
    return {key async for key, _ in open_blob_store(str(folder / "blobs")).list("")}


@pytest.fixture
def source(tmp_path: Path) -> BlobStore:
    """A store's blobs."""
    return open_blob_store(str(tmp_path / "source"))


@pytest.fixture
async def whole(tmp_path: Path, source: BlobStore) -> Path:
    """A folder with a backup of three blobs, and a file for its tables."""
    folder = tmp_path / "backup"
    (folder / FIRST).mkdir(parents=True)
    (folder / ENGINE).write_bytes(b"rows")
    for number in range(3):
        await source.put(f"t/aa/{number}", b"blob %d" % number)
    await source.put("holds/one", b"")
    assert await copy_blobs(source, folder, FIRST) == 3
    hashing = Hashing(folder / ENGINE)
    assert sum(hashing) == 4
    write_manifest(folder, manifest(files={ENGINE: hashing.result}, blobs=BlobPart(3, 18)))
    return folder


def show(title: str, done: int, total: int) -> None:
    assert title
    assert done <= total


async def test_whole_backup_passes(whole: Path) -> None:
    """Every byte is compared, and the manifest is told."""
    assert await check_backup(whole, show) == read_manifest(whole)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / ENGINE).write_bytes(b"rowz"), "engine.tar is not what was written"),
        (lambda folder: (folder / ENGINE).write_bytes(b"row"), "engine.tar is not what was written"),
        (lambda folder: (folder / ENGINE).unlink(), "engine.tar is missing"),
        (lambda folder: (folder / "blobs/t/aa/1").write_bytes(b"blob x"), "t/aa/1 is not what was copied"),
        (lambda folder: (folder / "blobs/t/aa/2").unlink(), "t/aa/2 is not what was copied"),
        (lambda folder: (folder / "blobs.sqlite").unlink(), "blobs.sqlite is missing"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"{"), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"{}"), "manifest.json cannot be read"),
    ],
)
async def test_damage_is_named(whole: Path, damage: Callable[[Path], object], named: str) -> None:
    """Whatever is missing or altered, before anything is restored."""
    damage(whole)
    with pytest.raises(DamagedBackup, match=named):
        await check_backup(whole, show)


async def test_lost_rows_of_the_index_are_damage(whole: Path) -> None:
    """The manifest knows how many blobs there were."""
    index = BlobIndex(whole / "blobs.sqlite", is_written=True)
    index.forget(["t/aa/0"])
    index.close()
    with pytest.raises(DamagedBackup, match="does not list the blobs"):
        await check_backup(whole, show)


async def test_folder_without_manifest_holds_no_backup(whole: Path) -> None:
    """Whatever else is in it."""
    (whole / "manifest.json").unlink()
    with pytest.raises(RunstoreError, match="no complete backup"):
        await check_backup(whole, show)


async def test_later_format_is_refused(whole: Path) -> None:
    """Naming the version that knows it."""
    text = (whole / "manifest.json").read_bytes().replace(b'"format": 1', b'"format": %d' % (FORMAT + 1))
    (whole / "manifest.json").write_bytes(text)
    with pytest.raises(RunstoreError, match=r"restore it with runstore 9\.9\.9 or later"):
        await check_backup(whole, show)


async def test_blob_is_copied_once(whole: Path, source: BlobStore) -> None:
    """The next backup copies what is new, and drops what the store has dropped once it is complete."""
    await source.put("t/aa/3", b"new")
    await source.delete(["t/aa/0"])
    assert await copy_blobs(source, whole, SECOND) == 1
    assert await blobs_of(whole) == {f"t/aa/{number}" for number in range(4)}
    index = BlobIndex(whole / "blobs.sqlite", is_written=True)
    assert index.total(SECOND) == BlobPart(3, 15)
    await drop_outdated_blobs(open_blob_store(str(whole / "blobs")), index, SECOND)
    assert await blobs_of(whole) == {f"t/aa/{number}" for number in range(1, 4)}
    index.close()


async def test_broken_off_backup_takes_nothing_away(whole: Path, source: BlobStore) -> None:
    """The one before it stays whole, without the blobs that came later; the next one goes on from there."""
    await source.put("t/aa/3", b"new")
    await source.delete(["t/aa/0"])
    index = BlobIndex(whole / "blobs.sqlite", is_written=True)
    index.want(SECOND, ["t/aa/1", "t/aa/2", "t/aa/3"])
    index.close()
    assert (await check_backup(whole, show)).blobs.count == 3
    assert await copy_blobs(source, whole, SECOND) == 1
    assert (await check_backup(whole, show)).blobs.count == 3
    assert await copy_blobs(source, whole, THIRD) == 0


@pytest.mark.parametrize("name", ["notes.txt", "data"])
def test_folder_of_something_else_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing is written into it."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / name).touch()
    with pytest.raises(RunstoreError, match=f"holds no backup: there is {name}") as refused:
        usable_folder(str(folder), tmp_path / "data")
    assert refused.value.reason is ErrorReason.INCONSISTENT
    assert [path.name for path in folder.iterdir()] == [name]


def test_remains_of_a_first_backup_are_no_reason(tmp_path: Path) -> None:
    """A backup that was broken off can be repeated into the same folder."""
    folder = tmp_path / "backup"
    (folder / FIRST).mkdir(parents=True)
    for name in ("backup.lock", "blobs.sqlite"):
        (folder / name).touch()
    assert usable_folder(str(folder), tmp_path / "data") == folder


def test_data_directory_is_no_place_for_its_backup(tmp_path: Path) -> None:
    """Nor is a path that depends on where the store was started."""
    with pytest.raises(RunstoreError, match="data directory"):
        usable_folder(str(tmp_path / "data" / "backup"), tmp_path / "data")
    with pytest.raises(RunstoreError, match="absolute"):
        usable_folder("backup", tmp_path / "data")


def test_folder_is_for_one_at_a_time(tmp_path: Path) -> None:
    """Two stores do not mix their backups."""
    with locked(tmp_path), pytest.raises(RunstoreError, match="in use") as refused, locked(tmp_path):
        pass
    assert refused.value.reason is ErrorReason.CONFLICT


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"catalog_schema_version": "9999"}, "the catalog has schema version 9999, this runstore knows"),
        (
            {"engine": msgspec.structs.replace(manifest().engine, schema_version=999)},
            "the tables of runs have schema version 999, this runstore knows",
        ),
    ],
)
async def test_newer_schemas_are_refused(tmp_path: Path, fields: dict[str, Any], named: str) -> None:
    """Before anything is touched."""
    write_manifest(tmp_path, manifest(**fields))
    with pytest.raises(RunstoreError, match=named):
        await restore_backup(load_settings(data_dir=tmp_path / "data"), tmp_path, show)
    assert not (tmp_path / "data").exists()


async def test_restore_wants_an_empty_folder(whole: Path, tmp_path: Path) -> None:
    """And names what is in its way."""
    (tmp_path / "data" / "log").mkdir(parents=True)
    with pytest.raises(RunstoreError, match=r"is not empty \(there is log\)"):
        await restore_backup(load_settings(data_dir=tmp_path / "data"), whole, show)


async def test_damage_is_noticed_before_the_mark(whole: Path, tmp_path: Path) -> None:
    """A damaged file leaves the data directory as it was."""
    (whole / ENGINE).write_bytes(b"x")
    (tmp_path / "data").mkdir()
    with pytest.raises(DamagedBackup):
        await restore_backup(load_settings(data_dir=tmp_path / "data"), whole, show)
    assert list((tmp_path / "data").iterdir()) == []


async def test_broken_off_restore_is_marked_and_repeated(whole: Path, tmp_path: Path) -> None:
    """No store starts on it; the next restore removes what it has left."""
    data = tmp_path / "data"
    data.mkdir()
    (whole / "blobs/t/aa/1").write_bytes(b"blob x")
    for _ in range(2):
        with pytest.raises(DamagedBackup):
            await restore_backup(load_settings(data_dir=data), whole, show)
        assert await asyncio.to_thread((data / RESTORE_MARK).exists)
        (data / "blobs" / "left").write_bytes(b"x")
        with pytest.raises(CannotStart, match="repeat `runstore restore`"):
            check_whole(data)
    (whole / ENGINE).unlink()
    with pytest.raises(DamagedBackup, match="missing"):
        await restore_backup(load_settings(data_dir=data), whole, show)
    assert (data / "blobs" / "left").exists()


@pytest.mark.parametrize(
    ("name", "url", "named"),
    [
        ("checkpoints.sqlite", "postgresql://nobody@localhost/x", "without agent_checkpoint_url"),
        ("checkpoints.checkpoints.csv", "", "RUNSTORE_AGENT_CHECKPOINT_URL"),
    ],
)
async def test_checkpoints_go_back_where_they_come_from(
    tmp_path: Path, name: str, url: str, named: str
) -> None:
    """Of the other kind of database they are refused, not left out."""
    files = {f"{FIRST}/{name}": File(1, "")}
    write_manifest(tmp_path, manifest(files=files))
    settings = load_settings(data_dir=tmp_path / "data", agent_checkpoint_url=url)
    with pytest.raises(RunstoreError, match=named):
        await restore_backup(settings, tmp_path, show)


async def test_clusters_are_refused(whole: Path, tmp_path: Path) -> None:
    """Rather than restored into the tables of one node."""
    settings = load_settings(
        data_dir=tmp_path / "data", clickhouse_dsn="http://127.0.0.1:1", clickhouse_cluster="c"
    )
    with pytest.raises(RunstoreError, match="clickhouse_cluster") as refused:
        await restore_backup(settings, whole, show)
    assert refused.value.reason is ErrorReason.UNIMPLEMENTED
