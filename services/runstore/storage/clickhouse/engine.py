"""Connections to the engine, embedded or a server, and its errors in the words of the protocol."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import clickhouse_connect
import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from runstore.domain.principals import current_tenant_id
from runstore.runtime import spans
from runstore.storage.clickhouse.cluster import SETTINGS as CLUSTER_SETTINGS
from runstore.storage.clickhouse.cluster import ClusterClient, ClusterDDL
from runstore.storage.clickhouse.fair_threads import FairThreads
from runstore.storage.clickhouse.hosts import Host, Hosts, hosts_of
from runstore.storage.clickhouse.query_watch import Statements, current_statements
from runstore.storage.clickhouse.quoting import quoted
from runstore.storage.clickhouse.server_client import SETTINGS as SERVER_SETTINGS
from runstore.storage.clickhouse.server_client import ServerClient
from runstore.storage.metrics import READ, WRITE, StorageMetrics
from runstore.storage.run_store import BlockRefused, QueryTooLarge, QueryTooLong, StoreUnavailable

logger = structlog.get_logger()

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

_TIMEOUT_EXCEEDED = 159
_MEMORY_LIMIT_EXCEEDED = 241
_QUERY_WAS_CANCELLED = 394
# The query's own limit, which it would meet again; the engine's as a whole is a matter of the moment.
_OWN_MEMORY_LIMIT = "Query memory limit exceeded"

SETTINGS = {
    # Start times may lie in many months at once; a client's old data is no reason to refuse a block.
    "max_partitions_per_insert_block": 0,
    "max_insert_threads": 1,
    # Readers merge partial rows; merging those of a block while it is inserted costs a fifth of the insert.
    "optimize_on_insert": 0,
}
"""Of every connection."""
_EMBEDDED_SETTINGS = {
    **SETTINGS,
    # No statement has joins that statistics could put in order, and each would pay a millisecond for them.
    "use_statistics": 0,
    # Asked before rows are read, an index of words is scanned once for a part, and what it says is cached.
    "use_skip_indexes_on_data_read": 0,
}


_NO_LIMITS = {"max_execution_time": 0, "max_memory_usage": 0}
_KILL_PAUSE_S = 0.05

_BACKGROUND = "background_processing_pool"
_EMBEDDED_OPTIONS = {
    "chdb_options": {
        # Where `BACKUP` and `RESTORE` may go: wherever this process may.
        "backups.allowed_path": "/",
        # A table looks for its next part to merge or mutate so long after the last one. By default that is up
        # to a second, at random, lest thousands of tables look at once; here deletions would just wait.
        f"{_BACKGROUND}_task_sleep_seconds_when_no_work_random_part": "0",
        f"{_BACKGROUND}_thread_sleep_seconds_if_nothing_to_do": "0.01",
        f"{_BACKGROUND}_task_sleep_seconds_when_no_work_multiplier": "1.5",
    },
}
_SERVER_OPTIONS = {
    "autogenerate_session_id": False,
    "connect_timeout": 5,
    # A server that hangs is retried like one that is away; no insert or list takes this long.
    "send_receive_timeout": 60,
}


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """What one statement that answers a question may take."""

    max_seconds: float = 30.0
    max_memory_bytes: int = 1024 * 1024 * 1024


class Engine:
    """Runs calls on pooled clients, off the event loop: several readers and one writer at a time."""

    def __init__(
        self,
        dsn: str,
        *,
        limits: ReadLimits,
        readers: int = 4,
        cluster: str = "",
        prepare: Callable[[Any], None] = lambda _client: None,
        metrics: StorageMetrics | None = None,
    ) -> None:
        """`dsn` is `chdb://…` or `http(s)://…`, also of several hosts (`hosts_of`). Nothing is opened yet.

        `cluster`: its name, when the hosts are nodes of one and the tables are to be on all of them.
        `prepare` is called with a client before the first call that reaches the engine, and again before the
        next one when it has failed.
        """
        hosts = hosts_of(dsn)
        self._hosts = Hosts(hosts)
        self._options: dict[str, Any] = _EMBEDDED_OPTIONS
        self.is_embedded = dsn.startswith("chdb:")
        """Whether the engine is in this process: then it is never merely away."""
        if not self.is_embedded:
            # Another host is a better answer to a failure than the same one again.
            self._options = {**_SERVER_OPTIONS, **({"query_retries": 0} if len(hosts) > 1 else {})}
        self.cluster = cluster
        """Name of the cluster that the tables are on; empty for one server."""
        self._ddl = ClusterDDL(cluster) if cluster else None
        self._metrics = metrics or StorageMetrics()
        self._prepare = prepare
        self._is_prepared = False
        self._preparing = threading.Lock()
        self._local = threading.local()
        self._clients: list[Any] = []
        self._limits = {
            "max_execution_time": limits.max_seconds,
            "max_memory_usage": limits.max_memory_bytes,
        }
        self._readers = FairThreads(readers, name="engine-read")
        self._stoppers = ThreadPoolExecutor(readers, thread_name_prefix="engine-stop")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="engine-write")

    async def read(self, call: Callable[[Any], T], *, is_limited: bool = True) -> T:
        """Result of `call` with a client of this driver, whose statements are held to the limits.

        Readers are shared fairly by the tenants that call (`current_tenant_id`). Cancelled, it stops what the
        engine does for it, so that the next reader need not wait.
        Raises QueryTooLong, QueryTooLarge, StoreUnavailable.
        """
        # By this name statements are found in `system.processes`; chDB chooses their ids itself.
        name = uuid4().hex
        settings = {"log_comment": name, **(self._limits if is_limited else _NO_LIMITS)}
        with spans.inner("engine read") as span:
            run = self._timed(READ, call, settings, span)
            running = self._readers.submit(current_tenant_id.get(), run)
            try:
                return await asyncio.wrap_future(running)
            except asyncio.CancelledError:
                if not running.done() and not running.cancel():
                    self._stoppers.submit(self._stop, name, running)
                raise

    async def write(self, call: Callable[[Any], T]) -> T:
        """Result of `call`, one at a time in the order given. Raises StoreUnavailable, BlockRefused."""
        with spans.inner("engine write") as span:
            run = self._timed(WRITE, call, {}, span)
            return await asyncio.get_running_loop().run_in_executor(self._writer, run)

    async def probe(self, call: Callable[[Any], T]) -> T:
        """As `write`, on an engine that is not prepared: `call` changes nothing."""
        run = partial(self._call, call, prepare=False)
        return await asyncio.get_running_loop().run_in_executor(self._writer, run)

    async def insert_file(self, table: str, path: str) -> None:
        """Insert an Arrow IPC stream; its fields are columns of the table. As `write`."""
        insert = _insert_local_file if self.is_embedded else _send_file
        await self.write(partial(insert, table=table, path=path))

    def close(self) -> None:
        """Wait for calls under way and disconnect."""
        self._readers.shutdown()
        self._stoppers.shutdown()
        self._writer.shutdown()
        for client in self._clients:
            client.close()

    def _timed(
        self, access: str, call: Callable[[Any], T], settings: Mapping[str, Any], span: spans.Span
    ) -> Callable[[], T]:
        """What a thread is to do, told to those who want to know how long it waits and takes."""
        asked_s = time.perf_counter()
        statements: Statements | None = current_statements.get()

        def run() -> T:
            started_s = time.perf_counter()
            waited_s = started_s - asked_s
            span.set({"runstore.waited_ms": round(waited_s * 1e3, 3)})
            try:
                return self._call(call, settings)
            finally:
                ran_s = time.perf_counter() - started_s
                self._metrics.ran(access, waited_s, ran_s)
                if statements is not None:
                    statements.append((waited_s, ran_s))

        return run

    def _stop(self, name: str, running: Future[Any]) -> None:
        """Kill statements of this name until their reader is free: the next one may just be on its way."""
        # The first statement of the next reader, which sets its own name, still has this one.
        others = "query_kind != 'Set'"
        statement = f"KILL QUERY WHERE Settings['log_comment'] = {{name:String}} AND {others} ASYNC"
        while not running.done():
            with suppress(StoreUnavailable):
                self._call(lambda client: client.command(statement, parameters={"name": name}))
            wait([running], timeout=_KILL_PAUSE_S)

    def _call(
        self, call: Callable[[Any], T], settings: Mapping[str, Any] | None = None, *, prepare: bool = True
    ) -> T:
        """Of the first host that is there. What was begun on one that failed is done again on the next, which
        is why every call can be repeated."""
        failure = StoreUnavailable("there is no host")
        for host in self._hosts.in_order():
            try:
                result = self._call_at(host, call, settings or {}, prepare=prepare)
            except _Cancelled:
                raise
            except StoreUnavailable as error:
                failure = error
                if self._hosts.failed(host) and not self.is_embedded:
                    logger.warning("engine_host_away", host=host.name)
            except Exception:
                self._hosts.answered(host)
                raise
            else:
                self._hosts.answered(host)
                return result
        raise failure

    def _call_at(
        self, host: Host, call: Callable[[Any], T], settings: Mapping[str, Any], *, prepare: bool
    ) -> T:
        with _translated():
            client = self._client(host)
            if prepare and not self._is_prepared:
                with self._preparing:
                    if not self._is_prepared:
                        self._prepare(client)
                        self._is_prepared = True
            for name, value in settings.items():
                client.set_client_setting(name, value)
            return call(client)

    def _client(self, host: Host) -> Any:
        """One per thread and host, so sessions never meet; chDB knows no sessions at all."""
        clients: dict[str, Any] = self._local.__dict__.setdefault("clients", {})
        if (client := clients.get(host.name)) is None:
            settings: Mapping[str, Any] = _EMBEDDED_SETTINGS
            if not self.is_embedded:
                settings = {**SETTINGS, **SERVER_SETTINGS}
            if self._ddl is not None:
                settings = {**settings, **CLUSTER_SETTINGS}
            client = clickhouse_connect.get_client(
                dsn=host.dsn, settings={**settings, **host.settings}, **host.options, **self._options
            )
            self._clients.append(client)
            if not self.is_embedded:
                client = ServerClient(client)
            if self._ddl is not None:
                client = ClusterClient(client, self._ddl)
            clients[host.name] = client
        return client


def _insert_local_file(client: Any, *, table: str, path: str) -> None:
    """The engine reads the file itself: nothing of it passes through Python."""
    client.command(f"INSERT INTO {table} FROM INFILE {quoted(path)} FORMAT ArrowStream")


def _send_file(client: Any, *, table: str, path: str) -> None:
    with Path(path).open("rb") as file:
        client.raw_insert(table, insert_block=file, fmt="ArrowStream")


class _Cancelled(StoreUnavailable):
    """Somebody has stopped the statement; no other host should take it up."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ClickHouseError as error:
        code = getattr(error, "code", None)
        if code in _CONTENT_CODES:
            raise BlockRefused(str(error)) from error
        if code == _TIMEOUT_EXCEEDED:
            raise QueryTooLong(str(error)) from error
        if code == _MEMORY_LIMIT_EXCEEDED and _OWN_MEMORY_LIMIT in str(error):
            raise QueryTooLarge(str(error)) from error
        if code == _QUERY_WAS_CANCELLED:
            raise _Cancelled(str(error)) from error
        raise StoreUnavailable(str(error)) from error
    except OSError as error:
        raise StoreUnavailable(str(error)) from error
