"""Assistants, crons and items over gRPC, and a webhook whose server dies."""

import json
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from tests.contract.servers import Server, serving
from tests.waiting import until

from runstore.v1 import agent_item_service_pb2 as items
from runstore.v1 import agent_item_service_pb2_grpc as items_grpc
from runstore.v1 import agent_run_service_pb2 as runs
from runstore.v1 import assistant_service_pb2 as assistants
from runstore.v1 import assistant_service_pb2_grpc as assistants_grpc
from runstore.v1 import cron_service_pb2 as crons
from runstore.v1 import cron_service_pb2_grpc as crons_grpc
from runstore.v1.error_pb2 import ErrorDetail

from .conftest import MANIFEST

STEPS = "01d10e59-d4b4-51ec-8e94-9b2716b34de8"


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def refused(call: Callable[[Any], Message], request: Message) -> tuple[grpc.StatusCode, str]:
    """The code and the field at fault."""
    with pytest.raises(grpc.RpcError) as refusal:
        call(request)
    error: Any = refusal.value
    trailers = dict(error.trailing_metadata())
    return error.code(), ErrorDetail.FromString(trailers["runstore-error-bin"]).field


def test_items_over_grpc(channel: grpc.Channel) -> None:
    """Put, found, listed, deleted; absent is an answer, not an error."""
    stub = items_grpc.AgentItemServiceStub(channel)
    root = str(uuid.uuid4())
    stub.PutAgentItem(
        items.PutAgentItemRequest(namespace=[root, "a"], key="k", value=b'{"n":1}', ttl_minutes=5)
    )
    found = stub.SearchAgentItems(
        items.SearchAgentItemsRequest(namespace_prefix=[root], filter=b'{"n":1}')
    ).items
    assert [(list(item.namespace), item.key, item.value) for item in found] == [
        ([root, "a"], "k", b'{"n":1}')
    ]
    listed = stub.ListAgentItemNamespaces(items.ListAgentItemNamespacesRequest(prefix=[root], max_depth=1))
    assert [list(each.labels) for each in listed.namespaces] == [[root]]
    stub.DeleteAgentItem(items.DeleteAgentItemRequest(namespace=[root, "a"], key="k"))
    answer = stub.GetAgentItem(items.GetAgentItemRequest(namespace=[root, "a"], key="k"))
    assert not answer.HasField("item")
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert refused(stub.PutAgentItem, items.PutAgentItemRequest(namespace=[], key="k", value=b"{}")) == (
        invalid,
        "namespace",
    )
    assert refused(stub.SearchAgentItems, items.SearchAgentItemsRequest(page_size=-1)) == (
        invalid,
        "page_size",
    )
    assert refused(stub.SearchAgentItems, items.SearchAgentItemsRequest(filter=b"[")) == (invalid, "filter")


def test_assistants_over_grpc(channel: grpc.Channel) -> None:
    """Created, changed, listed with the number of all, deleted; unknown orders and pages are refused."""
    stub = assistants_grpc.AssistantServiceStub(channel)
    mark = json.dumps({"mark": str(uuid.uuid4())}).encode()
    made = stub.CreateAssistant(assistants.CreateAssistantRequest(graph_id="steps", metadata=mark)).assistant
    changed = stub.UpdateAssistant(
        assistants.UpdateAssistantRequest(assistant_id=made.assistant_id, name="x", context=b'{"a":1}')
    ).assistant
    assert (changed.version, changed.config) == (2, b'{"configurable":{"a":1}}')
    condition = assistants.AssistantCondition(metadata=mark)
    page = stub.SearchAssistants(assistants.SearchAssistantsRequest(condition=condition, offset=1))
    assert (list(page.assistants), page.total_count) == ([], 1)
    assert stub.CountAssistants(assistants.CountAssistantsRequest(condition=condition)).count == 1
    stub.DeleteAssistant(assistants.DeleteAssistantRequest(assistant_id=made.assistant_id))
    question = assistants.GetAssistantRequest(assistant_id=made.assistant_id)
    assert refused(stub.GetAssistant, question) == (grpc.StatusCode.NOT_FOUND, "assistant_id")
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    odd_order = assistants.SearchAssistantsRequest(order=99)  # type: ignore[arg-type]  # no such number
    assert refused(stub.SearchAssistants, odd_order) == (invalid, "order")
    assert refused(stub.GetAssistant, assistants.GetAssistantRequest(assistant_id="x")) == (
        invalid,
        "assistant_id",
    )


def test_crons_over_grpc(channel: grpc.Channel) -> None:
    """What each run is created with is a request to create one; both ends of an update exclude each other."""
    stub = crons_grpc.CronServiceStub(channel)
    run = runs.CreateAgentRunRequest(assistant_id="steps", input=b'{"n":1}', keep_thread=True)
    made = stub.CreateCron(crons.CreateCronRequest(schedule="0 0 29 2 *", run=run)).cron
    assert (made.run.assistant_id, made.run.input, made.enabled) == (STEPS, b'{"n":1}', True)
    assert made.HasField("next_run_time")
    changed = stub.UpdateCron(
        crons.UpdateCronRequest(
            cron_id=made.cron_id,
            run=runs.CreateAgentRunRequest(input=b'{"n":2}', assistant_id="intr"),
            sets_keep_thread=True,
        )
    ).cron
    assert (changed.run.assistant_id, changed.run.input, changed.run.keep_thread) == (
        STEPS,
        b'{"n":2}',
        False,
    )
    assert stub.GetCron(crons.GetCronRequest(cron_id=made.cron_id)).cron == changed
    both = crons.UpdateCronRequest(cron_id=made.cron_id, end_time=Timestamp(seconds=1), clear_end_time=True)
    assert refused(stub.UpdateCron, both) == (grpc.StatusCode.FAILED_PRECONDITION, "end_time")
    odd = crons.CreateCronRequest(schedule="soon", run=run)
    assert refused(stub.CreateCron, odd) == (grpc.StatusCode.INVALID_ARGUMENT, "schedule")
    stub.DeleteCron(crons.DeleteCronRequest(cron_id=made.cron_id))
    assert refused(stub.DeleteCron, crons.DeleteCronRequest(cron_id=made.cron_id)) == (
        grpc.StatusCode.NOT_FOUND,
        "cron_id",
    )


class _Hook(BaseHTTPRequestHandler):
    """Refuses until it is told otherwise."""

    status = 503
    bodies: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.mark.slow
def test_a_webhook_survives_its_server(tmp_path: Path) -> None:
    """F11: the run has ended and the receiver was away; the whole server is killed; its successor calls."""
    hook = HTTPServer(("127.0.0.1", 0), _Hook)
    Thread(target=hook.serve_forever, daemon=True).start()
    body = {"assistant_id": "steps", "input": {"n": 1}, "webhook": f"http://127.0.0.1:{hook.server_port}/"}
    with serving(tmp_path, agents=str(MANIFEST)) as server:
        until(lambda: httpx.get(f"{server.url}/assistants/steps/graph").status_code == 200, "a worker")
        result = httpx.post(f"{server.url}/runs/wait", json=body, timeout=30).json()
        until(lambda: _Hook.bodies, "a first call, which is refused")
        server.process.kill()
        server.process.wait()
    _Hook.status = 200
    with serving(tmp_path, agents=str(MANIFEST)):
        until(lambda: len(_Hook.bodies) > 1, "another call")
    assert [each["status"] for each in _Hook.bodies[:2]] == ["success", "success"]
    assert _Hook.bodies[-1]["values"] == result
    hook.shutdown()
