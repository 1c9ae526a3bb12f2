"""Reads runs out of files: Parquet, JSON lines, or one JSON document as LangSmith's API and SDKs give it.

Every row is told apart from the others: one that cannot be read is reported with its place.
"""

import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.times import EPOCH, MICROSECOND
from runstore.gateway.run_json import PAYLOAD_FIELDS, RunJson, parse_object, parse_run
from runstore.runtime.failures import CannotStart
from runstore.runtime.transfer.writers import STDOUT

_ENDINGS: Final = (".parquet", ".jsonl", ".ndjson", ".json")
_PARQUET_MAGIC: Final = b"PAR1"
_BATCH_ROWS: Final = 200
_IDS: Final = ("id", "trace_id", "parent_run_id", "session_id", "reference_example_id")
_UUID_BYTES: Final = 16
_TEXTS: Final = ("dotted_order", "session_name", "name", "run_type")
_TIMES: Final = ("start_time", "end_time")
_ATTACHMENTS_KEY: Final = b'"attachments"'
_FEEDBACK_KEY: Final = b'"feedback"'
_RUNS_KEY: Final = b'"runs"'
_CONTAINERS: Final = tuple(name for name in PAYLOAD_FIELDS if name != "error")
_ROW_DECODER: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NO_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

OnProgress = Callable[[int, int], None]
"""So much is read of so much."""


class File(msgspec.Struct):
    """An attachment in a file of runs."""

    mime_type: str
    content: bytes
    """In JSON as base64."""


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A row of a file."""

    place: str
    """Where it stands: `line 17`."""
    run: RunJson
    files: dict[str, File] = field(default_factory=dict)
    feedback: list[msgspec.Raw] = field(default_factory=list)
    """Records on the run, each a JSON object."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that holds no run."""

    place: str
    error: RunstoreError


class _Files(msgspec.Struct):
    attachments: dict[str, File] | None = None


class _Feedback(msgspec.Struct):
    feedback: list[msgspec.Raw] | None = None


class _Answer(msgspec.Struct):
    """Of `POST /runs/query`."""

    runs: list[msgspec.Raw]


