"""Connections to the engine, embedded or a server, and its errors in the words of the protocol."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError

from runstore.storage.run_store import BlockRefused, StoreUnavailable

T = TypeVar("T")

# Codes by which ClickHouse says that the data of an insert cannot be stored, now or ever.
_CONTENT_CODES = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        26,  # CANNOT_PARSE_QUOTED_STRING
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        33,  # CANNOT_READ_ALL_DATA
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        53,  # TYPE_MISMATCH
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        376,  # CANNOT_PARSE_UUID
        407,  # DECIMAL_OVERFLOW
    }
)

SETTINGS = {
    # Start times may lie in many months at once; a client's old data is no reason to refuse a block.
    "max_partitions_per_insert_block": 0,
    "max_insert_threads": 1,
    # Readers merge partial rows; merging those of a block while it is inserted costs a fifth of the insert.
    "optimize_on_insert": 0,
}
"""Of every connection."""


_SERVER_OPTIONS = {
    "autogenerate_session_id": False,
    "connect_timeout": 5,
    # A server that hangs is retried like one that is away; no insert or list takes this long.
    "send_receive_timeout": 60,
}


class Engine:
    """Runs calls on pooled clients, off the event loop: several readers and one writer at a time."""

    def __init__(
        self, dsn: str, *, readers: int = 4, prepare: Callable[[Any], None] = lambda _client: None
    ) -> None:
        """`dsn` is `chdb://…` or `http(s)://…`. Nothing is opened yet.

        `prepare` is called with a client before the first call that reaches the engine, and again before the
        next one when it has failed.
        """
        self._dsn = dsn
        self._prepare = prepare
        self._is_prepared = False
        self._preparing = threading.Lock()
        self._local = threading.local()
        self._clients: list[Any] = []
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="engine-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="engine-write")

    @property
    def is_embedded(self) -> bool:
        """Whether the engine is in this process: then it is never merely away."""
        return self._dsn.startswith("chdb:")

    async def read(self, call: Callable[[Any], T]) -> T:
        """Result of `call` with a client of this driver. Raises StoreUnavailable, BlockRefused."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._call, call)

    async def write(self, call: Callable[[Any], T]) -> T:
        """As `read`, one call at a time in the order of the calls."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._call, call)

    async def insert_file(self, table: str, path: str) -> None:
        """Insert an Arrow IPC stream; its fields are columns of the table. As `write`."""
        insert = _insert_local_file if self.is_embedded else _send_file
        await self.write(partial(insert, table=table, path=path))

    def close(self) -> None:
        """Wait for calls under way and disconnect."""
        self._readers.shutdown()
        self._writer.shutdown()
        for client in self._clients:
            client.close()

    def _call(self, call: Callable[[Any], T]) -> T:
        with _translated():
            client = getattr(self._local, "client", None)
            if client is None:
                # One client per thread, so sessions never meet; chDB knows no sessions at all.
                options: dict[str, Any] = {} if self.is_embedded else _SERVER_OPTIONS
                client = clickhouse_connect.get_client(dsn=self._dsn, settings=SETTINGS, **options)
                self._local.client = client
                self._clients.append(client)
            if not self._is_prepared:
                with self._preparing:
                    if not self._is_prepared:
                        self._prepare(client)
                        self._is_prepared = True
            return call(client)


def _insert_local_file(client: Any, *, table: str, path: str) -> None:
    """The engine reads the file itself: nothing of it passes through Python."""
    literal = path.replace("\\", "\\\\").replace("'", "\\'")
    client.command(f"INSERT INTO {table} FROM INFILE '{literal}' FORMAT ArrowStream")


def _send_file(client: Any, *, table: str, path: str) -> None:
    with Path(path).open("rb") as file:
        client.raw_insert(table, insert_block=file, fmt="ArrowStream")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ClickHouseError as error:
        if getattr(error, "code", None) in _CONTENT_CODES:
            raise BlockRefused(str(error)) from error
        raise StoreUnavailable(str(error)) from error
    except OSError as error:
        raise StoreUnavailable(str(error)) from error
