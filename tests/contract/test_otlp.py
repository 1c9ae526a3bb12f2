"""Other tracers, for real: OpenTelemetry's exporters and the langsmith SDK's OTEL mode, over sockets."""

import contextlib
import gzip
import json
import logging
import subprocess
import sys
import uuid
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import pytest
import zstandard
from google.rpc.status_pb2 import Status
from langsmith import Client
from langsmith.integrations.otel import OtelSpanProcessor, langsmith_run_id_from_otel_span_id
from langsmith.run_trees import RunTree
from langsmith.schemas import Run
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from tests.waiting import LONGEST_WAIT_S

from .servers import Server, clean_environment

SCRIPT = Path(__file__).parent / "otel_mode_script.py"
PATHS = ["/v1/traces", "/api/v1/traces", "/otel/v1/traces", "/api/v1/otel/v1/traces", "/otel"]


@pytest.fixture(autouse=True)
def patient_exporters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporters lose what they cannot send within ten seconds, unless told otherwise."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", str(LONGEST_WAIT_S))


def runs_of(server: Server, name: str) -> dict[str, Run]:
    """The runs of a project by their names."""
    client = Client(server.url, api_key="any")
    return {run.name: run for run in client.list_runs(project_name=name)}


def http_exporter(server: Server, path: str) -> SpanExporter:
    return HttpExporter(endpoint=server.url + path)


def grpc_exporter(server: Server, path: str) -> SpanExporter:
    return GrpcExporter(endpoint=server.grpc, insecure=True)


@pytest.mark.parametrize(
    ("exporter", "path"),
    [(http_exporter, path) for path in PATHS] + [(grpc_exporter, "")],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_opentelemetry_sdk(
    server: Server, exporter: Callable[[Server, str], SpanExporter], path: str
) -> None:
    """A tree of spans, exported one by one as they end, children first, becomes a tree of runs."""
    name = f"otel-{uuid.uuid4().hex}"
    provider = TracerProvider(resource=Resource({"service.name": name}))
    provider.add_span_processor(SimpleSpanProcessor(exporter(server, path)))
    tracer = provider.get_tracer("test", "1.0")
    with tracer.start_as_current_span("agent") as root:
        root.set_attribute("session.id", "s-1")
        with tracer.start_as_current_span("chat gpt-4o") as chat:
            chat.set_attribute("gen_ai.operation.name", "chat")
            chat.set_attribute("gen_ai.provider.name", "openai")
            chat.set_attribute("gen_ai.request.model", "gpt-4o")
            chat.set_attribute("gen_ai.usage.input_tokens", 1_000)
            chat.set_attribute("gen_ai.usage.output_tokens", 100)
            message = {"role": "user", "parts": [{"type": "text", "content": "Hi"}]}
            chat.set_attribute("gen_ai.input.messages", json.dumps([message]))
            with (
                contextlib.suppress(ValueError),
                tracer.start_as_current_span("execute_tool find") as tool,
            ):
                tool.set_attribute("gen_ai.operation.name", "execute_tool")
                raise ValueError("nothing found")
    provider.shutdown()
    runs = runs_of(server, name)
    assert runs["agent"].id == langsmith_run_id_from_otel_span_id(root.get_span_context().span_id)
    assert set(runs) == {"agent", "chat gpt-4o", "execute_tool find"}
    agent, chat_run, tool_run = (runs[each] for each in ("agent", "chat gpt-4o", "execute_tool find"))
    assert [run.run_type for run in (agent, chat_run, tool_run)] == ["chain", "llm", "tool"]
    assert {run.trace_id for run in runs.values()} == {agent.id}
    assert (agent.parent_run_id, chat_run.parent_run_id, tool_run.parent_run_id) == (
        None,
        agent.id,
        chat_run.id,
    )
    assert tool_run.dotted_order is not None
    assert tool_run.dotted_order.startswith(f"{chat_run.dotted_order}.")
    assert chat_run.inputs == {"messages": [{"role": "user", "content": "Hi"}]}
    assert (chat_run.total_tokens, chat_run.prompt_tokens) == (1_100, 1_000)
    assert chat_run.total_cost is not None
    assert (tool_run.status, agent.status) == ("error", "success")
    assert tool_run.error is not None
    assert tool_run.error.startswith("ValueError: nothing found\n\nTraceback")
    assert agent.metadata["session_id"] == "s-1"
    assert agent.start_time <= chat_run.start_time <= tool_run.start_time


def test_langsmith_otel_mode(server: Server) -> None:
    """The langsmith SDK's OTEL mode, unmodified: names, kinds, parents, usage, tags, thread, errors."""
    name = f"otel-{uuid.uuid4().hex}"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), server.url, name],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_S,
        check=False,
    )
    logging.getLogger(__name__).info("the SDK's output:\n%s", done.stderr)
    assert done.returncode == 0, done.stderr
    runs = runs_of(server, name)
    assert set(runs) == {"agent", "model", "broken"}, done.stderr
    agent, model, broken = runs["agent"], runs["model"], runs["broken"]
    assert [run.run_type for run in (agent, model, broken)] == ["chain", "llm", "tool"]
    assert agent.parent_run_id is None
    assert {model.parent_run_id, broken.parent_run_id} == {agent.id}
    assert {run.trace_id for run in runs.values()} == {agent.id}
    assert agent.inputs == {"question": "hello"}
    assert agent.outputs == {"output": "HELLO"}
    assert agent.tags == ["blue"]
    assert agent.metadata["thread_id"] == "thread-7"
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    details = {"input_token_details": {"cache_read": 4}, "output_token_details": {"reasoning": 2}}
    assert model.outputs == {"answer": "HELLO", "usage_metadata": {**usage, **details}}
    assert (model.prompt_tokens, model.completion_tokens) == (10, 5)
    assert model.prompt_token_details == {"cache_read": 4}
    assert model.metadata["ls_model_name"] == "gpt-4o"
    assert broken.status == "error"
    assert (broken.error or "").startswith("ValueError('it broke')\n\nTraceback")
    assert {run.session_id for run in runs.values()} == {agent.session_id}


