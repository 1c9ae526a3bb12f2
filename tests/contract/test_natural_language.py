"""Questions in natural language, through an endpoint that speaks OpenAI's protocol; checks of queries."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from langsmith import Client

from .chat_endpoint import ChatEndpoint, chat_endpoint
from .servers import Server, serving

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[ChatEndpoint]:
    with chat_endpoint() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def clever(tmp_path_factory: pytest.TempPathFactory, endpoint: ChatEndpoint) -> Iterator[Server]:
    """A server that asks the endpoint."""
    settings = {"ai_url": endpoint.url, "ai_model": "a-model", "ai_api_key": "sk-secret"}
    with serving(tmp_path_factory.mktemp("clever"), **settings) as running:
        yield running
        assert running.defects() == []
        assert "sk-secret" not in (running.folder / "log").read_text()


@pytest.fixture
def asking(clever: Server, endpoint: ChatEndpoint) -> Iterator[Client]:
    endpoint.requests.clear()
    endpoint.status = 200
    client = Client(clever.url, api_key="any")
    yield client
    client.close()


def some_runs(client: Client, project: str) -> list[uuid.UUID]:
    """Five runs, of which every other one failed; metadata of the first is `team: a`."""
    ids = [uuid.uuid4() for _ in range(5)]
    for number, run_id in enumerate(ids):
        client.create_run(
            f"n{number}", {}, "tool", id=run_id, project_name=project, error="e" if number % 2 == 0 else None,
            start_time=START + timedelta(seconds=number), end_time=START + timedelta(seconds=number + 1),
            extra={"metadata": {"team": "a" if number == 0 else "b"}},
        )  # fmt: skip
    return ids


def post(server: Server, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


def test_query_becomes_a_filter(asking: Client, endpoint: ChatEndpoint, project: str) -> None:
    """The SDK lists what the model's filter means, and the endpoint is asked as its protocol wants."""
    ids = some_runs(asking, project)
    endpoint.answers = ['eq(status, "error")']
    found = asking.list_runs(project_name=project, query="what failed?")
    assert {run.id for run in found} == {ids[0], ids[2], ids[4]}
    [(path, headers, body)] = endpoint.requests
    assert (path, headers["authorization"]) == ("/v1/chat/completions", "Bearer sk-secret")
    assert body["model"] == "a-model"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == "what failed?"


def test_pages_of_a_question(clever: Server, asking: Client, endpoint: ChatEndpoint, project: str) -> None:
    """The model is asked once a walk: what it understood travels in the cursors, forth and back."""
    ids = some_runs(asking, project)
    session = [str(asking.read_project(project_name=project).id)]
    body = {"session": session, "query": "what failed?", "limit": 1, "select": ["id"]}
    endpoint.answers = ['eq(status, "error")', 'eq(status, "success")']
    pages: list[Any] = [post(clever, "/runs/query", **body).json()]
    while following := pages[-1]["cursors"]["next"]:
        pages.append(post(clever, "/runs/query", **body, cursor=following).json())
    assert [run["id"] for page in pages for run in page["runs"]] == [str(ids[i]) for i in (4, 2, 0)]
    assert {page["parsed_query"] for page in pages} == {'eq(status, "error")'}
    assert len(endpoint.requests) == 1
    back = post(clever, "/runs/query", **body, cursor=pages[2]["cursors"]["prev"]).json()
    assert [run["id"] for run in back["runs"]] == [str(ids[2])]
    cursor = pages[0]["cursors"]["next"]
    for bad in ("x", cursor[1:], "q!." + cursor.split(".", 1)[1], "qZXEoaWQsIDEp." + cursor.split(".", 1)[1]):
        assert post(clever, "/runs/query", **body, cursor=bad).status_code == 400
    assert post(clever, "/runs/query", session=session, cursor=cursor).status_code == 400


def test_question_beside_conditions(
    clever: Server, asking: Client, endpoint: ChatEndpoint, project: str
) -> None:
    """Both hold, each for itself: metadata conditions of one do not pair with those of the other."""
    some_runs(asking, project)
    session = [str(asking.read_project(project_name=project).id)]
    endpoint.answers = ['eq(metadata_value, "a")']
    beside = {"session": session, "filter": 'eq(metadata_key, "team")', "query": "whatever"}
    assert post(clever, "/runs/stats", **beside).json()["run_count"] == 1
    endpoint.answers = ['eq(metadata_value, "nothing")']
    assert post(clever, "/runs/stats", **beside).json()["run_count"] == 0
    only = {"session": session, "search_filter": "whatever"}
    endpoint.answers = ["gt(latency, 0.5)"]
    assert len(post(clever, "/runs/query", **only).json()["runs"]) == 5


def test_generate_query(clever: Server, asking: Client, endpoint: ChatEndpoint) -> None:
    """The filter alone; the second attempt counts when the first is none."""
    endpoint.answers = ["I think it is: errors", '```\neq(status, "error")\n```']
    answer = post(clever, "/runs/generate-query", query="what failed?", feedback_keys=["stars"])
    assert answer.json() == {"filter": 'eq(status, "error")', "feedback_urls": {}}
    assert "stars" in endpoint.requests[0][2]["messages"][0]["content"]
    assert "Invalid filter" in endpoint.requests[1][2]["messages"][3]["content"]


