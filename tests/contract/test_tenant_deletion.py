"""A tenant is deleted from the command line: shut at once for keys, links, tokens and streams."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from langsmith import Client
from tests.waiting import until

from runstore.v1 import admin_service_pb2 as admin_pb
from runstore.v1 import admin_service_pb2_grpc as admin_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc

from .servers import Server
from .wire import dotted_order

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:Creating feedback for a run without session_id"),
]


@dataclass(frozen=True)
class Belongings:
    """What a tenant has, by the addresses that lead to it."""

    own: tuple[str, ...]
    """For the tenant's key."""
    public: tuple[str, ...]
    """For everybody."""


def furnish(server: Server, key: str) -> Belongings:
    """Give a tenant a run with a file, feedback, a dataset, a queue, a thread; share what can be."""
    run_id = uuid4()
    client = Client(server.url, api_key=key)
    now = datetime.now(UTC)
    client.create_run(
        "mine",
        {"a": 1},
        "chain",
        id=run_id,
        trace_id=run_id,
        dotted_order=dotted_order(run_id, at=now),
        start_time=now,
        end_time=now,
        project_name="mine",
        attachments={"file": ("text/plain", b"content")},
    )
    client.flush()
    client.create_feedback(run_id, "k", score=1, trace_id=run_id)
    client.flush()
    shared = client.share_run(run_id).rstrip("/").split("/")[-2]
    dataset = client.create_dataset(f"mine-{run_id}")
    client.create_example(inputs={"a": 1}, outputs={"b": 1}, dataset_id=dataset.id, source_run_id=run_id)
    queue = client.create_annotation_queue(name="mine")
    token = client.create_presigned_feedback_token(run_id, "k").url
    file = client.read_run(run_id).attachments["file"]["presigned_url"]
    with httpx.Client(base_url=server.url, headers={"x-api-key": key}, timeout=60) as http:
        shared_dataset = http.put(f"/datasets/{dataset.id}/share").json()["share_token"]
        thread = http.post("/threads", json={}).json()["thread_id"]
    client.close()
    own = [f"/runs/{run_id}", f"/datasets/{dataset.id}", f"/annotation-queues/{queue.id}"]
    own += [f"/threads/{thread}", f"/feedback?run={run_id}"]
    public = [f"/public/{shared}/run", f"/public/{shared_dataset}/datasets"]
    public += [str(each).removeprefix(server.url) for each in (token, file)]
    return Belongings(tuple(own), tuple(public))


def statuses(server: Server, paths: tuple[str, ...], key: str = "") -> list[int]:
    headers = {"x-api-key": key} if key else {}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as http:
        return [http.get(path).status_code for path in paths]


@pytest.fixture(scope="module")
def channel(guarded: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(guarded.grpc) as channel:
        yield channel


def test_nobody_sees_a_deleted_tenant(guarded: Server, key: str, channel: grpc.Channel) -> None:
    """Its key, its links and its open streams end at once; its rows go; another tenant keeps all it has."""
    doomed = guarded.create_key("doomed")
    theirs, others = furnish(guarded, doomed), furnish(guarded, key)
    operator = (("authorization", f"Bearer {guarded.command('keys', 'operator').stdout.strip()}"),)
    assert set(statuses(guarded, theirs.own, doomed) + statuses(guarded, theirs.public)) == {200}
    batches: SimpleQueue[ingest.StreamRunsRequest | None] = SimpleQueue()
    stream: Any = ingest_grpc.RunIngestServiceStub(channel).StreamRuns(
        iter(batches.get, None), metadata=(("x-api-key", doomed),)
    )
    batches.put(ingest.StreamRunsRequest(batch_id="1"))
    assert next(stream).batch_id == "1"
    guarded.command("tenants", "delete", "doomed", "--yes")
    assert set(statuses(guarded, theirs.own, doomed)) == {401}
    assert set(statuses(guarded, theirs.public)) <= {403, 404}
    with pytest.raises(grpc.RpcError):
        next(stream)
    assert stream.code() is grpc.StatusCode.UNAUTHENTICATED
    batches.put(None)

    admin = admin_grpc.AdminServiceStub(channel)

    def removed_rows() -> int:
        found = admin.GetStatus(admin_pb.GetStatusRequest(), metadata=operator).tenant_deletions
        return sum(each.removed_rows for each in found if each.name == "doomed")

    until(lambda: removed_rows() > 10, "rows are removed")
    shown = json.loads(guarded.command("status", "--json").stdout)["store"]["tenant_deletions"]
    assert next(int(each["removed_rows"]) for each in shown if each["name"] == "doomed") > 10
    assert set(statuses(guarded, others.own, key) + statuses(guarded, others.public)) == {200}