def test_langsmith_span_processor(server: Server, project: str) -> None:
    """`OtelSpanProcessor`, which the SDK adds to an application's own tracing, with metadata of its own."""
    processor = OtelSpanProcessor(
        api_key="any", project=project, url=server.url, SpanProcessor=SimpleSpanProcessor
    )
    processor.set_metadata({"thread_id": "t-1", "list": [1, 2]})
    provider = TracerProvider()
    # It has every method of a processor but is none.
    provider.add_span_processor(cast("SpanProcessor", processor))
    with provider.get_tracer("test").start_as_current_span("outer") as outer:
        outer.set_attribute("langsmith.span.kind", "tool")
    provider.shutdown()
    [run] = runs_of(server, project).values()
    assert (run.name, run.run_type) == ("outer", "tool")
    assert (run.metadata["thread_id"], run.metadata["list"]) == ("t-1", [1, 2])


@pytest.mark.parametrize("order", ["span first", "run first"])
def test_span_below_a_run_of_the_sdk(server: Server, project: str, order: str) -> None:
    """LangSmith's attributes put a span below a run that was sent the usual way, whichever comes first."""
    client = Client(server.url, api_key="any", auto_batch_tracing=False)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(http_exporter(server, "/otel/v1/traces")))
    child_id = uuid.uuid4()

    def send_span(parent: Any) -> None:
        start = datetime.now(UTC)
        with provider.get_tracer("test").start_as_current_span("otel child") as span:
            span.set_attribute("langsmith.trace.id", str(parent.trace_id))
            span.set_attribute("langsmith.span.parent_id", str(parent.id))
            span.set_attribute("langsmith.span.id", str(child_id))
            told = f"{parent.dotted_order}.{start:%Y%m%dT%H%M%S%fZ}{child_id}"
            span.set_attribute("langsmith.span.dotted_order", told)
            span.set_attribute("langsmith.trace.session_name", project)

    root = RunTree(name="root", run_type="chain", ls_client=client, project_name=project)
    if order == "span first":
        send_span(root)
    root.post()
    root.end(outputs={"done": True})
    root.patch()
    if order == "run first":
        send_span(root)
    provider.shutdown()
    runs = runs_of(server, project)
    assert set(runs) == {"root", "otel child"}
    child = runs["otel child"]
    assert (child.id, child.parent_run_id, child.trace_id) == (child_id, root.id, root.id)
    assert (child.dotted_order or "").startswith(f"{root.dotted_order}.")