def test_model_that_makes_no_sense(clever: Server, asking: Client, endpoint: ChatEndpoint) -> None:
    """Refused as what it is, and never executed; an endpoint that fails is 503."""
    endpoint.answers = ["'); DROP TABLE runs; --"]
    answer = post(clever, "/runs/generate-query", query="x")
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "query"])
    for question in ("", "x" * 2_001):
        assert post(clever, "/runs/generate-query", query=question).status_code == 422
    endpoint.status = 500
    answer = post(clever, "/runs/generate-query", query="x")
    assert (answer.status_code, answer.json()) == (503, {"detail": "the language model does not answer"})


async def test_streams_of_the_sdk(asking: Client, endpoint: ChatEndpoint, project: str) -> None:
    """Runs, traces and threads are searched by `ai_search`, page after page; each item shows the filter."""
    endpoint.answers = ['eq(status, "error")', "eq(is_root, false)"]
    start = datetime.now(UTC)
    failed = []
    for number in range(6):
        run_id = uuid.uuid4()
        asking.create_run(
            "n", {}, "tool", id=run_id, project_name=project, error="e" if number % 2 else None,
            start_time=start + timedelta(milliseconds=number),
            extra={"metadata": {"thread_id": f"t{number}"}},
        )  # fmt: skip
        if number % 2:
            failed.append(run_id)
    project_id = str(asking.read_project(project_name=project).id)
    until = start + timedelta(minutes=1)
    sdk: Any = asking
    streams: list[tuple[Any, dict[str, Any], Any]] = [
        (sdk.runs.streaming.query_v2_items, {"project_ids": [project_id]}, lambda item: item.id),
        (sdk.traces.streaming.query_items, {"project_id": project_id}, lambda item: item.root_run.id),
        (sdk.threads.streaming.query_items, {"project_id": project_id}, lambda item: item.last_trace_id),
    ]
    for stream, arguments, id_of in streams:
        endpoint.requests.clear()
        endpoint.answers = ['eq(status, "error")', "eq(is_root, false)"]
        found = [
            item
            async for item in stream(**arguments, ai_search="what failed?", page_size=2, max_start_time=until)
        ]
        assert [id_of(item) for item in found] == [str(run_id) for run_id in reversed(failed)]
        assert found[0].to_dict()["query_metadata"] == {"filter": 'eq(status, "error")'}
        assert len(endpoint.requests) == 1


def test_without_a_model(server: Server) -> None:
    """A clear refusal that SDKs do not retry."""
    body = {"session": [str(uuid.uuid4())], "query": "x"}
    for path in ("/runs/query", "/runs/stats", "/runs/generate-query"):
        answer = post(server, path, **body)
        assert (answer.status_code, answer.headers["x-should-retry"]) == (501, "false")
        assert "RUNSTORE_AI_URL" in answer.json()["detail"]


def test_validate(server: Server) -> None:
    """Says of every key at fault why; what it calls valid is accepted."""
    session = [str(uuid.uuid4())]
    good = {"session": session, "filter": 'eq(name, "x")', "limit": 5}
    assert post(server, "/runs/query/validate", **good).json() == {"valid": True, "errors": []}
    assert post(server, "/runs/query", **good).status_code == 200
    for body, fields in (
        ({}, ["session"]),
        ({"session": session, "filter": "eq(", "trace_filter": "x", "tree_filter": "eq(no, 1)"},
         ["filter", "trace_filter", "tree_filter"]),
        ({"session": ["x"], "order": "sideways", "filter": "eq("}, ["session.0", "order", "filter"]),
        ({"session": session, "filter": 7}, ["filter"]),
    ):  # fmt: skip
        answer = post(server, "/runs/query/validate", **body).json()
        assert answer["valid"] is False
        assert [error["field"] for error in answer["errors"]] == fields
        assert all(error["message"] for error in answer["errors"])


def test_previous_pages(server: Server, client: Client, project: str) -> None:
    """A walk can turn round anywhere, in both orders; the first page has none before it."""
    ids = [str(run_id) for run_id in some_runs(client, project)]
    session = [str(client.read_project(project_name=project).id)]
    for order, wanted in (("asc", ids), ("desc", ids[::-1])):
        body: dict[str, Any] = {"session": session, "limit": 2, "order": order, "select": ["id"]}

        def page(cursor: str | None = None, body: dict[str, Any] = body, **more: Any) -> Any:
            answer = post(server, "/runs/query", **body, **more, **({"cursor": cursor} if cursor else {}))
            assert answer.status_code == 200, answer.text
            content = answer.json()
            return [run["id"] for run in content["runs"]], content["cursors"]

        first, cursors = page()
        assert (first, cursors["prev"]) == (wanted[:2], None)
        second, cursors = page(cursors["next"])
        third, last = page(cursors["next"])
        assert (second, third, last["next"]) == (wanted[2:4], wanted[4:], None)
        again, back = page(last["prev"])
        assert again == second
        again, back = page(back["prev"])
        assert (again, back["prev"]) == (first, None)
        again, _ = page(back["next"])
        assert again == second
        assert page(cursors["next"], skip_prev_cursor=True)[1]["prev"] is None
        assert page(skip_pagination=True)[1] == {"next": None, "prev": None}
        wrong = "desc" if order == "asc" else "asc"
        turned = {**body, "order": wrong, "cursor": last["prev"]}
        assert post(server, "/runs/query", **turned).status_code == 400
