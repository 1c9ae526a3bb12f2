"""The store dies around an upload: what was confirmed is durable, what was not leaves no half of a blob."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import blob_service_pb2_grpc as blobs_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as query
from runstore.v1 import run_query_service_pb2_grpc as query_grpc

from .store_process import Store

pytestmark = pytest.mark.engine

MIB = 1024 * 1024
PAYLOAD = b'{"text": "%s"}' % (b"x" * (20 * MIB))


def requests(content: bytes) -> Iterator[blobs.UploadBlobRequest]:
    yield blobs.UploadBlobRequest(header=blobs.UploadBlobHeader(kind=blobs.BLOB_KIND_PAYLOAD))
    for start in range(0, len(content), MIB):
        yield blobs.UploadBlobRequest(chunk=content[start : start + MIB])


def test_killed_between_blob_and_log(tmp_path: Path) -> None:
    """The token of an upload that was confirmed is good after the crash: its blob is whole."""
    store = Store(tmp_path)
    run_id = str(uuid.uuid4())
    with store.running() as process, grpc.insecure_channel(store.address) as channel:
        token = blobs_grpc.BlobServiceStub(channel).UploadBlob(requests(PAYLOAD)).upload_token
        process.kill()
        process.wait()
    with store.running(), grpc.insecure_channel(store.address) as channel:
        fields = ingest.RunFields(
            id=run_id, name="n", run_type=run_pb2.RUN_TYPE_LLM, project_name="p",
            uploaded=ingest.UploadedPayloads(inputs=token),
        )  # fmt: skip
        operation = ingest.RunOperation(create=fields)
        request = ingest.WriteRunsRequest(operations=[operation])
        assert not ingest_grpc.RunIngestServiceStub(channel).WriteRuns(request).errors
        run = (
            query_grpc.RunQueryServiceStub(channel)
            .GetRun(query.GetRunRequest(id=run_id, fields=[run_pb2.RUN_FIELD_INPUTS]))
            .run
        )
        read = blobs.ReadBlobRequest(read_token=run.large_payloads["inputs"].read_token)
        chunks = blobs_grpc.BlobServiceStub(channel).ReadBlob(read)
        assert b"".join(message.chunk for message in chunks) == PAYLOAD


def test_killed_after_the_acknowledgement(tmp_path: Path) -> None:
    """A large payload that came inline, on its way to the blob store when everything dies, is there."""
    store = Store(tmp_path)
    run_id = str(uuid.uuid4())
    fields = ingest.RunFields(
        id=run_id, name="n", run_type=run_pb2.RUN_TYPE_LLM, project_name="p", inputs=PAYLOAD,
        attachments=[ingest.AttachmentContent(name="f", mime_type="a/b", content=b"y" * MIB)],
    )  # fmt: skip
    with store.running() as process, grpc.insecure_channel(store.address) as channel:
        request = ingest.WriteRunsRequest(operations=[ingest.RunOperation(create=fields)])
        assert not ingest_grpc.RunIngestServiceStub(channel).WriteRuns(request).errors
        process.kill()
        process.wait()
    with store.running(), grpc.insecure_channel(store.address) as channel:
        selected = [run_pb2.RUN_FIELD_INPUTS, run_pb2.RUN_FIELD_ATTACHMENTS]
        request_run = query.GetRunRequest(id=run_id, fields=selected)
        run = query_grpc.RunQueryServiceStub(channel).GetRun(request_run).run
        stub = blobs_grpc.BlobServiceStub(channel)
        for token, content in (
            (run.large_payloads["inputs"].read_token, PAYLOAD),
            (run.attachments["f"].read_token, b"y" * MIB),
        ):
            chunks = stub.ReadBlob(blobs.ReadBlobRequest(read_token=token))
            assert b"".join(message.chunk for message in chunks) == content
    names = [path.name for path in (tmp_path / "data" / "blobs").rglob("*") if path.is_file()]
    assert len(names) == 2
