"""Reading runs over v1 and v2: what the store is asked, and how its answers look."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from runstore.domain.errors import ErrorReason
from runstore.gateway import run_v1, run_v2
from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as pb

from .conftest import FakeStore, Refuse
from .wire import OTHER_ID, RUN_ID, dotted_order

GOLDEN = Path(__file__).parents[2] / "golden" / "gateway"
UPDATE_GOLDEN = "UPDATE_GOLDEN" in os.environ
PROJECT_ID = "0190c8a0-3333-7000-8000-000000000003"

REQUIRED = {"id", "name", "run_type", "status", "trace_id", "dotted_order", "session_id", "app_path"}
ALWAYS = {
    *REQUIRED,
    *("start_time", "s3_urls", "prompt_token_details", "completion_token_details"),
    *("prompt_cost_details", "completion_cost_details"),
}


def full_run() -> run_pb2.Run:
    """A run with a value in every field."""
    run = run_pb2.Run(
        id=RUN_ID,
        name="n",
        run_type=run_pb2.RUN_TYPE_LLM,
        status=run_pb2.RUN_STATUS_ERROR,
        latency_seconds=1.5,
        error="boom",
        error_preview="boom",
        extra=b'{"metadata": {"k": 1.10}}',
        metadata=b'{"k": 1.10}',
        events=b'[{"name": "new_token"}]',
        inputs=b'{"big": 12345678901234567890123, "e": 1e400}',
        inputs_preview="in",
        outputs=b'{"o": 1}',
        outputs_preview="out",
        manifest=b'{"m": 1}',
        parent_run_ids=[PROJECT_ID, OTHER_ID],
        project_id=PROJECT_ID,
        trace_id=PROJECT_ID,
        thread_id="t",
        dotted_order=dotted_order(RUN_ID),
        is_root=False,
        reference_example_id=OTHER_ID,
        reference_dataset_id=PROJECT_ID,
        total_tokens=7,
        prompt_tokens=5,
        completion_tokens=2,
        total_cost="0.000001",
        prompt_cost="0.0000006",
        completion_cost="0.0000004",
        prompt_token_details={"cache_read": 3},
        completion_token_details={"reasoning": 1},
        prompt_cost_details={"cache_read": "0.0000001"},
        completion_cost_details={"reasoning": "0.0000002"},
        price_model_id=OTHER_ID,
        tags=["a", "b"],
        app_path="/o/t/projects/p/x/r/y",
        attachments={"file": run_pb2.Attachment(mime_type="image/png", size_bytes=3, read_token="to/ken=")},
        is_in_dataset=True,
        share_url="https://h/public/0190c8a0-0000-7000-8000-000000000009/r",
        feedback_stats={"score": run_pb2.FeedbackStats(n=2, avg=0.5, min=0, max=1, values={"yes": 1})},
        ls_user_id=OTHER_ID,
    )
    start = datetime(2024, 4, 29, 0, 49, 12, 90_000, tzinfo=UTC)
    names = ("start_time", "end_time", "first_token_time", "thread_evaluation_time", "last_queued_at")
    for number, name in enumerate(names):
        getattr(run, name).FromDatetime(start + timedelta(seconds=number))
    return run


def bare_run() -> run_pb2.Run:
    """A run that has just begun."""
    run = run_pb2.Run(
        id=RUN_ID,
        name="n",
        run_type=run_pb2.RUN_TYPE_CHAIN,
        status=run_pb2.RUN_STATUS_PENDING,
        project_id=PROJECT_ID,
        trace_id=RUN_ID,
        dotted_order=dotted_order(RUN_ID),
        is_root=True,
    )
    run.start_time.FromDatetime(datetime(2024, 4, 29, tzinfo=UTC))
    return run


def agrees_with_golden(name: str, answer: httpx.Response, url: str) -> None:
    """Compares a body with the one on file, or rewrites that; people read the diff."""
    text = json.dumps(answer.json(), indent=1, sort_keys=True).replace(url, "http://host")
    path = GOLDEN / f"{name}.json"
    if UPDATE_GOLDEN:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert path.read_text() == text + "\n"


# --- v1 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "make"), [("full", full_run), ("bare", bare_run)])
def test_v1_run(http: httpx.Client, store: FakeStore, url: str, name: str, make: Any) -> None:
    """A complete run, and one that has just begun, look as on file."""
    store.answers["GetRun"] = pb.GetRunResponse(run=make())
    answer = http.get(f"/api/v1/runs/{RUN_ID}", params={"session_id": PROJECT_ID, "start_time": "2024-01-01"})
    assert answer.status_code == 200
    assert store.of("GetRun")[0].project_id == PROJECT_ID
    agrees_with_golden(f"v1_{name}", answer, url)


def test_payloads_are_passed_through(http: httpx.Client, store: FakeStore) -> None:
    """No number or space of stored JSON changes on its way out."""
    store.answers["GetRun"] = pb.GetRunResponse(run=full_run())
    params = {"project_id": PROJECT_ID, "selects": "INPUTS"}
    for answer in (http.get(f"/runs/{RUN_ID}"), http.get(f"/api/v2/runs/{RUN_ID}", params=params)):
        assert b'"inputs":{"big": 12345678901234567890123, "e": 1e400}' in answer.content


def test_v1_read_can_leave_the_manifest_out(http: httpx.Client, store: FakeStore) -> None:
    """`exclude_serialized` is neither asked of the store nor shown."""
    store.answers["GetRun"] = pb.GetRunResponse(run=full_run())
    run = http.get(f"/runs/{RUN_ID}", params={"exclude_serialized": True}).json()
    assert not {"serialized", "manifest"} & set(run)
    assert run_pb2.RUN_FIELD_MANIFEST not in store.of("GetRun")[0].fields


def test_v1_unknown_run_is_404(http: httpx.Client) -> None:
    """In the FastAPI dialect; an id that is no UUID is 422."""
    answer = http.get(f"/runs/{RUN_ID}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "no such run"})
    assert http.get("/runs/x").json()["detail"][0]["loc"] == ["path", "run_id"]


def test_v1_query_asks_the_store(http: httpx.Client, store: FakeStore) -> None:
    """Every condition arrives."""
    body = {
        "session": [PROJECT_ID],
        "trace": RUN_ID.replace("-", ""),
        "parent_run": OTHER_ID,
        "reference_example": [OTHER_ID],
        "run_type": "LLM",
        "start_time": "2024-04-29T00:00:00",
        "end_time": "2024-04-30T00:00:00+00:00",
        "error": False,
        "is_root": 1,
        "filter": 'eq(name, "x")',
        "trace_filter": "a",
        "tree_filter": "b",
        "query": None,
        "data_source_type": "current",
        "select": ["id", "inputs_or_signed_url", "session_id"],
        "order": "asc",
        "limit": 1000,
        "cursor": "c",
        "unknown": 1,
    }
    assert http.post("/runs/query", json=body).status_code == 200
    (asked,) = store.of("ListRuns")
    assert (list(asked.project_ids), asked.trace_id, asked.parent_run_id) == ([PROJECT_ID], RUN_ID, OTHER_ID)
    assert (list(asked.reference_example_ids), asked.run_type) == ([OTHER_ID], run_pb2.RUN_TYPE_LLM)
    assert asked.min_start_time.ToJsonString() == "2024-04-29T00:00:00Z"
    assert asked.max_start_time.ToJsonString() == "2024-04-30T00:00:00Z"
    assert (asked.has_error, asked.is_root) == (False, True)
    assert asked.HasField("has_error")
    assert (asked.filter, asked.trace_filter, asked.tree_filter) == ('eq(name, "x")', "a", "b")
    assert run_pb2.RUN_FIELD_INPUTS in asked.fields
    assert run_pb2.RUN_FIELD_OUTPUTS not in asked.fields
    assert (asked.sort_order, asked.page_size, asked.page_token) == (run_pb2.SORT_ORDER_ASC, 100, "c")


def test_v1_ids_switch_other_conditions_off(http: httpx.Client, store: FakeStore) -> None:
    """As the contract says."""
    http.post("/runs/query", json={"id": [RUN_ID], "session": [PROJECT_ID], "error": True, "filter": "x"})
    (asked,) = store.of("ListRuns")
    assert list(asked.ids) == [RUN_ID]
    assert not asked.project_ids
    assert not asked.HasField("has_error")
    assert asked.filter == ""


def test_v1_page(http: httpx.Client, store: FakeStore) -> None:
    """Only selected keys, those always needed, and cursors."""
    page = pb.ListRunsResponse(runs=[full_run()], next_page_token="next")
    store.answers["ListRuns"] = page
    answer = http.post("/runs/query", json={"session": [PROJECT_ID], "select": ["outputs"]}).json()
    assert answer["cursors"] == {"next": "next", "prev": None}
    assert (answer["search_cursors"], answer["parsed_query"]) == (None, None)
    assert set(answer["runs"][0]) == {*ALWAYS, "outputs"}
    assert answer["runs"][0]["prompt_cost_details"] == {"cache_read": "0.0000001"}
    unpaged = {"session": [PROJECT_ID], "skip_pagination": True, "order": None}
    single = http.post("/runs/query", json=unpaged).json()
    assert single["cursors"]["next"] is None


def test_v1_execution_order_is_root(http: httpx.Client, store: FakeStore) -> None:
    """The deprecated key, and the clamp of a limit below one."""
    http.post("/runs/query", json={"session": [PROJECT_ID], "execution_order": 1, "limit": 0})
    assert store.of("ListRuns")[0].is_root is True
    assert store.of("ListRuns")[0].page_size == 1


@pytest.mark.parametrize("body", [{}, {"session": []}, {"id": []}, {"is_root": True}])
def test_v1_query_needs_a_bound(http: httpx.Client, body: Any) -> None:
    """A listing of everything is refused with a detail that says why."""
    answer = http.post("/runs/query", json=body)
    assert answer.status_code == 400
    assert "At least one of" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("session", ["x"]),
        ("session", "x"),
        ("id", [5]),
        ("trace", "x"),
        ("run_type", "agent"),
        ("start_time", "x"),
        ("end_time", 5),
        ("error", "perhaps"),
        ("select", ["bogus"]),
        ("select", "id"),
        ("order", "up"),
        ("limit", "many"),
        ("filter", 5),
    ],
)
def test_v1_wrong_values_are_422(http: httpx.Client, store: FakeStore, key: str, value: Any) -> None:
    """In FastAPI's form, naming the key and sending nothing back."""
    answer = http.post("/runs/query", json={"session": [PROJECT_ID], key: value})
    assert answer.status_code == 422
    (*_, problem) = answer.json()["detail"]
    assert problem["loc"][:2] == ["body", key]
    assert set(problem) == {"loc", "msg", "type"}
    assert store.requests == []


