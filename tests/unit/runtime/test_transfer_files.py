"""Files of runs as `runstore export` opens them and `runstore import` understands them."""

import json
import os
import threading
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.waiting import LONGEST_WAIT_S

from runstore.runtime.failures import CannotStart
from runstore.runtime.transfer.readers import BadRow, FoundRun, files_in, read_runs
from runstore.runtime.transfer.writers import whole_file

RUN_ID = "8a1285dc-ea14-4c46-ade1-9d65a4b8cf1c"
RUN: dict[str, Any] = {"id": RUN_ID, "name": "n", "tags": ["t"], "inputs": {"q": 1.5}}


def rows_of(path: Path) -> list[FoundRun | BadRow]:
    """All rows of a file."""
    return list(read_runs(path, lambda _done, _total: None))


def places_of(path: Path, *lines: str) -> list[tuple[str, bool]]:
    """Where the rows of these lines are found, and whether each is a run."""
    path.write_text("\n".join(lines))
    return [(row.place, isinstance(row, FoundRun)) for row in rows_of(path)]


def test_lines_hold_runs_arrays_and_answers(tmp_path: Path) -> None:
    """Each line by itself, whatever the first one is; one value over several lines is a document."""
    run = json.dumps(RUN)
    array, answer = f"[{run}, {run}]", f'{{"runs": [{run}, 5]}}'
    path = tmp_path / "runs"
    assert places_of(path, array, run, "{bad", answer, "[]", "") == [
        ("line 1, run 1", True),
        ("line 1, run 2", True),
        ("line 2", True),
        ("line 3", False),
        ("line 4, run 1", True),
        ("line 4, run 2", False),
    ]
    assert places_of(path, array) == [("line 1, run 1", True), ("line 1, run 2", True)]
    assert places_of(path, *json.dumps([RUN, RUN], indent=1).splitlines()) == [
        ("run 1", True),
        ("run 2", True),
    ]


def test_tables_that_became_json(tmp_path: Path) -> None:
    """JSON in texts is what it says; "" says nothing, and other texts are texts."""
    path = tmp_path / "table.jsonl"
    texts = {"tags": '["t"]', "inputs": '{"q": 1.50}', "extra": "", "outputs": "o"}
    path.write_text(json.dumps({**RUN, **texts}))
    [row] = rows_of(path)
    assert isinstance(row, FoundRun)
    assert (row.run.tags, bytes(row.run.inputs)) == (["t"], b'{"q": 1.50}')
    assert (bytes(row.run.extra), bytes(row.run.outputs)) == (b"null", b'"o"')


@pytest.mark.parametrize("run_id", [uuid.UUID(RUN_ID).bytes, RUN_ID.encode()])
def test_parquet_that_does_not_say_what_is_text(tmp_path: Path, run_id: bytes) -> None:
    """As ClickHouse writes it; ids may be 16 bytes, names may have as many."""
    columns: dict[str, Any] = {"id": run_id, "name": b"sixteen bytes long"[:16], "tags": [b"t"]}
    path = tmp_path / "runs.parquet"
    pq.write_table(pa.Table.from_pylist([{**columns, "inputs": b'{"q": 1.50}'}]), path)
    [row] = rows_of(path)
    assert isinstance(row, FoundRun)
    assert uuid.UUID(row.run.id or "") == uuid.UUID(RUN_ID)
    assert (row.run.name, row.run.tags) == ("sixteen bytes lo", ["t"])
    assert bytes(row.run.inputs) == b'{"q": 1.50}'


def test_pipes_are_written_to_and_read(tmp_path: Path) -> None:
    """A pipe stays one: nothing takes its place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with whole_file(pipe) as file:
            file.write(json.dumps(RUN).encode())

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        [path] = files_in([pipe])
        [row] = rows_of(path)
    finally:
        writer.join(LONGEST_WAIT_S)
    assert isinstance(row, FoundRun)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("name", ["no such folder/runs.jsonl", "."])
def test_what_cannot_be_written_is_said(tmp_path: Path, name: str) -> None:
    """In a sentence, before anything is asked for."""
    with pytest.raises(CannotStart, match=r"no such folder|Is a directory"), whole_file(tmp_path / name):
        pytest.fail("it was opened")
    assert list(tmp_path.iterdir()) == []
