"""What strangers and broken clients send: one refusal that names what is wrong, and nothing else is lost."""

import gzip
import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import zstandard

from .servers import Server, serving, unless_slow
from .wire import CONTENT_TYPE, dotted_order, multipart, part, run_json

pytestmark = pytest.mark.both_catalogs(slow=True)

MIB = 1024 * 1024
NOBODYS_KEY = "rsk_" + "x" * 43


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """The server without authentication; every answer is looked at before a test sees it."""
    with httpx.Client(
        base_url=server.url, timeout=60, event_hooks={"response": [refuses_decently]}
    ) as client:
        yield client


def refuses_decently(answer: httpx.Response) -> None:
    """No answer is a 500 or shows the server's inside; every refusal is JSON in its dialect."""
    answer.read()
    assert answer.status_code not in (500, 502, 503, 504), answer.text
    for inside in ("Traceback", "site-packages", ".py", "grpc", "clickhouse", "sqlite"):
        assert inside not in answer.text, answer.text
    if answer.is_client_error:
        refusal = answer.json()
        path = answer.request.url.path
        if path.startswith("/api/v2/"):
            assert answer.headers["content-type"] == "application/problem+json"
            assert refusal["status"] == answer.status_code
            assert refusal["detail"]
        else:
            assert refusal.get("error") or refusal.get("detail")