def test_v1_bad_filter_and_cursor_are_400(http: httpx.Client, store: FakeStore) -> None:
    """With the store's text as detail."""
    for reason in (ErrorReason.INVALID_FILTER, ErrorReason.INVALID_CURSOR):
        store.answers["ListRuns"] = Refuse(reason, "Invalid filter: x at 3")
        answer = http.post("/runs/query", json={"session": [PROJECT_ID], "filter": "x"})
        assert (answer.status_code, answer.json()) == (400, {"detail": "Invalid filter: x at 3"})


def test_natural_language_is_not_offered(http: httpx.Client) -> None:
    """Ignoring the words would answer another question."""
    assert http.post("/runs/query", json={"session": [PROJECT_ID], "query": "slow ones"}).status_code == 501


def test_large_json_bodies_are_413(http: httpx.Client) -> None:
    """Reads have a limit of their own."""
    assert http.post("/runs/query", content=b" " * (17 << 20)).status_code == 413


def test_every_selectable_key_can_be_shown() -> None:
    """The tables of both dialects cover their contracts."""
    assert len(run_v2.SELECTABLE) == 46
    assert all(run_v2.select_name(name) for name in run_v2.SELECTABLE)
    assert set(run_v1.Selection(run_v1.SELECTABLE).show(full_run(), "http://host/")) >= ALWAYS
    asked = run_v1.Selection(run_v1.SELECTABLE).fields
    assert len(asked) == len(set(asked))


