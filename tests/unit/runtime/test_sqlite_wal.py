"""Processes that open one new SQLite file at the same time."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from runstore.runtime.sqlite_wal import use_wal

TOGETHER = 4
FILES = 50


def test_everybody_gets_the_log_of_a_new_file(tmp_path: Path) -> None:
    """SQLite itself refuses some of them at once."""
    barrier = threading.Barrier(TOGETHER)

    def open_all() -> set[str]:
        modes = set()
        for number in range(FILES):
            with closing(sqlite3.connect(tmp_path / str(number), timeout=60)) as connection:
                barrier.wait(60)
                use_wal(connection, 60)
                modes |= set(connection.execute("PRAGMA journal_mode").fetchone())
        return modes

    with ThreadPoolExecutor(TOGETHER) as threads:
        everybody = [threads.submit(open_all) for _ in range(TOGETHER)]
    assert [each.result() for each in everybody] == [{"wal"}] * TOGETHER


def test_whoever_keeps_the_file_is_not_waited_for_in_vain(tmp_path: Path) -> None:
    """After some patience the reason is told."""
    file = tmp_path / "file"
    with closing(sqlite3.connect(file)) as reader, closing(sqlite3.connect(file, timeout=0)) as connection:
        reader.executescript("CREATE TABLE t (x); BEGIN; SELECT * FROM t")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            use_wal(connection, 0.05)
        reader.rollback()
        use_wal(connection, 60)