def post_multipart(http: httpx.Client, body: bytes, **headers: str) -> httpx.Response:
    """Sends a body to `/runs/multipart`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.post("/runs/multipart", content=body, headers={"content-type": CONTENT_TYPE, **named})


def names_in(http: httpx.Client, project: str) -> list[str]:
    """Names of the runs that were stored in a project."""
    [session] = http.get("/sessions", params={"name": project}).json() or [None]
    if session is None:
        return []
    answer = http.post("/runs/query", json={"session": [session["id"]], "limit": 100})
    return sorted(run["name"] for run in answer.json()["runs"])


# --- JSON that is none --------------------------------------------------------------------------------


JSON_ROUTES = [
    ("POST", "/runs"),
    ("PATCH", f"/runs/{uuid.UUID(int=1)}"),
    ("POST", "/runs/batch"),
    ("POST", "/runs/query"),
    ("POST", "/sessions"),
    ("PATCH", f"/sessions/{uuid.UUID(int=1)}"),
    ("POST", "/api/v2/runs/query"),
]
NO_JSON = [b"", b"{", b"[1,", b'{"id": \xff}', b"nonsense", b'"' + b"[" * 5_000, b"[" * 5_000]


@pytest.mark.parametrize(("method", "path"), JSON_ROUTES)
@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: repr(body[:10]))
def test_malformed_json_is_refused(http: httpx.Client, method: str, path: str, body: bytes) -> None:
    """Every route that takes JSON refuses what is none; v2 always with 400."""
    answer = http.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in ((400,) if "v2" in path else (400, 422)), answer.text


@pytest.mark.parametrize("body", [[], "text", 5, None, {"post": {}}, {"post": [5]}, {"patch": "x"}])
def test_json_of_another_shape_is_refused(http: httpx.Client, body: object) -> None:
    """JSON that is not a batch is a 4xx, not a success that stores nothing."""
    answer = http.post("/runs/batch", json=body)
    assert answer.status_code in (400, 422), answer.text


# --- runs with one thing wrong ------------------------------------------------------------------------

OTHER = uuid.UUID(int=0xABC)

# What is changed in a good run → the field that the refusal names.
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("unknown run type", {"run_type": "agent"}, "run_type"),
    ("run type is a number", {"run_type": 5}, "run_type"),
    ("no run type", {"run_type": None}, "run_type"),
    ("no name", {"name": None}, "name"),
    ("name is a list", {"name": ["n"]}, "name"),
    ("id is no UUID", {"id": "run-1"}, "id"),
    ("id too long", {"id": str(OTHER) + "0"}, "id"),
    ("trace_id is no UUID", {"trace_id": "x"}, "trace_id"),
    ("parent_run_id is no UUID", {"parent_run_id": "x"}, "parent_run_id"),
    ("session_id is no UUID", {"session_id": "x"}, "session_id"),
    ("session_id is nobody's", {"session_id": str(OTHER)}, "session_id"),
    ("reference_example_id is no UUID", {"reference_example_id": "x"}, "reference_example_id"),
    ("start_time is no time", {"start_time": "yesterday"}, "start_time"),
    ("start_time on no day", {"start_time": "2026-02-30T00:00:00Z"}, "start_time"),
    ("start_time out of range", {"start_time": "9999-12-31T23:59:59Z"}, "start_time"),
    ("start_time before all", {"start_time": "0001-01-01T00:00:00Z"}, "start_time"),
    ("end_time is no time", {"end_time": "soon"}, "end_time"),
    ("end_time is an object", {"end_time": {}}, "end_time"),
    ("dotted_order of another run", {"dotted_order": dotted_order(OTHER)}, "dotted_order"),
    ("dotted_order of another trace", {"trace_id": str(OTHER)}, "dotted_order"),
    ("dotted_order of another parent", {"parent_run_id": str(OTHER)}, "dotted_order"),
    ("dotted_order that is none", {"dotted_order": "20260101"}, "dotted_order"),
    ("dotted_order with a bad time", {"dotted_order": f"20261301T000000000000Z{OTHER}"}, "dotted_order"),
    ("tags are text", {"tags": "a,b"}, "tags"),
    ("tags hold numbers", {"tags": [1]}, "tags"),
    ("events are an object", {"events": {"name": "x"}}, "events"),
    ("extra is a list", {"extra": []}, "extra"),
    ("inputs are text", {"inputs": "question"}, "inputs"),
    ("inputs are a list", {"inputs": [1]}, "inputs"),
    ("outputs are a number", {"outputs": 5}, "outputs"),
    ("serialized is text", {"serialized": "x"}, "serialized"),
]
# The gRPC name of a field of the contract, which a refusal may use instead.
ALSO = {"session_id": "project_id"}


@pytest.mark.parametrize(("change", "field"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
@pytest.mark.parametrize("route", ["/runs", "/runs/batch", "/runs/multipart"])
def test_wrong_field_is_named_and_the_neighbours_are_stored(
    http: httpx.Client, project: str, route: str, change: dict[str, Any], field: str
) -> None:
    """422 that names the field, by each ingest route; runs before and after it in the request are stored."""
    bad = run_json(uuid.uuid4(), project, name="bad") | change
    bad = {name: value for name, value in bad.items() if value is not None}
    neighbours = [run_json(uuid.uuid4(), project, name=name) for name in ("before", "after")]
    if route == "/runs":
        answer = http.post(route, json=bad)
        for neighbour in neighbours:
            assert http.post(route, json=neighbour).status_code == 202
    elif route == "/runs/batch":
        answer = http.post(route, json={"post": [neighbours[0], bad, neighbours[1]]})
    else:
        runs = [neighbours[0], bad, neighbours[1]]
        answer = post_multipart(http, multipart(part(f"post.{run['id']}", run) for run in runs))
    assert answer.status_code == 422, answer.text
    assert field in answer.text or ALSO.get(field, field) in answer.text, answer.text
    assert names_in(http, project) == ["after", "before"]


@pytest.mark.parametrize("missing", ["id", "trace_id", "dotted_order", "name", "run_type"])
@pytest.mark.parametrize("route", ["/runs/batch", "/runs/multipart"])
def test_what_batches_need_is_named_when_missing(
    http: httpx.Client, project: str, route: str, missing: str
) -> None:
    """A create in a batch needs id, trace, position, name and type; a neighbour is stored without it."""
    run_id = uuid.uuid4()
    bad = run_json(run_id, project, name="bad")
    del bad[missing]
    good = run_json(uuid.uuid4(), project, name="good")
    if route == "/runs/batch":
        answer = http.post(route, json={"post": [bad, good]})
    else:
        answer = post_multipart(
            http, multipart([part(f"post.{run_id}", bad), part(f"post.{good['id']}", good)])
        )
    assert answer.status_code == 422
    assert missing in answer.text
    assert names_in(http, project) == ["good"]


def test_single_run_needs_no_position(http: httpx.Client, project: str) -> None:
    """`POST /runs` takes a run without `trace_id` and `dotted_order`, and unknown keys."""
    body = {"id": str(uuid.uuid4()), "name": "n", "run_type": "llm", "session_name": project, "unheard_of": 1}
    assert http.post("/runs", json=body).status_code == 202
    assert names_in(http, project) == ["n"]


# --- multipart ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra_part", "named"),
    [
        (lambda run_id: part(f"post.{uuid.uuid4()}.inputs", {}), "post."),
        (lambda run_id: part(f"patch.{run_id}.outputs", {}), "patch."),
        (lambda run_id: part(f"attachment.{uuid.uuid4()}.file", b"x", "text/plain"), "attachment."),
        (lambda run_id: part(f"post.{run_id}.unknown", {}), "unknown"),
        (lambda run_id: part("nonsense", {}), "nonsense"),
        (lambda run_id: part("post.not-a-uuid", {}), "post.not-a-uuid"),
        (lambda run_id: part(f"post.{run_id}.inputs", {"a": 1}, length=3), "ength"),
        (lambda run_id: part(f"attachment.{run_id}.a.b", b"x", "text/plain"), "attachment."),
        (lambda run_id: part(f"attachment.{run_id}.", b"x", "text/plain"), "attachment."),
        (lambda run_id: part("feedback.not-a-uuid", {}), "feedback."),
    ],
    ids=[
        "payload without its run", "payload of an update that is not there", "attachment without its run",
        "unknown payload", "unknown part", "id is no UUID", "wrong length", "name with a dot",
        "no name", "feedback id is no UUID",
    ],
)  # fmt: skip
def test_wrong_part_is_named_and_its_neighbours_are_stored(
    http: httpx.Client, project: str, extra_part: Any, named: str
) -> None:
    """422 naming the part; the runs around it are stored, and so is their other content."""
    first, second = uuid.uuid4(), uuid.uuid4()
    answer = post_multipart(
        http,
        multipart(
            [
                part(f"post.{first}", run_json(first, project, name="first")),
                extra_part(first),
                part(f"post.{second}", run_json(second, project, name="second")),
                part(f"post.{second}.inputs", {"kept": True}),
            ]
        ),
    )
    assert answer.status_code == 422, answer.text
    assert named in answer.text
    assert names_in(http, project) == ["first", "second"]
    assert http.get(f"/runs/{second}").json()["inputs"] == {"kept": True}


def test_run_with_a_broken_payload_is_refused_and_its_neighbours_are_stored(
    http: httpx.Client, project: str
) -> None:
    """Half a run would be worse than none; 422 names the part."""
    broken, good = uuid.uuid4(), uuid.uuid4()
    parts = [
        part(f"post.{broken}", run_json(broken, project, name="broken")),
        part(f"post.{broken}.inputs", b"{broken"),
        part(f"post.{good}", run_json(good, project, name="good")),
    ]
    answer = post_multipart(http, multipart(parts))
    assert answer.status_code == 422
    assert "inputs" in answer.text
    assert names_in(http, project) == ["good"]


def test_part_without_a_length_is_refused(http: httpx.Client, project: str) -> None:
    """Neither `Content-Length` nor `; length=`: 422 that says so; with the option it is stored."""
    without, with_option = uuid.uuid4(), uuid.uuid4()

    def lengthless(run_id: uuid.UUID, mime_type: str) -> bytes:
        raw = json.dumps(run_json(run_id, project)).encode()
        head = f'Content-Disposition: form-data; name="post.{run_id}"\r\nContent-Type: {mime_type}'
        return f"{head.replace('LENGTH', str(len(raw)))}\r\n\r\n".encode() + raw

    body = multipart(
        [lengthless(without, "application/json"), lengthless(with_option, "application/json; length=LENGTH")]
    )
    answer = post_multipart(http, body)
    assert answer.status_code == 422
    assert "ength" in answer.text
    assert names_in(http, project) == ["sent"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--",
        b"no boundary at all",
        multipart([part("post.x", {})])[:-20],
        multipart([part("post.x", {})])[:60],
        multipart([b"No-Disposition: 1\r\n\r\nx"]),
        multipart([b"\r\nx"]),
    ],
    ids=["empty", "dashes", "no boundary", "no end", "cut in the headers", "no disposition", "no headers"],
)
def test_broken_multipart_is_refused_as_a_whole(http: httpx.Client, body: bytes) -> None:
    """400: nothing of it can be trusted."""
    assert post_multipart(http, body).status_code == 400


@pytest.mark.parametrize("content_type", ["multipart/form-data", "application/json", "text/plain", ""])
def test_multipart_without_a_boundary_is_refused(http: httpx.Client, content_type: str) -> None:
    """The content type must name the boundary."""
    answer = http.post("/runs/multipart", content=b"{}", headers={"content-type": content_type})
    assert answer.status_code == 400
    assert "Content-Type" in answer.text


# --- compression and size -----------------------------------------------------------------------------


def test_compressed_bodies_of_every_kind_are_read(http: httpx.Client, project: str) -> None:
    """zstd with and without a content size, several frames, gzip, several members, chunked transfer."""
    zstd = zstandard.ZstdCompressor()

    def body() -> bytes:
        run_id = uuid.uuid4()
        return multipart([part(f"post.{run_id}", run_json(run_id, project))])

    def streamed(raw: bytes) -> bytes:
        compressor = zstandard.ZstdCompressor().compressobj()
        return compressor.compress(raw) + compressor.flush()

    def halves(raw: bytes) -> tuple[bytes, bytes]:
        return raw[: len(raw) // 2], raw[len(raw) // 2 :]

    ways: list[tuple[str, Any]] = [
        ("zstd", zstd.compress),
        ("zstd", streamed),
        ("zstd", lambda raw: b"".join(map(streamed, halves(raw)))),
        ("gzip", gzip.compress),
        ("gzip", lambda raw: b"".join(map(gzip.compress, halves(raw)))),
        ("identity", lambda raw: raw),
    ]
    for encoding, compress in ways:
        for chunked in (False, True):
            content = compress(body())
            sent: Any = iter([content[:10], content[10:]]) if chunked else content
            assert post_multipart(http, sent, content_encoding=encoding).status_code == 202
    assert names_in(http, project) == ["sent"] * 12


@pytest.mark.parametrize("route", ["/runs", "/runs/batch", "/runs/multipart"])
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("zstd", b"this is not zstd"),
        ("zstd", zstandard.compress(b"x" * 5_000)[:-4]),
        ("zstd", b"\x28\xb5\x2f\xfd" + bytes(20)),
        ("gzip", b"this is not gzip"),
        ("gzip", gzip.compress(b"x" * 5_000)[:-9]),
        ("br", b"whatever"),
        ("zstd", b""),
    ],
    ids=["not zstd", "cut zstd", "broken zstd", "not gzip", "cut gzip", "unknown", "empty"],
)
def test_broken_compression_is_refused(http: httpx.Client, route: str, encoding: str, body: bytes) -> None:
    """400, not a retry loop."""
    answer = http.post(
        route,
        content=body,
        headers={
            "content-encoding": encoding,
            "content-type": CONTENT_TYPE if route == "/runs/multipart" else "application/json",
        },
    )
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
def test_bomb_is_refused(http: httpx.Client, encoding: str) -> None:
    """A small body that would fill the memory is 413."""
    zeros = bytes(64 * MIB)
    bomb = zstandard.compress(zeros, 19) if encoding == "zstd" else gzip.compress(zeros)
    assert len(bomb) < MIB
    assert post_multipart(http, bomb, content_encoding=encoding).status_code == 413


def test_json_routes_have_a_limit_of_their_own(http: httpx.Client) -> None:
    """Queries are never large."""
    answer = http.post("/runs/query", content=b'{"filter": "' + b"x" * (17 * MIB) + b'"}')
    assert answer.status_code == 413


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server that takes at most 1 MiB as it travels and 4 MiB decompressed."""
    limits = {"max_body_bytes": "1MiB", "max_decompressed_bytes": "4MiB"}
    folder: Path = tmp_path_factory.mktemp("small")
    with (
        serving(folder, **limits) as server,
        httpx.Client(base_url=server.url, timeout=60, event_hooks={"response": [refuses_decently]}) as client,
    ):
        yield client
        assert server.defects() == []