# --- v2 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "make"), [("full", full_run), ("bare", bare_run)])
def test_v2_run(http: httpx.Client, store: FakeStore, url: str, name: str, make: Any) -> None:
    """A complete run, and one that has just begun, look as on file."""
    store.answers["GetRun"] = pb.GetRunResponse(run=make())
    params = {"project_id": PROJECT_ID, "selects": list(run_v2.SELECTABLE)}
    answer = http.get(f"/v2/runs/{RUN_ID}/", params=params)
    assert answer.status_code == 200
    assert len(store.of("GetRun")[0].fields) == 46
    agrees_with_golden(f"v2_{name}", answer, url)


def test_v2_answers_exactly_the_selected_keys(http: httpx.Client, store: FakeStore) -> None:
    """Only the id without a selection; `query_metadata` comes with queries by itself."""
    store.answers["GetRun"] = pb.GetRunResponse(run=full_run())
    store.answers["ListRuns"] = pb.ListRunsResponse(runs=[full_run()])
    assert http.get(f"/api/v2/runs/{RUN_ID}", params={"project_id": PROJECT_ID}).json() == {"id": RUN_ID}
    query = {"project_ids": [PROJECT_ID], "selects": ["RUN_TYPE", "SESSION_ID", "status", "TOTAL_COST"]}
    answer = http.post("/api/v2/runs/query", json=query)
    assert answer.json() == {
        "items": [
            {
                "run_type": "LLM",
                "project_id": PROJECT_ID,
                "status": "ERROR",
                "total_cost": 1e-06,
                "query_metadata": None,
            }
        ],
        "next_cursor": None,
    }
    assert b'"total_cost":0.000001' in answer.content


