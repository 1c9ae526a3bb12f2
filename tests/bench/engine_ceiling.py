"""What the engine does alone: the same blocks into the same tables, in a process with nothing else in it."""

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
from tests.bench.generator import grpc_generator
from tests.bench.workers import now_us

from runstore.domain import dotted_order
from runstore.domain.prices import PriceBook
from runstore.domain.runs import RunKey, RunPatch, RunPlace, RunRow
from runstore.ingest.derive import derive
from runstore.storage.clickhouse import schema
from runstore.storage.clickhouse.blocks import BlockBuilder
from runstore.storage.clickhouse.engine import SETTINGS
from runstore.storage.run_store import Block
from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_pb2

_TENANT_ID = "00000000-0000-0000-0000-000000000000"
_PROJECT_ID = "0190c8a0-1111-7000-8000-000000000001"
_TABLES = ("run_payloads", "runs")


@dataclass(frozen=True, slots=True)
class CeilingJob:
    """Blocks to build and insert."""

    folder: Path
    rows: int
    rows_per_block: int
    seed: int


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Rows a second; one row is one run: its row of `runs` and its row of `run_payloads`."""

    from_file: float
    """`INSERT … FROM INFILE` of the Arrow stream: the engine reads the block itself."""
    from_memory: float
    """The client library's `raw_insert` of the same bytes."""
    two_connections: float
    """As `from_file`, half of the blocks on each of two connections at once."""
    build_us_per_row: float
    """Python's part before the insert: deriving the facts and building the Arrow blocks."""

    @property
    def best(self) -> float:
        """The ceiling: one writer, as the store has one."""
        return max(self.from_file, self.from_memory)


def prepare(job: CeilingJob) -> Callable[[], Ceiling]:
    """Builds the blocks as files; what is returned inserts them."""
    job.folder.mkdir(parents=True, exist_ok=True)
    rows = _Rows(job.seed)
    started_s = time.monotonic()
    count = max(1, job.rows // job.rows_per_block)
    builder = BlockBuilder(job.folder / "blocks")
    blocks = [builder.build(rows.take(job.rows_per_block)) for _ in range(count)]
    build_us = (time.monotonic() - started_s) * 1e6 / (count * job.rows_per_block)
    return lambda: _measure(job, blocks, build_us)


def _measure(job: CeilingJob, blocks: list[Block], build_us: float) -> Ceiling:
    """Each way into a fresh database, so that none pays for another's merges."""
    rows = len(blocks) * job.rows_per_block
    rates = []
    for way in (_insert_file, _insert_memory, None):
        folder = job.folder / "engine"
        clients = [clickhouse_connect.get_client(dsn=f"chdb://{folder}", settings=SETTINGS) for _ in range(2)]
        schema.migrate(clients[0])
        started_s = time.monotonic()
        if way is None:
            _insert_twice(clients, blocks)
        else:
            for block in blocks:
                way(clients[0], block)
        rates.append(rows / (time.monotonic() - started_s))
        for table in _TABLES:
            stored = clients[0].query(f"SELECT count() FROM {table}").result_rows[0][0]
            assert stored == rows, f"{table} holds {stored} of {rows} rows"
        for table in ("runs", "run_payloads", "run_keys", "trace_keys", "model_prices"):
            clients[0].command(f"TRUNCATE TABLE {table}")
        for client in clients:
            client.close()
    shutil.rmtree(job.folder, ignore_errors=True)
    return Ceiling(rates[0], rates[1], rates[2], build_us)


def _insert_twice(clients: list[Any], blocks: list[Block]) -> None:
    def insert(client: Any, share: list[Block]) -> None:
        for block in share:
            _insert_file(client, block)

    threads = [
        threading.Thread(target=insert, args=(client, blocks[number::2]))
        for number, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _insert_file(client: Any, block: Block) -> None:
    for table, path in block.files:
        client.command(f"INSERT INTO {table} FROM INFILE '{path}' FORMAT ArrowStream")


def _insert_memory(client: Any, block: Block) -> None:
    for table, path in block.files:
        client.raw_insert(table, insert_block=Path(path).read_bytes(), fmt="ArrowStream")


# -- blocks ------------------------------------------------------------------------------------------


class _Rows:
    """Rows as the flusher makes them of complete runs."""

    def __init__(self, seed: int) -> None:
        self._generator = grpc_generator(seed, _PROJECT_ID)
        self._prices = PriceBook()
        self._sequence = now_us() << 10

    def take(self, count: int) -> list[RunRow]:
        rows: list[RunRow] = []
        while len(rows) < count:
            stencils, values = self._generator.trace(now_us())
            message = pb.StreamRunsRequest.FromString(stencils.whole.fill(values))
            rows += [self._row(operation.create) for operation in message.operations]
        return rows[:count]

    def _row(self, fields: pb.RunFields) -> RunRow:
        self._sequence += 1
        position = dotted_order.parse(fields.dotted_order)
        patch = RunPatch(
            tenant_id=_TENANT_ID,
            run_id=fields.id,
            sequence=self._sequence,
            is_create=True,
            project_id=_PROJECT_ID,
            trace_id=fields.trace_id,
            dotted_order=fields.dotted_order,
            name=fields.name,
            run_type=run_pb2.RunType.Name(fields.run_type).removeprefix("RUN_TYPE_").lower(),
            start_time_us=position.start_time_us,
            end_time_us=fields.end_time.ToMicroseconds(),
            inputs=fields.inputs,
            outputs=fields.outputs if fields.HasField("outputs") else None,
            error=fields.error if fields.HasField("error") else None,
            extra=fields.extra,
            manifest=fields.manifest if fields.HasField("manifest") else None,
            tags=tuple(fields.tags.values),
        )
        key = RunKey(_PROJECT_ID, position.start_time_us, fields.id)
        place = RunPlace(key, position.trace_id, fields.dotted_order, position.parent_run_ids)
        return RunRow(patch, place, derive(patch, position.start_time_us, self._prices))
