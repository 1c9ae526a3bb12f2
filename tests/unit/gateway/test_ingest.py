"""Ingest over HTTP: what reaches the store, and what is answered to bad input."""

import gzip
import json
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import structlog
import zstandard

from runstore.domain.errors import ErrorReason
from runstore.gateway.operations import Operations
from runstore.v1 import error_pb2, run_pb2
from runstore.v1 import feedback_service_pb2 as feedback
from runstore.v1 import run_ingest_service_pb2 as ingest

from .conftest import MAX_BODY_BYTES, MAX_DECOMPRESSED_BYTES, FakeStore, Refuse, line_of
from .wire import CONTENT_TYPE, OTHER_ID, RUN_ID, body, dotted_order, part, run


def post(http: httpx.Client, content: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    """Sends a multipart body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return http.post("/runs/multipart", content=content, headers={"content-type": CONTENT_TYPE, **named})


def zstd_frames(raw: bytes, size: int) -> bytes:
    """Frames without a content size, of `size` bytes each."""
    frames = []
    for start in range(0, len(raw), size):
        compressor = zstandard.ZstdCompressor(level=1).compressobj()
        frames.append(compressor.compress(raw[start : start + size]) + compressor.flush())
    return b"".join(frames)


# --- single runs -------------------------------------------------------------------------------------


def test_create_passes_every_field_on(http: httpx.Client, store: FakeStore) -> None:
    """Ids are canonical, times in UTC, payload bytes untouched, unknown keys ignored."""
    raw = b"""{"id":"0190C8A0111170008000000000000001","name":"n","run_type":"LLM",
      "start_time":"2024-04-29T02:49:12.090001+02:00","end_time":"2024-04-29T00:49:13",
      "inputs":{"a": 1e400 , "b":[1.10]},"outputs":{},"events":[],"extra":{"metadata":{}},
      "serialized":{"k":1},"error":"bo\\u00f6m","tags":["a"],"session_name":"p",
      "session_id":"0190c8a0-2222-7000-8000-000000000002","parent_run_id":null,
      "reference_example_id":"0190c8a0-2222-7000-8000-000000000002","revision_id":null,"status":"x"}"""
    answer = http.post("/runs", content=raw)
    assert (answer.status_code, answer.json()) == (202, {"message": "Run created"})
    (operation,) = store.operations
    fields = operation.create
    assert fields.id == RUN_ID
    assert fields.run_type == run_pb2.RUN_TYPE_LLM
    assert fields.start_time.ToMicroseconds() == 1714351752090001
    assert fields.end_time.ToMicroseconds() == 1714351753000000
    assert fields.inputs == b'{"a": 1e400 , "b":[1.10]}'
    assert (fields.outputs, fields.events, fields.manifest) == (b"{}", b"[]", b'{"k":1}')
    assert fields.error == "boöm"
    assert list(fields.tags.values) == ["a"]
    assert (fields.project_id, fields.project_name) == (OTHER_ID, "p")
    assert fields.reference_example_id == OTHER_ID
    assert not fields.HasField("parent_run_id")
    assert not fields.HasField("trace_id")


def test_null_is_not_given(http: httpx.Client, store: FakeStore) -> None:
    """Nulls set nothing; an empty list of tags does."""
    keys = ("trace_id", "inputs", "outputs", "error", "extra", "end_time", "session_name", "name", "run_type")
    answer = http.patch(f"/runs/{RUN_ID}", json={"tags": [], **dict.fromkeys(keys)})
    assert answer.status_code == 202
    fields = store.operations[0].update
    assert [descriptor.name for descriptor, _ in fields.ListFields()] == ["id", "tags"]


@pytest.mark.parametrize(("end_time", "says"), [(None, False), ("2024-04-29T00:50:00Z", True)])
def test_placeholders_of_a_running_run_say_nothing(
    http: httpx.Client, store: FakeStore, end_time: str | None, says: bool
) -> None:
    """`RunTree.post` sends empty outputs and events before there are any; of a run that ended they count."""
    empty: dict[str, Any] = {"outputs": {}, "events": [], "end_time": end_time}
    assert http.post("/runs", json=run(**empty)).status_code == 202
    parts = (part(f"post.{RUN_ID}", run(end_time=end_time)), part(f"post.{RUN_ID}.outputs", b"{}"))
    assert post(http, body(*parts, part(f"post.{RUN_ID}.events", b"[]"))).status_code == 202
    for operation in store.operations:
        assert operation.create.HasField("outputs") is says
        assert operation.create.HasField("events") is says
    assert http.patch(f"/runs/{RUN_ID}", json=empty).status_code == 202
    assert store.operations[-1].update.outputs == b"{}"


def test_patch_takes_the_id_of_its_path(http: httpx.Client, store: FakeStore) -> None:
    """Under every prefix; unknown runs are the store's business, so 202."""
    for prefix in ("", "/api", "/api/v1"):
        answer = http.patch(f"{prefix}/runs/{RUN_ID.replace('-', '')}/", json={"id": RUN_ID, "name": "m"})
        assert answer.status_code == 202
    assert [operation.update.id for operation in store.operations] == [RUN_ID] * 3


@pytest.mark.parametrize(
    ("value", "time_us"),
    [
        (1714351752090, 1714351752090000),
        (1714351752.5, 1714351752500000),
        ("2024-04-29T00:49:12.090000Z", 1714351752090000),
        ("2024-04-29 00:49:12.09", 1714351752090000),
    ],
)
def test_times_of_all_clients(http: httpx.Client, store: FakeStore, value: Any, time_us: int) -> None:
    """ISO 8601 with or without offset; JavaScript's numbers."""
    assert http.post("/runs", json=run(start_time=value)).status_code == 202
    assert store.operations[0].create.start_time.ToMicroseconds() == time_us


@pytest.mark.parametrize(
    ("error", "text"), [("x", "x"), ("", ""), ({"a": 1}, '{"a":1}'), (5, "5"), ("\ud83d", "\ufffd")]
)
def test_error_is_text(http: httpx.Client, store: FakeStore, error: Any, text: str) -> None:
    """A JSON string gives its text, other JSON its own; half surrogate pairs are replaced."""
    raw = json.dumps(run(error=error), separators=(",", ":"))
    assert http.post("/runs", content=raw).status_code == 202
    assert store.operations[0].create.error == text


def test_half_surrogates_outside_payloads_are_replaced(http: httpx.Client, store: FakeStore) -> None:
    """JavaScript writes them for cut emojis; the run is kept."""
    assert http.post("/runs", content=json.dumps(run(name="a\ud83d"))).status_code == 202
    assert store.operations[0].create.name == "a\ufffd"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": None}, "id"),
        ({"id": "x"}, "id"),
        ({"id": 5}, "id"),
        ({"trace_id": "x"}, "trace_id"),
        ({"parent_run_id": "0" * 31}, "parent_run_id"),
        ({"session_id": "x"}, "session_id"),
        ({"reference_example_id": "x"}, "reference_example_id"),
        ({"run_type": "agent"}, "run_type"),
        ({"run_type": 3}, "run_type"),
        ({"name": ["n"]}, "name"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"start_time": "2024-13-01T00:00:00"}, "start_time"),
        ({"start_time": 1e30}, "start_time"),
        ({"start_time": True}, "start_time"),
        ({"end_time": "0001-01-01T00:00:00"}, "end_time"),
        ({"tags": "a"}, "tags"),
        ({"tags": ["a", None]}, "tags"),
    ],
)
def test_bad_fields_are_named(http: httpx.Client, store: FakeStore, change: Any, field: str) -> None:
    """422 in the Go dialect, naming the field; nothing is sent to the store."""
    answer = http.post("/runs", json=run(**change))
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(field)
    assert store.requests == []