def test_trace_whose_root_comes_late(server: Server, project: str) -> None:
    """Until the root has come, its spans are one trace under OpenTelemetry's id; then they are the root's."""
    trace_id, ids = uuid.uuid4(), [uuid.uuid4().hex[:16] for _ in range(4)]
    root, left, right, leaf = ids
    parents = {left: root, right: root, leaf: left}

    def send(*span_ids: str) -> None:
        told = [
            {"traceId": trace_id.hex, "spanId": each, "name": each, "parentSpanId": parents.get(each, "")}
            for each in span_ids
        ]
        body = spans()["resourceSpans"][0]
        [good] = body["scopeSpans"][0]["spans"]
        body["scopeSpans"][0]["spans"] = [{**good, **each} for each in told]
        answer = post(server, json.dumps({"resourceSpans": [body]}).encode(), langsmith_project=project)
        assert answer.json() == {}

    send(leaf)
    send(right, left)
    assert {run.trace_id for run in runs_of(server, project).values()} == {trace_id}
    client = Client(server.url, api_key="any")
    assert {run.name for run in client.list_runs(trace_id=trace_id)} == {left, right, leaf}
    send(root)
    runs = runs_of(server, project)
    root_id = langsmith_run_id_from_otel_span_id(int(root, 16))
    assert {run.trace_id for run in runs.values()} == {root_id}
    assert {run.name: run.parent_run_id for run in runs.values()} == {
        root: None,
        left: root_id,
        right: root_id,
        leaf: langsmith_run_id_from_otel_span_id(int(left, 16)),
    }
    assert (runs[leaf].dotted_order or "").startswith(f"{runs[left].dotted_order}.")


# -- by hand ---------------------------------------------------------------------------------------


def spans(*bad: dict[str, Any], name: str = "by hand") -> dict[str, Any]:
    """An export with one good span, and others."""
    good = {
        "traceId": uuid.uuid4().hex,
        "spanId": uuid.uuid4().hex[:16],
        "name": name,
        "kind": "SPAN_KIND_INTERNAL",
        "startTimeUnixNano": "1795000000000000000",
        "endTimeUnixNano": "1795000001000000000",
        "attributes": [{"key": "n", "value": {"intValue": "7"}}],
        "somethingNew": {"a": 1},
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [good, *({**good, **each} for each in bad)]}]}]}


def post(
    server: Server, body: bytes, content_type: str = "application/json", **headers: str
) -> httpx.Response:
    told = {"content-type": content_type, **{key.replace("_", "-"): value for key, value in headers.items()}}
    return httpx.post(f"{server.url}/v1/traces", content=body, headers=told)


