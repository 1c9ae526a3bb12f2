"""`AsyncClient` writes and reads runs: every parameter of its calls, and those of the synchronous list."""

import inspect
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langsmith import AsyncClient, Client
from langsmith.schemas import Run
from langsmith.utils import LangSmithAuthError, LangSmithError, LangSmithNotFoundError

from .servers import Server
from .wire import dotted_order

STARTED = datetime(2026, 2, 3, 4, 5, 6, 700001, tzinfo=UTC)
EXAMPLE_ID = uuid.uuid4()


@dataclass(frozen=True)
class Runs:
    """Three traces of one project: a root with a good and a bad child, a lone root, a running one."""

    project: str
    project_id: uuid.UUID
    ids: dict[str, uuid.UUID]

    def names(self, runs: list[Run]) -> list[str]:
        """The runs by their names here, in the order of `runs`."""
        by_id = {run_id: name for name, run_id in self.ids.items()}
        return [by_id[run.id] for run in runs]


@pytest.fixture(scope="module")
def runs(server: Server) -> Runs:
    """Written once; the tests only read them."""
    client = Client(server.url, api_key="any")
    project = f"listed-{uuid.uuid4().hex}"
    ids = {name: uuid.uuid4() for name in ("root", "good", "bad", "lone", "running")}

    def create(name: str, run_type: Any, second: int, *, parent: str | None = None, **fields: Any) -> None:
        ancestors = [ids[parent]] if parent else []
        at = STARTED + timedelta(seconds=second)
        order = dotted_order(*ancestors, ids[name], at=at)
        if parent:
            order = f"{dotted_order(ids[parent], at=STARTED)}.{order.split('.')[-1]}"
        client.create_run(
            name,
            {"question": name},
            run_type,
            id=ids[name],
            trace_id=ids[parent or name],
            parent_run_id=ids[parent] if parent else None,
            dotted_order=order,
            start_time=at,
            project_name=project,
            **fields,
        )

    end: dict[str, Any] = {"end_time": STARTED + timedelta(seconds=90)}
    create("root", "chain", 0, tags=["a", "b"], extra={"metadata": {"env": "prod"}}, outputs={"x": 1}, **end)
    create("good", "llm", 1, parent="root", tags=["a"], outputs={"x": 2}, **end)
    create("bad", "tool", 2, parent="root", error="it broke", **end)
    create("lone", "llm", 3, reference_example_id=EXAMPLE_ID, outputs={"x": 3}, **end)
    create("running", "retriever", 4)
    client.flush()
    project_id = client.read_project(project_name=project).id
    client.close()
    return Runs(project, project_id, ids)


ALL = ["running", "lone", "bad", "good", "root"]

# Parameters of `list_runs` → the runs that they leave, newest first.
CONDITIONS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("run_type", {"run_type": "llm"}, ["lone", "good"]),
    ("trace_id", {"trace_id": "id:root"}, ["bad", "good", "root"]),
    ("reference_example_id", {"reference_example_id": EXAMPLE_ID}, ["lone"]),
    ("filter", {"filter": 'and(eq(run_type, "llm"), has(tags, "a"))'}, ["good"]),
    ("filter_metadata", {"filter": 'and(eq(metadata_key, "env"), eq(metadata_value, "prod"))'}, ["root"]),
    ("filter_or", {"filter": 'or(eq(name, "lone"), eq(status, "error"))'}, ["lone", "bad"]),
    ("filter_latency", {"filter": "gte(latency, 89)"}, ["good", "root"]),
    ("filter_start_time", {"filter": 'gt(start_time, "2026-02-03T04:05:09Z")'}, ["running", "lone"]),
    ("filter_search", {"filter": 'search("BROKE it")'}, ["bad"]),
    ("filter_rows", {"filter": 'and(eq(output_key, "x"), gt(output_value, 1))'}, ["lone", "good"]),
    ("trace_filter", {"trace_filter": 'has(tags, "b")'}, ["bad", "good", "root"]),
    ("tree_filter", {"tree_filter": 'eq(status, "error")'}, ["bad", "good", "root"]),
    (
        "all_filters",
        {
            "filter": 'eq(run_type, "llm")',
            "trace_filter": 'eq(name, "root")',
            "tree_filter": 'eq(name, "bad")',
        },
        ["good"],
    ),
    ("is_root", {"is_root": True}, ["running", "lone", "root"]),
    ("is_not_root", {"is_root": False}, ["bad", "good"]),
    ("parent_run_id", {"parent_run_id": "id:root"}, ["bad", "good"]),
    ("start_time", {"start_time": STARTED + timedelta(seconds=2)}, ["running", "lone", "bad"]),
    ("error", {"error": True}, ["bad"]),
    ("no_error", {"error": False}, ["running", "lone", "good", "root"]),
    ("run_ids", {"run_ids": ["id:good", "id:lone"]}, ["lone", "good"]),
    ("limit", {"limit": 2}, ["running", "lone"]),
    ("limit_of_pages", {"limit": 150}, ALL),
    ("order", {"order": "asc"}, ALL[::-1]),
    ("execution_order", {"execution_order": 1}, ["running", "lone", "root"]),
    ("end_time", {"end_time": (STARTED + timedelta(seconds=1)).isoformat()}, ["good", "root"]),
    ("nothing", {}, ALL),
]


