"""`client.runs.query` and `client.runs.retrieve`, the generated part of the newest SDK, over `/api/v2`."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import httpx
import pytest
from langsmith import AsyncClient, Client
from langsmith._exceptions import BadRequestError, NotFoundError, UnprocessableEntityError
from langsmith.types.run_select_field import RunSelectField

from .servers import Server
from .wire import dotted_order

SELECTS: list[RunSelectField] = list(get_args(RunSelectField))
STARTED = datetime.now(UTC).replace(microsecond=123456) - timedelta(hours=2)
ENDED = STARTED + timedelta(seconds=1.5)
EVENTS = [{"name": "new_token", "time": (STARTED + timedelta(seconds=1)).isoformat()}]
USAGE = {
    "input_tokens": 10,
    "output_tokens": 5,
    "total_tokens": 15,
    "input_token_details": {"cache_read": 4},
    "output_token_details": {"reasoning": 3},
    "input_cost": 0.001,
    "output_cost": 0.002,
    "total_cost": 0.003,
    "input_cost_details": {"cache_read": 0.0001},
    "output_cost_details": {"reasoning": 0.0002},
}


class Trace:
    """A root and its failed child in a project of their own."""

    def __init__(self, server: Server) -> None:
        client = Client(server.url, api_key="any")
        self.root, self.child, self.example = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
        self.root_order = dotted_order(self.root, at=STARTED)
        self.child_order = dotted_order(self.root, self.child, at=STARTED)
        project = f"v2-{uuid.uuid4().hex}"
        client.create_run(
            "root",
            {"question": "?"},
            "llm",
            id=self.root,
            trace_id=self.root,
            dotted_order=self.root_order,
            start_time=STARTED,
            end_time=ENDED,
            outputs={"answer": "!", "usage_metadata": USAGE},
            events=EVENTS,
            tags=["one", "two"],
            extra={"metadata": {"thread_id": "t-1", "env": "prod"}},
            serialized={"lc": 1, "type": "constructor"},
            reference_example_id=self.example,
            attachments={"file": ("text/plain", b"content")},
            project_name=project,
        )
        client.create_run(
            "child",
            {},
            "tool",
            id=self.child,
            trace_id=self.root,
            parent_run_id=self.root,
            dotted_order=self.child_order,
            start_time=STARTED,
            error="x" * 300,
            project_name=project,
        )
        client.flush()
        self.project_id = str(client.read_project(project_name=project).id)
        client.close()

    def expected(self) -> dict[str, Any]:
        """What the root says under each select that has a value."""
        return {
            "id": str(self.root),
            "name": "root",
            "run_type": "LLM",
            "status": "SUCCESS",
            "start_time": STARTED,
            "end_time": ENDED,
            "latency_seconds": 1.5,
            "first_token_time": STARTED + timedelta(seconds=1),
            "error": None,
            "error_preview": None,
            "inputs": {"question": "?"},
            "outputs": {"answer": "!", "usage_metadata": USAGE},
            "manifest": {"lc": 1, "type": "constructor"},
            "parent_run_ids": [],
            "project_id": self.project_id,
            "trace_id": str(self.root),
            "thread_id": "t-1",
            "dotted_order": self.root_order,
            "is_root": True,
            "reference_example_id": str(self.example),
            "total_tokens": 15,
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_cost": 0.003,
            "prompt_cost": 0.001,
            "completion_cost": 0.002,
            "tags": ["one", "two"],
        }


@pytest.fixture(scope="module")
def trace(server: Server) -> Trace:
    """Written once; the tests only read it."""
    return Trace(server)


@pytest.fixture(params=["Client", "AsyncClient"])
async def runs(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Any]:
    """`.runs` of both clients: asynchronous on either."""
    if request.param == "Client":
        client = Client(server.url, api_key="any")
        yield client.runs
        client.close()
    else:
        async with AsyncClient(server.url, api_key="any") as async_client:
            yield async_client.runs


async def test_without_selects_the_id_alone(runs: Any, trace: Trace) -> None:
    """`retrieve` and `query` answer the id and no other field."""
    run = await runs.retrieve(str(trace.root), project_id=trace.project_id)
    assert run.to_dict() == {"id": str(trace.root)}
    listed = [run async for run in runs.query(project_ids=[trace.project_id])]
    assert {run.id for run in listed} == {str(trace.root), str(trace.child)}
    assert all(run.name is None and run.inputs is None for run in listed)


@pytest.mark.parametrize("select", SELECTS)
async def test_each_select_answers_its_own_key(server: Server, trace: Trace, select: RunSelectField) -> None:
    """Every select, alone: `retrieve` and `query` answer that key with the same right value, and no other."""
    key = select.lower()
    async with AsyncClient(server.url, api_key="any") as client:
        run = await client.runs.retrieve(str(trace.root), project_id=trace.project_id, selects=[select])
        [listed] = [
            r
            async for r in client.runs.query(
                project_ids=[trace.project_id], ids=[str(trace.root)], selects=[select]
            )
        ]
    raw = run.to_dict()
    assert set(raw) <= {key}
    if key != "attachments":  # Each answer has a token of its own.
        assert {name: value for name, value in listed.to_dict().items() if name != "query_metadata"} == raw
    expected = trace.expected()
    if key in expected:
        assert getattr(run, key) == expected[key]


async def test_all_selects_at_once(runs: Any, trace: Trace) -> None:
    """Everything that can be selected comes in one answer."""
    run = await runs.retrieve(str(trace.root), project_id=trace.project_id, selects=SELECTS)
    for key, value in trace.expected().items():
        assert getattr(run, key) == value, key
    assert run.prompt_token_details.raw == {"cache_read": 4}
    assert run.completion_token_details.raw == {"reasoning": 3}
    assert run.prompt_cost_details.raw == {"cache_read": 0.0001}
    assert run.completion_cost_details.raw == {"reasoning": 0.0002}
    assert run.metadata["env"] == "prod"
    assert run.extra["metadata"]["env"] == "prod"
    assert run.events[0].name == "new_token"
    assert set(run.attachments) == {"file"}
    assert "?" in run.inputs_preview
    assert "!" in run.outputs_preview


async def test_attachment_address_is_absolute(runs: Any, trace: Trace) -> None:
    """v2 answers addresses that can be fetched as they are, without credentials."""
    run = await runs.retrieve(str(trace.root), project_id=trace.project_id, selects=["ATTACHMENTS"])
    async with httpx.AsyncClient() as http:
        answer = await http.get(run.attachments["file"])
    assert (answer.status_code, answer.content) == (200, b"content")


async def test_child_knows_its_ancestors(runs: Any, trace: Trace) -> None:
    """A child's parents, a run that has not ended, and a long error with its preview."""
    run = await runs.retrieve(str(trace.child), project_id=trace.project_id, selects=SELECTS)
    assert run.parent_run_ids == [str(trace.root)]
    assert (run.is_root, run.status, run.end_time, run.latency_seconds) == (False, "ERROR", None, None)
    assert run.error == "x" * 300
    assert run.error_preview is not None
    assert len(run.error_preview) <= 250
    assert run.dotted_order == trace.child_order


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"is_root": True}, ["root"]),
        ({"is_root": False}, ["child"]),
        ({"has_error": True}, ["child"]),
        ({"has_error": False}, ["root"]),
        ({"run_type": "LLM"}, ["root"]),
        ({"trace_id": "root"}, ["child", "root"]),
        ({"ids": ["child"]}, ["child"]),
        ({"reference_examples": "example"}, ["root"]),
        ({"filter": 'eq(name, "child")'}, ["child"]),
        ({"filter": 'search(error, "xxxx")', "trace_filter": 'has(tags, "two")'}, ["child"]),
        ({"tree_filter": 'and(eq(name, "child"), eq(status, "error"))'}, ["child", "root"]),
        ({"trace_filter": 'eq(output_value, "!")', "tree_filter": 'eq(name, "nobody")'}, []),
        ({"min_start_time": STARTED, "max_start_time": STARTED}, ["child", "root"]),
        ({"min_start_time": STARTED + timedelta(microseconds=1)}, []),
        ({"max_start_time": STARTED - timedelta(microseconds=1)}, []),
    ],
)
async def test_query_conditions(
    server: Server, trace: Trace, condition: dict[str, Any], expected: list[str]
) -> None:
    """Each condition of `runs.query` leaves the runs that it describes."""
    named = {
        "trace_id": str(trace.root),
        "ids": [str(trace.child)],
        "reference_examples": [str(trace.example)],
    }
    given = {name: named.get(name, value) for name, value in condition.items()}
    async with AsyncClient(server.url, api_key="any") as client:
        listed = client.runs.query(project_ids=[trace.project_id], selects=["NAME"], **given)
        assert sorted([run.name or "" async for run in listed]) == expected


