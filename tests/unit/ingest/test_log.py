"""The log: what it acknowledged comes back, whatever the crash; what the disk refused never counts."""

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import LONGEST_WAIT_S

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.ingest.log import Log, LogCorrupt, LogPosition, LogReader

HEAD_BYTES = 16


def open_log(folder: Path, *, segment_bytes: int = 1 << 20, max_bytes: int = 1 << 30) -> Log:
    return Log(folder, segment_bytes=segment_bytes, max_bytes=max_bytes)


async def write(log: Log, bodies: Sequence[bytes], *, first: int = 1) -> None:
    for sequence, body in enumerate(bodies, first):
        await log.append(body, sequence, lambda: None)


async def written(folder: Path, bodies: Sequence[bytes], *, segment_bytes: int = 1 << 20) -> None:
    """A log of an earlier process."""
    log = open_log(folder, segment_bytes=segment_bytes)
    log.start()
    await write(log, bodies)
    await log.close()


def unread(log: Log, folder: Path) -> list[bytes]:
    """What a reader that starts now finds."""
    reader = LogReader(folder)
    bodies = list(reader.frames(log.end))
    reader.close()
    return bodies


async def replayed(folder: Path) -> list[bytes]:
    log = open_log(folder)
    bodies = unread(log, folder)
    await log.close()
    return bodies


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


async def test_reopened_log_replays_in_order(tmp_path: Path) -> None:
    """Everything acknowledged comes back once, in order, over several segments."""
    bodies = [bytes([number]) * number for number in range(50)]
    await written(tmp_path, bodies, segment_bytes=200)
    assert len(segments(tmp_path)) > 3
    assert await replayed(tmp_path) == bodies


async def test_torn_tail_is_cut_at_every_byte(tmp_path: Path) -> None:
    """However much of the last frame a crash leaves, the frames before it are intact and later ones fit."""
    await written(tmp_path / "whole", [b"first", b"second", b"third"])
    data = segments(tmp_path / "whole")[0].read_bytes()
    last_frame = HEAD_BYTES + len(b"third")
    for kept in range(last_frame):
        folder = tmp_path / str(kept)
        folder.mkdir()
        (folder / "000000000001.log").write_bytes(data[: len(data) - last_frame + kept])
        log = open_log(folder)
        assert (unread(log, folder), log.last_sequence) == ([b"first", b"second"], 2)
        log.start()
        await write(log, [b"later"], first=3)
        await log.close()
        assert await replayed(folder) == [b"first", b"second", b"later"]


async def test_garbage_behind_the_last_frame_is_cut(tmp_path: Path) -> None:
    """A tail that was allocated but not written (zeros), or is noise, is no frame."""
    await written(tmp_path, [b"first"])
    with segments(tmp_path)[0].open("ab") as file:
        file.write(b"\x00" * 100)
    assert await replayed(tmp_path) == [b"first"]


@pytest.mark.parametrize("offset", [0, 5, 9, HEAD_BYTES + 2], ids=["length", "checksum", "sequence", "body"])
async def test_damaged_frame_before_later_segments_is_an_error(tmp_path: Path, offset: int) -> None:
    """Damage to an acknowledged frame with later ones behind it is reported, never skipped."""
    await written(tmp_path, [b"a" * 100] * 4, segment_bytes=150)
    damaged = segments(tmp_path)[0]
    data = bytearray(damaged.read_bytes())
    data[offset] ^= 0xFF
    damaged.write_bytes(data)
    with pytest.raises(LogCorrupt, match=damaged.name):
        open_log(tmp_path)


