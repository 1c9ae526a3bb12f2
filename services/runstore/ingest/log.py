"""The log: operations are durable here before they are acknowledged, until the engine has them.

A folder of segments, each a file of frames. A frame is a 16-byte head (length of the body, CRC-32
of everything behind it, sequence number of the last operation in the body; little-endian) and the
body, whose meaning is the caller's. Frames are written in order and synced in groups: while one
group is on its way to the disk, the next gathers.

A torn tail, as a crash leaves it, was never acknowledged and is cut off when the log is opened.

The log is also the queue between the process that accepts operations and the one that stores them:
a `LogReader` follows it, up to where its owner says that it is durable.
"""

import asyncio
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from runstore.domain.errors import ErrorReason, RunstoreError

_HEAD = struct.Struct("<IIQ")
_CHECKPOINT = struct.Struct("<QI")
_SUFFIX = ".log"
# Some groups' worth: more in memory would make no group larger.
_MOST_WAITING_BYTES = 64 * 1024 * 1024

logger = structlog.get_logger()


class LogCorrupt(Exception):
    """A frame that had been acknowledged cannot be read back."""


class LogPosition(msgspec.Struct, frozen=True, order=True):
    """The end of a frame."""

    segment: int
    """Number of the segment; 0 before all."""
    offset: int
    """Bytes from the beginning of its file."""
    sequence: int
    """Of the last operation before it."""


@dataclass(slots=True)
class _Waiting:
    body: bytes
    last_sequence: int
    on_durable: Callable[[], None]
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Segment:
    path: Path
    last_sequence: int
    size_bytes: int


