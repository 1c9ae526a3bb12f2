"""What the engine alone takes for the statements behind each question, and what is stored.

Runs in a process of its own on the folder of a stopped server: the storage layer asks the question, and
the time inside the database driver is what counts.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import clickhouse_connect
from tests.bench.reads import Question, Request

from runstore.domain.runs import RunField, RunQuery
from runstore.rpc.mapping import run_fields, run_query
from runstore.storage.clickhouse.run_store import ClickHouseRunStore, open_run_store
from runstore.v1 import run_query_service_pb2 as pb

_OF_RUNS = (pb.ListRunsRequest, pb.GetRunRequest)
_LONGEST_S = 15.0
_WARM_UP_CALLS = 10  # Four reader threads, each with a client of its own.


@dataclass(frozen=True, slots=True)
class ReadsJob:
    """What to ask of the tables below `engine_dir`."""

    engine_dir: Path
    questions: list[Question]
    calls: int


@dataclass(slots=True)
class EngineFacts:
    """What the engine says."""

    times_ms: dict[str, list[float]] = field(default_factory=dict)
    """Time in the driver for each question, for each call."""
    stored_bytes: int = 0
    """Of the parts that count: those a merge has replaced are left out."""
    runs: int = 0
    rows: int = 0
    """Partial rows in `runs`."""


def prepare(job: ReadsJob) -> Callable[[], EngineFacts]:
    """Nothing to prepare but the imports."""
    return lambda: asyncio.run(_measure(job))


async def _measure(job: ReadsJob) -> EngineFacts:
    spent = _count_time_in_queries()
    facts = EngineFacts()
    async with open_run_store(f"chdb://{job.engine_dir}") as store:
        client = clickhouse_connect.get_client(dsn=f"chdb://{job.engine_dir}")
        statement = (
            "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()"
        )
        facts.stored_bytes = int(client.query(statement).result_rows[0][0])
        facts.rows, facts.runs = client.query("SELECT count(), uniqExact(run_id) FROM runs").result_rows[0]
        tenant_id = str(client.query("SELECT any(tenant_id) FROM runs").result_rows[0][0])
        for question in job.questions:
            if not all(isinstance(request, _OF_RUNS) for request in question.requests):
                continue
            facts.times_ms[question.name] = await _times(store, question, tenant_id, job.calls, spent)
        client.close()
    return facts


async def _times(
    store: ClickHouseRunStore, question: Question, tenant_id: str, calls: int, spent: list[float]
) -> list[float]:
    queries = [_query(request, tenant_id) for request in question.requests]
    times: list[float] = []
    enough_s = time.monotonic() + _LONGEST_S
    for number in range(calls + _WARM_UP_CALLS):
        if len(times) > 2 * _WARM_UP_CALLS and time.monotonic() > enough_s:
            break
        spent[0] = 0.0
        await store.list_runs(queries[number % len(queries)])
        times.append(spent[0] * 1e3)
    return times[_WARM_UP_CALLS:]


def _query(request: Request, tenant_id: str) -> RunQuery:
    assert isinstance(request, _OF_RUNS)
    if isinstance(request, pb.GetRunRequest):
        fields = run_fields(request.fields) | {RunField.ID}
        return RunQuery(tenant_id=tenant_id, fields=fields, run_ids=(request.id,), limit=1)
    return replace(run_query(request, tenant_id), limit=request.page_size)


def _count_time_in_queries() -> list[float]:
    """Makes every client of this process add its queries' seconds to the number returned."""
    spent = [0.0]
    module: Any = clickhouse_connect
    connect = module.get_client

    def get_client(*args: Any, **kwargs: Any) -> Any:
        client = connect(*args, **kwargs)
        query = client.query

        def timed(*query_args: Any, **query_kwargs: Any) -> Any:
            started_s = time.perf_counter()
            try:
                return query(*query_args, **query_kwargs)
            finally:
                spent[0] += time.perf_counter() - started_s

        client.query = timed
        return client

    module.get_client = get_client
    return spent
