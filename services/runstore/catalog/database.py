"""Transactions on the catalog's database; the only module that knows which database it is.

SQLite by default, PostgreSQL by URL. Driver errors leave here as `RunstoreError`, a violated
constraint as `Conflict` for the caller that knows what it means.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from runstore.catalog import sqlite_driver
from runstore.catalog.metrics import READ, WRITE, CatalogMetrics
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime import spans
from runstore.runtime.sqlite_wal import is_busy

_ASYNC_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}

_SQLITE_PRAGMAS = (
    # WAL's usual NORMAL may lose the last commits with the power; a key that was shown must exist.
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)
_WRITES = "runstore_writes"
_BEGUN_S = "runstore_begun_s"
# PostgreSQL's usual READ COMMITTED shows each statement another moment; SQLite's readers see one anyway.
_SNAPSHOT: Final = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
# SQLSTATE 22xxx: a NUL in a text, a number out of range. SQLAlchemy has no name for what asyncpg raises then.
_DATA_EXCEPTION = "22"
_MIGRATION_LOCK = 0x72756E73746F7265  # "runstore" in ASCII; any constant that no other program uses.


class Conflict(Exception):
    """A unique or foreign key constraint refused the statement; the transaction was rolled back."""


class Database:
    """Short transactions. Open with `open_database`."""

    def __init__(self, engine: AsyncEngine, metrics: CatalogMetrics) -> None:
        self._metrics = metrics
        self._reader = engine.execution_options(**_SNAPSHOT) if _is_postgresql(engine) else engine
        self._writer = engine.execution_options(**{_WRITES: True})
        # SQLite has one writer at a time and lets the others look again and again: under load some of them
        # never have luck. In this process they take turns instead, in the order in which they have come.
        self._turns: AbstractAsyncContextManager[Any] = (
            nullcontext() if _is_postgresql(engine) else asyncio.Lock()
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees one snapshot. Raises RunstoreError UNAVAILABLE or INTERNAL."""
        asked_s = time.perf_counter()
        with spans.inner("catalog read"), _translated_errors(self._metrics):
            async with self._reader.connect() as connection:
                self._metrics.waited(READ, time.perf_counter() - asked_s)
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, durable once the block has ended without an exception.

        Raises Conflict when a constraint refuses, RunstoreError UNAVAILABLE or INTERNAL otherwise.
        """
        asked_s = time.perf_counter()
        with spans.inner("catalog write"), _translated_errors(self._metrics):
            async with self._turns, self._writer.begin() as connection:
                self._metrics.waited(WRITE, time.perf_counter() - asked_s)
                yield connection

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[AsyncConnection]:
        """A write transaction that only one process at a time is in: for migrations."""
        async with self.write() as connection:
            # SQLite's write transactions exclude each other already.
            if _is_postgresql(connection):
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            yield connection


@asynccontextmanager
async def open_database(url: str, metrics: CatalogMetrics | None = None) -> AsyncIterator[Database]:
    """Connects to `url` (`sqlite:///path` or `postgresql://…`), closing every connection at the end.

    Makes the folder of an SQLite file when it is missing, for its owner alone.
    Raises RunstoreError INVALID_ARGUMENT when the URL or its driver cannot be used, UNAVAILABLE when
    the SQLite file cannot be opened.
    """
    parsed = _with_async_driver(url)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        if not parsed.database:
            raise _bad_url("names no file")
        _check_opens(Path(parsed.database))
    engine = _create_engine(parsed)
    metrics = metrics or CatalogMetrics()
    if is_sqlite:
        _configure_sqlite(engine, metrics)
    _time_statements(engine, metrics)
    try:
        yield Database(engine, metrics)
    finally:
        await engine.dispose()


def _with_async_driver(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _bad_url("is not a database URL") from error
    driver = _ASYNC_DRIVERS.get(parsed.drivername.partition("+")[0])
    if driver is None:
        raise _bad_url(f"names {parsed.drivername}; use sqlite:///path or postgresql://user@host/name")
    return parsed.set(drivername=driver)


def _create_engine(url: URL) -> AsyncEngine:
    is_sqlite = url.get_backend_name() == "sqlite"
    try:
        # The connection that was used last has most of its statements prepared.
        return create_async_engine(url, hide_parameters=True, pool_pre_ping=not is_sqlite, pool_use_lifo=True)
    except ModuleNotFoundError as error:
        raise _bad_url(f"needs the Python package {error.name}: pip install 'runstore[postgres]'") from error


def _check_opens(path: Path) -> None:
    """Opens the file once, to name it in the error; the asynchronous driver also leaks a thread then."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sqlite3.connect(path).close()
    except (sqlite3.Error, OSError) as error:
        raise RunstoreError(ErrorReason.UNAVAILABLE, f"the catalog {path} cannot be opened") from error


def _bad_url(problem: str) -> RunstoreError:
    return RunstoreError(ErrorReason.INVALID_ARGUMENT, f"the catalog URL {problem}", field="catalog_url")


def _is_postgresql(where: AsyncEngine | AsyncConnection) -> bool:
    return where.dialect.name == "postgresql"


def _configure_sqlite(engine: AsyncEngine, metrics: CatalogMetrics) -> None:
    """Makes SQLite behave: real transactions, writers that queue instead of failing half-way."""

    @event.listens_for(engine.sync_engine, "do_connect")
    def on_do_connect(_dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> None:
        options["async_creator_fn"] = sqlite_driver.connect

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(dbapi_connection: Any, _record: object) -> None:
        # The driver's own, late BEGIN lets two readers deadlock on becoming writers; ours is explicit.
        dbapi_connection.isolation_level = None
        dbapi_connection.driver_connection.on_locked = metrics.locked
        cursor = dbapi_connection.cursor()
        for pragma in _SQLITE_PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        is_reading = not connection.get_execution_options().get(_WRITES, False)
        driver_connection = cast("sqlite_driver.SqliteConnection", connection.connection.driver_connection)
        driver_connection.begin(is_reading=is_reading)


def _time_statements(engine: AsyncEngine, metrics: CatalogMetrics) -> None:
    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def on_begin(connection: Connection, *_statement: object) -> None:
        connection.info[_BEGUN_S] = time.perf_counter()

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def on_end(connection: Connection, *_statement: object) -> None:
        access = WRITE if connection.get_execution_options().get(_WRITES, False) else READ
        metrics.ran(access, time.perf_counter() - connection.info.pop(_BEGUN_S))


@contextmanager
def _translated_errors(metrics: CatalogMetrics) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise Conflict from error
    except (DataError, UnicodeEncodeError, OverflowError) as error:
        raise _not_storable() from error
    except (SQLAlchemyError, OSError) as error:
        if isinstance(error, DBAPIError) and is_busy(error.orig):
            metrics.timed_out()
        if isinstance(error, DBAPIError) and _sqlstate(error).startswith(_DATA_EXCEPTION):
            raise _not_storable() from error
        raise RunstoreError(ErrorReason.UNAVAILABLE, "the catalog's database did not answer") from error


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _not_storable() -> RunstoreError:
    return RunstoreError(ErrorReason.INVALID_ARGUMENT, "the catalog cannot store a value")