class Log:
    """Appends frames durably and replays them. One event loop owns it; one thread writes."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        max_bytes: int,
        on_durable: Callable[[LogPosition], None] = lambda _: None,
        on_group: Callable[[int, float], None] = lambda _bytes, _seconds: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the log in `folder`, made when missing. Raises LogCorrupt.

        `on_durable` is told where the log ends, after each group that has reached the disk; `on_group` how
        many bytes it had and how many seconds it took. `on_failure`: the disk has refused a group.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._on_durable = on_durable
        self._on_group = on_group
        self._on_failure = on_failure
        self._segment_bytes = segment_bytes
        self.max_bytes = max_bytes
        self.last_error = ""
        """Why the disk refused the last group; empty when it did not."""
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = 0
        self.unconfirmed = 0
        """Bodies that have been appended, of which nobody knows yet whether they are durable."""
        self._wake = asyncio.Event()
        self._written = asyncio.Condition()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._closed = False
        self._checkpoint_file = os.open(folder / "checkpoint", os.O_RDWR | os.O_CREAT, 0o600)
        self.checkpoint = _read_checkpoint(self._checkpoint_file)
        """Sequence number of the last operation that the engine is known to have."""
        self._sealed: list[_Segment] = []
        self._number = 0
        self._is_suspect = False
        self._scan()
        self._drop_flushed()
        self._file, self._size = self._new_segment(), 0
        self._task: asyncio.Task[None] | None = None

    # -- writing ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write what is appended."""
        self._task = asyncio.create_task(self._write_groups())

    async def append(self, body: bytes, last_sequence: int, on_durable: Callable[[], None]) -> None:
        """Return once `body` survives the loss of the process and of power.

        `on_durable` is called first, exactly once, and in the order of the appends, even if the
        caller has gone away. Raises OVERLOADED when the log is full and UNAVAILABLE when the disk
        refuses; nothing of the body counts then.
        """
        if self._closed:
            raise RunstoreError(ErrorReason.UNAVAILABLE, "the store is shutting down")
        if self.size_bytes + self._waiting_bytes + len(body) > self.max_bytes:
            raise RunstoreError(ErrorReason.OVERLOADED, "the log is full: the engine has fallen behind")
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(body, last_sequence, on_durable, done))
        self._waiting_bytes += len(body)
        self.unconfirmed += 1
        self._wake.set()
        await done

    @property
    def has_room(self) -> bool:
        """Whether few enough bytes wait for the disk."""
        return self._waiting_bytes < _MOST_WAITING_BYTES

    async def wait_for_room(self) -> None:
        """Return once few enough bytes wait for the disk; for callers that can slow their sender."""
        async with self._written:
            await self._written.wait_for(lambda: self.has_room)

    @property
    def segments(self) -> int:
        """Files of the log, the one that is written included."""
        return len(self._sealed) + 1

    @property
    def size_bytes(self) -> int:
        """Bytes in all segments that are still needed."""
        # The open segment cannot be removed, and must not block the append that would fill it up.
        needed = self._size if self._last_sequence > self.checkpoint else 0
        return needed + sum(segment.size_bytes for segment in self._sealed)

    async def stop(self) -> None:
        """Write what waits and take no more; `trim` still works, for the flusher to catch up."""
        self._closed = True
        self._wake.set()
        if self._task is not None:
            await self._task

    async def close(self) -> None:
        """Stop, and let go of the files."""
        await self.stop()
        self._writer.shutdown()
        os.close(self._file)
        os.close(self._checkpoint_file)

    async def _write_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or not self._closed:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            group, self._waiting = self._waiting, []
            started_s = time.perf_counter()
            try:
                await loop.run_in_executor(self._writer, self._write, group)
            except OSError as error:
                logger.error(  # noqa: TRY400  # the disk's message says it all
                    "log_write_failed", error=str(error), frames=len(group)
                )
                self.last_error = str(error)
                self._on_failure()
                refusal = RunstoreError(ErrorReason.UNAVAILABLE, "the log cannot be written")
                for waiting in group:
                    if not waiting.done.done():
                        waiting.done.set_exception(refusal)
                self.unconfirmed -= len(group)
                continue
            finally:
                self._waiting_bytes -= sum(len(waiting.body) for waiting in group)
                async with self._written:
                    self._written.notify_all()
            self.last_error = ""
            self._on_group(sum(len(waiting.body) for waiting in group), time.perf_counter() - started_s)
            for waiting in group:
                waiting.on_durable()
                if not waiting.done.done():
                    waiting.done.set_result(None)
            self.unconfirmed -= len(group)
            self._on_durable(self.end)

    def _write(self, group: list[_Waiting]) -> None:
        """Write and sync one group; on failure nothing of it counts."""
        if self._is_suspect or self._size >= self._segment_bytes:
            self._seal()
        frames: list[bytes] = []
        for waiting in group:
            tail = waiting.last_sequence.to_bytes(8, "little")
            checksum = zlib.crc32(waiting.body, zlib.crc32(tail))
            frames.append(_HEAD.pack(len(waiting.body), checksum, waiting.last_sequence))
            frames.append(waiting.body)
        try:
            data = memoryview(b"".join(frames))
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self._size + written)
            os.fdatasync(self._file)
        except OSError:
            # Pages of a failed sync may be gone although later syncs succeed: never write behind them.
            self._is_suspect = True
            raise
        self._size += len(data)
        self._last_sequence = group[-1].last_sequence

    def _seal(self) -> None:
        """Go on in a new segment; when the disk refuses one, the present one stays as it is."""
        if self._is_suspect:
            _truncate(self._file, self._size)
        file = self._new_segment()
        self._sealed.append(_Segment(self._path(self._number - 1), self._last_sequence, self._size))
        os.close(self._file)
        self._file, self._size, self._is_suspect = file, 0, False

    def _new_segment(self) -> int:
        file = os.open(self._path(self._number + 1), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._sync_folder()
        except OSError:
            os.close(file)
            raise
        self._number += 1
        return file

    def _path(self, number: int) -> Path:
        return _segment_path(self._folder, number)

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    # -- reading back ----------------------------------------------------------------------------

    @property
    def last_sequence(self) -> int:
        """Highest sequence number ever appended or checkpointed here."""
        return max(self._last_sequence, self.checkpoint)

    @property
    def end(self) -> LogPosition:
        """Where the log ends: everything before is durable."""
        return LogPosition(self._number, self._size, self.last_sequence)

    @property
    def has_unflushed(self) -> bool:
        """Whether there is anything behind the checkpoint."""
        return self._last_sequence > self.checkpoint

    def trim(self, sequence: int) -> None:
        """Forget frames up to `sequence`: the engine has made their operations durable."""
        self.checkpoint = sequence
        # Not synced: a checkpoint that a crash takes back only makes the replay longer.
        packed = sequence.to_bytes(8, "little")
        try:
            os.pwrite(self._checkpoint_file, _CHECKPOINT.pack(sequence, zlib.crc32(packed)), 0)
            self._drop_flushed()
        except OSError as error:
            logger.warning("log_trim_failed", error=str(error))

    def _drop_flushed(self) -> None:
        while self._sealed and self._sealed[0].last_sequence <= self.checkpoint:
            self._sealed[0].path.unlink(missing_ok=True)
            del self._sealed[0]

    def _scan(self) -> None:
        """Find the segments left by earlier processes; cut a torn tail off the last."""
        self._last_sequence = 0
        paths = sorted(self._folder.glob(f"*{_SUFFIX}"))
        for path in paths:
            self._number = int(path.stem)
            end = 0
            for frame_end, last_sequence, _ in _frames(path):
                end, self._last_sequence = frame_end, last_sequence
            size = path.stat().st_size
            if end < size:
                if path != paths[-1]:
                    raise LogCorrupt(f"{path}: unreadable frame at byte {end} of {size}")
                logger.warning("log_tail_cut", segment=path.name, at_byte=end, bytes_cut=size - end)
                with path.open("rb+") as file:
                    _truncate(file.fileno(), end)
            self._sealed.append(_Segment(path, self._last_sequence, end))


class LogReader:
    """Reads frames in order, from behind the checkpoint, while another process may append and trim."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of a log which has been opened."""
        self._folder = folder
        checkpoint_file = os.open(folder / "checkpoint", os.O_RDONLY)
        try:
            self._checkpoint = _read_checkpoint(checkpoint_file)
        finally:
            os.close(checkpoint_file)
        self.position = LogPosition(0, 0, self._checkpoint)
        """Behind the last frame that was read."""
        self._file = -1
        self._path = folder

    def frames(self, end: LogPosition) -> Iterator[bytes]:
        """Bodies of the frames before `end`, which the log has called durable.

        Iterating may stop anywhere; the next call goes on there. Raises LogCorrupt.
        """
        while self.position.sequence < end.sequence:
            if self.position.segment < end.segment and self._is_at_end_of_segment():
                self._open_next(end)
                continue
            head = os.pread(self._file, _HEAD.size, self.position.offset)
            offset = self.position.offset
            if len(head) < _HEAD.size:
                raise LogCorrupt(f"{self._path}: frame cut short at byte {offset}")
            length, _, sequence = _HEAD.unpack(head)
            body = os.pread(self._file, length, offset + _HEAD.size)
            if len(body) < length:
                raise LogCorrupt(f"{self._path}: frame cut short at byte {offset}")
            self.position = LogPosition(self.position.segment, offset + _HEAD.size + length, sequence)
            if sequence > self._checkpoint:
                yield body

    def bytes_until(self, end: LogPosition) -> int:
        """About how much is left to read before `end`; a lower bound when it is in a later segment."""
        if self.position.segment == end.segment:
            return end.offset - self.position.offset
        rest = os.fstat(self._file).st_size - self.position.offset if self._file >= 0 else 0
        return rest + end.offset

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _is_at_end_of_segment(self) -> bool:
        return self._file < 0 or self.position.offset >= os.fstat(self._file).st_size

    def _open_next(self, end: LogPosition) -> None:
        """The segment that follows; those wholly before the checkpoint may be gone."""
        numbers = sorted(int(path.stem) for path in self._folder.glob(f"*{_SUFFIX}"))
        following = [number for number in numbers if self.position.segment < number <= end.segment]
        if not following:
            raise LogCorrupt(f"{self._folder}: no segment behind {self.position.segment}")
        self.close()
        self._path = _segment_path(self._folder, following[0])
        self._file = os.open(self._path, os.O_RDONLY)
        self.position = LogPosition(following[0], 0, self.position.sequence)


def _segment_path(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}{_SUFFIX}"


def _read_checkpoint(file: int) -> int:
    """The checkpoint; 0 when there is none or it is torn, which only makes the replay longer."""
    data = os.pread(file, _CHECKPOINT.size, 0)
    if len(data) < _CHECKPOINT.size:
        return 0
    sequence, checksum = _CHECKPOINT.unpack(data)
    return int(sequence) if zlib.crc32(data[:8]) == checksum else 0


def _truncate(file: int, size: int) -> None:
    """Cut a file durably: what was cut must not come back before the segments that follow."""
    os.ftruncate(file, size)
    os.fsync(file)


def _frames(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Whole frames of a segment: (offset of their end, last sequence number, body)."""
    offset = 0
    with path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            length, checksum, last_sequence = _HEAD.unpack(head)
            body = file.read(length)
            if len(body) < length or zlib.crc32(body, zlib.crc32(head[8:])) != checksum:
                return
            offset += _HEAD.size + length
            yield offset, last_sequence, body