class Disk:
    """Fails chosen calls of `os` with an errno until it is mended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.is_full = False
        self.calls = 0
        for name in names:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            if self.is_full:
                self.calls += 1
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*args)

        return wrapper


@pytest.mark.parametrize(
    "failing",
    [
        ("pwrite",),
        ("fdatasync",),
        ("pwrite", "open"),
        ("fdatasync", "ftruncate"),
        ("pwrite", "fdatasync", "open", "ftruncate", "fsync"),
    ],
    ids=" ".join,
)
async def test_full_disk_refuses_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: tuple[str, ...]
) -> None:
    """Nothing that the disk refused is acknowledged or replayed; once it has room, appends work."""
    disk = Disk(monkeypatch, *failing)
    durable: list[int] = []
    log = open_log(tmp_path)
    log.start()
    await log.append(b"before", 1, lambda: durable.append(1))
    disk.is_full = True
    for sequence in (2, 3):
        with pytest.raises(RunstoreError) as refused:
            await log.append(b"refused" * sequence, sequence, lambda: durable.append(0))
        assert refused.value.reason is ErrorReason.UNAVAILABLE
    disk.is_full = False
    await log.append(b"after", 4, lambda: durable.append(4))
    await log.append(b"later", 5, lambda: durable.append(5))
    await log.close()
    assert disk.calls
    assert durable == [1, 4, 5]
    assert await replayed(tmp_path) == [b"before", b"after", b"later"]


async def test_full_disk_when_a_segment_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new segment that cannot be made refuses the append; the log goes on when it can."""
    disk = Disk(monkeypatch, "open")
    log = open_log(tmp_path, segment_bytes=10)
    log.start()
    await write(log, [b"fills it"])
    disk.is_full = True
    for _ in range(2):
        with pytest.raises(RunstoreError):
            await log.append(b"refused", 2, lambda: None)
    disk.is_full = False
    await write(log, [b"after", b"later"], first=3)
    await log.close()
    assert await replayed(tmp_path) == [b"fills it", b"after", b"later"]


async def test_failed_trim_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that cannot be written only makes the next replay longer."""
    log = open_log(tmp_path)
    log.start()
    await write(log, [b"a"])
    disk = Disk(monkeypatch, "pwrite")
    disk.is_full = True
    log.trim(1)
    disk.is_full = False
    assert disk.calls == 1
    await write(log, [b"b"], first=2)
    await log.close()
    assert await replayed(tmp_path) == [b"a", b"b"]


async def test_trim_forgets_and_frees(tmp_path: Path) -> None:
    """Replay begins behind the checkpoint, and segments wholly before it are gone."""
    log = open_log(tmp_path, segment_bytes=100)
    log.start()
    await write(log, [b"x" * 90] * 10)
    log.trim(7)
    await log.close()
    assert len(segments(tmp_path)) == 3
    log = open_log(tmp_path)
    assert len(unread(log, tmp_path)) == 3
    assert (log.checkpoint, log.last_sequence) == (7, 10)
    await log.close()


async def test_sequence_survives_an_empty_log(tmp_path: Path) -> None:
    """The last sequence number is known even when every frame has been trimmed."""
    log = open_log(tmp_path)
    log.start()
    await write(log, [b"x"], first=41)
    log.trim(41)
    await log.close()
    for _ in range(2):
        log = open_log(tmp_path)
        assert (unread(log, tmp_path), log.last_sequence) == ([], 41)
        await log.close()


async def test_damaged_checkpoint_replays_everything(tmp_path: Path) -> None:
    """A torn checkpoint is none: replay is harmless, forgetting is not."""
    log = open_log(tmp_path)
    log.start()
    await write(log, [b"a", b"b"])
    log.trim(1)
    await log.close()
    (tmp_path / "checkpoint").write_bytes(b"\x01" * 12)
    assert await replayed(tmp_path) == [b"a", b"b"]


async def test_on_durable_comes_first_once_and_in_order(tmp_path: Path) -> None:
    """Each callback runs before its append returns, in the order of the appends, its caller gone or not."""
    log = open_log(tmp_path)
    events: list[tuple[str, int]] = []

    async def append(number: int) -> None:
        await log.append(b"x", number, lambda: events.append(("durable", number)))
        events.append(("returned", number))

    appends = [asyncio.create_task(append(number)) for number in range(1, 9)]
    await asyncio.sleep(0)  # Every append waits now, for the log has not started.
    appends[4].cancel()
    log.start()
    await asyncio.gather(*appends, return_exceptions=True)
    await log.close()
    assert [number for event, number in events if event == "durable"] == list(range(1, 9))
    for number in range(1, 9):
        if number != 5:
            assert events.index(("durable", number)) < events.index(("returned", number))
    assert ("returned", 5) not in events


async def test_waiting_appends_share_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appends that wait together become durable together."""
    syncs: list[int] = []
    fdatasync = os.fdatasync

    def counted(file: int) -> None:
        syncs.append(file)
        fdatasync(file)

    monkeypatch.setattr(os, "fdatasync", counted)
    log = open_log(tmp_path)
    appends = [asyncio.create_task(log.append(b"x", number, lambda: None)) for number in range(1, 101)]
    await asyncio.sleep(0)
    log.start()
    await asyncio.gather(*appends)
    await log.close()
    assert len(syncs) == 1
    assert len(await replayed(tmp_path)) == 100


