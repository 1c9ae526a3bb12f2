"""Payloads of 100 MB and larger files: in and out over real sockets, byte for byte, in bounded memory."""

import hashlib
import json
import random
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import zstandard
from langsmith import Client

from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import blob_service_pb2_grpc as blobs_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_pb2 as pb
from runstore.v1 import run_query_service_pb2 as queries
from runstore.v1 import run_query_service_pb2_grpc as queries_grpc

from .reading import address_of
from .servers import Server, serving
from .wire import BOUNDARY, CONTENT_TYPE, multipart, part, run_json

MIB = 1024 * 1024
HEX = random.Random(5).randbytes(MIB // 2).hex().encode()
MOST_MEMORY_BYTES = 420 * MIB
"""That the server may take more than it had before, all processes together, whatever the size of a file."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: its memory is measured."""
    with serving(tmp_path_factory.mktemp("large"), max_attachment_bytes="1GiB") as running:
        yield running
        assert running.defects() == []


def payload(size_bytes: int) -> bytes:
    """A JSON object of about this size."""
    pages = (size_bytes - 100) // (MIB + 3)
    return b'{"pages": [' + b",".join([b'"' + HEX + b'"'] * pages) + b'], "last": "\xc3\xa9"}'


def file_chunks(size_bytes: int) -> Iterator[bytes]:
    """A file of this size, a piece at a time; no two are alike."""
    for number in range(size_bytes // MIB):
        yield number.to_bytes(8) + HEX[8:]


def digest(chunks: Iterator[bytes]) -> str:
    """Of all bytes."""
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
    return sha.hexdigest()


@contextmanager
def bounded_memory(server: Server) -> Iterator[None]:
    """Inside, the server never takes much more memory than before."""
    before = server.memory_bytes()
    peak = before
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, server.memory_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert peak - before < MOST_MEMORY_BYTES, f"{(peak - before) // MIB} MiB more than before"


def streamed_body(name: str, size_bytes: int, first: bytes, mime_type: str) -> Iterator[bytes]:
    """A body of one run (`first`) and one large file."""
    head = part(name, b"", mime_type, length=size_bytes)
    yield f"--{BOUNDARY}\r\n".encode() + first + f"\r\n--{BOUNDARY}\r\n".encode() + head
    yield from file_chunks(size_bytes)
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def compressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """As SDKs do."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    for chunk in chunks:
        yield compressor.compress(chunk)
    yield compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "size_bytes"),
    [
        (None, 200 * MIB),
        ("zstd", 200 * MIB),
        pytest.param(None, 1024 * MIB, marks=pytest.mark.slow),
        pytest.param("zstd", 1024 * MIB, marks=pytest.mark.slow),
    ],
)
def test_file_streams_through(
    server: Server, client: Client, project: str, encoding: str | None, size_bytes: int
) -> None:
    """In by multipart and out by its address: the same bytes, a bounded part of them in memory."""
    run_id = uuid.uuid4()
    run = part(f"post.{run_id}", run_json(run_id, project))
    body = streamed_body(f"attachment.{run_id}.film", size_bytes, run, "video/mp4")
    headers = {"content-type": CONTENT_TYPE, "x-api-key": "any"}
    if encoding:
        headers["content-encoding"] = encoding
        body = compressed(body)
    with bounded_memory(server), httpx.Client(base_url=server.url, timeout=60) as http:
        answer = http.post("/runs/multipart", content=body, headers=headers)
        assert answer.status_code == 202, answer.text
        address = address_of(client.read_run(run_id), "film")
        with http.stream("GET", address) as answer:
            assert (answer.headers["content-length"], answer.headers["content-type"]) == (
                str(size_bytes),
                "video/mp4",
            )
            assert digest(answer.iter_raw()) == digest(file_chunks(size_bytes))
        ranged = http.get(address, headers={"range": f"bytes={MIB}-{MIB + 9}"})
    assert (ranged.status_code, ranged.content) == (206, (1).to_bytes(8) + HEX[8:10])
    assert ranged.headers["content-range"] == f"bytes {MIB}-{MIB + 9}/{size_bytes}"


@pytest.mark.parametrize(
    ("how", "size_bytes"),
    [
        ("multipart", 100_000_000),
        ("zstd", 40_000_000),
        ("batch", 20_000_000),
        ("single", 100_000_000),
        pytest.param("zstd", 100_000_000, marks=pytest.mark.slow),
        pytest.param("batch", 100_000_000, marks=pytest.mark.slow),
    ],
)
def test_large_payload_by_http(server: Server, project: str, how: str, size_bytes: int) -> None:
    """Byte for byte in a list and alone, with what it says about tokens."""
    run_id = uuid.uuid4()
    inputs = payload(size_bytes)
    outputs = (
        b'{"usage_metadata": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}, '
        + payload(2 * MIB)[1:]
    )
    run = run_json(run_id, project, end_time="2026-01-01T00:00:00Z")
    headers = {"content-type": "application/json", "x-api-key": "any"}
    whole = json.dumps(run).encode()[:-1] + b', "inputs": ' + inputs + b', "outputs": ' + outputs + b"}"
    path, body = "/runs", whole
    if how == "batch":
        path, body = "/runs/batch", b'{"post": [' + whole + b"]}"
    elif how != "single":
        parts = [part(f"post.{run_id}", run), part(f"post.{run_id}.outputs", outputs)]
        path, body = "/runs/multipart", multipart([*parts, part(f"post.{run_id}.inputs", inputs)])
        headers["content-type"] = CONTENT_TYPE
        if how == "zstd":
            headers["content-encoding"], body = "zstd", zstandard.compress(body, 1)
    with httpx.Client(base_url=server.url, timeout=60) as http:
        answer = http.post(path, content=body, headers=headers)
        assert answer.status_code == 202, answer.text
        query = {"id": [str(run_id)], "select": ["inputs", "outputs", "inputs_preview", "total_tokens"]}
        listed = http.post("/runs/query", json=query)
        alone = http.get(f"/runs/{run_id}")
    for text in (listed.content, alone.content):
        assert inputs in text
        assert outputs in text
    [found] = listed.json()["runs"]
    assert found["total_tokens"] == 7
    assert found["inputs_preview"].startswith('{"pages":["' + HEX[:100].decode())


def uploaded(stub: Any, kind: Any, chunks: Iterator[bytes]) -> str:
    """The token of an upload."""

    def requests() -> Iterator[blobs.UploadBlobRequest]:
        yield blobs.UploadBlobRequest(header=blobs.UploadBlobHeader(kind=kind))
        for chunk in chunks:
            yield blobs.UploadBlobRequest(chunk=chunk)

    token: str = stub.UploadBlob(requests()).upload_token
    return token


def pieces(content: bytes) -> Iterator[bytes]:
    return (content[start : start + MIB] for start in range(0, len(content), MIB))


def test_upload_and_read_by_grpc(server: Server, project: str) -> None:
    """A payload and a file of an update, uploaded before it; read back whole and in part."""
    run_id = uuid.uuid4()
    outputs = payload(100_000_000)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = blobs_grpc.BlobServiceStub(channel)
        operations = [
            ingest.RunOperation(
                create=ingest.RunFields(
                    id=str(run_id), name="n", run_type=pb.RUN_TYPE_LLM, project_name=project
                )
            ),
            ingest.RunOperation(
                update=ingest.RunFields(
                    id=str(run_id),
                    project_name=project,
                    uploaded=ingest.UploadedPayloads(
                        outputs=uploaded(stub, blobs.BLOB_KIND_PAYLOAD, pieces(outputs))
                    ),
                    attachments=[
                        ingest.AttachmentContent(
                            name="f",
                            mime_type="text/plain",
                            upload_token=uploaded(stub, blobs.BLOB_KIND_ATTACHMENT, iter([b"small"])),
                        )
                    ],
                )
            ),
        ]
        writer = ingest_grpc.RunIngestServiceStub(channel)
        assert not writer.WriteRuns(ingest.WriteRunsRequest(operations=operations)).errors
        fields = [pb.RUN_FIELD_OUTPUTS, pb.RUN_FIELD_ATTACHMENTS]
        request = queries.GetRunRequest(id=str(run_id), fields=fields)
        run = queries_grpc.RunQueryServiceStub(channel).GetRun(request).run
        large = run.large_payloads["outputs"]
        read = b"".join(m.chunk for m in stub.ReadBlob(blobs.ReadBlobRequest(read_token=large.read_token)))
        assert read == outputs
        part_of_it = blobs.ReadBlobRequest(read_token=large.read_token, offset=11, length=5)
        assert b"".join(message.chunk for message in stub.ReadBlob(part_of_it)) == outputs[11:16]
        token = run.attachments["f"].read_token
        header, chunk = stub.ReadBlob(blobs.ReadBlobRequest(read_token=token))
        assert (header.header.mime_type, header.header.size_bytes, chunk.chunk) == ("text/plain", 5, b"small")


def test_what_is_no_upload_is_refused(server: Server, project: str) -> None:
    """Broken JSON, tokens of another kind or made up, a payload given twice, or written as a reference."""
    with grpc.insecure_channel(server.grpc) as channel:
        stub = blobs_grpc.BlobServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            uploaded(stub, blobs.BLOB_KIND_PAYLOAD, iter([b'{"a": ', b"1"]))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        good = uploaded(stub, blobs.BLOB_KIND_PAYLOAD, iter([b"{}"]))
        file = uploaded(stub, blobs.BLOB_KIND_ATTACHMENT, iter([b"{}"]))
        altered = good[:-1] + ("A" if good[-1] != "A" else "B")
        forged = b"\0" + b"x/y/z 2\n{}"

        def fields(**more: Any) -> ingest.RunFields:
            return ingest.RunFields(
                id=str(uuid.uuid4()), name="n", run_type=pb.RUN_TYPE_LLM, project_name=project, **more
            )

        bad = [
            fields(uploaded=ingest.UploadedPayloads(inputs=file)),
            fields(uploaded=ingest.UploadedPayloads(inputs=altered)),
            fields(uploaded=ingest.UploadedPayloads(inputs="nonsense")),
            fields(uploaded=ingest.UploadedPayloads(inputs=good), inputs=b"{}"),
            fields(attachments=[ingest.AttachmentContent(name="f", upload_token=good)]),
            fields(inputs=forged),
        ]
        operations = [ingest.RunOperation(create=each) for each in bad]
        answer = ingest_grpc.RunIngestServiceStub(channel).WriteRuns(
            ingest.WriteRunsRequest(operations=operations)
        )
        assert [error.index for error in answer.errors] == list(range(len(bad)))


def test_malformed_large_payload_costs_its_neighbours_nothing(server: Server, project: str) -> None:
    """422 names the part; the run and its other parts are stored."""
    run_id = uuid.uuid4()
    broken = payload(40 * MIB)[:-1]
    parts = [
        part(f"post.{run_id}", run_json(run_id, project)),
        part(f"post.{run_id}.inputs", broken),
        part(f"post.{run_id}.outputs", b"[" + b"1," * MIB + b"1]"),
        part(f"post.{run_id}.error", "it broke"),
    ]
    with httpx.Client(base_url=server.url, timeout=60, headers={"x-api-key": "any"}) as http:
        answer = http.post(
            "/runs/multipart", content=multipart(parts), headers={"content-type": CONTENT_TYPE}
        )
        assert answer.status_code == 422, answer.text
        refused = {each["source"]: each["message"] for each in answer.json()["refused"]}
        assert set(refused) == {f"post.{run_id}.inputs", f"post.{run_id}.outputs"}
        run = http.get(f"/runs/{run_id}").json()
    assert (run["error"], run["inputs"], run["outputs"]) == ("it broke", {}, None)


@pytest.mark.parametrize(
    ("name", "key", "size_bytes"),
    [("post.{}", b"id", 65 * MIB), ("post.{}.inputs", b"a", 129 * MIB)],
    ids=["run", "payload"],
)
def test_too_large_is_413(server: Server, project: str, name: str, key: bytes, size_bytes: int) -> None:
    """With what is too large, and nothing of the request stored."""
    run_id = uuid.uuid4()
    content = b'{"' + key + b'": "' + b"x" * size_bytes + b'"}'
    parts = [part(f"post.{run_id}", run_json(run_id, project)), part(name.format(run_id), content)]
    with httpx.Client(base_url=server.url, timeout=60, headers={"x-api-key": "any"}) as http:
        answer = http.post(
            "/runs/multipart", content=multipart(parts), headers={"content-type": CONTENT_TYPE}
        )
        assert answer.status_code == 413, answer.text
        assert name.format(run_id) in answer.json()["error"]
        assert http.get(f"/runs/{run_id}").status_code == 404


def test_file_that_is_declared_too_large_is_refused_at_once(server: Server, project: str) -> None:
    """413 before its content has come."""
    run_id = uuid.uuid4()
    run = part(f"post.{run_id}", run_json(run_id, project))
    body = streamed_body(f"attachment.{run_id}.film", 1024 * MIB + 1, run, "video/mp4")
    first = next(body)
    padding = b"\0" * (33 * MIB)
    headers = {"content-type": CONTENT_TYPE, "x-api-key": "any"}
    with httpx.Client(base_url=server.url, timeout=60) as http:
        answer = http.post("/runs/multipart", content=first + padding, headers=headers)
    assert (answer.status_code, "film" in answer.json()["error"]) == (413, True)


def test_deleting_a_project_deletes_its_blobs(server: Server, client: Client, project: str) -> None:
    """Neither their files nor what noted them is left, and their addresses are dead."""
    run_id = uuid.uuid4()
    folder = server.folder / "data" / "blobs"
    parts = [
        part(f"post.{run_id}", run_json(run_id, project, start_time="2026-01-01T00:00:00Z")),
        part(f"post.{run_id}.inputs", payload(3 * MIB)),
        part(f"attachment.{run_id}.f", b"x" * MIB, "text/plain"),
    ]
    before = set(blob_files(folder))
    with httpx.Client(base_url=server.url, timeout=60, headers={"x-api-key": "any"}) as http:
        http.post("/runs/multipart", content=multipart(parts), headers={"content-type": CONTENT_TYPE})
        address = address_of(client.read_run(run_id), "f")
        assert len(set(blob_files(folder)) - before) == 2
        client.delete_project(project_name=project)
        assert set(blob_files(folder)) - before == set()
        assert http.get(address).status_code == 404


def blob_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