@pytest.mark.parametrize("raw", [b"", b"{", b"nonsense", b'{"x":' + b"[" * 100_000])
@pytest.mark.parametrize("route", ["/runs", "/runs/batch", "/runs/" + RUN_ID])
def test_malformed_json_is_400(http: httpx.Client, route: str, raw: bytes) -> None:
    """In the Go dialect, on every JSON route."""
    answer = http.request("PATCH" if RUN_ID in route else "POST", route, content=raw)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]


def test_text_that_is_not_utf8_is_400(http: httpx.Client) -> None:
    """For a single run; in a batch it costs only the run that holds it."""
    bad = json.dumps(run(name="?")).encode().replace(b"?", b"\xff")
    assert http.post("/runs", content=bad).json() == {"error": "The JSON is not UTF-8."}
    answer = http.post("/runs/batch", content=b'{"post":[' + bad + b"," + json.dumps(run()).encode() + b"]}")
    assert [each["source"] for each in answer.json()["refused"]] == ["post[0]"]


@pytest.mark.parametrize("raw", [b"[]", b'"x"', b"5", b"null"])
@pytest.mark.parametrize("route", ["/runs", "/runs/batch"])
def test_json_that_is_no_object_is_422(http: httpx.Client, route: str, raw: bytes) -> None:
    """In the Go dialect."""
    assert http.post(route, content=raw).status_code == 422


