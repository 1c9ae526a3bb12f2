"""Blobs in a folder and in a bucket of a service that speaks S3 behave alike."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.s3 import BUCKET, s3_service

from runstore.storage import blobs as blobs_module
from runstore.storage.blobs import BlobMissing, BlobStore, open_blob_store
from runstore.storage.run_store import StoreUnavailable

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    with s3_service() as endpoint:
        yield endpoint


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return open_blob_store(str(tmp_path / "blobs"))
    endpoint = request.getfixturevalue("s3_endpoint")
    return open_blob_store(f"s3://{BUCKET}/{tmp_path.name}", endpoint=endpoint)


async def read(blobs: BlobStore, key: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in blobs.read(key, offset=offset, length=length)])


async def pieces(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number]) * MIB


async def test_a_stream_comes_back_whole_and_in_part(blobs: BlobStore) -> None:
    """20 MiB, which is more than one part of an upload."""
    await blobs.put("t/aa/one", pieces(20))
    assert await read(blobs, "t/aa/one") == b"".join([bytes([number]) * MIB for number in range(20)])
    assert await read(blobs, "t/aa/one", 3 * MIB - 1, 2) == b"\2\3"
    assert await read(blobs, "t/aa/one", 20 * MIB - 2) == b"\x13\x13"
    assert await read(blobs, "t/aa/one", 5, 0) == b""


async def test_an_empty_blob_is_one(blobs: BlobStore) -> None:
    """A file without content is a file."""
    await blobs.put("t/aa/empty", pieces(0))
    assert await read(blobs, "t/aa/empty") == b""


async def test_a_stream_that_fails_leaves_nothing(blobs: BlobStore) -> None:
    """What it raised is raised, and there is no blob."""

    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces(12):
            yield piece
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await blobs.put("t/aa/broken", broken())
    with pytest.raises(BlobMissing):
        await read(blobs, "t/aa/broken")


async def test_deleted_and_listed(blobs: BlobStore) -> None:
    """Lists tell what is below a folder; deleting what is not there is no error."""
    for key in ("t/aa/1", "t/bb/2", "u/aa/3"):
        await blobs.put(key, key.encode())
    assert sorted([key async for key, _ in blobs.list("t")]) == ["t/aa/1", "t/bb/2"]
    await blobs.delete(["t/aa/1", "t/aa/none"])
    assert [key async for key, _ in blobs.list("t")] == ["t/bb/2"]
    with pytest.raises(BlobMissing):
        await read(blobs, "t/aa/1")


async def test_a_file_is_durable_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, and every folder that may be new, are written to the disk when `put` returns."""
    synced: list[Path] = []
    monkeypatch.setattr(blobs_module, "_fsync", synced.append)
    await open_blob_store(str(tmp_path / "blobs")).put("t/aa/one", b"x")
    names = [str(path.relative_to(tmp_path)) for path in synced]
    assert names == ["blobs/t/aa/one", "blobs/t/aa", "blobs/t", "blobs", "."]


async def test_half_a_file_of_a_killed_process_is_deleted_with_it(tmp_path: Path) -> None:
    """`obstore` writes beside the final name; what is left there goes when the key does."""
    blobs = open_blob_store(str(tmp_path))
    await blobs.put("t/aa/one", b"x")
    (tmp_path / "t/aa/two#1").write_bytes(b"half")
    await blobs.delete(["t/aa/two"])
    assert [path.name for path in (tmp_path / "t/aa").iterdir()] == ["one"]


async def test_a_bucket_out_of_reach_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller tries again, as it does for the engine."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    blobs = open_blob_store("s3://bucket", endpoint="http://127.0.0.1:9")
    with pytest.raises(StoreUnavailable):
        await blobs.put("t/aa/one", b"x")


@pytest.mark.parametrize("location", ["ftp://host/x", "relative/folder", "s3:bucket"])
def test_other_places_are_refused(location: str) -> None:
    """By name, at the start."""
    with pytest.raises(ValueError, match=location):
        open_blob_store(location)


def test_an_endpoint_is_a_url() -> None:
    """Anything else would not be noticed before the first upload."""
    with pytest.raises(ValueError, match="not http"):
        open_blob_store("s3://bucket", endpoint="minio:9000")