def resolved(parameters: dict[str, Any], runs: Runs) -> dict[str, Any]:
    """`parameters` with the ids of the runs that they name."""

    def one(value: Any) -> Any:
        return runs.ids[value.removeprefix("id:")] if isinstance(value, str) and value[:3] == "id:" else value

    return {
        name: [one(item) for item in value] if isinstance(value, list) else one(value)
        for name, value in parameters.items()
    }


@pytest.mark.parametrize(
    ("parameters", "expected"), [c[1:] for c in CONDITIONS], ids=[c[0] for c in CONDITIONS]
)
async def test_list_runs_takes_each_parameter(
    async_client: AsyncClient, runs: Runs, parameters: dict[str, Any], expected: list[str]
) -> None:
    """Each parameter of `AsyncClient.list_runs` leaves exactly the runs that it describes."""
    listed = async_client.list_runs(project_name=runs.project, **resolved(parameters, runs))
    assert runs.names([run async for run in listed]) == expected


@pytest.mark.parametrize(
    ("parameters", "expected"), [c[1:] for c in CONDITIONS], ids=[c[0] for c in CONDITIONS]
)
def test_synchronous_list_runs_takes_each_parameter(
    client: Client, runs: Runs, parameters: dict[str, Any], expected: list[str]
) -> None:
    """Each parameter of `Client.list_runs` leaves the same runs."""
    listed = client.list_runs(project_id=runs.project_id, **resolved(parameters, runs))
    assert runs.names(list(listed)) == expected


async def test_list_runs_takes_projects_by_id_and_by_name(async_client: AsyncClient, runs: Runs) -> None:
    """One or several, by id or by name; a name that is nobody's is not found."""
    for projects in (
        {"project_id": runs.project_id},
        {"project_id": [str(runs.project_id)]},
        {"project_name": runs.project},
        {"project_name": [runs.project, "default"], "filter": 'eq(name, "lone")'},
    ):
        listed = [run async for run in async_client.list_runs(**projects, start_time=STARTED)]
        assert "lone" in runs.names(listed)
    with pytest.raises(LangSmithNotFoundError):
        [run async for run in async_client.list_runs(project_name=runs.project + "?")]


async def test_selected_fields_alone_are_read(async_client: AsyncClient, runs: Runs) -> None:
    """`select` leaves out payloads that were not asked for, and keeps what every run must have."""
    selected = async_client.list_runs(
        project_id=runs.project_id, select=["id", "outputs"], run_ids=[runs.ids["lone"]]
    )
    [run] = [run async for run in selected]
    assert run.outputs == {"x": 3}
    assert run.inputs == {}
    assert (run.id, run.name, run.run_type) == (runs.ids["lone"], "lone", "llm")


@pytest.mark.parametrize("name", ["trace_filter", "tree_filter"])
async def test_filter_on_the_trace_is_refused_by_name(
    async_client: AsyncClient, runs: Runs, name: str
) -> None:
    """The contract's 400 names the filter that is wrong."""
    condition: dict[str, Any] = {name: 'eq(nme, "root")'}
    with pytest.raises(LangSmithError, match=f"400.*Invalid {name}: unknown field .*nme"):
        [run async for run in async_client.list_runs(project_id=runs.project_id, **condition)]


async def test_question_in_natural_language_is_refused(async_client: AsyncClient, runs: Runs) -> None:
    """`query` is not offered: one 501, no wrong list."""
    with pytest.raises(LangSmithError, match="501"):
        [run async for run in async_client.list_runs(project_id=runs.project_id, query="the slow ones")]


async def test_unsupported_filter_is_a_400_that_names_it(async_client: AsyncClient, runs: Runs) -> None:
    """A filter that cannot be understood is the contract's 400."""
    for expression in ("eq(name", 'frobnicate(name, "x")', 'eq(no_such_field, "x")', "gt(name, 5)"):
        with pytest.raises(LangSmithError, match="400") as refusal:
            [run async for run in async_client.list_runs(project_id=runs.project_id, filter=expression)]
        assert "filter" in str(refusal.value)