def test_patch_refuses_a_foreign_id(http: httpx.Client) -> None:
    """A body with another id than the path contradicts itself; so does a path without an id."""
    assert http.patch(f"/runs/{RUN_ID}", json={"id": OTHER_ID}).status_code == 422
    assert http.patch("/runs/x", json={}).json() == {"error": "run_id: not a UUID"}


def test_refusal_of_the_store_is_422(http: httpx.Client, store: FakeStore) -> None:
    """What only the store can know is answered like what the gateway knows."""
    refusal = ingest.OperationError(
        index=0, reason=error_pb2.ERROR_REASON_INVALID_ARGUMENT, field="dotted_order", message="no"
    )
    store.answers["WriteRuns"] = ingest.WriteRunsResponse(errors=[refusal])
    answer = http.post("/runs", json=run())
    assert (answer.status_code, answer.json()) == (422, {"error": "dotted_order: no"})


# --- batches -----------------------------------------------------------------------------------------


def test_batch_keeps_its_order(http: httpx.Client, store: FakeStore) -> None:
    """Creates, then updates, in one message."""
    batch = {"post": [run(), run(OTHER_ID)], "patch": [run(name=None, outputs={"a": 1})]}
    assert http.post("/runs/batch", json=batch).status_code == 202
    assert [operation.WhichOneof("operation") for operation in store.operations] == [
        "create",
        "create",
        "update",
    ]
    assert store.operations[2].update.outputs == b'{"a":1}'


def test_bad_runs_of_a_batch_cost_no_neighbour(http: httpx.Client, store: FakeStore) -> None:
    """The good are stored; one answer lists the bad, those of the store too, by their places."""
    refusal = ingest.OperationError(index=1, field="name", message="missing")
    store.answers["WriteRuns"] = ingest.WriteRunsResponse(errors=[refusal])
    batch = {
        "post": [run(), run(trace_id=None), run(dotted_order=None), 5, run(run_type="x")],
        "patch": [run(OTHER_ID)],
    }
    answer = http.post("/runs/batch", json=batch)
    assert answer.status_code == 422
    assert [(each["source"], each["field"]) for each in answer.json()["refused"]] == [
        ("post[1]", "trace_id"),
        ("post[2]", "dotted_order"),
        ("post[3]", ""),
        ("post[4]", "run_type"),
        ("patch[0]", "name"),
    ]
    assert "post[1]: trace_id: missing" in answer.json()["details"]
    assert len(store.operations) == 2


def test_big_batches_become_several_messages(http: httpx.Client, store: FakeStore) -> None:
    """At most 10,000 operations a message; the store's refusals keep their places."""
    store.answers["WriteRuns"] = lambda request: ingest.WriteRunsResponse(
        errors=[ingest.OperationError(index=len(request.operations) - 1, field="f", message="m")]
    )
    tiny = {"id": RUN_ID, "trace_id": RUN_ID, "dotted_order": "x"}
    answer = http.post("/runs/batch", json={"post": [tiny] * 10_003})
    assert [len(request.operations) for request in store.of("WriteRuns")] == [10_000, 3]
    assert [each["source"] for each in answer.json()["refused"]] == ["post[9999]", "post[10002]"]


