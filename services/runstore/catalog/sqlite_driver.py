"""SQLite connections for SQLAlchemy that make one trip to their thread for a statement.

aiosqlite makes four (open a cursor, execute, fetch, close), and as many more to begin and to roll back. A
trip waits twice for the interpreter's lock; most statements of the catalog take less time than that.
"""

import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Self

import aiosqlite

from runstore.runtime.sqlite_wal import use_wal

_BUSY_TIMEOUT_S: Final = 10.0
# Rows that come with the statement itself, and with each further trip of a cursor that streams.
_ROWS_A_TRIP: Final = 1_000


class SqliteConnection(aiosqlite.Connection):
    """What SQLAlchemy uses of aiosqlite's connection, with fewer trips."""

    def __init__(self, database: str, options: dict[str, Any]) -> None:
        super().__init__(lambda: _opened(database, options), _ROWS_A_TRIP)
        # Connections that are left open must not keep the process from ending.
        self._thread.daemon = True
        self.on_locked: Callable[[float], None] = lambda _seconds: None
        """Told by the connection's thread how long a writer has waited for its lock."""
        self._beginning = ""
        self._has_begun = False
        self._is_reading = False

    def begin(self, *, is_reading: bool) -> None:
        """Begins a transaction, together with its first statement."""
        # The usual BEGIN would let two readers that become writers wait for each other.
        self._beginning = "BEGIN" if is_reading else "BEGIN IMMEDIATE"
        self._is_reading = is_reading

    def cursor(self) -> "_Cursor":  # type: ignore[override] # there is nothing to await
        """A cursor, which its first statement opens."""
        return _Cursor(self)

    async def commit(self) -> None:
        """Ends the transaction, if there was a statement in it."""
        self._beginning = ""
        if self._has_begun:
            await super().commit()
            self._has_begun = False

    async def rollback(self) -> None:
        """Undoes the transaction, if there was a statement in it."""
        self._beginning = ""
        if not self._has_begun:
            return
        self._has_begun = False
        if self._is_reading:
            # Not waited for: whatever comes next waits behind it.
            self._tx.put_nowait((None, self._conn.rollback))
        else:
            await super().rollback()

    async def call(self, function: Any, *arguments: Any) -> Any:
        """Calls `function` in the connection's thread, inside of the transaction if one was begun."""
        beginning, self._beginning, self._has_begun = self._beginning, "", True
        if beginning:
            function, arguments = self._begin_and_call, (beginning, function, *arguments)
        return await self._execute(function, *arguments)  # type: ignore[no-untyped-call] # aiosqlite's own

    def _begin_and_call(self, beginning: str, function: Any, *arguments: Any) -> Any:
        started_s = time.perf_counter()
        self._conn.execute(beginning)
        if not self._is_reading:
            self.on_locked(time.perf_counter() - started_s)
        return function(*arguments)

    def open_cursor(self) -> sqlite3.Cursor:
        """A cursor of sqlite3, for use in the connection's thread."""
        return self._conn.cursor()


class _Cursor:
    """One statement and its rows."""

    arraysize = 1
    description: Any = None
    rowcount = -1
    lastrowid: int | None = None

    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection
        self._rows: deque[Any] = deque()
        # While there are more rows than have been fetched.
        self._cursor: sqlite3.Cursor | None = None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, operation: str, parameters: Sequence[Any] = ()) -> None:
        await self._connection.call(self._execute, operation, parameters)

    async def executemany(self, operation: str, parameters: Sequence[Sequence[Any]]) -> None:
        await self._connection.call(self._executemany, operation, parameters)

    def _execute(self, operation: str, parameters: Sequence[Any]) -> None:
        self._fetch(self._connection.open_cursor().execute(operation, parameters))

    def _executemany(self, operation: str, parameters: Sequence[Sequence[Any]]) -> None:
        self._fetch(self._connection.open_cursor().executemany(operation, parameters))

    def _fetch(self, cursor: sqlite3.Cursor) -> None:
        rows = cursor.fetchmany(_ROWS_A_TRIP)
        self.description, self.rowcount, self.lastrowid = (
            cursor.description,
            cursor.rowcount,
            cursor.lastrowid,
        )
        self._rows.extend(rows)
        if len(rows) == _ROWS_A_TRIP:
            self._cursor = cursor
        else:
            cursor.close()
            self._cursor = None

    async def fetchone(self) -> Any:
        rows = await self.fetchmany(1)
        return rows[0] if rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        wanted = self.arraysize if size is None else size
        while len(self._rows) < wanted and self._cursor is not None:
            await self._connection.call(self._fetch, self._cursor)
        return [self._rows.popleft() for _ in range(min(wanted, len(self._rows)))]

    async def fetchall(self) -> list[Any]:
        while self._cursor is not None:
            await self._connection.call(self._fetch, self._cursor)
        rows, self._rows = list(self._rows), deque()
        return rows

    async def __aiter__(self) -> AsyncIterator[Any]:
        while row := await self.fetchone():
            yield row

    async def close(self) -> None:
        if self._cursor is not None:
            await self._connection.call(self._cursor.close)
            self._cursor = None


def _opened(database: str, options: dict[str, Any]) -> sqlite3.Connection:
    connection: sqlite3.Connection = sqlite3.connect(database, **{"timeout": _BUSY_TIMEOUT_S, **options})
    use_wal(connection, _BUSY_TIMEOUT_S)
    return connection


def connect(database: str, **options: Any) -> SqliteConnection:
    """A connection to the file `database`, to be awaited; `options` are those of `sqlite3.connect`."""
    return SqliteConnection(database, options)