def test_every_parameter_of_list_runs_is_tested() -> None:
    """A parameter that a newer SDK adds fails here until it has its test."""
    tested = {name for _, parameters, _ in CONDITIONS for name in parameters}
    tested |= {
        "self",
        "project_id",
        "project_name",
        "select",
        "trace_filter",
        "tree_filter",
        "query",
        "kwargs",
    }
    for method in (AsyncClient.list_runs, Client.list_runs):
        assert set(inspect.signature(method).parameters) - tested == set()


async def test_create_read_and_update(async_client: AsyncClient, project: str) -> None:
    """`create_run` and `update_run` with every field, read back by `read_run`."""
    run_id = uuid.uuid4()
    await async_client.create_run(
        "made",
        {"i": "ü"},
        "llm",
        project_name=project,
        id=run_id,
        start_time=STARTED.isoformat(),
        tags=["t"],
        extra={"metadata": {"m": 1}},
        serialized={"lc": 1},
        events=[{"name": "start", "time": STARTED.isoformat()}],
        reference_example_id=str(EXAMPLE_ID),
    )
    made = await async_client.read_run(run_id)
    assert (made.name, made.run_type, made.inputs, made.tags) == ("made", "llm", {"i": "ü"}, ["t"])
    assert (made.start_time, made.status, made.metadata["m"]) == (STARTED, "pending", 1)
    assert (made.serialized, made.reference_example_id) == ({"lc": 1}, EXAMPLE_ID)
    assert made.dotted_order == dotted_order(run_id, at=STARTED)
    await async_client.update_run(
        run_id,
        outputs={"o": 1},
        error="broke",
        end_time=(STARTED + timedelta(seconds=2)).isoformat(),
        tags=["u"],
        extra={"metadata": {"n": 2}},
        name="renamed",
    )
    done = await async_client.read_run(run_id, project_id=made.session_id)
    assert (done.name, done.outputs, done.error, done.tags) == ("renamed", {"o": 1}, "broke", ["u"])
    assert (done.status, done.latency, done.inputs) == ("error", 2.0, {"i": "ü"})
    assert (done.metadata["m"], done.metadata["n"]) == (1, 2)


async def test_child_finds_its_place_below_a_stored_parent(async_client: AsyncClient, project: str) -> None:
    """A child created with nothing but `parent_run_id` gets trace and position from its parent."""
    root, child, grandchild = (uuid.uuid4() for _ in range(3))
    for run_id, parent in ((root, None), (child, root), (grandchild, child)):
        await async_client.create_run(
            "step",
            {},
            "chain",
            id=run_id,
            project_name=project,
            parent_run_id=str(parent) if parent else None,
        )
    run = await async_client.read_run(grandchild)
    assert run.trace_id == root
    assert run.parent_run_ids == [root, child]
    assert [segment[-36:] for segment in run.dotted_order.split(".")] == list(
        map(str, (root, child, grandchild))
    )


async def test_same_create_twice_is_one_run(async_client: AsyncClient, project: str) -> None:
    """Creating a run again with the same content is no conflict and changes nothing."""
    run_id = uuid.uuid4()
    for _ in range(2):
        await async_client.create_run(
            "twice", {"i": 1}, "tool", id=run_id, project_name=project, start_time=STARTED.isoformat()
        )
    assert [run.id async for run in async_client.list_runs(project_name=project)] == [run_id]


async def test_unknown_run_is_not_found(async_client: AsyncClient) -> None:
    """404, as the SDK's own exception."""
    with pytest.raises(LangSmithNotFoundError):
        await async_client.read_run(uuid.uuid4())


async def test_wrong_key_is_refused(guarded: Server) -> None:
    """401 for reads and writes, as the SDK's own exception."""
    async with AsyncClient(guarded.url, api_key="wrong") as client:
        with pytest.raises(LangSmithAuthError):
            await client.create_run("n", {}, "llm")
        with pytest.raises(LangSmithAuthError):
            await client.read_run(uuid.uuid4())


async def test_pages_are_walked_to_the_end(async_client: AsyncClient, client: Client, project: str) -> None:
    """250 runs with the same start come back once each, although a page holds at most 100."""
    ids = {uuid.uuid4() for _ in range(250)}
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
    for order in ("asc", "desc"):
        listed = [run.id async for run in async_client.list_runs(project_name=project, order=order)]
        assert len(listed) == 250
        assert set(listed) == ids
    assert len(list(client.list_runs(project_name=project, limit=120))) == 120