@pytest.mark.parametrize("chunked", [False, True])
def test_oversized_body_is_refused(small: httpx.Client, project: str, chunked: bool) -> None:
    """Above the limit as it travels: 413 that tells the limit, with a declared length or without one."""
    run_id = uuid.uuid4()
    body = multipart([part(f"post.{run_id}", run_json(run_id, project, inputs={"x": "y" * 2 * MIB}))])
    content: Any = iter([body[start : start + 100_000] for start in range(0, len(body), 100_000)])
    answer = post_multipart(small, content if chunked else body)
    assert answer.status_code == 413
    assert str(MIB) in answer.text
    assert names_in(small, project) == []


def test_body_that_grows_too_large_is_refused(small: httpx.Client, project: str) -> None:
    """Below the limit as it travels, above it decompressed: 413."""
    run_id = uuid.uuid4()
    run = run_json(run_id, project, inputs={"x": [str(uuid.uuid4()) * 20 for _ in range(7_000)]})
    body = zstandard.compress(multipart([part(f"post.{run_id}", run)]))
    assert len(body) < MIB
    answer = post_multipart(small, body, content_encoding="zstd")
    assert answer.status_code == 413
    assert str(4 * MIB) in answer.text


def test_declared_size_is_refused_before_it_is_sent(small: httpx.Client) -> None:
    """A declared length above the limit is answered without waiting for the body."""
    address = urlsplit(str(small.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        headers = f"Host: x\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {99 * MIB}\r\n\r\n"
        connection.sendall(f"POST /runs/multipart HTTP/1.1\r\n{headers}".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_payload_at_the_limit_is_stored_whole(small: httpx.Client, project: str) -> None:
    """Just below the limits nothing is refused and nothing is cut."""
    run_id = uuid.uuid4()
    text = "z" * (3 * MIB)
    run = run_json(run_id, project, inputs={"x": text})
    body = zstandard.compress(multipart([part(f"post.{run_id}", run)]))
    assert post_multipart(small, body, content_encoding="zstd").status_code == 202
    assert small.get(f"/runs/{run_id}").json()["inputs"] == {"x": text}


# --- reads --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"session": ["x"]}, 422, "session"),
        ({"id": ["x"]}, 422, "id"),
        ({"trace": "x"}, 422, "trace"),
        ({"parent_run": 5}, 422, "parent_run"),
        ({"run_type": "agent"}, 422, "run_type"),
        ({"start_time": "yesterday"}, 422, "start_time"),
        ({"end_time": 5}, 422, "end_time"),
        ({"select": ["no_such_field"]}, 422, "select"),
        ({"order": "sideways"}, 422, "order"),
        ({"limit": "many"}, 422, "limit"),
        ({"error": "maybe"}, 422, "error"),
        ({"cursor": "not a cursor"}, 400, "cursor"),
        ({"cursor": "eyJhIjoxfQ=="}, 400, "cursor"),
        ({"filter": "eq(name"}, 400, "filter"),
        ({"filter": 'nin(name, "x")'}, 400, "filter"),
        ({"filter": 'eq(nonsense, "x")'}, 400, "nonsense"),
        ({"filter": "gt(name, 5)"}, 400, "filter"),
        ({"filter": 'eq(id, "x")'}, 400, "filter"),
        ({"filter": "and(" * 100 + 'eq(name, "x")' + ")" * 100}, 400, "filter"),
        ({"filter": 'eq(name, "' + "x" * 20_000 + '")'}, 400, "filter"),
        ({"filter": 'eq(name, "\'; DROP TABLE runs --")'}, 200, ""),
        ({"limit": 0}, 200, ""),
        ({"limit": -5}, 200, ""),
        ({"limit": 100_000}, 200, ""),
        ({"unknown_key": 1}, 200, ""),
    ],
    ids=str,
)
def test_v1_query(http: httpx.Client, change: dict[str, Any], status: int, named: str) -> None:
    """What cannot be understood is named; limits are moved into their range, unknown keys ignored."""
    default = http.get("/sessions", params={"name": "default"}).json()[0]["id"]
    answer = http.post("/runs/query", json={"session": [default], **change})
    assert answer.status_code == status, answer.text
    assert named.lower() in answer.text.lower()


def test_v1_query_needs_a_bound(http: httpx.Client) -> None:
    """A list of everything of everybody is refused with the contract's sentence."""
    answer = http.post("/runs/query", json={"limit": 5})
    assert answer.status_code == 400
    assert "At least one of 'session', 'id', 'parent_run'" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"project_ids": ["x"]}, 422, "project_ids"),
        ({"project_ids": []}, 400, "project_ids"),
        ({"ids": ["x"]}, 422, "ids"),
        ({"trace_id": "x"}, 422, "trace_id"),
        ({"min_start_time": "yesterday"}, 400, "min_start_time"),
        ({"max_start_time": "2026-13-01T00:00:00Z"}, 400, "max_start_time"),
        ({"run_type": "AGENT"}, 400, "run_type"),
        ({"selects": ["NO_SUCH"]}, 400, "selects"),
        ({"page_size": 0}, 400, "page_size"),
        ({"page_size": -1}, 400, "page_size"),
        ({"page_size": 1_001}, 400, "page_size"),
        ({"page_size": "many"}, 400, "page_size"),
        ({"cursor": "nonsense"}, 400, "cursor"),
        ({"cursor": "w0.0.nonsense"}, 400, "cursor"),
        ({"sort_order": "SIDEWAYS"}, 400, "sort_order"),
        ({"filter": "eq("}, 400, "filter"),
        ({"reference_dataset_id": str(OTHER)}, 400, "project_ids"),
        ({"ai_search": "slow ones"}, 406, "ai_search"),
        ({"unknown_key": 1}, 200, ""),
    ],
    ids=str,
)
def test_v2_query(http: httpx.Client, change: dict[str, Any], status: int, named: str) -> None:
    """Problems by RFC 7807: 422 for malformed UUIDs, 400 for other parameters, 501 never to be retried."""
    default = http.get("/sessions", params={"name": "default"}).json()[0]["id"]
    answer = http.post("/api/v2/runs/query", json={"project_ids": [default], **change})
    assert answer.status_code == status, answer.text
    assert named in answer.text
    if status == 501:
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/runs/not-a-uuid", 422),
        (f"/runs/{OTHER}", 404),
        (f"/runs/{OTHER}?session_id=x", 422),
        (f"/api/v2/runs/{OTHER}", 400),
        (f"/api/v2/runs/not-a-uuid?project_id={OTHER}", 422),
        (f"/api/v2/runs/{OTHER}?project_id=x", 422),
        (f"/api/v2/runs/{OTHER}?project_id={OTHER}&selects=NO_SUCH", 400),
        (f"/api/v2/runs/{OTHER}?project_id={OTHER}", 404),
        ("/sessions/not-a-uuid", 422),
        (f"/sessions/{OTHER}", 404),
        ("/sessions?limit=0", 422),
        ("/sessions?limit=101", 422),
        ("/sessions?offset=-1", 422),
        ("/sessions?id=x", 422),
        ("/sessions?metadata=[", 422),
        ("/sessions?offset=100000", 200),
        ("/attachments/nonsense", 404),
        ("/no/such/route", 404),
        ("/%00", 404),
        ("/runs/%F0%9F%98%80", 422),
    ],
)
def test_reads_of_nothing(http: httpx.Client, path: str, status: int) -> None:
    """Ids that are none are 422, ids of nothing 404, pages out of range are refused."""
    assert http.get(path).status_code == status


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({}, 422, "name"),
        ({"name": ""}, 422, "name"),
        ({"name": "x" * 513}, 422, "name"),
        ({"name": 5}, 422, "name"),
        ({"name": "n", "id": "x"}, 422, "id"),
        ({"name": "n", "extra": []}, 422, "extra"),
        ({"name": "n", "start_time": "x"}, 422, "start_time"),
        ({"name": "default"}, 409, "default"),
    ],
    ids=str,
)
def test_project_that_cannot_be_made(
    http: httpx.Client, body: dict[str, Any], status: int, named: str
) -> None:
    """422 naming the key, 409 for a taken name."""
    answer = http.post("/sessions", json=body)
    assert answer.status_code == status, answer.text
    assert named in answer.text


