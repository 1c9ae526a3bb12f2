"""Copies an SQLite database that other processes write to."""

import os
import sqlite3
from pathlib import Path


def copy_sqlite(source: Path, target: Path) -> None:
    """The database as it is at one moment, as one file; durable when this returns.

    Writers are not held up. Raises FileNotFoundError, sqlite3.Error, OSError.
    """
    if not source.is_file():
        raise FileNotFoundError(source)
    reading = sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)
    writing = sqlite3.connect(target, isolation_level=None)
    try:
        # In one step, which is one transaction: in several it would begin anew whenever somebody writes.
        reading.backup(writing, pages=-1)
    finally:
        reading.close()
        writing.close()
    settle_sqlite(target)


def settle_sqlite(path: Path) -> None:
    """Bring a database that nobody uses into its one file, which is durable afterwards."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
    finally:
        connection.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())
