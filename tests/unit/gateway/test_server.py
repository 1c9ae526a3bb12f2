"""Routes about the server itself, prefixes, and the OpenAPI."""

import httpx
import pytest
from langsmith import Client

from runstore.domain.errors import ErrorReason
from runstore.gateway.prefixes import canonical_path

from .conftest import BackgroundLoop, FakeStore, Refuse, RunningGateway


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/runs", "/runs"),
        ("/runs/", "/runs"),
        ("/api/v1/runs/query/", "/runs/query"),
        ("/api/runs", "/runs"),
        ("/apiary", "/apiary"),
        ("/api", "/"),
        ("/", "/"),
        ("/v2/runs/query", "/api/v2/runs/query"),
        ("/api/v2/runs/query/", "/api/v2/runs/query"),
        ("/v1/platform/x", "/v1/platform/x"),
        ("/api/v1/platform/x", "/v1/platform/x"),
        ("/platform/x", "/v1/platform/x"),
    ],
)
def test_canonical_path(path: str, canonical: str) -> None:
    """Each prefix of the contract leads to the registered route."""
    assert canonical_path(path) == canonical


@pytest.mark.parametrize("path", ["/info", "/info/", "/api/v1/info", "/api/info"])
def test_info_answers_under_every_prefix(http: httpx.Client, path: str) -> None:
    """The recommended answer comes without credentials or redirects."""
    answer = http.get(path)
    assert answer.status_code == 200
    assert answer.json()["instance_flags"]["zstd_compression_enabled"] is True
    assert answer.json()["batch_ingest_config"]["size_limit_bytes"] == 20_971_520


def test_info_answers_while_the_store_is_away(loop: BackgroundLoop, tmp_path: object) -> None:
    """Info and ok need no store; health and reads say 503, in each dialect."""
    gateway = RunningGateway(loop, f"unix:{tmp_path}/nobody.sock", has_store=False)
    try:
        with httpx.Client(base_url=gateway.url, timeout=20) as http:
            assert http.get("/info").status_code == 200
            assert http.get("/ok").json() == {"ok": True, "services": {}}
            assert http.get("/health").status_code == 503
            assert http.get("/sessions").json() == {"detail": "The store cannot be reached."}
            run = http.post("/runs", json={"id": "0" * 32, "name": "n", "run_type": "llm"})
            assert (run.status_code, run.json()) == (503, {"error": "The store cannot be reached."})
            problem = http.get("/api/v2/runs/" + "0" * 32, params={"project_id": "0" * 32})
            assert problem.status_code == 503
            assert problem.headers["content-type"] == "application/problem+json"
    finally:
        gateway.stop()


def test_health_follows_the_store(http: httpx.Client, store: FakeStore) -> None:
    """Health is 200 only while the store says that it serves."""
    assert http.get("/health").json() == {"status": "ok"}
    store.serving = False
    assert http.get("/health").status_code == 503


def test_openapi_shows_each_route_once(http: httpx.Client) -> None:
    """The OpenAPI holds canonical forms only, with bodies and security."""
    schema = http.get("/openapi.json").json()
    paths = set(schema["paths"])
    assert [path for path in paths if canonical_path(path) != path] == []
    assert paths >= {
        "/runs",
        "/api/v2/runs/query",
        "/sessions/{session_id}",
        "/feedback",
        "/info",
        "/metrics",
    }
    assert paths >= {"/datasets/{dataset_id}/versions/diff", "/v1/platform/datasets/{dataset_id}/examples"}
    assert paths >= {"/annotation-queues/{queue_id}/runs", "/v1/platform/annotation-queues/{queue_id}/items"}
    assert "multipart/form-data" in schema["paths"]["/runs/multipart"]["post"]["requestBody"]["content"]
    assert schema["paths"]["/info"]["get"]["security"] == []
    assert "apiKey" in schema["components"]["securitySchemes"]


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/"])
def test_documentation_needs_no_other_server(http: httpx.Client, path: str) -> None:
    """The pages load scripts and styles from the gateway only."""
    answer = http.get(path)
    assert answer.status_code == 200
    assert "cdn" not in answer.text


def test_unknown_routes_are_404_in_their_dialect(http: httpx.Client) -> None:
    """Never a redirect, never HTML."""
    assert http.get("/nothing").json() == {"detail": "Not Found"}
    problem = http.get("/api/v2/nothing")
    assert problem.json()["status"] == 404
    assert problem.headers["content-type"] == "application/problem+json"


def test_attachment_is_served_by_its_token_alone(http: httpx.Client, store: FakeStore) -> None:
    """Content and type come back as they were sent, and no browser runs them."""
    store.blobs["a.b-c_d="] = ("text/html", b"<b>")
    answer = http.get("/api/v1/attachments/a.b-c_d%3D")
    assert (answer.content, answer.headers["content-type"]) == (b"<b>", "text/html")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-length"] == "3"


def test_attachment_type_cannot_inject_headers(http: httpx.Client, store: FakeStore) -> None:
    """A type that no header can hold becomes the generic one."""
    store.blobs["t"] = ("a/b\r\nx: y", b"1")
    answer = http.get("/attachments/t")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "x" not in answer.headers


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (ErrorReason.UNAUTHENTICATED, 401),
        (ErrorReason.PERMISSION_DENIED, 403),
        (ErrorReason.OVERLOADED, 429),
        (ErrorReason.UNAVAILABLE, 503),
        (ErrorReason.DEADLINE_EXCEEDED, 504),
        (ErrorReason.INTERNAL, 500),
    ],
)
@pytest.mark.parametrize("has_detail", [True, False])
def test_store_refusals_keep_their_meaning(
    http: httpx.Client, store: FakeStore, reason: ErrorReason, status: int, has_detail: bool
) -> None:
    """Each reason has its status; internal texts do not reach the caller."""
    store.answers["ListProjects"] = Refuse(reason, "secret text", has_detail=has_detail)
    answer = http.get("/sessions")
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == ("1" if status in (429, 503) else None)
    if status == 500 or not has_detail:
        assert "secret" not in answer.text


def test_credentials_travel_as_metadata(http: httpx.Client, store: FakeStore) -> None:
    """All five headers reach the store under their own names; others do not."""
    names = ("x-api-key", "x-service-key", "authorization", "cookie", "x-tenant-id")
    http.get("/sessions", headers={**{name: f"value of {name}" for name in names}, "x-other": "1"})
    assert {name: store.metadata[name] for name in names} == {name: f"value of {name}" for name in names}
    assert "x-other" not in store.metadata


def test_credentials_that_metadata_cannot_carry_are_401(http: httpx.Client, store: FakeStore) -> None:
    """A key with other than ASCII characters is refused, not a defect."""
    assert http.get("/sessions", headers=[(b"x-api-key", "schlüssel".encode())]).status_code == 401
    assert store.requests == []


def test_sdk_reads_info(url: str, store: FakeStore) -> None:
    """The SDK's client accepts the answer."""
    info = Client(api_url=url, api_key="k").info
    assert info.version == "0.18.0"
    assert info.batch_ingest_config is not None