def test_wrong_method_is_405(http: httpx.Client) -> None:
    """A route answers to its own methods only."""
    assert http.delete("/info").status_code == 405


# --- cursors ------------------------------------------------------------------------------------------


def three_runs(http: httpx.Client, project: str) -> str:
    """A project with three runs: its id."""
    runs = [run_json(uuid.uuid4(), project) for _ in range(3)]
    assert http.post("/runs/batch", json={"post": runs}).status_code == 202
    session_id: str = http.get("/sessions", params={"name": project}).json()[0]["id"]
    return session_id


@pytest.mark.parametrize(
    "change",
    [
        {"is_root": True},
        {"order": "asc"},
        {"filter": 'eq(name, "sent")'},
        {"session": "other"},
        {"run_type": "llm"},
    ],
    ids=str,
)
def test_v1_cursor_of_another_query_is_refused(
    http: httpx.Client, project: str, change: dict[str, Any]
) -> None:
    """400 naming the cursor; with its own query it goes on."""
    query = {"session": [three_runs(http, project)], "limit": 1}
    cursor = http.post("/runs/query", json=query).json()["cursors"]["next"]
    assert cursor
    assert len(http.post("/runs/query", json={**query, "cursor": cursor}).json()["runs"]) == 1
    if change == {"session": "other"}:
        change = {"session": [three_runs(http, f"{project}-2")]}
    answer = http.post("/runs/query", json={**query, **change, "cursor": cursor})
    assert answer.status_code == 400
    assert "cursor" in answer.text
    tampered = cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB")
    assert http.post("/runs/query", json={**query, "cursor": tampered}).status_code == 400


