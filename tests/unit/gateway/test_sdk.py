"""The published SDK, unmodified, against the gateway: what it sends is understood."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from langsmith import AsyncClient, Client, traceable, tracing_context
from langsmith.utils import LangSmithConflictError, LangSmithError

from runstore.domain.errors import ErrorReason
from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_query_service_pb2 as queries

from .conftest import FakeStore, Refuse
from .test_reads import PROJECT_ID, full_run
from .test_sessions import project
from .wire import OTHER_ID, RUN_ID, dotted_order

UNKNOWN_TYPE: Any = "agent"


@pytest.fixture(params=["", "/api", "/api/v1"])
def api_url(request: pytest.FixtureRequest, url: str) -> str:
    """All three forms of LANGSMITH_ENDPOINT."""
    return url + str(request.param)


@pytest.fixture
def client(api_url: str, store: FakeStore) -> Iterator[Client]:
    """A client that batches."""
    made = Client(api_url=api_url, api_key="key")
    yield made
    made.cleanup()


def merged(store: FakeStore) -> dict[str, ingest.RunFields]:
    """Everything that was written, merged by run."""
    runs: dict[str, ingest.RunFields] = {}
    for operation in store.operations:
        fields = getattr(operation, operation.WhichOneof("operation") or "create")
        runs.setdefault(fields.id, ingest.RunFields()).MergeFrom(fields)
    return runs


@pytest.mark.parametrize("compressed", [True, False])
def test_traceable_tree(api_url: str, store: FakeStore, compressed: bool) -> None:
    """A tree with an error and an attachment arrives complete, zstd or plain, without one refusal."""
    failures: list[Exception] = []
    info = httpx.get(f"{api_url}/info").json()
    info["instance_flags"]["zstd_compression_enabled"] = compressed
    client = Client(api_url=api_url, api_key="key", info=info, tracing_error_callback=failures.append)

    @traceable(run_type="tool")
    def leaf(x: int) -> int:
        raise ValueError("leaf failed")

    @traceable(run_type="llm", tags=["t"], metadata={"k": "v"})
    def middle(x: int) -> int:
        try:
            return leaf(x)
        except ValueError:
            return 0

    @traceable
    def root(x: int) -> int:
        return middle(x)

    with tracing_context(enabled=True, client=client, project_name="p"):
        root(1)
    trace = uuid.uuid4()
    client.create_run(
        "with file",
        {"a": 1},
        "chain",
        id=trace,
        trace_id=trace,
        dotted_order=dotted_order(str(trace)),
        attachments={"file": ("text/plain", b"content")},
    )
    client.flush()
    client.cleanup()
    runs = {fields.name: fields for fields in merged(store).values()}
    assert set(runs) == {"root", "middle", "leaf", "with file"}
    assert runs["root"].inputs == b'{"x":1}'
    assert runs["root"].HasField("end_time")
    assert runs["leaf"].error.startswith("ValueError('leaf failed')")
    assert runs["leaf"].trace_id == runs["root"].id
    assert set(runs["middle"].tags.values) == {"t"}
    assert {fields.project_name for name, fields in runs.items() if name != "with file"} == {"p"}
    assert runs["with file"].attachments[0].content == b"content"
    assert failures == []


def test_runs_one_by_one(client: Client, store: FakeStore) -> None:
    """Without trace ids the SDK sends single runs and raises refusals."""
    client.create_run("n", {"a": 1}, "llm", id=RUN_ID, project_name="p")
    client.update_run(RUN_ID, outputs={"b": 2}, error="boom", end_time=datetime(2024, 4, 29, tzinfo=UTC))
    create, update = store.operations
    assert create.create.inputs == b'{"a":1}'
    assert (update.update.error, update.update.outputs) == ("boom", b'{"b":2}')
    with pytest.raises(LangSmithError, match="run_type"):
        client.create_run("n", {}, UNKNOWN_TYPE, id=RUN_ID)


def test_refused_trace_is_sent_once(api_url: str, store: FakeStore) -> None:
    """A wrong run type is reported once and never retried."""
    failures: list[Exception] = []
    client = Client(api_url=api_url, api_key="key", tracing_error_callback=failures.append)
    client.create_run("n", {}, UNKNOWN_TYPE, id=RUN_ID, trace_id=RUN_ID, dotted_order=dotted_order(RUN_ID))
    client.flush()
    client.cleanup()
    assert len(failures) == 1
    assert "run_type: must be one of" in str(failures[0])


def test_async_client(api_url: str, store: FakeStore) -> None:
    """Creates, updates and reads; refusals raise."""
    store.answers["GetRun"] = queries.GetRunResponse(run=full_run())
    store.answers["ListRuns"] = queries.ListRunsResponse(runs=[full_run()])

    async def use() -> tuple[Any, list[Any]]:
        async with AsyncClient(api_url=api_url, api_key="key") as client:
            await client.create_run("n", {"a": 1}, "llm", id=RUN_ID, start_time=datetime.now(UTC))
            await client.update_run(RUN_ID, outputs={"b": 2}, end_time=datetime.now(UTC))
            read = await client.read_run(RUN_ID)
            return read, [run async for run in client.list_runs(project_id=PROJECT_ID)]

    read, listed = asyncio.run(use())
    assert (read.name, listed[0].total_tokens) == ("n", 7)
    assert [operation.WhichOneof("operation") for operation in store.operations] == ["create", "update"]


def test_list_runs_walks_the_pages(client: Client, store: FakeStore) -> None:
    """Until there is no cursor; every value is parsed by the SDK's model."""

    def page(request: queries.ListRunsRequest) -> queries.ListRunsResponse:
        return queries.ListRunsResponse(
            runs=[full_run()], next_page_token="" if request.page_token else "two"
        )

    store.answers["ListRuns"] = page
    store.blobs["to/ken="] = ("image/png", b"\x89P")
    runs = list(
        client.list_runs(project_id=PROJECT_ID, is_root=True, start_time=datetime(2024, 1, 1, tzinfo=UTC))
    )
    assert len(runs) == 2
    run = runs[0]
    assert (run.status, run.run_type, str(run.total_cost)) == ("error", "llm", "0.000001")
    assert run.prompt_token_details == {"cache_read": 3}
    assert run.start_time == datetime(2024, 4, 29, 0, 49, 12, 90_000, tzinfo=UTC)
    assert run.attachments["file"]["reader"].read() == b"\x89P"


