"""Other tracers, for real: OpenTelemetry's exporters and the langsmith SDK's OTEL mode, over sockets."""

import gzip
import json
import logging
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import zstandard
from google.rpc.status_pb2 import Status
from langsmith import Client
from langsmith.schemas import Run
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import Status as SpanStatus
from opentelemetry.trace import StatusCode

from .servers import LONGEST_WAIT_S, Server, clean_environment

SCRIPT = Path(__file__).parent / "otel_mode_script.py"
PATHS = ["/v1/traces", "/api/v1/traces", "/otel/v1/traces", "/api/v1/otel/v1/traces", "/otel"]


def project() -> str:
    return f"otel-{uuid.uuid4().hex}"


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
    name = project()
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
            with tracer.start_as_current_span("execute_tool find") as tool:
                tool.set_attribute("gen_ai.operation.name", "execute_tool")
                tool.record_exception(ValueError("nothing found"))
                tool.set_status(SpanStatus(StatusCode.ERROR, "failed"))
    provider.shutdown()
    runs = runs_of(server, name)
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
    assert tool_run.error.startswith("ValueError: nothing found\n\n")
    assert agent.metadata["session_id"] == "s-1"
    assert agent.start_time <= chat_run.start_time <= tool_run.start_time


def test_langsmith_otel_mode(server: Server) -> None:
    """The langsmith SDK's OTEL mode, unmodified: names, kinds, parents, usage, tags, thread, errors."""
    name = project()
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
    assert (model.prompt_tokens, model.completion_tokens) == (10, 5)
    assert model.metadata["ls_model_name"] == "gpt-4o"
    assert broken.status == "error"
    assert "it broke" in (broken.error or "")


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
    name = project()
    answer = post(server, json.dumps(spans()).encode(), langsmith_project=name)
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["content-type"] == "application/json"
    [run] = runs_of(server, name).values()
    assert (run.name, run.metadata["n"]) == ("by hand", 7)


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress)],
    ids=["gzip", "zstd"],
)
def test_compressed(server: Server, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """As exporters send it when they are told to."""
    body = compress(json.dumps(spans()).encode())
    assert post(server, body, content_encoding=encoding, langsmith_project=project()).status_code == 200


def test_partial_success(server: Server) -> None:
    """Bad spans are counted and named, in JSON and in protobuf; the good one is stored."""
    name = project()
    body = spans({"spanId": "00"}, {"name": "x", "startTimeUnixNano": "0"})
    told = post(server, json.dumps(body).encode(), langsmith_project=name).json()["partialSuccess"]
    assert told["rejectedSpans"] == "2"
    assert "span_id" in told["errorMessage"]
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
    name = project()
    body = spans({"spanId": "ab" * 8, "attributes": attributes})
    told = post(server, json.dumps(body).encode(), langsmith_project=name).json()["partialSuccess"]
    assert told["rejectedSpans"] == "1"
    assert "project" in told["errorMessage"]
    assert list(runs_of(server, name)) == ["by hand"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("application/json", b'{"resourceSpans": 7}'),
        ("application/json", b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}'),
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