async def test_default_window_is_the_last_day(runs: Any, client: Client, project: str) -> None:
    """Without `min_start_time` a run of last week is not listed; with it, it is."""
    run_id, at = uuid.uuid4(), datetime.now(UTC) - timedelta(days=7)
    client.create_run("old", {}, "tool", id=run_id, start_time=at, project_name=project)
    project_id = str(client.read_project(project_name=project).id)
    assert [run async for run in runs.query(project_ids=[project_id])] == []
    found = [run.id async for run in runs.query(project_ids=[project_id], min_start_time=at)]
    assert found == [str(run_id)]


@pytest.mark.parametrize("page_size", [1, 2, 6, 7, 8, 1000])
async def test_pages_of_any_size_hold_each_run_once(
    server: Server, client: Client, project: str, page_size: int
) -> None:
    """Seven runs that started together come once each, in the same order whatever the page size."""
    ids = [uuid.uuid4() for _ in range(7)]
    client.multipart_ingest(
        create=[
            {
                "id": i,
                "trace_id": i,
                "dotted_order": dotted_order(i, at=STARTED),
                "name": "n",
                "run_type": "tool",
                "start_time": STARTED.isoformat(),
                "session_name": project,
            }
            for i in ids
        ]
    )
    project_id = str(client.read_project(project_name=project).id)
    async with AsyncClient(server.url, api_key="any") as async_client:
        walked = [
            run.id async for run in async_client.runs.query(project_ids=[project_id], page_size=page_size)
        ]
        again = [run.id async for run in async_client.runs.query(project_ids=[project_id])]
    assert sorted(map(str, walked)) == sorted(map(str, ids))
    assert walked == again