@pytest.mark.parametrize("select", [["id"], ["outputs"], None])
def test_any_selection_suits_the_model(client: Client, store: FakeStore, select: list[str] | None) -> None:
    """The SDK's model never misses a key."""
    store.answers["ListRuns"] = queries.ListRunsResponse(runs=[full_run()])
    assert next(iter(client.list_runs(id=[RUN_ID], select=select))).name == "n"


def test_v2_query_and_retrieve(client: Client, store: FakeStore) -> None:
    """The generated resources page, select and read."""
    store.answers["GetRun"] = queries.GetRunResponse(run=full_run())
    store.answers["ListRuns"] = lambda request: queries.ListRunsResponse(
        runs=[full_run()], next_page_token="" if request.page_token else "two"
    )

    async def use() -> tuple[list[Any], Any]:
        found = client.runs.query(project_ids=[PROJECT_ID], selects=["ID", "INPUTS", "TOTAL_COST"])
        listed = [run async for run in found]
        read = await client.runs.retrieve(RUN_ID, project_id=PROJECT_ID, selects=["STATUS", "ATTACHMENTS"])
        return listed, read

    listed, read = asyncio.run(use())
    assert [run.total_cost for run in listed] == [1e-6, 1e-6]
    assert (read.status, read.id) == ("ERROR", None)
    store.blobs["to/ken="] = ("image/png", b"\x89P")
    assert httpx.get(read.attachments["file"]).content == b"\x89P"


def test_what_is_not_offered_is_asked_once(client: Client, store: FakeStore, url: str) -> None:
    """501 is not retried by the generated client."""

    async def use() -> None:
        streaming = client.runs.streaming
        await streaming.query_v2(project_ids=[PROJECT_ID], ai_search="slow ones")

    with pytest.raises(Exception, match="501"):
        asyncio.run(use())


def test_projects(client: Client, store: FakeStore) -> None:
    """Create, read, list, update, delete; a taken name is a conflict."""
    shown = project()
    store.answers["CreateProject"] = projects.CreateProjectResponse(project=shown)
    store.answers["UpdateProject"] = projects.UpdateProjectResponse(project=shown)
    store.answers["ListProjects"] = projects.ListProjectsResponse(projects=[shown])
    assert str(client.create_project("p", upsert=True, metadata={"a": 1}).id) == RUN_ID
    assert str(client.read_project(project_name="p").tenant_id) == OTHER_ID
    assert [each.name for each in client.list_projects(limit=1)] == ["p"]
    assert client.update_project(RUN_ID, description="d").name == "p"
    client.delete_project(project_id=RUN_ID)
    store.answers["CreateProject"] = Refuse(ErrorReason.ALREADY_EXISTS, "taken")
    with pytest.raises(LangSmithConflictError):
        client.create_project("p")


@pytest.mark.parametrize(
    ("keyword", "header"),
    [
        ("api_key", "x-api-key"),
        ("service_key", "x-service-key"),
        ("authorization", "authorization"),
        ("cookie", "cookie"),
        ("tenant_id", "x-tenant-id"),
    ],
)
def test_credentials_of_a_single_call(client: Client, store: FakeStore, keyword: str, header: str) -> None:
    """Each parameter of `update_run` reaches the store as metadata."""
    update: Callable[..., None] = client.update_run
    # The SDK heeds a tenant only beside a credential.
    update(RUN_ID, name="n", **{"api_key": "other", keyword: OTHER_ID})
    assert store.metadata[header] == OTHER_ID
