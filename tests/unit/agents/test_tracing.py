"""Runs as traces: ids, projects and examples, without a LangSmith service."""

import json
import uuid
from dataclasses import replace
from typing import Any

import pytest
from tests.waiting import LONGEST_WAIT_S

from runstore.agents.run_config import trace_id_of
from runstore.agents.trace_writer import TraceWriter
from runstore.agents.tracing import Tracing
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_pb2 as runs

from .conftest import Bench


class Traces:
    """The runs that were sent, merged as the store would."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], ingest.RunFields] = {}

    def put(self, operation: ingest.RunOperation) -> None:
        fields = operation.create if operation.HasField("create") else operation.update
        known = self.runs.setdefault((fields.project_name, fields.id), ingest.RunFields())
        known.MergeFrom(fields)

    def root(self, project: str) -> ingest.RunFields:
        """The root of the one trace of a project."""
        [root] = [run for (name, _), run in self.runs.items() if name == project and not run.parent_run_id]
        return root


@pytest.fixture
def traces(bench: Bench) -> Traces:
    kept = Traces()
    bench.surroundings = replace(bench.surroundings, tracing=Tracing(kept.put))
    return kept


async def test_one_trace_for_a_run(bench: Bench, traces: Traces) -> None:
    """Root and trace have the run's id; nodes are children."""
    run_id = str(uuid.uuid4())
    await bench.run("steps", run_id=run_id, input={"n": 1})
    root = traces.root("default")
    assert (root.id, root.trace_id, root.name) == (run_id, run_id, "steps")
    assert root.run_type == runs.RUN_TYPE_CHAIN
    assert json.loads(root.inputs) == {"n": 1}
    assert json.loads(root.outputs)["log"] == ["a", "b", "c"]
    assert root.HasField("end_time")
    metadata: dict[str, Any] = json.loads(root.extra)["metadata"]
    assert (metadata["run_id"], metadata["thread_id"]) == (run_id, bench.thread_id)
    assert (metadata["graph_id"], metadata["run_attempt"]) == ("steps", 1)
    nodes = {run.name: run for run in traces.runs.values() if run.parent_run_id == run_id}
    assert set(nodes) == {"a", "b", "c"}
    assert "graph:step:1" in nodes["a"].tags.values


async def test_errors_are_traced(bench: Bench, traces: Traces) -> None:
    """At the node and at the root."""
    await bench.run("steps", input={"fail": True})
    assert "boom" in traces.root("default").error
    assert "boom" in next(run for run in traces.runs.values() if run.name == "b").error


async def test_project_and_example_of_the_run(bench: Bench, traces: Traces) -> None:
    """Twice: as always, and under other ids where it was asked for, with the example."""
    run_id, example_id = str(uuid.uuid4()), str(uuid.uuid4())
    config = {"configurable": {"__langsmith_project__": "mine", "__langsmith_example_id__": example_id}}
    await bench.run("steps", run_id=run_id, input={"n": 1}, config=config)
    usual, mine = traces.root("default"), traces.root("mine")
    assert (usual.id, usual.reference_example_id) == (run_id, "")
    assert mine.id != run_id
    assert mine.reference_example_id == example_id
    assert json.loads(mine.extra)["metadata"]["run_id"] == run_id
    assert json.loads(mine.outputs) == json.loads(usual.outputs)


async def test_later_attempts_have_traces_of_their_own(bench: Bench, traces: Traces) -> None:
    """Derived from the run's id, so that everybody can tell which."""
    run_id = str(uuid.uuid4())
    await bench.run("steps", run_id=run_id, number=2, input={"n": 1})
    assert traces.root("default").id == str(trace_id_of(run_id, 2)) != run_id


def test_writer_sends_in_batches_and_again() -> None:
    """A store that is away gets everything later, in order; closing waits for it."""
    import grpc

    class Away(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

    calls: list[list[str]] = []

    def write(request: ingest.WriteRunsRequest, _timeout_s: float) -> ingest.WriteRunsResponse:
        calls.append([operation.create.id for operation in request.operations])
        if len(calls) == 1:
            raise Away
        return ingest.WriteRunsResponse()

    writer = TraceWriter(write)
    for n in range(5):
        writer.put(ingest.RunOperation(create=ingest.RunFields(id=str(n))))
    writer.close(LONGEST_WAIT_S)
    assert calls[0] == calls[1]
    assert [run_id for call in calls[1:] for run_id in call] == list("01234")
