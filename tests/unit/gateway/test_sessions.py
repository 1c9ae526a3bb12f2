"""Projects over v1: what the store is asked, and how its answers look."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from runstore.domain.errors import ErrorReason
from runstore.v1 import project_service_pb2 as pb
from runstore.v1 import run_stats_service_pb2 as stats

from .conftest import FakeStore, Refuse
from .wire import OTHER_ID, RUN_ID


def project(**fields: Any) -> pb.Project:
    """A project that has just begun."""
    made = pb.Project(id=RUN_ID, tenant_id=OTHER_ID, name="p", **fields)
    made.start_time.FromDatetime(datetime(2024, 4, 29, 0, 49, 12, 90_000, tzinfo=UTC))
    return made


@pytest.mark.parametrize("upsert", [True, False])
def test_create(http: httpx.Client, store: FakeStore, upsert: bool) -> None:
    """All fields arrive; the answer has every key that SDKs know."""
    store.answers["CreateProject"] = pb.CreateProjectResponse(project=project(extra=b'{"metadata": {}}'))
    body = {
        "name": "p",
        "id": RUN_ID,
        "description": "d",
        "extra": {"metadata": {"a": 1}},
        "reference_dataset_id": OTHER_ID,
        "start_time": "2024-04-29T00:49:12.090000",
        "num_examples": 3,
    }
    answer = http.post("/sessions", json=body, params={"upsert": upsert} if upsert else {})
    (asked,) = store.of("CreateProject")
    assert (asked.name, asked.id, asked.description, asked.upsert) == ("p", RUN_ID, "d", upsert)
    assert (asked.extra, asked.reference_dataset_id) == (b'{"metadata":{"a":1}}', OTHER_ID)
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["start_time"] == "2024-04-29T00:49:12.090000"
    assert shown["extra"] == {"metadata": {}}
    assert {"tenant_id", "reference_dataset_id", "end_time", "description", "run_count", "error_rate"} <= set(
        shown
    )
    assert shown["reference_dataset_id"] is None


def test_taken_name_is_409(http: httpx.Client, store: FakeStore) -> None:
    """Exactly 409: evaluators retry under another name."""
    store.answers["CreateProject"] = Refuse(ErrorReason.ALREADY_EXISTS, "taken", "name")
    answer = http.post("/sessions", json={"name": "p"})
    assert (answer.status_code, answer.json()) == (409, {"detail": "taken"})


def test_refused_field_of_the_store_looks_like_our_own(http: httpx.Client, store: FakeStore) -> None:
    """422 in FastAPI's form."""
    store.answers["CreateProject"] = Refuse(ErrorReason.INVALID_ARGUMENT, "too long", "name")
    assert http.post("/sessions", json={"name": "p"}).json() == {
        "detail": [{"loc": ["body", "name"], "msg": "too long", "type": "value_error"}]
    }


def test_list(http: httpx.Client, store: FakeStore) -> None:
    """Every parameter arrives; the answer is a bare array."""
    store.answers["ListProjects"] = pb.ListProjectsResponse(projects=[project(), project()])
    params: dict[str, Any] = {
        "id": [RUN_ID, OTHER_ID],
        "name": "p",
        "name_contains": "q",
        "reference_dataset": OTHER_ID,
        "reference_free": "false",
        "metadata": '{"a": 1}',
        "include_stats": "true",
        "dataset_version": "latest",
        "sort_by": "start_time",
        "sort_by_desc": "false",
        "offset": 5,
        "limit": 7,
    }
    answer = http.get("/api/v1/sessions/", params=params)
    assert [each["id"] for each in answer.json()] == [RUN_ID, RUN_ID]
    (asked,) = store.of("ListProjects")
    assert (list(asked.ids), asked.name, asked.name_contains) == ([RUN_ID, OTHER_ID], "p", "q")
    assert list(asked.reference_dataset_ids) == [OTHER_ID]
    assert (asked.HasField("reference_free"), asked.reference_free) == (True, False)
    assert (asked.metadata, asked.oldest_first) == (b'{"a": 1}', True)
    assert (asked.offset, asked.page_size) == (5, 7)


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"limit": 0}, 422),
        ({"limit": 101}, 422),
        ({"offset": -1}, 422),
        ({"offset": 10**12}, 422),
        ({"id": "x"}, 422),
        ({"metadata": "["}, 422),
        ({"metadata": "[]"}, 422),
        ({"sort_by": "colour"}, 422),
        ({"filter": "eq(name, 1)"}, 501),
    ],
)
def test_bad_list_parameters(http: httpx.Client, store: FakeStore, params: Any, status: int) -> None:
    """Refused before the store is asked."""
    assert http.get("/sessions", params=params).status_code == status
    assert store.requests == []


def test_read_update_delete(http: httpx.Client, store: FakeStore) -> None:
    """By id; nulls in an update keep what is there."""
    store.answers["GetProject"] = pb.GetProjectResponse(project=project())
    store.answers["UpdateProject"] = pb.UpdateProjectResponse(project=project())
    assert http.get(f"/sessions/{RUN_ID}", params={"include_stats": True}).json()["name"] == "p"
    changes = {"name": None, "extra": None, "description": "d", "end_time": "2024-04-29T00:00:00"}
    assert http.patch(f"/sessions/{RUN_ID}", json=changes).status_code == 200
    (asked,) = store.of("UpdateProject")
    assert [descriptor.name for descriptor, _ in asked.ListFields()] == ["id", "description", "end_time"]
    assert http.delete(f"/sessions/{RUN_ID}").status_code == 200
    assert store.of("DeleteProject")[0].id == RUN_ID


def test_statistics_of_a_page_are_one_question(http: httpx.Client, store: FakeStore) -> None:
    """Of all its projects at once, by project, with the parameters; a project without runs has none."""
    projects = [project(), pb.Project(id=OTHER_ID, name="q")]
    store.answers["ListProjects"] = pb.ListProjectsResponse(projects=projects)
    of_first = stats.RunStats(run_count=3, latency_p50=1.5, total_cost="0.1")
    store.answers["RunStats"] = stats.RunStatsResponse(
        groups=[stats.RunGroupStats(group=RUN_ID, stats=of_first)]
    )
    params = {
        "include_stats": "true",
        "stats_select": ["run_count", "all_token_stats"],
        "stats_filter": "eq(is_root, true)",
        "stats_start_time": "2026-01-01T00:00:00",
    }
    first, second = http.get("/sessions", params=params).json()
    assert (first["run_count"], first["total_cost"], first["latency_p50"]) == (3, "0.1", None)
    assert (second["run_count"], second["total_cost"]) == (0, None)
    (asked,) = store.of("RunStats")
    assert list(asked.runs.project_ids) == [RUN_ID, OTHER_ID]
    assert (asked.runs.filter, asked.runs.min_start_time.seconds) == ("eq(is_root, true)", 1767225600)
    assert asked.grouping.attribute == stats.RUN_GROUP_ATTRIBUTE_PROJECT
    assert asked.grouping.max_groups == 2
    assert stats.RUN_STATS_FIELD_LATENCY_P50 not in asked.fields


def test_unknown_project_is_404(http: httpx.Client) -> None:
    """An id that is no UUID is 422."""
    assert http.get(f"/sessions/{RUN_ID}").json() == {"detail": "no such project"}
    assert http.get("/sessions/x").status_code == 422