# --- multipart ---------------------------------------------------------------------------------------


def whole_run() -> bytes:
    """A run with every kind of part."""
    return body(
        part(f"post.{RUN_ID}", run(session_name="p")),
        part(f"post.{RUN_ID}.inputs", b'{"a":1.10}'),
        part(f"post.{RUN_ID}.outputs", b'{"b":[]}'),
        part(f"post.{RUN_ID}.events", b'[{"name":"e"}]'),
        part(f"post.{RUN_ID}.extra", b'{"metadata":{}}'),
        part(f"post.{RUN_ID}.error", b'"boom"'),
        part(f"post.{RUN_ID}.serialized", b'{"s":1}'),
        part(f"attachment.{RUN_ID}.file", b"\x00\r\n--", "Content-Type: image/png; length=5\r\n"),
        part(f"patch.{RUN_ID}", run(end_time="2024-04-29T00:50:00")),
        part(f"patch.{RUN_ID}.outputs", b'{"c":2}'),
    )


ENCODINGS: dict[str, Any] = {
    "identity": lambda raw: raw,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": lambda raw: zstd_frames(raw, len(raw)),
}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_multipart_reaches_the_store(
    http: httpx.Client, store: FakeStore, encoding: str, chunked: bool
) -> None:
    """In every encoding, with a length or chunked: the same operations, payload bytes untouched."""
    content = ENCODINGS[encoding](whole_run())
    stream = iter([content[:7], content[7:]]) if chunked else content
    answer = post(http, stream, content_encoding=encoding)
    assert (answer.status_code, answer.json()) == (202, {"message": "2 operations accepted"})
    create, update = (each.create if each.HasField("create") else each.update for each in store.operations)
    assert (create.id, create.trace_id, create.dotted_order) == (RUN_ID, RUN_ID, dotted_order(RUN_ID))
    assert create.inputs == b'{"a":1.10}'
    assert create.outputs == b'{"b":[]}'
    assert create.events == b'[{"name":"e"}]'
    assert (create.extra, create.manifest) == (b'{"metadata":{}}', b'{"s":1}')
    assert create.error == "boom"
    assert [(each.name, each.mime_type, each.content) for each in create.attachments] == [
        ("file", "image/png", b"\x00\r\n--")
    ]
    assert update.outputs == b'{"c":2}'
    assert update.end_time.ToMicroseconds() == 1714351800000000


@pytest.mark.parametrize("size", [1, 100])
def test_several_frames_are_read_as_one(http: httpx.Client, store: FakeStore, size: int) -> None:
    """zstd frames and gzip members may end anywhere."""
    raw = whole_run()
    members = b"".join(gzip.compress(raw[start : start + size]) for start in range(0, len(raw), size))
    assert post(http, zstd_frames(raw, size), content_encoding="zstd").status_code == 202
    assert post(http, members, content_encoding="gzip").status_code == 202
    assert len(store.operations) == 4


def test_parts_may_come_before_their_run(http: httpx.Client, store: FakeStore) -> None:
    """The order of parts does not matter; the id may be written without dashes."""
    bare = RUN_ID.replace("-", "")
    raw = body(
        part(f"attachment.{RUN_ID}.f", b"1"), part(f"post.{bare}.inputs", b"{}"), part(f"post.{bare}", run())
    )
    assert post(http, raw).status_code == 202
    assert store.operations[0].create.inputs == b"{}"
    assert store.operations[0].create.attachments[0].name == "f"


NO_LENGTH = "Content-Type: application/json\r\n"