def test_v2_cursor_of_another_query_is_refused(http: httpx.Client, project: str) -> None:
    """400 naming the cursor, for other conditions and for another window."""
    query = {"project_ids": [three_runs(http, project)], "page_size": 1}
    cursor = http.post("/api/v2/runs/query", json=query).json()["next_cursor"]
    assert len(http.post("/api/v2/runs/query", json={**query, "cursor": cursor}).json()["items"]) == 1
    for change in ({"has_error": True}, {"sort_order": "ASC"}, {"min_start_time": "2026-01-01T00:00:00Z"}):
        answer = http.post("/api/v2/runs/query", json={**query, **change, "cursor": cursor})
        assert answer.status_code == 400, change
        assert "cursor" in answer.text


# --- keys ---------------------------------------------------------------------------------------------

ROUTES_WITH_KEYS: list[tuple[str, str, Any]] = [
    ("POST", "/runs", {"id": str(OTHER), "name": "n", "run_type": "llm"}),
    ("PATCH", f"/runs/{OTHER}", {}),
    ("POST", "/runs/batch", {"post": []}),
    ("POST", "/runs/batch", {"post": [{"id": "wrong"}]}),
    ("GET", f"/runs/{OTHER}", None),
    ("POST", "/runs/query", {"session": [str(OTHER)]}),
    ("GET", "/sessions", None),
    ("GET", f"/sessions/{OTHER}", None),
    ("POST", "/sessions", {"name": "n"}),
    ("PATCH", f"/sessions/{OTHER}", {}),
    ("DELETE", f"/sessions/{OTHER}", None),
    ("POST", "/api/v2/runs/query", {"project_ids": [str(OTHER)]}),
    ("GET", f"/api/v2/runs/{OTHER}?project_id={OTHER}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES_WITH_KEYS, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": "wrong"}, {"x-api-key": NOBODYS_KEY}, {"x-api-key": "ü\n"[:1]}]
)
def test_nothing_is_answered_without_a_good_key(
    guarded: Server, method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    """401 on every route."""
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    answer = httpx.request(method, guarded.url + path, json=body, headers=encoded)
    refuses_decently(answer)
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/info", "/api/v1/info", "/ok", "/health", "/docs", "/openapi.json", "/"])
def test_what_needs_no_key(guarded: Server, path: str) -> None:
    """The server tells about itself to everybody."""

    def ask() -> httpx.Response:
        return httpx.get(guarded.url + path)

    assert (unless_slow(ask) if path == "/health" else ask()).status_code == 200


@pytest.mark.parametrize("header", ["x-api-key", "X-API-Key", "x-service-key", "authorization", "cookie"])
def test_key_is_taken_from_each_header(guarded: Server, key: str, header: str) -> None:
    """A good key works in every header of the contract."""
    value = {"authorization": f"Bearer {key}", "cookie": f"a=b; runstore_session={key}"}.get(header, key)
    assert httpx.get(f"{guarded.url}/sessions", headers={header: value}).status_code == 200
    wrong = value.replace(key, NOBODYS_KEY)
    assert httpx.get(f"{guarded.url}/sessions", headers={header: wrong}).status_code == 401


def test_another_tenant_sees_nothing(guarded: Server, key: str, foreign_key: str, project: str) -> None:
    """Runs, traces, projects and attachments of one tenant do not exist for another one, by any route."""
    mine = httpx.Client(base_url=guarded.url, headers={"x-api-key": key})
    theirs = httpx.Client(base_url=guarded.url, headers={"x-api-key": foreign_key})
    run_id = uuid.uuid4()
    assert mine.post("/runs", json=run_json(run_id, project)).status_code == 202
    session_id = mine.get("/sessions", params={"name": project}).json()[0]["id"]
    assert mine.get(f"/runs/{run_id}").status_code == 200

    assert theirs.get(f"/runs/{run_id}").status_code == 404
    assert theirs.get(f"/runs/{run_id}", params={"session_id": session_id}).status_code == 404
    assert theirs.get(f"/api/v2/runs/{run_id}", params={"project_id": session_id}).status_code == 404
    assert theirs.get(f"/sessions/{session_id}").status_code == 404
    assert theirs.patch(f"/sessions/{session_id}", json={"name": "stolen"}).status_code == 404
    assert theirs.delete(f"/sessions/{session_id}").status_code == 404
    assert project not in [found["name"] for found in theirs.get("/sessions").json()]
    for query in ({"session": [session_id]}, {"id": [str(run_id)]}, {"trace": str(run_id)}):
        answer = theirs.post("/runs/query", json=query)
        assert answer.status_code == 404 or answer.json()["runs"] == []
    listed = theirs.post("/api/v2/runs/query", json={"project_ids": [session_id]})
    assert listed.status_code == 404 or listed.json()["items"] == []
    into_theirs = run_json(uuid.uuid4(), project, session_id=session_id)
    assert theirs.post("/runs", json=into_theirs).status_code in (404, 422)
    # The same run id in another tenant is another run.
    assert theirs.post("/runs", json=run_json(run_id, project, name="theirs")).status_code == 202
    assert mine.get(f"/runs/{run_id}").json()["name"] == "sent"
    assert theirs.get(f"/runs/{run_id}").json()["name"] == "theirs"
    mine.close()
    theirs.close()


def test_tenant_header_must_agree_with_the_key(guarded: Server, key: str, foreign_key: str) -> None:
    """`X-Tenant-Id` of another tenant is 403, whatever the spelling; that of the key's own works."""

    def sessions(secret: str, tenant: str) -> httpx.Response:
        return httpx.get(f"{guarded.url}/sessions", headers={"x-api-key": secret, "x-tenant-id": tenant})

    mine, theirs = (
        httpx.get(f"{guarded.url}/sessions", headers={"x-api-key": each}).json()[0]["tenant_id"]
        for each in (key, foreign_key)
    )
    assert sessions(key, mine).status_code == 200
    assert sessions(key, mine.upper()).status_code == 200
    assert sessions(key, theirs).status_code == 403
    assert sessions(key, "nonsense").status_code == 403
