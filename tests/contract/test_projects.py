"""Projects through the newest SDK: create, read, list, update, delete."""

import uuid
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from langsmith import AsyncClient, Client
from langsmith.schemas import Run
from langsmith.utils import LangSmithConflictError, LangSmithNotFoundError

from .servers import Server

pytestmark = pytest.mark.both_catalogs(slow=True)

ENDED = datetime(2026, 6, 7, 8, 9, 10, 11, tzinfo=UTC)


def naive(moment: datetime) -> datetime:
    """As v1 writes times of projects: UTC without an offset."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def test_created_project_is_read_back(client: Client, project: str) -> None:
    """Every field of `create_project` comes back by id and by name; SDKs need the tenant for their links."""
    dataset_id = uuid.uuid4()
    made = client.create_project(
        project,
        description="für Tests",
        metadata={"team": "a", "n": 1},
        project_extra={"own": [1]},
        reference_dataset_id=dataset_id,
    )
    for read in (client.read_project(project_id=made.id), client.read_project(project_name=project)):
        assert (read.id, read.name, read.description) == (made.id, project, "für Tests")
        assert read.metadata["team"] == "a"
        assert read.extra is not None
        assert read.extra["own"] == [1]
        assert read.reference_dataset_id == dataset_id
        assert read.tenant_id
        assert read.url


def test_taken_name_is_a_conflict_unless_upserted(client: Client, project: str) -> None:
    """A second project of the name is exactly a 409; with `upsert` the first one is answered."""
    made = client.create_project(project)
    with pytest.raises(LangSmithConflictError):
        client.create_project(project)
    assert client.create_project(project, upsert=True).id == made.id
    assert [found.id for found in client.list_projects(name=project)] == [made.id]


def test_has_project(client: Client, project: str) -> None:
    """`has_project` is false before, true after creation."""
    assert not client.has_project(project)
    client.create_project(project)
    assert client.has_project(project)


def test_fresh_server_has_a_default_project(client: Client) -> None:
    """SDKs look their tenant up in the first project that they find."""
    assert client.read_project(project_name="default").name == "default"


def test_list_projects_takes_each_filter(client: Client, server: Server, project: str) -> None:
    """Ids, names, parts of names, metadata, experiments on a dataset, experiments or not, and a limit."""
    dataset_id = uuid.uuid4()
    plain = client.create_project(f"{project}-plain", metadata={"kind": "x", "more": {"a": 1, "b": 2}})
    other = client.create_project(f"{project}-Other", metadata={"kind": "y"})
    experiment = client.create_project(f"{project}-exp", reference_dataset_id=dataset_id)
    of = {"name_contains": project}

    def names(**conditions: object) -> list[str]:
        found = client.list_projects(**conditions)  # type: ignore[arg-type]
        return [str(one.name).removeprefix(f"{project}-") for one in found]

    assert names(**of) == ["exp", "Other", "plain"]
    assert names(project_ids=[plain.id, other.id]) == ["Other", "plain"]
    assert names(name=f"{project}-plain") == ["plain"]
    assert names(name=f"{project}-pla") == []
    assert names(name_contains=f"{project}-OTHER") == ["Other"]
    assert names(**of, metadata={"kind": "x"}) == ["plain"]
    assert names(**of, metadata={"more": {"b": 2}}) == ["plain"]
    assert names(reference_dataset_id=dataset_id) == ["exp"]
    assert names(**of, reference_free=True) == ["Other", "plain"]
    assert names(**of, reference_free=False) == ["exp"]
    assert names(**of, limit=2) == ["exp", "Other"]
    assert names(**of, include_stats=True, dataset_version="x") == []
    client.update_project(experiment.id, metadata={"dataset_version": "2026-01-02T03:04:05.678900+00:00"})
    assert names(**of, dataset_version="2026-01-02T03:04:05.6789Z") == ["exp"]
    by_name = httpx.get(f"{server.url}/sessions", params={**of, "sort_by": "name", "sort_by_desc": False})
    assert [each["name"].removeprefix(f"{project}-") for each in by_name.json()] == ["exp", "Other", "plain"]
    by_latency = httpx.get(f"{server.url}/sessions", params={"sort_by": "latency_p50"})
    assert (by_latency.status_code, by_latency.headers["x-should-retry"]) == (501, "false")
    assert experiment.reference_dataset_id == dataset_id


def test_projects_and_datasets_are_listed_by_their_tags(client: Client, server: Server, project: str) -> None:
    """Those that have each of the values; a value on a project is not on a dataset."""
    red, round_ = uuid.uuid4(), uuid.uuid4()
    client.create_project(f"{project}-a", tag_value_ids=[red, round_])
    client.create_project(f"{project}-b", tag_value_ids=[red, red])
    client.create_project(f"{project}-b", tag_value_ids=[round_], upsert=True)
    client.create_dataset(f"{project}-c", tag_value_ids=[red])

    def names(path: str, *values: uuid.UUID) -> list[str]:
        found = httpx.get(f"{server.url}/{path}", params={"tag_value_id": list(map(str, values))}).json()
        return [each["name"].removeprefix(f"{project}-") for each in found]

    assert names("sessions", red) == ["b", "a"]
    assert names("sessions", red, round_) == ["a"]
    assert names("datasets", red) == ["c"]
    assert names("datasets", round_) == []
    client.delete_project(project_name=f"{project}-a")
    client.delete_dataset(dataset_name=f"{project}-c")
    assert (names("sessions", round_), names("datasets", red)) == ([], [])
    too_many = {"name": f"{project}-d", "tag_value_ids": [str(uuid.uuid4()) for _ in range(101)]}
    for path in ("sessions", "datasets"):
        refused = httpx.post(f"{server.url}/{path}", json=too_many)
        assert (refused.status_code, "tag_value_ids" in refused.text) == (422, True)


def test_list_walks_pages_of_a_hundred(client: Client, project: str) -> None:
    """More projects than a page holds are all listed, each once."""
    made = {client.create_project(f"{project}-{number}").id for number in range(105)}
    listed = [found.id for found in client.list_projects(name_contains=project)]
    assert len(listed) == 105
    assert set(listed) == made


def test_update_changes_what_is_given(client: Client, project: str) -> None:
    """`update_project` changes name, description, metadata and end; what is not given stays."""
    made = client.create_project(project, description="old", metadata={"a": 1})
    client.update_project(made.id, description="new")
    assert client.read_project(project_id=made.id).description == "new"
    client.update_project(made.id, name=f"{project}-renamed", metadata={"b": 2}, end_time=ENDED)
    read = client.read_project(project_name=f"{project}-renamed")
    assert (read.id, read.description) == (made.id, "new")
    assert read.metadata["b"] == 2
    assert read.end_time is not None
    assert naive(read.end_time.replace(tzinfo=read.end_time.tzinfo or UTC)) == naive(ENDED)
    with pytest.raises(LangSmithNotFoundError):
        client.read_project(project_name=project)
    client.create_project(project)
    with pytest.raises(LangSmithConflictError):
        client.update_project(made.id, name=project)


def test_runs_follow_their_renamed_project(client: Client, project: str) -> None:
    """A rename takes the runs along; a new run under the old name makes a new project."""
    client.create_run("before", {}, "tool", project_name=project)
    made = client.read_project(project_name=project)
    client.update_project(made.id, name=f"{project}-renamed")
    client.create_run("after", {}, "tool", project_name=project)
    assert [run.name for run in client.list_runs(project_name=f"{project}-renamed")] == ["before"]
    assert [run.name for run in client.list_runs(project_name=project)] == ["after"]


def test_deleted_project_takes_its_runs_along(client: Client, project: str) -> None:
    """After `delete_project` neither project nor runs are found; the name is free and starts empty."""
    run_id = uuid.uuid4()
    client.create_run("gone", {}, "tool", id=run_id, project_name=project)
    made = client.read_project(project_name=project)
    client.delete_project(project_name=project)
    assert not client.has_project(project)
    with pytest.raises(LangSmithNotFoundError):
        client.read_run(run_id)
    with pytest.raises(LangSmithNotFoundError):
        client.read_project(project_id=made.id)
    with pytest.raises(LangSmithNotFoundError):
        client.delete_project(project_id=str(made.id))
    client.create_run("new", {}, "tool", project_name=project)
    assert names_of(list(client.list_runs(project_name=project))) == ["new"]
    assert client.read_project(project_name=project).id != made.id


def test_runs_in_the_queue_are_deleted_with_their_project(client: Client, project: str) -> None:
    """Runs acknowledged a moment before the delete do not come back after it."""
    client.create_run("first", {}, "tool", project_name=project)
    made = client.read_project(project_name=project)
    for number in range(20):
        client.create_run(f"late {number}", {}, "tool", session_id=made.id)
    client.delete_project(project_id=str(made.id))
    assert list(client.list_runs(trace_id=uuid.uuid4(), project_id=made.id)) == []


def names_of(runs: list[Run]) -> list[str]:
    return [run.name for run in runs]


async def test_async_client_manages_projects(async_client: AsyncClient, project: str) -> None:
    """Create, conflict, read by name and id, delete, with the asynchronous client."""
    made = await async_client.create_project(project, description="d")
    with pytest.raises(LangSmithConflictError):
        await async_client.create_project(project)
    assert (await async_client.read_project(project_name=project)).id == made.id
    assert (await async_client.read_project(project_id=made.id)).description == "d"
    await async_client.delete_project(project_name=project)
    with pytest.raises(LangSmithNotFoundError):
        await async_client.read_project(project_id=made.id)


def test_tenants_have_projects_of_their_own(
    guarded: Server, key: str, foreign_key: str, project: str
) -> None:
    """Two tenants use one name for two projects; neither finds, changes or deletes the other's."""
    mine, theirs = Client(guarded.url, api_key=key), Client(guarded.url, api_key=foreign_key)
    my_project = mine.create_project(project)
    assert not theirs.has_project(project)
    their_project = theirs.create_project(project)
    assert my_project.id != their_project.id
    assert my_project.tenant_id != their_project.tenant_id
    with pytest.raises(LangSmithNotFoundError):
        theirs.read_project(project_id=my_project.id)
    with pytest.raises(LangSmithNotFoundError):
        theirs.update_project(my_project.id, description="x")
    with pytest.raises(LangSmithNotFoundError):
        theirs.delete_project(project_id=str(my_project.id))
    assert mine.read_project(project_id=my_project.id).description is None
    mine.close()
    theirs.close()


def test_project_start_is_its_creation(client: Client, project: str) -> None:
    """A project that is created now started now."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    made = client.create_project(project)
    assert naive(before) <= made.start_time.replace(tzinfo=None) <= naive(datetime.now(UTC))
