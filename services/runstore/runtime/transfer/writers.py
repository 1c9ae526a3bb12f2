"""Writes runs into a file: JSON lines, a run a line, or Parquet."""

import base64
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from runstore.gateway.feedback_json import show_feedback
from runstore.runtime.failures import CannotStart
from runstore.runtime.transfer.columns import COLUMNS
from runstore.v1 import run_pb2 as pb
from runstore.v1.feedback_service_pb2 import Feedback

STDOUT: Final = Path("-")

# No JSON holds this byte: control characters are escaped. It is the edge of a hole (`gateway.large_answers`).
_EDGE: Final = b"\0"
_BASE64: Final = b"base64"
# Between values of JSON a line break is a blank; inside of strings there is none.
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")
_ROW_GROUP_ROWS: Final = 50_000
_ROW_GROUP_BYTES: Final = 64 * 1024 * 1024

BlobReader = Callable[[str], Iterable[bytes]]
"""Content of a large payload or a file, by its read token."""


class FileFormat(StrEnum):
    """What a file of runs is."""

    JSONL = "jsonl"
    PARQUET = "parquet"


class RunFileWriter(Protocol):
    """Takes runs one by one."""

    def write(
        self, run: pb.Run, project_name: str, files: Iterable[str], records: Iterable[Feedback], /
    ) -> None:
        """Add a run with feedback on it, and those of its attachments that are named."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


@contextmanager
def run_file_writer(
    file_format: FileFormat, file: BinaryIO, read_blob: BlobReader, *, has_attachments: bool
) -> Iterator[RunFileWriter]:
    """A writer of this format on an open file, which stays open. What fails gets no end that looks whole."""
    sink = _Sink(file)
    writer_of: Callable[..., RunFileWriter] = (
        _ParquetWriter if file_format is FileFormat.PARQUET else _JsonLinesWriter
    )
    writer = writer_of(sink, read_blob, has_attachments=has_attachments)
    try:
        yield writer
    except BaseException:
        sink.is_cut_off = True
        raise
    finally:
        writer.close()


class _Sink(io.RawIOBase):
    """Hands everything on to a file, until it is cut off: Parquet writes its end whatever has happened."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._written = 0
        self.is_cut_off = False

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, content: Any) -> int:
        if not self.is_cut_off:
            self._file.write(content)
        self._written += len(content)
        return len(content)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name once it is complete and durable; nothing is left of one that fails.

    What is no file, such as a pipe or a device, is written to as it stands. Raises CannotStart if it cannot.
    """
    try:
        with _opened(path) as file:
            yield file
    except OSError as error:
        name = "standard output" if path == STDOUT else path
        raise CannotStart(f"{name}: {error.strerror}") from error


def _opened(path: Path) -> AbstractContextManager[BinaryIO]:
    if path == STDOUT:
        return _standard_output()
    if path.exists() and not path.is_file():
        return path.open("wb")
    return _named_at_the_end(path)


@contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except OSError:
        # As when `head` has had enough. Python would complain once more as it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


@contextmanager
def _named_at_the_end(path: Path) -> Iterator[BinaryIO]:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class _JsonLinesWriter:
    """Large payloads and files pass through in chunks."""

    def __init__(self, file: _Sink, read_blob: BlobReader, *, has_attachments: bool) -> None:
        self._file = file
        self._read_blob = read_blob
        self._has_attachments = has_attachments

    def write(
        self, run: pb.Run, project_name: str, files: Iterable[str], records: Iterable[Feedback], /
    ) -> None:
        content: dict[str, Any] = {}
        for column in COLUMNS:
            value = column.value(run)
            content[column.name] = None if value is None else column.in_json(value)
        content["session_name"] = project_name
        content["feedback"] = [show_feedback(record) for record in records]
        if self._has_attachments:
            content["attachments"] = _attachments(run, files)
        for chunk in _filled(msgspec.json.encode(content), self._read_blob):
            self._file.write(chunk.translate(_ONE_LINE))
        self._file.write(b"\n")

    def close(self) -> None:
        """Nothing is left."""


class _ParquetWriter:
    """Row groups of bounded bytes, apart from the one cell that goes beyond."""

    def __init__(self, file: _Sink, read_blob: BlobReader, *, has_attachments: bool) -> None:
        self._read_blob = read_blob
        self._has_attachments = has_attachments
        fields = [(column.name, column.arrow_type) for column in COLUMNS]
        fields += [("session_name", pa.string()), ("feedback", pa.string())]
        if has_attachments:
            fields.append(("attachments", pa.string()))
        self._schema = pa.schema(fields)
        self._columns: list[list[Any]] = [[] for _ in fields]
        self._bytes = 0
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def write(
        self, run: pb.Run, project_name: str, files: Iterable[str], records: Iterable[Feedback], /
    ) -> None:
        cells: list[Any] = []
        for column in COLUMNS:
            value = column.value(run)
            if isinstance(value, msgspec.Raw):
                value = b"".join(_filled(bytes(value), self._read_blob))
            cells.append(None if value is None else column.in_parquet(value))
        cells += [project_name, msgspec.json.encode([show_feedback(record) for record in records])]
        if self._has_attachments:
            cells.append(b"".join(_filled(msgspec.json.encode(_attachments(run, files)), self._read_blob)))
        for values, cell in zip(self._columns, cells, strict=True):
            values.append(cell)
            self._bytes += len(cell) if isinstance(cell, bytes | str) else 8
        if self._bytes >= _ROW_GROUP_BYTES or len(self._columns[0]) >= _ROW_GROUP_ROWS:
            self._write_group()

    def close(self) -> None:
        if self._columns[0]:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        arrays = [
            pa.array(values, field.type) for values, field in zip(self._columns, self._schema, strict=True)
        ]
        self._columns = [[] for _ in arrays]
        self._bytes = 0
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))


def _attachments(run: pb.Run, files: Iterable[str]) -> dict[str, Any]:
    return {
        name: {
            "mime_type": run.attachments[name].mime_type,
            "content": msgspec.Raw(b'"\0%b %b\0"' % (_BASE64, run.attachments[name].read_token.encode())),
        }
        for name in sorted(files)
    }


def _filled(content: bytes, read_blob: BlobReader) -> Iterator[bytes]:
    """JSON with its holes filled."""
    for index, piece in enumerate(content.split(_EDGE)):
        if index % 2 == 0:
            yield piece
            continue
        kind, token = piece.split(b" ")
        chunks = read_blob(token.decode())
        yield from _in_base64(chunks) if kind == _BASE64 else chunks


def _in_base64(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        content = rest + chunk
        whole = len(content) - len(content) % 3
        yield base64.b64encode(content[:whole])
        rest = content[whole:]
    yield base64.b64encode(rest)
