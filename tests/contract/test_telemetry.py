"""What a server tells of itself at other addresses than its own: traces of its work, metrics."""

import uuid
from collections.abc import Iterator

import grpc
import httpx
import pytest
from tests.ports import free_port

from runstore.domain.principals import DEFAULT_TENANT_ID
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_pb2

from .otlp_receiver import CALLER_ID, OtlpReceiver, receiving
from .servers import Server, serving
from .signing import JWT_SECRET, service_token
from .test_metrics import scrape
from .wire import run_json

SECRET = "nobody-shall-read-this"


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    """Where traces go."""
    with receiving() as running:
        yield running


@pytest.fixture(scope="module")
def observed(receiver: OtlpReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that records every request, unless its caller does not want it."""
    telemetry = {"url": receiver.url, "ratio": "1", "headers": "x-receiver-key=its key"}
    with serving(
        tmp_path_factory.mktemp("observed"),
        auth="keys",
        jwt_secret=JWT_SECRET,
        metrics=f"127.0.0.1:{free_port()}",
        **{f"telemetry_{name}": value for name, value in telemetry.items()},
    ) as server:
        yield server
        assert server.stop() == 0
        assert server.defects() == []


def headers(trace_id: str, *, sampled: bool = True) -> dict[str, str]:
    """Of a caller that may read and write, and is in the midst of a trace of its own."""
    token = service_token(algorithm="HS256", tenant_id=DEFAULT_TENANT_ID)
    return {
        "x-service-key": token,
        "traceparent": f"00-{trace_id}-{CALLER_ID}-0{int(sampled)}",
    }


def test_a_write_is_one_trace_from_request_to_insert(observed: Server, receiver: OtlpReceiver) -> None:
    """The caller's trace goes on in gateway, store and flusher, down to the log and the engine."""
    trace_id = uuid.uuid4().hex
    run = run_json(uuid.uuid4(), SECRET, inputs={"text": SECRET})
    answer = httpx.post(f"{observed.url}/runs/batch", json={"post": [run]}, headers=headers(trace_id))
    assert answer.status_code == 202, answer.text

    write = ("POST /runs/batch", "call WriteRuns", "runstore.v1.RunIngestService/WriteRuns")
    log = (*write, "log append")
    insert = (*log, "flush insert", "flusher append", "engine write")
    spans = receiver.trace(trace_id, write[:1], write, log, (*log, "flush prepare"), insert)
    assert {span.service for span in spans.values()} == {
        f"runstore-{process}" for process in ("gateway", "store", "flusher")
    }
    assert spans[write[:1]].attributes["http.response.status_code"] == 202
    told = spans[write].attributes
    assert (told["runstore.code"], told["runstore.operations"]) == ("OK", 1)


def test_a_list_is_one_trace_and_says_nothing_of_values(observed: Server, receiver: OtlpReceiver) -> None:
    """Down to each statement of the engine; neither filters nor keys nor refused values are in any span."""
    trace_id = uuid.uuid4().hex
    own = headers(trace_id)
    project = {"name": SECRET}
    made = httpx.post(f"{observed.url}/sessions?upsert=true", json=project, headers=own).json()
    query = {"session": [made["id"]], "filter": f'eq(name, "{SECRET}")'}
    assert httpx.post(f"{observed.url}/runs/query", json=query, headers=own).json()["runs"] == []
    bad = {"session": [made["id"]], "filter": f'{SECRET}(name, "{SECRET}")'}
    assert httpx.post(f"{observed.url}/runs/query", json=bad, headers=own).status_code == 400

    ask = ("POST /runs/query", "call ListRuns", "runstore.v1.RunQueryService/ListRuns")
    question = (*ask, "query list")
    statement = (*question, "engine read")
    make = ("POST /sessions", "call CreateProject", "runstore.v1.ProjectService/CreateProject")
    spans = receiver.trace(trace_id, ask, question, statement, (*make, "catalog write"))
    assert spans[question].attributes["runstore.query.filter"] == "Compare(name, eq, ?)"
    assert spans[statement].attributes["runstore.waited_ms"] >= 0
    raw = b"".join(span.raw for span in receiver.spans)
    for secret in (SECRET, own["x-service-key"]):
        assert secret.encode() not in raw


def test_a_stream_makes_a_trace_of_each_batch(observed: Server, receiver: OtlpReceiver) -> None:
    """A stream may last for days: its batches are spans, it is none itself."""
    trace_id = uuid.uuid4().hex
    run = ingest.RunFields(id=str(uuid.uuid4()), name="streamed", run_type=run_pb2.RUN_TYPE_CHAIN)
    run.start_time.GetCurrentTime()
    batch = ingest.StreamRunsRequest(batch_id="1", operations=[ingest.RunOperation(create=run)])
    with grpc.insecure_channel(observed.grpc) as channel:
        stub = ingest_grpc.RunIngestServiceStub(channel)
        [reply] = stub.StreamRuns(iter([batch]), metadata=tuple(headers(trace_id).items()))
    assert not reply.errors
    log = ("StreamRuns batch", "log append")
    spans = receiver.trace(trace_id, log[:1], log, (*log, "flush insert"))
    assert {path[0] for path in spans} == {"StreamRuns batch"}


def test_unwanted_requests_leave_nothing(observed: Server, receiver: OtlpReceiver) -> None:
    """A caller that does not record its trace has none of ours; probes and scrapes never are in one."""
    unsampled, last = uuid.uuid4().hex, uuid.uuid4().hex
    assert httpx.get(f"{observed.url}/sessions", headers=headers(unsampled, sampled=False)).status_code == 200
    assert httpx.get(f"{observed.url}/ok", headers=headers(last)).status_code == 200
    assert httpx.get(f"{observed.url}/sessions", headers=headers(last)).status_code == 200
    spans = receiver.trace(
        last, ("GET /sessions", "call ListProjects", "runstore.v1.ProjectService/ListProjects")
    )
    assert ("GET /ok",) not in spans
    assert unsampled not in {span.trace_id for span in receiver.spans}


def test_exports_are_no_traces_for_whoever_takes_them_in(observed: Server, receiver: OtlpReceiver) -> None:
    """The receiver gets its key; and a trace that is not sampled, in case it is a runstore, too."""
    trace_id = uuid.uuid4().hex
    httpx.get(f"{observed.url}/sessions", headers=headers(trace_id))
    receiver.trace(trace_id, ("GET /sessions",))
    for metadata in receiver.metadata:
        assert metadata["x-receiver-key"] == "its key"
        assert str(metadata["traceparent"]).endswith("-00")


def test_metrics_at_their_own_address_need_no_key(observed: Server) -> None:
    """`RUNSTORE_METRICS` is for Prometheus alone: everything is there, nothing else is."""
    found = scrape(f"http://{observed.environment['RUNSTORE_METRICS']}")
    assert found["runstore_engine_up"] == 1
    assert found["runstore_gateway_pid"] > 1