async def test_refusals_are_the_sdks_exceptions(runs: Any, trace: Trace) -> None:
    """Bad requests are refused once, with the reason in the problem's `detail`."""
    with pytest.raises(NotFoundError):
        await runs.retrieve(str(uuid.uuid4()), project_id=trace.project_id)
    with pytest.raises(NotFoundError):
        await runs.retrieve(str(trace.root), project_id=str(uuid.uuid4()))
    unknown = str(uuid.uuid4())
    with pytest.raises(NotFoundError, match=unknown):
        [run async for run in runs.query(project_ids=[trace.project_id, unknown], ids=[unknown])]
    with pytest.raises(UnprocessableEntityError, match="run_id"):
        await runs.retrieve("not-a-uuid", project_id=trace.project_id)
    with pytest.raises(BadRequestError, match="page_size"):
        [run async for run in runs.query(project_ids=[trace.project_id], page_size=1001)]
    with pytest.raises(BadRequestError, match="selects"):
        [run async for run in runs.query(project_ids=[trace.project_id], selects=["NO_SUCH"])]
    with pytest.raises(BadRequestError, match="project_ids"):
        [run async for run in runs.query()]
    for name in ("filter", "trace_filter", "tree_filter"):
        with pytest.raises(BadRequestError, match=f"Invalid {name}"):
            [run async for run in runs.query(project_ids=[trace.project_id], **{name: "eq("})]
