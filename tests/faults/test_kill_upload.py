"""The store dies around an upload: what was confirmed is durable, what was not leaves no half of a blob."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
FILE = b"y" * MIB


def requests(content: bytes) -> Iterator[blobs.UploadBlobRequest]:
    yield blobs.UploadBlobRequest(header=blobs.UploadBlobHeader(kind=blobs.BLOB_KIND_PAYLOAD))
    for start in range(0, len(content), MIB):
        yield blobs.UploadBlobRequest(chunk=content[start : start + MIB])


def test_killed_after_uploads(tmp_path: Path) -> None:
    """The token of an upload that was confirmed is good after the crash: its blob is whole. So is a large
    payload that came inline and was acknowledged, on its way to the blob store when everything dies."""
    store = Store(tmp_path)
    uploaded, inline = str(uuid.uuid4()), str(uuid.uuid4())
    with store.running() as process, grpc.insecure_channel(store.address) as channel:
        token = blobs_grpc.BlobServiceStub(channel).UploadBlob(requests(PAYLOAD)).upload_token
        file = ingest.AttachmentContent(name="f", mime_type="a/b", content=FILE)
        write(channel, inline, inputs=PAYLOAD, attachments=[file])
        process.kill()
        process.wait()
    with store.running(), grpc.insecure_channel(store.address) as channel:
        write(channel, uploaded, uploaded=ingest.UploadedPayloads(inputs=token))
        assert read(channel, uploaded) == [PAYLOAD]
        assert read(channel, inline) == [PAYLOAD, FILE]
    folder = tmp_path / "data" / "blobs"
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert len([file for file in files if file.parts[0] != "notes"]) == 3


def write(channel: grpc.Channel, run_id: str, **fields: Any) -> None:
    """Creates a run; acknowledged when this returns."""
    run = ingest.RunFields(id=run_id, name="n", run_type=run_pb2.RUN_TYPE_LLM, project_name="p", **fields)
    request = ingest.WriteRunsRequest(operations=[ingest.RunOperation(create=run)])
    assert not ingest_grpc.RunIngestServiceStub(channel).WriteRuns(request).errors


def read(channel: grpc.Channel, run_id: str) -> list[bytes]:
    """The inputs of a run, and its files."""
    fields = [run_pb2.RUN_FIELD_INPUTS, run_pb2.RUN_FIELD_ATTACHMENTS]
    request = query.GetRunRequest(id=run_id, fields=fields)
    run = query_grpc.RunQueryServiceStub(channel).GetRun(request).run
    tokens = [
        run.large_payloads["inputs"].read_token,
        *(each.read_token for each in run.attachments.values()),
    ]
    stub = blobs_grpc.BlobServiceStub(channel)
    return [
        b"".join(message.chunk for message in stub.ReadBlob(blobs.ReadBlobRequest(read_token=token)))
        for token in tokens
    ]
