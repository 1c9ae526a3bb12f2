"""Every route answers under every prefix that SDKs build (runs-v1 §1), and the server documents itself."""

import json
import re
import uuid
from typing import Any

import httpx
import pytest
from langsmith import Client

from .servers import Server, unless_slow
from .wire import CONTENT_TYPE, multipart, part, run_json

V1_PREFIXES = ["", "/api", "/api/v1"]
V2_PREFIXES = ["/api/v2", "/v2"]

V1_ROUTES: list[tuple[str, str, Any, int]] = [
    ("GET", "/info", None, 200),
    ("GET", "/ok", None, 200),
    ("GET", "/health", None, 200),
    ("POST", "/runs", "run", 202),
    ("PATCH", "/runs/RUN", {}, 202),
    ("GET", "/runs/RUN", None, 200),
    ("POST", "/runs/batch", {"post": []}, 202),
    ("POST", "/runs/multipart", "multipart", 202),
    ("POST", "/runs/query", {"id": ["RUN"]}, 200),
    ("POST", "/sessions?upsert=true", {"name": "default"}, 200),
    ("GET", "/sessions?limit=1", None, 200),
    ("GET", "/sessions/SESSION", None, 200),
    ("PATCH", "/sessions/SESSION", {}, 200),
]
V2_ROUTES: list[tuple[str, str, Any, int]] = [
    ("POST", "/runs/query", {"project_ids": ["SESSION"]}, 200),
    ("GET", "/runs/RUN?project_id=SESSION", None, 200),
]


@pytest.fixture(scope="module")
def ids(server: Server) -> dict[str, str]:
    """A run and its project, by the names that the routes above use."""
    run_id = str(uuid.uuid4())
    assert (
        httpx.post(f"{server.url}/runs", json={"id": run_id, "name": "n", "run_type": "llm"}).status_code
        == 202
    )
    session = httpx.get(f"{server.url}/sessions", params={"name": "default"}).json()[0]
    return {"RUN": run_id, "SESSION": session["id"]}


def call(server: Server, ids: dict[str, str], method: str, path: str, body: Any) -> httpx.Response:
    """Calls one of the routes above."""
    text = json.dumps(body)
    for name, value in ids.items():
        path, text = path.replace(name, value), text.replace(f'"{name}"', f'"{value}"')
    if body == "multipart":
        run = run_json(uuid.uuid4(), "default")
        content = multipart([part(f"post.{run['id']}", run)])
        return httpx.request(
            method, server.url + path, content=content, headers={"content-type": CONTENT_TYPE}
        )
    body = run_json(uuid.uuid4(), "default") if body == "run" else json.loads(text)
    return httpx.request(method, server.url + path, json=body)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("prefix", V1_PREFIXES)
@pytest.mark.parametrize(
    ("method", "path", "body", "status"), V1_ROUTES, ids=[f"{m} {p}" for m, p, *_ in V1_ROUTES]
)
def test_v1_route_answers_under_each_prefix(
    server: Server,
    ids: dict[str, str],
    prefix: str,
    slash: str,
    method: str,
    path: str,
    body: Any,
    status: int,
) -> None:
    """With and without a slash at the end, and without a redirect."""
    route, mark, query = path.partition("?")

    def ask() -> httpx.Response:
        return call(server, ids, method, f"{prefix}{route}{slash}{mark}{query}", body)

    answer = unless_slow(ask) if route == "/health" else ask()
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("prefix", V2_PREFIXES)
@pytest.mark.parametrize(
    ("method", "path", "body", "status"), V2_ROUTES, ids=[f"{m} {p}" for m, p, *_ in V2_ROUTES]
)
def test_v2_route_answers_under_each_prefix(
    server: Server,
    ids: dict[str, str],
    prefix: str,
    slash: str,
    method: str,
    path: str,
    body: Any,
    status: int,
) -> None:
    """`/v2` is what some documentation prints."""
    route, mark, query = path.partition("?")
    answer = call(server, ids, method, f"{prefix}{route}{slash}{mark}{query}", body)
    assert answer.status_code == status, answer.text
    assert "items" in answer.json() or answer.json()["id"] == ids["RUN"]


