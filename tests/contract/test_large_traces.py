"""Traces of 5,000, 25,000 and 100,000 runs: written by stream, listed in pages, their parts merged."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as queries
from runstore.v1 import run_query_service_pb2_grpc as queries_grpc

from .servers import Server

START_S = 1_790_000_000
BATCH = 1_000


@dataclass(frozen=True)
class LargeTrace:
    """A trace of so many runs, each below the one that is a tenth of its number: ten children everywhere."""

    runs: int
    project: str

    def run_id(self, number: int) -> str:
        return str(uuid.UUID(int=(self.runs << 32) + number, version=4))

    def position(self, number: int) -> str:
        """Dotted order; runs start a microsecond apart."""
        at = time.strftime("%Y%m%dT%H%M%S", time.gmtime(START_S))
        path = [*ancestors(number), number]
        return ".".join(f"{at}{each:06d}Z{self.run_id(each)}" for each in path)

    def batches(self) -> Iterator[ingest.StreamRunsRequest]:
        """Creates, and the update that ends each run apart from it."""
        for kind in ("create", "update"):
            for start in range(0, self.runs, BATCH):
                numbers = range(start, min(start + BATCH, self.runs))
                operations = [self.operation(kind, number) for number in numbers]
                yield ingest.StreamRunsRequest(batch_id=f"{kind} {start}", operations=operations)

    def operation(self, kind: str, number: int) -> ingest.RunOperation:
        fields = ingest.RunFields(
            id=self.run_id(number),
            trace_id=self.run_id(0),
            dotted_order=self.position(number),
            project_name=self.project,
        )
        if kind == "create":
            fields.name = f"run {number}"
            fields.run_type = run_pb2.RUN_TYPE_CHAIN
            fields.inputs = b'{"number": %d}' % number
            return ingest.RunOperation(create=fields)
        fields.end_time.CopyFrom(Timestamp(seconds=START_S + 60))
        fields.outputs = b'{"answer": %d}' % number
        return ingest.RunOperation(update=fields)


def ancestors(number: int) -> list[int]:
    """Root first."""
    path = []
    while number:
        number //= 10
        path.append(number)
    return path[::-1]


@pytest.mark.parametrize(
    "runs", [5_000, *(pytest.param(runs, marks=pytest.mark.slow) for runs in (25_000, 100_000))]
)
def test_large_trace_is_listed_whole(server: Server, project: str, runs: int) -> None:
    """Every run exactly once, in order, complete; and so the direct children of its root."""
    trace = LargeTrace(runs, project)
    with grpc.insecure_channel(server.grpc) as channel:
        replies = list(ingest_grpc.RunIngestServiceStub(channel).StreamRuns(trace.batches()))
        assert not any(reply.errors for reply in replies)
        reader = queries_grpc.RunQueryServiceStub(channel)
        request = queries.ListRunsRequest(
            trace_id=trace.run_id(0), page_size=1_000, sort_order=run_pb2.SORT_ORDER_ASC,
            fields=[
                run_pb2.RUN_FIELD_ID, run_pb2.RUN_FIELD_STATUS, run_pb2.RUN_FIELD_OUTPUTS,
                run_pb2.RUN_FIELD_PARENT_RUN_IDS,
            ],
        )  # fmt: skip
        number = 0
        while True:
            page = reader.ListRuns(request)
            for run in page.runs:
                assert (run.id, run.status) == (trace.run_id(number), run_pb2.RUN_STATUS_SUCCESS)
                assert run.outputs == b'{"answer": %d}' % number
                assert run.parent_run_ids == [trace.run_id(each) for each in ancestors(number)]
                number += 1
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert number == runs
        children = reader.ListRuns(queries.ListRunsRequest(parent_run_id=trace.run_id(0), page_size=100)).runs
        assert {run.id for run in children} == {trace.run_id(each) for each in range(1, 10)}
        assert_is_read_at_once(server, trace)


def assert_is_read_at_once(server: Server, trace: LargeTrace) -> None:
    """v2 answers the whole trace without pages; the gateway sends it on part by part, of unknown length."""
    [project] = httpx.get(f"{server.url}/sessions", params={"name": trace.project}).json()
    url = f"{server.url}/api/v2/traces/{trace.run_id(0)}/runs"
    query = {"project_id": project["id"], "selects": ["ID", "INPUTS"]}
    answer = httpx.get(url, params=query, timeout=60)
    assert answer.headers["transfer-encoding"] == "chunked"
    items = answer.json()["items"]
    assert items == [
        {"id": trace.run_id(number), "inputs": {"number": number}} for number in range(trace.runs)
    ]
