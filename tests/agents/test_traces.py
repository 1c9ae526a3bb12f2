"""Runs of graphs and their traces: each knows the other's id (contract agents, section 4, H12)."""

import uuid
from typing import Any

import langsmith
import pytest
from langgraph_sdk.client import LangGraphClient
from langsmith.schemas import Run
from langsmith.utils import LangSmithNotFoundError
from tests.agents.steps import until
from tests.contract.servers import Server

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")


async def traced(traces: langsmith.Client, run_id: str) -> Run:
    """The root of a trace, once it has arrived whole."""

    async def root() -> Any:
        try:
            found = traces.read_run(run_id)
        except LangSmithNotFoundError:
            return None
        return found if found.end_time is not None else None

    found: Run = await until(root, "the trace is stored")
    return found


async def test_run_and_trace_share_their_id(client: LangGraphClient, server: Server, thread: str) -> None:
    """In the default project, with the nodes below it; the error of a node is the trace's, too."""
    traces = langsmith.Client(server.url, api_key="any")
    told: list[Any] = []
    await client.runs.wait(thread, "steps", input={"n": 1}, on_run_created=told.append)
    run_id = told[0]["run_id"]
    root = await traced(traces, run_id)
    assert (root.name, str(root.trace_id), root.status) == ("steps", run_id, "success")
    assert root.metadata["thread_id"] == thread
    assert root.metadata["graph_id"] == "steps"
    nodes = [run.name for run in traces.list_runs(trace_id=run_id) if run.parent_run_id == root.id]
    assert {"a", "b", "c"} <= set(nodes)
    run: Any = await client.runs.get(thread, run_id)
    assert (run["trace_id"], run["langsmith_session_name"]) == (run_id, None)

    await client.runs.wait(
        thread, "steps", input={"fail": True}, raise_error=False, on_run_created=told.append
    )
    failed = await traced(traces, told[1]["run_id"])
    assert "boom" in (failed.error or "")


async def test_trace_in_a_project_of_ones_choice(client: LangGraphClient, server: Server) -> None:
    """A second one, of another id, which names the example; the run names the project."""
    traces = langsmith.Client(server.url, api_key="any")
    project, example_id = f"agents-{uuid.uuid4().hex}", str(uuid.uuid4())
    told: list[Any] = []
    await client.runs.wait(
        None,
        "steps",
        input={"n": 1},
        langsmith_tracing={"project_name": project, "example_id": example_id},
        on_run_created=told.append,
    )
    own = await traced(traces, told[0]["run_id"])
    [listed] = traces.list_runs(project_name=project, is_root=True)
    chosen = traces.read_run(listed.id)
    assert chosen.id != own.id
    assert chosen.metadata["run_id"] == told[0]["run_id"]
    assert (str(chosen.reference_example_id), own.reference_example_id) == (example_id, None)