def files_in(paths: list[Path]) -> list[Path]:
    """The files, and those in the folders, in order. Raises NOT_FOUND for a path where nothing is."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if each.suffix in _ENDINGS and each.is_file())
        elif path == STDOUT or path.exists():
            found.append(path)
        else:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no file or folder {path}")
    return found


def read_runs(path: Path, on_progress: OnProgress) -> Iterator[FoundRun | BadRow]:
    """Every row of a file, whatever its format, which its beginning tells; of a pipe, which has JSON lines.

    Raises MALFORMED_BODY for a file that makes no sense, CannotStart for one that cannot be read.
    """
    try:
        if path == STDOUT:
            yield from _json_lines(sys.stdin.buffer, 0, on_progress)
        elif path.is_file():
            yield from _file(path, on_progress)
        else:
            with path.open("rb") as pipe:
                yield from _json_lines(pipe, 0, on_progress)
    except OSError as error:
        raise CannotStart(f"{path}: {error.strerror}") from error


def _file(path: Path, on_progress: OnProgress) -> Iterator[FoundRun | BadRow]:
    with path.open("rb") as file:
        is_parquet = file.read(4) == _PARQUET_MAGIC
        file.seek(0)
        first = b"" if is_parquet else file.readline().strip()
        file.seek(0)
        if is_parquet:
            yield from _parquet(path, on_progress)
        elif _begins_a_document(first):
            yield from _json_document(file, on_progress)
        else:
            yield from _json_lines(file, path.stat().st_size, on_progress)


def _begins_a_document(line: bytes) -> bool:
    """Whether a file that begins with this line is one JSON value over several, rather than one a line."""
    if line[:1] not in (b"{", b"["):
        return False
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except _NO_JSON:
        return True
    return False


def _json_lines(file: BinaryIO, size: int, on_progress: OnProgress) -> Iterator[FoundRun | BadRow]:
    done = 0
    for number, line in enumerate(file, 1):
        if line.strip():
            yield from _of_line(f"line {number}", line)
        done += len(line)
        on_progress(done, max(done, size))


def _of_line(place: str, line: bytes) -> Iterator[FoundRun | BadRow]:
    """A run, or what `_json_document` reads."""
    rows = [line]
    if line.lstrip()[:1] != b"{" or _RUNS_KEY in line:
        with suppress(*_NO_JSON):
            rows = [bytes(row) for row in _rows_of(line)]
    for number, row in enumerate(rows, 1):
        yield _parsed(place if len(rows) == 1 else f"{place}, run {number}", row)


def _json_document(file: BinaryIO, on_progress: OnProgress) -> Iterator[FoundRun | BadRow]:
    """An array of runs, an answer of the API, or a single run."""
    # Rows are views of the mapped file, which is closed with the last of them.
    content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        rows = _rows_of(content)
    except _NO_JSON as error:
        raise RunstoreError(ErrorReason.MALFORMED_BODY, f"{file.name} is no JSON: {error}") from error
    for number, row in enumerate(rows, 1):
        yield _parsed(f"run {number}", bytes(row))
        on_progress(number, len(rows))


def _rows_of(content: bytes | mmap.mmap) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(content, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        pass
    try:
        return msgspec.json.decode(content, type=_Answer).runs
    except msgspec.ValidationError:
        return [msgspec.json.decode(content, type=msgspec.Raw)]


def _parsed(place: str, text: bytes) -> FoundRun | BadRow:
    try:
        return FoundRun(place, _run_of(text), _files(text), _feedback(text))
    except RunstoreError as error:
        return BadRow(place, error)


def _run_of(text: bytes) -> RunJson:
    """The run of a JSON object; tags and payloads may be JSON in texts, as in tables that became JSON."""
    try:
        run = parse_run(text)
    except RunstoreError as error:
        if error.reason is ErrorReason.MALFORMED_BODY:
            raise
    else:
        if not any(_is_text(getattr(run, name)) for name in _CONTAINERS):
            return run
    row = parse_object(_ROW_DECODER, text)
    for name in ("tags", *_CONTAINERS):
        if name in row and _is_text(row[name]):
            row[name] = _unwrapped(row[name])
    return parse_run(msgspec.json.encode(row))


def _is_text(value: msgspec.Raw) -> bool:
    return bytes(memoryview(value)[:1]) == b'"'


def _unwrapped(text: msgspec.Raw) -> msgspec.Raw:
    """What a text says if it is JSON of an array or an object; null for "", and else the text itself."""
    inner = msgspec.json.decode(text, type=str)
    if not inner:
        return msgspec.Raw(b"null")
    with suppress(*_NO_JSON):
        if inner.lstrip()[:1] in ("{", "["):
            return msgspec.json.decode(inner, type=msgspec.Raw)
    return text


def _files(text: bytes) -> dict[str, File]:
    """Attachments as `runstore export` writes them; those of other exporters are addresses, which expire."""
    if _ATTACHMENTS_KEY not in text:
        return {}
    try:
        return msgspec.json.decode(text, type=_Files).attachments or {}
    except msgspec.ValidationError:
        return {}


def _feedback(text: bytes) -> list[msgspec.Raw]:
    """Records as `runstore export` writes them."""
    if _FEEDBACK_KEY not in text:
        return []
    try:
        return msgspec.json.decode(text, type=_Feedback).feedback or []
    except msgspec.ValidationError:
        return []


def _parquet(path: Path, on_progress: OnProgress) -> Iterator[FoundRun | BadRow]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise RunstoreError(ErrorReason.MALFORMED_BODY, f"{path} is no Parquet: {error}") from error
    names = {"attachments", "feedback", "tags", *_IDS, *_TEXTS, *_TIMES, *PAYLOAD_FIELDS}
    total, number = file.metadata.num_rows, 0
    with file:
        for batch in file.iter_batches(
            _BATCH_ROWS, columns=[n for n in file.schema_arrow.names if n in names]
        ):
            for row in batch.to_pylist():
                number += 1
                yield _of_row(f"row {number}", row)
            on_progress(number, total)


def _of_row(place: str, row: dict[str, Any]) -> FoundRun | BadRow:
    """The run of a row: JSON comes as text or, from other writers, as nested columns."""
    content: dict[str, Any] = {name: _time(row.get(name)) for name in _TIMES}
    try:
        content |= {name: _id(row.pop(name, None)) for name in _IDS}
        row = _with_texts(row)
        content |= {name: row.get(name) for name in _TEXTS}
        for name in ("tags", *PAYLOAD_FIELDS):
            content[name] = row.get(name) if name == "error" else _decoded(row.get(name))
        more = msgspec.json.encode(
            {name: _decoded(row.get(name)) for name in ("attachments", "feedback") if row.get(name)}
        )
        return FoundRun(place, parse_run(msgspec.json.encode(content)), _files(more), _feedback(more))
    except RunstoreError as error:
        return BadRow(place, error)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        return BadRow(place, RunstoreError(ErrorReason.MALFORMED_BODY, str(error)))


def _id(value: Any) -> Any:
    """An id may be a binary column of 16 bytes."""
    return value.hex() if isinstance(value, bytes) and len(value) == _UUID_BYTES else _with_texts(value)


def _with_texts(value: Any) -> Any:
    """The value with texts for bytes: not every writer says which columns are text."""
    match value:
        case bytes():
            return value.decode()
        case list():
            return [_with_texts(each) for each in value]
        case dict():
            return {key: _with_texts(each) for key, each in value.items()}
        case _:
            return value


def _time(value: Any) -> Any:
    if not isinstance(value, datetime):
        return value
    moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return (EPOCH + (moment - EPOCH) // MICROSECOND * MICROSECOND).isoformat()


def _decoded(value: Any) -> Any:
    """JSON in a text as what it says; "" says nothing."""
    if not isinstance(value, str):
        return value
    return msgspec.json.decode(value, type=msgspec.Raw) if value else None