async def test_full_log_refuses(tmp_path: Path) -> None:
    """Bytes waiting for the disk count as well; trimming makes room."""
    log = open_log(tmp_path, segment_bytes=50, max_bytes=1_000)
    waiting = [asyncio.create_task(log.append(b"x" * 300, number, lambda: None)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(RunstoreError) as refused:
        await log.append(b"x" * 300, 4, lambda: None)
    assert refused.value.reason is ErrorReason.OVERLOADED
    log.start()
    await asyncio.gather(*waiting)
    with pytest.raises(RunstoreError):
        await log.append(b"x" * 300, 5, lambda: None)
    log.trim(3)
    await log.append(b"x" * 300, 6, lambda: None)
    await log.close()


async def test_closed_log_refuses(tmp_path: Path) -> None:
    """Closing writes what waits and takes nothing more."""
    log = open_log(tmp_path)
    append = asyncio.create_task(log.append(b"x", 1, lambda: None))
    await asyncio.sleep(0)
    log.start()
    await log.close()
    await append
    with pytest.raises(RunstoreError) as refused:
        await log.append(b"y", 2, lambda: None)
    assert refused.value.reason is ErrorReason.UNAVAILABLE
    assert await replayed(tmp_path) == [b"x"]


async def test_reader_follows_the_writer(tmp_path: Path) -> None:
    """Frames come once and in order while more are appended, over segments that are sealed and removed."""
    ends: list[LogPosition] = []
    log = Log(tmp_path, segment_bytes=100, max_bytes=1 << 30, on_durable=ends.append)
    log.start()
    reader = LogReader(tmp_path)
    read: list[bytes] = []
    for number in range(1, 31):
        await log.append(b"%d" % number * 10, number, lambda: None)
        if number % 3 == 0:
            read += reader.frames(ends[-1])
            assert reader.position == ends[-1]
            assert reader.bytes_until(ends[-1]) == 0
            log.trim(reader.position.sequence)
    assert read == [b"%d" % number * 10 for number in range(1, 31)]
    assert [end.sequence for end in ends] == list(range(1, 31))
    assert len(segments(tmp_path)) == 1
    reader.close()
    await log.close()


async def test_reader_stops_where_the_log_is_durable(tmp_path: Path) -> None:
    """It can be left in the middle, and never reads what was written behind the end that it was told."""
    ends: list[LogPosition] = []
    log = Log(tmp_path, segment_bytes=1 << 20, max_bytes=1 << 30, on_durable=ends.append)
    log.start()
    await write(log, [b"a", b"b", b"c"])
    reader = LogReader(tmp_path)
    assert next(iter(reader.frames(ends[1]))) == b"a"
    assert reader.bytes_until(ends[2]) == 2 * (HEAD_BYTES + 1)
    assert list(reader.frames(ends[1])) == [b"b"]
    assert list(reader.frames(ends[1])) == []
    assert list(reader.frames(ends[2])) == [b"c"]
    reader.close()
    await log.close()


async def test_reader_refuses_a_log_with_a_hole(tmp_path: Path) -> None:
    """A segment that is gone although it was never stored is said, not skipped."""
    await written(tmp_path, [b"a" * 100] * 3, segment_bytes=100)
    log = open_log(tmp_path)
    for path in segments(tmp_path):
        path.unlink()
    with pytest.raises(LogCorrupt, match="no segment"):
        unread(log, tmp_path)
    await log.close()


async def test_room_returns_when_the_disk_refuses_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits until less waits for the disk goes on after a failed group as after a good one."""
    monkeypatch.setattr("runstore.ingest.log._MOST_WAITING_BYTES", 10)
    disk = Disk(monkeypatch, "pwrite")
    disk.is_full = True
    log = open_log(tmp_path)
    append = asyncio.create_task(log.append(b"x" * 20, 1, lambda: None))
    await asyncio.sleep(0)
    waiter = asyncio.create_task(log.wait_for_room())
    await asyncio.sleep(0)
    assert not waiter.done()
    log.start()
    await asyncio.wait_for(waiter, LONGEST_WAIT_S)
    with pytest.raises(RunstoreError):
        await append
    await log.close()