def test_json_by_hand(server: Server) -> None:
    """Hex ids, names of enums, 64-bit integers in strings, unknown keys; the answer is JSON as well."""
    name = f"otel-{uuid.uuid4().hex}"
    answer = post(server, json.dumps(spans()).encode(), langsmith_project=name)
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["content-type"] == "application/json"
    [run] = runs_of(server, name).values()
    assert (run.name, run.metadata["n"]) == ("by hand", 7)


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.compress)],
    ids=["gzip", "deflate", "zstd"],
)
def test_compressed(server: Server, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """As exporters send it when they are told to."""
    body = compress(json.dumps(spans()).encode())
    assert post(server, body, content_encoding=encoding, langsmith_project="compressed").status_code == 200


def test_partial_success(server: Server) -> None:
    """Bad spans are counted and named, in JSON and in protobuf; the good one is stored."""
    name = f"otel-{uuid.uuid4().hex}"
    body = spans({"spanId": "00"}, {"name": "x", "startTimeUnixNano": "0"}, {"traceId": "no hex"})
    told = post(server, json.dumps(body).encode(), langsmith_project=name).json()["partialSuccess"]
    assert told["rejectedSpans"] == "3"
    assert "span 00: span_id" in told["errorMessage"]
    assert list(runs_of(server, name)) == ["by hand"]
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"short")
    answer = post(server, request.SerializeToString(), "application/x-protobuf")
    assert answer.headers["content-type"] == "application/x-protobuf"
    response = ExportTraceServiceResponse.FromString(answer.content)
    assert response.partial_success.rejected_spans == 1


def test_span_that_the_store_refuses(server: Server) -> None:
    """What only the store can know, such as a project that does not exist, is partial success, too."""
    attributes = [{"key": "langsmith.trace.session_id", "value": {"stringValue": str(uuid.uuid4())}}]
    name = f"otel-{uuid.uuid4().hex}"
    body = spans({"spanId": "ab" * 8, "attributes": attributes})
    told = post(server, json.dumps(body).encode(), langsmith_project=name).json()["partialSuccess"]
    assert told["rejectedSpans"] == "1"
    assert f"span {'ab' * 8}: project_id" in told["errorMessage"]
    assert list(runs_of(server, name)) == ["by hand"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("application/json", b'{"resourceSpans": 7}'),
        ("application/json", b'{"resourceSpans":[{"scopeSpans":[{"spans":7}]}]}'),
        ("application/x-protobuf", b"\xff\xff\xff"),
        ("text/plain", b"\xff"),
    ],
)
def test_malformed_bodies(server: Server, content_type: str, body: bytes) -> None:
    """400 with a `google.rpc.Status` in the encoding of the request."""
    answer = post(server, body, content_type)
    assert answer.status_code == 400
    if content_type == "application/json":
        assert answer.json()["code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert "OTLP" in answer.json()["message"]
    else:
        assert "OTLP" in Status.FromString(answer.content).message


def test_empty_export(server: Server) -> None:
    """Nothing to store is no error."""
    assert post(server, b"", "application/x-protobuf").status_code == 200
    assert post(server, b"{}").json() == {}


def test_grpc_by_hand(server: Server, project: str) -> None:
    """The project in the metadata, as exporters send their headers; bad spans are named, good ones stored."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    ids = {"trace_id": uuid.uuid4().bytes, "span_id": uuid.uuid4().bytes[:8]}
    scope.spans.add(**ids, name="good", start_time_unix_nano=1_795_000_000_000_000_000)
    scope.spans.add(**ids | {"span_id": b"\xab" * 8}, name="bad")
    with grpc.insecure_channel(server.grpc) as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)  # type: ignore[no-untyped-call]
        answer = stub.Export(
            request, metadata=[("langsmith-project", project)], compression=grpc.Compression.Gzip
        )
    assert answer.partial_success.rejected_spans == 1
    assert answer.partial_success.error_message.startswith(f"span {'ab' * 8}: start_time_unix_nano")
    assert list(runs_of(server, project)) == ["good"]


def test_keys_are_asked_for(guarded: Server, key: str) -> None:
    """OTLP has the same credentials as everything else, over HTTP and gRPC."""
    body = json.dumps(spans()).encode()
    refused = post(guarded, body)
    assert refused.status_code == 401
    assert refused.json()["code"] == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert post(guarded, body, x_api_key=key, langsmith_project="o").status_code == 200
    with grpc.insecure_channel(guarded.grpc) as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as error:
            stub.Export(ExportTraceServiceRequest())
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert not stub.Export(ExportTraceServiceRequest(), metadata=[("x-api-key", key)]).HasField(
            "partial_success"
        )