def test_v2_query_asks_the_store(http: httpx.Client, store: FakeStore) -> None:
    """Every condition arrives, ids among the others."""
    body = {
        "project_ids": [PROJECT_ID],
        "ids": [RUN_ID],
        "trace_id": OTHER_ID,
        "run_type": "LLM",
        "is_root": False,
        "has_error": True,
        "reference_examples": [OTHER_ID],
        "min_start_time": "2024-04-29T00:00:00Z",
        "max_start_time": "2024-04-30T00:00:00+02:00",
        "filter": "f",
        "trace_filter": "g",
        "tree_filter": "h",
        "selects": ["ID"],
        "page_size": 1000,
        "sort_order": "ASC",
        "include_subtree_usage": False,
    }
    assert http.post("/v2/runs/query", json=body).status_code == 200
    (asked,) = store.of("ListRuns")
    assert (list(asked.project_ids), list(asked.ids), asked.trace_id) == ([PROJECT_ID], [RUN_ID], OTHER_ID)
    assert (asked.is_root, asked.has_error, asked.run_type) == (False, True, run_pb2.RUN_TYPE_LLM)
    assert asked.min_start_time.ToJsonString() == "2024-04-29T00:00:00Z"
    assert asked.max_start_time.ToJsonString() == "2024-04-29T22:00:00Z"
    assert (asked.filter, asked.trace_filter, asked.tree_filter) == ("f", "g", "h")
    assert (asked.page_size, asked.sort_order) == (1000, run_pb2.SORT_ORDER_ASC)


def test_v2_accepts_older_names(http: httpx.Client, store: FakeStore) -> None:
    """What v1 calls the same things."""
    body = {
        "session": [PROJECT_ID],
        "id": [RUN_ID],
        "trace": OTHER_ID,
        "run_type": "llm",
        "error": True,
        "start_time": "2024-04-29T00:00:00",
        "select": ["id", "session_id"],
        "limit": 5,
        "order": "asc",
    }
    assert http.post("/api/v2/runs/query", json=body).status_code == 200
    (asked,) = store.of("ListRuns")
    assert (list(asked.project_ids), list(asked.ids), asked.trace_id) == ([PROJECT_ID], [RUN_ID], OTHER_ID)
    assert (asked.page_size, asked.sort_order, asked.has_error) == (5, run_pb2.SORT_ORDER_ASC, True)
    assert list(asked.fields) == [run_pb2.RUN_FIELD_ID, run_pb2.RUN_FIELD_PROJECT_ID]


def test_v2_default_window_stays_while_paging(http: httpx.Client, store: FakeStore) -> None:
    """The last day, ending now; the next page looks at the same window, although now has moved on."""
    store.answers["ListRuns"] = pb.ListRunsResponse(runs=[full_run()], next_page_token="to.ken")
    before = datetime.now(UTC)
    body: dict[str, Any] = {"project_ids": [PROJECT_ID]}
    body["cursor"] = http.post("/api/v2/runs/query", json=body).json()["next_cursor"]
    http.post("/api/v2/runs/query", json=body)
    first, second = store.of("ListRuns")
    assert before <= first.max_start_time.ToDatetime(UTC) <= datetime.now(UTC)
    assert first.max_start_time.seconds - first.min_start_time.seconds == 86_400
    assert (second.min_start_time, second.max_start_time) == (first.min_start_time, first.max_start_time)
    assert (first.page_token, second.page_token) == ("", "to.ken")