BAD_PARTS: dict[str, tuple[list[bytes], str]] = {
    "no main part": ([part(f"post.{OTHER_ID}.inputs", b"{}")], "no run of this id"),
    "attachment without run": ([part(f"attachment.{OTHER_ID}.f", b"x")], "no run of this id"),
    "missing length": ([part(f"post.{RUN_ID}.inputs", b"{}", NO_LENGTH)], "length is missing"),
    "wrong length": (
        [part(f"post.{RUN_ID}.inputs", b"{}", NO_LENGTH + "Content-Length: 1\r\n")],
        "not 1 as declared",
    ),
    "unknown suffix": ([part(f"post.{RUN_ID}.bogus", b"{}")], "unknown part"),
    "unknown kind": ([part(f"delete.{RUN_ID}", b"{}")], "unknown part"),
    "no kind": ([part("x", b"{}")], "unknown part"),
    "empty payload": ([part(f"post.{RUN_ID}.inputs", b"")], "empty"),
    "bad id in name": ([part("post.x", run())], "id: not a UUID"),
    "other id in JSON": ([part(f"post.{OTHER_ID}", run())], "id: differs"),
    "no trace id": ([part(f"patch.{OTHER_ID}", run(OTHER_ID, trace_id=None))], "trace_id: missing"),
    "no dotted order": (
        [part(f"patch.{OTHER_ID}", run(OTHER_ID, dotted_order=None))],
        "dotted_order: missing",
    ),
    "bad run type": ([part(f"post.{OTHER_ID}", run(OTHER_ID, run_type="x"))], "run_type: must be one of"),
    "bad time": ([part(f"post.{OTHER_ID}", run(OTHER_ID, start_time="x"))], "start_time: not an ISO"),
    "bad JSON": ([part(f"post.{OTHER_ID}", b"{")], "JSON is malformed"),
    "no object": ([part(f"post.{OTHER_ID}", b"[]")], "Expected `object`"),
    "bad error": ([part(f"post.{RUN_ID}.error", b'"x')], "error: The JSON"),
    "dot in attachment": ([part(f"attachment.{RUN_ID}.a.b", b"")], "no dots"),
    "bad attachment id": ([part("attachment.x.a", b"")], "id: not a UUID"),
    "bad feedback": ([part(f"feedback.{OTHER_ID}", b"[]")], "Expected `object`"),
    "malformed feedback": ([part(f"feedback.{OTHER_ID}", b"{")], "JSON is malformed"),
    "bad feedback id": ([part("feedback.x", b"{}")], "id: not a UUID"),
    "parts of a refused run": (
        [
            part(f"post.{OTHER_ID}", run(OTHER_ID, run_type="x")),
            part(f"post.{OTHER_ID}.inputs", b"{}"),
            part(f"attachment.{OTHER_ID}.f", b"1"),
        ],
        "run_type: must be one of",
    ),
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_bad_parts_cost_no_neighbour(http: httpx.Client, store: FakeStore, case: str) -> None:
    """One 422 names the one refused part; the good run and its payloads are stored."""
    bad, message = BAD_PARTS[case]
    good = [part(f"post.{RUN_ID}", run()), part(f"post.{RUN_ID}.outputs", b'{"good":1}')]
    answer = post(http, body(good[0], *bad, good[1]))
    assert answer.status_code == 422
    assert message in answer.json()["details"]
    assert len(answer.json()["refused"]) == 1
    (operation,) = store.operations
    assert operation.create.outputs == b'{"good":1}'


MALFORMED: dict[str, tuple[bytes, dict[str, str]]] = {
    "empty": (b"", {}),
    "cut short": (whole_run()[:-10], {}),
    "wrong boundary": (whole_run(), {"content_type": "multipart/form-data; boundary=other"}),
    "no boundary": (whole_run(), {"content_type": "multipart/form-data"}),
    "JSON": (b"{}", {"content_type": "application/json"}),
    "not zstd": (b"nonsense", {"content_encoding": "zstd"}),
    "plain called zstd": (whole_run(), {"content_encoding": "zstd"}),
    "truncated zstd": (zstd_frames(whole_run(), 10_000)[:-40], {"content_encoding": "zstd"}),
    "damaged zstd": (
        zstandard.ZstdCompressor(write_checksum=True).compress(whole_run())[:-4] + b"1234",
        {"content_encoding": "zstd"},
    ),
    "garbage after zstd": (zstd_frames(whole_run(), 10_000) + b"garbage", {"content_encoding": "zstd"}),
    "truncated gzip": (gzip.compress(whole_run())[:-10], {"content_encoding": "gzip"}),
    "garbage after gzip": (gzip.compress(whole_run()) + b"garbage", {"content_encoding": "gzip"}),
    "damaged gzip": (gzip.compress(whole_run())[:-8] + b"12345678", {"content_encoding": "gzip"}),
    "truncated deflate": (zlib.compress(whole_run())[:-10], {"content_encoding": "deflate"}),
    "damaged deflate": (zlib.compress(whole_run())[:-4] + b"1234", {"content_encoding": "deflate"}),
    "unknown encoding": (whole_run(), {"content_encoding": "br"}),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_bodies_store_nothing(http: httpx.Client, store: FakeStore, case: str) -> None:
    """400 in the Go dialect, and not one operation of the body is stored."""
    content, headers = MALFORMED[case]
    answer = post(http, content, **headers)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}
    assert store.requests == []


def test_every_truncation_is_refused(http: httpx.Client, store: FakeStore) -> None:
    """No cut of a zstd body is taken for a complete one that says less."""
    content = zstd_frames(whole_run(), 10_000)
    for cut in range(0, len(content), 7):
        answer = post(http, content[:cut], content_encoding="zstd")
        # The last bytes carry no content, only the end mark.
        assert answer.status_code == 400 or (answer.status_code == 202 and len(store.operations) == 2)
        store.requests.clear()


OVERSIZE: dict[str, Callable[[], tuple[Any, dict[str, str]]]] = {
    "declared": lambda: (b"x" * (MAX_BODY_BYTES + 1), {}),
    "zstd bomb": lambda: (
        zstd_frames(bytes(MAX_DECOMPRESSED_BYTES + 1), 1 << 30),
        {"content_encoding": "zstd"},
    ),
    "gzip bomb": lambda: (gzip.compress(bytes(MAX_DECOMPRESSED_BYTES + 1)), {"content_encoding": "gzip"}),
    "deflate bomb": lambda: (
        zlib.compress(bytes(MAX_DECOMPRESSED_BYTES + 1)),
        {"content_encoding": "deflate"},
    ),
    "ratio": lambda: (zstd_frames(bytes(17 << 20), 1 << 30), {"content_encoding": "zstd"}),
    "nested frames": lambda: (zstd_frames(bytes(60 << 20), 1 << 20), {"content_encoding": "zstd"}),
}
"""Made by the test that sends them: every process of a test run imports this file."""


@pytest.mark.parametrize("case", OVERSIZE)
def test_oversize_is_413_without_retry(http: httpx.Client, store: FakeStore, case: str) -> None:
    """Large bodies and bombs are refused for good."""
    content, headers = OVERSIZE[case]()
    answer = post(http, content, **headers)
    assert answer.status_code == 413
    assert "retry-after" not in answer.headers
    assert store.requests == []


def test_oversize_chunked_is_413(http: httpx.Client, store: FakeStore) -> None:
    """Without a declared length the count decides."""
    chunks = (b"x" * 65_536 for _ in range(MAX_BODY_BYTES // 65_536 + 2))
    assert post(http, chunks).status_code == 413


def test_highly_compressible_small_bodies_pass(http: httpx.Client, store: FakeStore) -> None:
    """The ratio counts only above 16 MiB."""
    raw = body(
        part(f"post.{RUN_ID}", run()), part(f"post.{RUN_ID}.inputs", b'{"a":"' + b"a" * (1 << 20) + b'"}')
    )
    content = zstd_frames(raw, 1 << 30)
    assert len(raw) > 100 * len(content)
    assert post(http, content, content_encoding="zstd").status_code == 202


def test_memory_is_given_back(http: httpx.Client, store: FakeStore) -> None:
    """Refused and accepted bodies leave no trace in the budget of all calls."""
    content = zstd_frames(b"\0" * (15 << 20), 1 << 30)
    for _ in range(6):  # 90 MiB, above what may be held at once.
        assert post(http, content, content_encoding="zstd").status_code == 400


def test_feedback_parts_are_sent_behind_the_runs(http: httpx.Client, store: FakeStore) -> None:
    """Records of a body go to the store in one call, once its runs are there."""
    parts = [part(f"feedback.{OTHER_ID}", {"key": "k", "trace_id": RUN_ID}), part(f"post.{RUN_ID}", run())]
    answer = post(http, body(*parts))
    assert (answer.status_code, answer.json()["message"]) == (202, "2 operations accepted")
    assert [name for name, _, _ in store.requests] == ["WriteRuns", "WriteFeedback"]
    [request] = store.of("WriteFeedback")
    [record] = request.feedback
    assert (record.id, record.key, record.trace_id) == (OTHER_ID, "k", RUN_ID)


def test_refused_feedback_is_listed(http: httpx.Client, store: FakeStore) -> None:
    """What the store refuses of a body's records is named like every other part."""
    error = ingest.OperationError(
        index=1, reason=error_pb2.ERROR_REASON_INVALID_ARGUMENT, field="key", message="missing"
    )
    store.answers["WriteFeedback"] = feedback.WriteFeedbackResponse(errors=[error])
    parts = [part(f"feedback.{each}", {"trace_id": RUN_ID}) for each in (RUN_ID, OTHER_ID)]
    answer = post(http, body(*parts))
    assert answer.status_code == 422
    [refused] = answer.json()["refused"]
    assert refused == {"source": f"feedback.{OTHER_ID}", "field": "key", "message": "missing"}


def test_much_feedback_goes_in_several_messages() -> None:
    """No message has more records than the protocol allows, and none is lost."""
    records = [feedback.Feedback(id=str(uuid.UUID(int=number))) for number in range(10_001)]
    messages = list(Operations(feedback=records).feedback_messages())
    assert [len(message.feedback) for message in messages] == [10_000, 1]
    assert [record for message in messages for record in message.feedback] == records


def test_empty_request_is_for_those_who_may_ask(http: httpx.Client, store: FakeStore) -> None:
    """With nothing to store, too, the store says whether it knows the caller."""
    store.answers["WriteRuns"] = Refuse(ErrorReason.UNAUTHENTICATED, "no key")
    assert http.post("/runs/batch", json={"post": []}).status_code == 401
    assert post(http, body(part(f"post.{RUN_ID}", {"id": 5}))).status_code == 401


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("inputs", "text"),
        ("inputs", [1]),
        ("outputs", 5),
        ("extra", []),
        ("serialized", True),
        ("events", {}),
        ("events", "text"),
    ],
)
def test_payload_that_sdks_cannot_read_is_refused(
    http: httpx.Client, store: FakeStore, key: str, content: object
) -> None:
    """Objects, and an array of events: of anything else the SDKs' lists would not get over."""
    answer = http.post("/runs", json={**run(), key: content})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(f"{key}: must be an")
    parts = part(f"post.{RUN_ID}", run()), part(f"post.{RUN_ID}.{key}", content)
    assert key in post(http, body(*parts)).text
    assert http.post("/runs", json=run(inputs={}, events=[])).status_code == 202


def test_overload_is_retried_soon(http: httpx.Client, store: FakeStore) -> None:
    """429 with a short Retry-After, in the Go dialect."""
    store.answers["WriteRuns"] = Refuse(ErrorReason.OVERLOADED, "The queue is full.")
    answer = post(http, whole_run())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json() == {"error": "The queue is full."}


def test_store_that_is_away_is_retried_soon(http: httpx.Client, store: FakeStore) -> None:
    """503 says when to come back, as 429 does."""
    store.answers["WriteRuns"] = Refuse(ErrorReason.UNAVAILABLE, "The log cannot be written.")
    answer = post(http, whole_run())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_one_log_line_per_call(http: httpx.Client) -> None:
    """With figures, and without keys, ids or contents."""
    with structlog.testing.capture_logs() as logs:
        line = line_of(post(http, whole_run(), x_api_key="secret"), logs)
    assert line["route"] == "/runs/multipart"
    assert (line["method"], line["status"], line["operations"]) == ("POST", 202, 2)
    assert line["bytes_in"] == len(whole_run())
    assert "secret" not in str(line)
    assert RUN_ID not in str(line)