@pytest.mark.parametrize("prefix", V1_PREFIXES)
def test_project_is_deleted_under_each_prefix(server: Server, project: str, prefix: str) -> None:
    """Create and delete below the prefix."""
    made = httpx.post(f"{server.url}{prefix}/sessions", json={"name": project}).json()
    assert httpx.delete(f"{server.url}{prefix}/sessions/{made['id']}").status_code == 200
    assert httpx.get(f"{server.url}{prefix}/sessions/{made['id']}").status_code == 404


@pytest.mark.parametrize("prefix", V1_PREFIXES)
async def test_sdk_works_with_each_endpoint(server: Server, project: str, prefix: str) -> None:
    """`LANGSMITH_ENDPOINT` with or without a path: writes, v1 reads, v2 reads, attachments."""
    client = Client(server.url + prefix, api_key="any")
    run_id = uuid.uuid4()
    run = run_json(run_id, project)
    client.create_run(
        "n",
        {},
        "llm",
        id=run_id,
        trace_id=run_id,
        dotted_order=run["dotted_order"],
        project_name=project,
        attachments={"file": ("text/plain", b"content")},
    )
    client.flush()
    read = client.read_run(run_id)
    files: Any = read.attachments
    assert files["file"]["reader"].read() == b"content"
    assert [listed.id for listed in client.list_runs(project_name=project)] == [run_id]
    retrieved = await client.runs.retrieve(str(run_id), project_id=str(read.session_id), selects=["NAME"])
    assert retrieved.name == "n"
    client.close()


@pytest.mark.parametrize("path", ["/apis/info", "/api/v3/runs/query", "/apiinfo", "/api/v1api/info"])
def test_what_only_looks_like_a_prefix_is_none(server: Server, path: str) -> None:
    """404, not another route's answer."""
    assert httpx.get(server.url + path).status_code == 404


def test_info_is_the_recommended_answer(server: Server) -> None:
    """What makes SDKs send zstd multipart and use v1 and v2 reads (runs-v1 §3)."""
    info = httpx.get(f"{server.url}/info").json()
    assert re.fullmatch(r"\d+\.\d+\.\d+", info["version"])
    assert set(info["batch_ingest_config"]) == {
        "use_multipart_endpoint",
        "scale_up_qsize_trigger",
        "scale_up_nthreads_limit",
        "scale_down_nempty_trigger",
        "size_limit",
        "size_limit_bytes",
    }
    flags = info["instance_flags"]
    assert all(flags[name] for name in ("zstd_compression_enabled", "ch_query_enabled", "sdb_query_enabled"))


def references(value: Any) -> list[str]:
    """All `$ref` of a document."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for item in value.values() for ref in references(item)]
    if isinstance(value, list):
        return [ref for item in value for ref in references(item)]
    return []


def test_openapi_describes_every_route(server: Server) -> None:
    """Valid JSON without duplicate keys, every reference resolves, every operation is explained."""

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(pairs) == len(dict(pairs))
        return dict(pairs)

    answer = httpx.get(f"{server.url}/openapi.json")
    document = json.loads(answer.text, object_pairs_hook=without_duplicates)
    assert document["openapi"].startswith("3.")
    for reference in references(document):
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    described = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    for method, path, *_ in V1_ROUTES:
        route = path.split("?")[0].replace("RUN", "{run_id}").replace("SESSION", "{session_id}")
        assert (method, route) in described
    assert {("POST", "/api/v2/runs/query"), ("GET", "/api/v2/runs/{run_id}")} <= described
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert all(operation.get("summary") or operation.get("description") for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_documentation_needs_no_internet(server: Server) -> None:
    """`/docs` and all that it loads come from this server."""
    page = httpx.get(f"{server.url}/docs")
    assert page.status_code == 200
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert loaded
    for address in loaded:
        assert not address.startswith(("http:", "https:", "//")), address
        assert httpx.get(server.url + address).status_code == 200
    assert not re.search(r"https?://(?!127\.0\.0\.1|localhost)", page.text)
    assert httpx.get(f"{server.url}/").status_code == 200