BAD_V2: dict[str, tuple[dict[str, Any], int]] = {
    "no project": ({"project_ids": None}, 400),
    "both sources": ({"reference_dataset_id": OTHER_ID}, 400),
    "page size 0": ({"page_size": 0}, 400),
    "page size 1001": ({"page_size": 1001}, 400),
    "page size text": ({"page_size": "many"}, 400),
    "unknown select": ({"selects": ["BOGUS"]}, 400),
    "unknown run type": ({"run_type": "AGENT"}, 400),
    "bad time": ({"min_start_time": "x"}, 400),
    "bad cursor": ({"cursor": "x"}, 400),
    "bad order": ({"sort_order": "UP"}, 400),
    "bad project id": ({"project_ids": ["x"]}, 422),
    "bad run id": ({"ids": ["x"]}, 422),
    "bad trace id": ({"trace_id": "x"}, 422),
    "ai_search": ({"ai_search": "x"}, 406),
    "blank ai_search": ({"ai_search": " "}, 400),
    "bad feedback bound": ({"min_feedback_modified_at": "x"}, 400),
    "bad dataset": ({"project_ids": None, "reference_dataset_id": "x"}, 422),
}


@pytest.mark.parametrize("case", BAD_V2)
def test_v2_problems(http: httpx.Client, store: FakeStore, case: str) -> None:
    """RFC 7807 with the contract's status; what is not offered is not retried."""
    change, status = BAD_V2[case]
    answer = http.post("/api/v2/runs/query", json={"project_ids": [PROJECT_ID], **change})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["instance"]) == (status, "/api/v2/runs/query")
    assert problem["detail"]
    assert answer.headers.get("x-should-retry") == ("false" if status == 501 else None)
    assert store.requests == []


def test_v2_malformed_json_is_400(http: httpx.Client) -> None:
    """Not 422, unlike v1."""
    answer = http.post("/api/v2/runs/query", content=b"{")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("run_id", "params", "status"),
    [
        (RUN_ID, {}, 400),
        (RUN_ID, {"project_id": "x"}, 422),
        ("x", {"project_id": PROJECT_ID}, 422),
        (RUN_ID, {"project_id": PROJECT_ID, "selects": "BOGUS"}, 400),
        (RUN_ID, {"project_id": PROJECT_ID}, 404),
    ],
)
def test_v2_read_problems(http: httpx.Client, run_id: str, params: Any, status: int) -> None:
    """Each with its status, as a problem."""
    answer = http.get(f"/api/v2/runs/{run_id}", params=params)
    assert (answer.status_code, answer.json()["status"]) == (status, status)


def test_v2_asks_for_subtrees_and_narrows_feedback(http: httpx.Client, store: FakeStore) -> None:
    """What only v2 knows arrives at the store."""
    body = {
        "project_ids": [PROJECT_ID],
        "include_subtree_usage": True,
        "min_feedback_modified_at": "2024-01-01T00:00:00Z",
        "max_feedback_modified_at": "2024-01-02T00:00:00Z",
    }
    assert http.post("/api/v2/runs/query", json=body).status_code == 200
    [query] = store.of("ListRuns")
    assert query.with_subtree_usage
    assert query.max_feedback_modified_at.seconds - query.min_feedback_modified_at.seconds == 86_400


def test_v2_lists_the_experiments_on_a_dataset(http: httpx.Client, store: FakeStore) -> None:
    """Projects that refer to it, from the beginning of the first on; none is an empty page."""
    body = {"reference_dataset_id": OTHER_ID}
    assert http.post("/api/v2/runs/query", json=body).json() == {"items": [], "next_cursor": None}
    assert store.of("ListRuns") == []
    experiments = [projects.Project(id=PROJECT_ID), projects.Project(id=OTHER_ID)]
    for number, experiment in enumerate(experiments):
        experiment.start_time.seconds = 1_700_000_000 + number
    store.answers["ListProjects"] = projects.ListProjectsResponse(projects=experiments)
    store.answers["ListRuns"] = pb.ListRunsResponse(next_page_token="more")
    first = http.post("/api/v2/runs/query", json=body).json()
    [query] = store.of("ListRuns")
    assert list(query.project_ids) == [PROJECT_ID, OTHER_ID]
    assert query.min_start_time.seconds == 1_700_000_000
    # On the next page an experiment that has begun meanwhile must not be there: it would be another query.
    late = projects.Project(id=RUN_ID)
    late.start_time.seconds = query.max_start_time.seconds + 1
    store.answers["ListProjects"] = projects.ListProjectsResponse(projects=[*experiments, late])
    http.post("/api/v2/runs/query", json={**body, "cursor": first["next_cursor"]})
    again = store.of("ListRuns")[1]
    assert list(again.project_ids) == [PROJECT_ID, OTHER_ID]
    assert (again.min_start_time, again.max_start_time) == (query.min_start_time, query.max_start_time)
