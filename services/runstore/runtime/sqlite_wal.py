"""Write-ahead logs of SQLite files that several processes open."""

import sqlite3
from typing import Final

import tenacity

# SQLite's extended codes have the reason above it.
_PRIMARY_CODE: Final = 0xFF


def is_busy(error: BaseException | None) -> bool:
    """Whether somebody else holds the lock that a statement needs."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE == sqlite3.SQLITE_BUSY


def use_wal(connection: sqlite3.Connection, patience_s: float) -> None:
    """Give the file a write-ahead log; at once if it has one. Raises sqlite3.Error.

    Of two that do so to a new file at the same time, SQLite refuses one without waiting, whatever its
    `busy_timeout`: both read the file, and neither can write while the other does.
    """
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_busy),
        stop=tenacity.stop_after_delay(patience_s),
        wait=tenacity.wait_random(0.001, 0.02),
        reraise=True,
    )
    attempts(connection.execute, "PRAGMA journal_mode = WAL")
