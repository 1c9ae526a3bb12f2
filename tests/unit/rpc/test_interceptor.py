"""Errors on the wire, and who calls: through a real server on a Unix socket."""

import asyncio
import gc
import gzip
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import CollectorRegistry
from tests.manual_clock import ManualClock
from tests.waiting import until_async

from runstore.domain.credentials import credential
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.failed_attempts import FailedAttempts
from runstore.domain.networks import parse_networks
from runstore.domain.principals import DEFAULT_TENANT_ID, Grant, Role, Tenant
from runstore.rpc import messages
from runstore.rpc.authentication import KeyAuthentication, NoAuthentication, current_principal
from runstore.rpc.call_line import CallLine
from runstore.rpc.call_metrics import CallMetrics
from runstore.rpc.interceptor import ERROR_METADATA_KEY, STATUS_METADATA_KEY, CallInterceptor
from runstore.rpc.open_streams import OpenStreams
from runstore.storage.run_store import QueryTooLarge, QueryTooLong, StoreUnavailable
from runstore.v1 import error_pb2
from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_ingest_service_pb2_grpc as pb_grpc

TENANT = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
ORGANIZATION = "33333333-3333-4333-8333-333333333333"


class Brought:
    """Stands for what a call works on: messages of protobuf cannot be observed."""


class Servicer(pb_grpc.RunIngestServiceServicer):
    """Answers with the caller's tenant, or fails as it is told."""

    failure: Exception | None = None
    brought: "weakref.ref[Brought]"

    async def WriteRuns(self, request: Any, context: Any) -> pb.WriteRunsResponse:  # noqa: N802  # gRPC's
        brought = Brought()
        self.brought = weakref.ref(brought)
        if self.failure is not None:
            raise self.failure
        return pb.WriteRunsResponse(write_token=current_principal.get().tenant_id)

    async def StreamRuns(  # noqa: N802  # gRPC's name
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[pb.StreamRunsResponse]:
        async for request in request_iterator:
            if self.failure is not None:
                raise self.failure
            yield pb.StreamRunsResponse(batch_id=request.batch_id)

    async def WaitVisible(self, request: Any, context: Any) -> pb.WaitVisibleResponse:  # noqa: N802  # gRPC's
        return pb.WaitVisibleResponse()


class Keys:
    """A key of a tenant, one of an organisation, and one of each role."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.is_away = False

    async def authenticate(self, secret: str) -> Grant | None:
        if self.is_away:
            raise RunstoreError(ErrorReason.UNAVAILABLE, "away")
        if secret in self.revoked:
            return None
        if secret in list(Role):
            return Grant(key_id=secret, role=Role(secret), tenant_id=TENANT, organization_id=None)
        if secret == "organisation":
            return Grant(key_id=secret, role=Role.EDITOR, tenant_id=None, organization_id=ORGANIZATION)
        if secret == "good":
            return Grant(key_id="key", role=Role.EDITOR, tenant_id=TENANT, organization_id=None)
        return None

    async def find_tenant(self, tenant_id: str) -> Tenant | None:
        organizations = {TENANT: ORGANIZATION, OTHER: None}
        if tenant_id not in organizations:
            return None
        return Tenant(id=tenant_id, name="t", created_at_us=0, organization_id=organizations[tenant_id])


class Server:
    """One server on a socket, and a client for it."""

    def __init__(self, folder: Path, authenticator: Any) -> None:
        self.servicer = Servicer()
        self.registry = CollectorRegistry()
        self._address = f"unix:{folder / 'rpc.sock'}"
        self.streams = OpenStreams()
        self._server = grpc.aio.server(
            interceptors=[CallInterceptor(authenticator, CallMetrics(self.registry), streams=self.streams)],
            options=messages.OPTIONS,
        )
        pb_grpc.add_RunIngestServiceServicer_to_server(self.servicer, self._server)
        self._server.add_insecure_port(self._address)

    async def __aenter__(self) -> Self:
        await self._server.start()
        self.channel = grpc.aio.insecure_channel(self._address)
        self.stub = pb_grpc.RunIngestServiceStub(self.channel)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.channel.close(None)
        await self._server.stop(None)

    async def error(self, call: Any) -> tuple[grpc.StatusCode, str, error_pb2.ErrorDetail]:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        metadata: Any = failed.value.trailing_metadata()
        detail = error_pb2.ErrorDetail.FromString(dict(metadata)[ERROR_METADATA_KEY])
        return failed.value.code(), failed.value.details() or "", detail


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with Server(tmp_path, NoAuthentication()) as server:
        yield server


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[Server]:
    async with Server(tmp_path, KeyAuthentication(Keys(), "rso_operator")) as server:
        yield server


async def test_streams_of_a_tenant_end_with_it(locked: Server) -> None:
    """With the status of a credential that is good no more; those of others go on, and so does the server."""
    metadata = (("x-api-key", "good"),)
    start: Any = locked.stub.StreamRuns
    ended, other = (start(metadata=metadata) for _ in range(2))
    for stream in (ended, other):
        await stream.write(pb.StreamRunsRequest(batch_id="1"))
        assert (await stream.read()).batch_id == "1"
    locked.streams.end(OTHER)
    await other.write(pb.StreamRunsRequest(batch_id="2"))
    assert (await other.read()).batch_id == "2"
    await other.done_writing()
    assert not await other.read()
    locked.streams.end(TENANT)
    locked.streams.end(TENANT)  # As each round of a purge does.
    assert (await locked.error(ended.read()))[0] is grpc.StatusCode.UNAUTHENTICATED
    again = start(metadata=metadata)
    await again.write(pb.StreamRunsRequest(batch_id="3"))
    assert (await again.read()).batch_id == "3"
    again.cancel()


async def test_streams_end_with_their_credential(tmp_path: Path) -> None:
    """When it is revoked or has expired, not while nobody can say so; streams of other keys go on."""
    keys = Keys()
    async with Server(tmp_path, KeyAuthentication(keys, "rso_operator")) as locked:
        start: Any = locked.stub.StreamRuns
        ended, other = (start(metadata=(("x-api-key", key),)) for key in ("good", "editor"))
        for stream in (ended, other):
            await stream.write(pb.StreamRunsRequest(batch_id="1"))
            assert (await stream.read()).batch_id == "1"
        keys.is_away = True
        await locked.streams.check()
        keys.is_away = False
        keys.revoked.add("good")
        await locked.streams.check()
        assert (await locked.error(ended.read()))[0] is grpc.StatusCode.UNAUTHENTICATED
        await other.write(pb.StreamRunsRequest(batch_id="2"))
        assert (await other.read()).batch_id == "2"
        other.cancel()


@pytest.mark.parametrize("reason", list(ErrorReason), ids=lambda reason: reason.name)
async def test_known_error_arrives_whole(server: Server, reason: ErrorReason) -> None:
    """Code, message, reason and field of an error reach the client."""
    server.servicer.failure = RunstoreError(reason, "what is wrong: ä\n", field="start_time")
    code, message, detail = await server.error(server.stub.WriteRuns(pb.WriteRunsRequest()))
    assert (code.name, message) == (reason.grpc_code, "what is wrong: ä\n")
    assert detail.field == "start_time"
    assert error_pb2.ErrorReason.Name(detail.reason) == f"ERROR_REASON_{reason.name}"


@pytest.mark.parametrize(
    "failure", [None, RunstoreError(ErrorReason.OVERLOADED, "later"), ValueError("defect")]
)
async def test_what_a_call_has_brought_does_not_wait_for_the_collector(
    server: Server, failure: Exception | None
) -> None:
    """It runs rarely in a store, and a refused message may be large."""
    server.servicer.failure = failure
    gc.disable()
    try:
        with nullcontext() if failure is None else pytest.raises(grpc.aio.AioRpcError):
            await server.stub.WriteRuns(pb.WriteRunsRequest())
        await until_async(lambda: server.servicer.brought() is None, "what it has brought is let go")
    finally:
        gc.enable()


async def test_long_message_arrives_cut(server: Server) -> None:
    """A refusal that repeats a long text is still the refusal; headers have a limit that nobody may meet."""
    server.servicer.failure = RunstoreError(ErrorReason.NOT_FOUND, "\N{SNOWMAN}" * 100_000, field="name")
    code, message, detail = await server.error(server.stub.WriteRuns(pb.WriteRunsRequest()))
    assert (code, detail.field) == (grpc.StatusCode.NOT_FOUND, "name")
    assert message == "\N{SNOWMAN}" * 500 + "…"


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        (QueryTooLong("SELECT secret"), "DEADLINE_EXCEEDED", "QUERY_TOO_LONG"),
        (QueryTooLarge("SELECT secret"), "RESOURCE_EXHAUSTED", "QUERY_TOO_LARGE"),
        (StoreUnavailable("SELECT secret"), "UNAVAILABLE", "UNAVAILABLE"),
    ],
)
async def test_what_the_engine_refuses_is_told_in_our_words(
    server: Server, failure: Exception, code: str, reason: str
) -> None:
    """A limit that a query has met is told apart from an engine that is away; no SQL is shown."""
    server.servicer.failure = failure
    status, message, detail = await server.error(server.stub.WriteRuns(pb.WriteRunsRequest()))
    assert status.name == code
    assert error_pb2.ErrorReason.Name(detail.reason) == f"ERROR_REASON_{reason}"
    assert "secret" not in message


@pytest.mark.parametrize("method", ["WriteRuns", "StreamRuns"])
async def test_bytes_that_are_no_message(server: Server, method: str) -> None:
    """They are the caller's mistake: MALFORMED_BODY, not an internal error with a traceback."""
    path = f"/runstore.v1.RunIngestService/{method}"
    channel: Any = server.channel  # Its stubs do not know that bytes need no serializer.
    if method == "WriteRuns":
        call: Any = channel.unary_unary(path)(b"\xff\xff")
    else:
        call = channel.stream_stream(path)(iter([b"\xff\xff"])).read()
    code, _, detail = await server.error(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert detail.reason == error_pb2.ERROR_REASON_MALFORMED_BODY


@pytest.mark.parametrize("reason", list(ErrorReason), ids=lambda reason: reason.name)
async def test_refusal_says_when_to_try_again(server: Server, reason: ErrorReason) -> None:
    """Where waiting helps, the standard error details of gRPC carry the seconds; elsewhere there are none."""
    server.servicer.failure = RunstoreError(reason, "later")
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await server.stub.WriteRuns(pb.WriteRunsRequest())
    metadata: Any = failed.value.trailing_metadata()
    packed = dict(metadata).get(STATUS_METADATA_KEY)
    if reason not in (ErrorReason.OVERLOADED, ErrorReason.RATE_LIMITED, ErrorReason.UNAVAILABLE):
        assert packed is None
        return
    status = status_pb2.Status.FromString(packed)
    assert (status.code, status.message) == (failed.value.code().value[0], "later")
    [detail] = status.details
    retry = error_details_pb2.RetryInfo()
    assert detail.Unpack(retry)
    assert retry.retry_delay.ToTimedelta() == timedelta(seconds=1)


@pytest.mark.parametrize(
    ("failure", "code", "text"),
    [
        (ValueError("secret payload"), grpc.StatusCode.INTERNAL, "internal error"),
        (
            StoreUnavailable("http://user:password@host"),
            grpc.StatusCode.UNAVAILABLE,
            "the engine cannot answer now",
        ),
    ],
    ids=["defect", "engine away"],
)  # fmt: skip
async def test_inner_errors_say_nothing(
    server: Server, failure: Exception, code: grpc.StatusCode, text: str
) -> None:
    """A defect and an engine's error become generic texts, in calls and in streams."""
    server.servicer.failure = failure
    found = await server.error(server.stub.WriteRuns(pb.WriteRunsRequest()))
    assert found[:2] == (code, text)
    stream = server.stub.StreamRuns(iter([pb.StreamRunsRequest()]))
    assert (await server.error(stream.read()))[:2] == (code, text)


async def test_call_writes_one_line_and_is_counted(server: Server) -> None:
    """Bytes, tenant and the caller's request id are in the line; the counters know method and status."""
    with structlog.testing.capture_logs() as logs:
        reply = await server.stub.WriteRuns(
            pb.WriteRunsRequest(operations=[pb.RunOperation()]), metadata=(("x-request-id", "abc"),)
        )
        server.servicer.failure = RunstoreError(ErrorReason.OVERLOADED, "later")
        await server.error(server.stub.WriteRuns(pb.WriteRunsRequest()))
    good, bad = (line for line in logs if line["event"] == "call")
    assert (good["log_level"], good["code"], good["request_id"]) == ("debug", "OK", "abc")
    assert (good["bytes_in"], good["bytes_out"]) == (2, reply.ByteSize())
    assert good["tenant_id"] == DEFAULT_TENANT_ID
    assert (bad["log_level"], bad["code"], bad["reason"]) == ("info", "RESOURCE_EXHAUSTED", "OVERLOADED")
    method = "RunIngestService/WriteRuns"
    value = server.registry.get_sample_value
    for code in ("OK", "RESOURCE_EXHAUSTED"):
        assert value("runstore_grpc_calls_total", {"method": method, "code": code}) == 1
    assert value("runstore_grpc_call_seconds_count", {"method": method}) == 2
    assert value("runstore_grpc_calls_under_way", {"method": method}) == 0
    assert value("runstore_grpc_received_bytes_total", {"method": method}) == 2


async def test_stream_is_one_line_for_operators(server: Server) -> None:
    """A stream is counted but not timed, and its line is not hidden among those of quick calls."""
    with structlog.testing.capture_logs() as logs:
        stream = server.stub.StreamRuns(iter([pb.StreamRunsRequest(batch_id="1")] * 3))
        assert [reply.batch_id async for reply in stream] == ["1"] * 3
    [line] = [each for each in logs if each["event"] == "call"]
    assert (line["log_level"], line["messages"], line["bytes_in"], line["bytes_out"]) == ("info", 3, 9, 9)
    method = "RunIngestService/StreamRuns"
    value = server.registry.get_sample_value
    assert value("runstore_grpc_calls_total", {"method": method, "code": "OK"}) == 1
    assert value("runstore_grpc_call_seconds_count", {"method": method}) is None


@pytest.mark.parametrize("request_id", ["a\tb", "x" * 500], ids=["control character", "long"])
async def test_request_id_is_fit_to_be_logged(server: Server, request_id: str) -> None:
    """What a caller calls its request cannot break a line, nor fill the log."""
    line = CallLine("/runstore.v1.S/M", is_stream=False, metrics=CallMetrics(CollectorRegistry()))
    line.read({"x-request-id": request_id})
    with structlog.testing.capture_logs() as logs:
        line.end("OK")
    assert logs[0].get("request_id") in (None, "x" * 128)


@pytest.mark.parametrize(
    ("method", "code", "refused", "level"),
    [
        ("RunIngestService/WriteRuns", "OK", 0, "debug"),
        ("RunIngestService/WriteRuns", "OK", 1, "info"),
        ("RunQueryService/GetRun", "NOT_FOUND", 0, "info"),
        ("RunQueryService/GetRun", "UNAVAILABLE", 0, "warning"),
        ("RunQueryService/GetRun", "INTERNAL", 0, "error"),
        ("ProjectService/DeleteProject", "OK", 0, "info"),
    ],
)
def test_level_is_for_operators(method: str, code: str, refused: int, level: str) -> None:
    """What went well is quiet, what people should know is not, what is broken is loud."""
    line = CallLine(f"/runstore.v1.{method}", is_stream=False, metrics=CallMetrics(CollectorRegistry()))
    line.refused = refused
    with structlog.testing.capture_logs() as logs:
        line.end(code)
    assert [each["log_level"] for each in logs] == [level]


async def test_everybody_is_the_default_tenant_without_authentication(server: Server) -> None:
    """Whatever key is sent."""
    reply = await server.stub.WriteRuns(pb.WriteRunsRequest(), metadata=(("x-api-key", "any"),))
    assert reply.write_token == DEFAULT_TENANT_ID


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({}, "UNAUTHENTICATED"),
        ({"x-api-key": "bad"}, "UNAUTHENTICATED"),
        ({"x-api-key": "good", "x-tenant-id": OTHER}, "PERMISSION_DENIED"),
        ({"authorization": "Bearer rso_operator"}, "PERMISSION_DENIED"),
    ],
)
async def test_strangers_are_refused(locked: Server, metadata: dict[str, str], code: str) -> None:
    """No key, a wrong key, a foreign tenant and the operator get their status, calls and streams alike."""
    pairs = tuple(metadata.items())
    assert (await locked.error(locked.stub.WriteRuns(pb.WriteRunsRequest(), metadata=pairs)))[0].name == code
    stream = locked.stub.StreamRuns(iter([pb.StreamRunsRequest()]), metadata=pairs)
    assert (await locked.error(stream.read()))[0].name == code


@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_compressed_messages(server: Server, size: int) -> None:
    """Calls and streams, also of several pieces; the line knows what was in them."""
    request = pb.StreamRunsRequest(batch_id="b" * size)
    stream = server.stub.StreamRuns(iter([request] * 2), compression=grpc.Compression.Gzip)
    assert [reply.batch_id async for reply in stream] == [request.batch_id] * 2
    value = server.registry.get_sample_value
    labels = {"method": "RunIngestService/StreamRuns"}
    assert value("runstore_grpc_received_bytes_total", labels) == 2 * request.ByteSize()
    answer = await server.stub.WriteRuns(pb.WriteRunsRequest(), compression=grpc.Compression.Gzip)
    assert answer.write_token


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (gzip.compress(b" " * 2_000), "OUT_OF_RANGE"),
        (gzip.compress(b"\xff" * 1_000), "INVALID_ARGUMENT"),
        (gzip.compress(b"\n\0" * 400)[:-9], "INVALID_ARGUMENT"),
        (b"\x1f\x8bnothing of the kind", "INVALID_ARGUMENT"),
    ],
    ids=["bomb", "no message", "torn", "no gzip"],
)
async def test_what_is_compressed_badly(
    server: Server, monkeypatch: pytest.MonkeyPatch, data: bytes, code: str
) -> None:
    """Refused before it is whole in memory, and like everything else that is no message."""
    monkeypatch.setattr("runstore.rpc.interceptor.MAX_MESSAGE_BYTES", 1_000)
    channel: Any = server.channel  # Its stubs do not know that bytes need no serializer.
    call = channel.unary_unary("/runstore.v1.RunIngestService/WriteRuns")(data)
    assert (await server.error(call))[0].name == code


@pytest.mark.parametrize("method", ["WriteRuns", "StreamRuns"])
async def test_messages_of_strangers_are_not_read(locked: Server, method: str) -> None:
    """They are refused for their metadata alone: nobody fills the memory without a key."""
    never = asyncio.Event()

    async def requests() -> AsyncIterator[bytes]:
        await never.wait()
        yield b""

    channel: Any = locked.channel
    call = channel.stream_unary(f"/runstore.v1.RunIngestService/{method}")(requests(), timeout=20)
    assert (await locked.error(call))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_call_without_a_message(server: Server) -> None:
    """Clients of one message may send none: that is their mistake."""
    channel: Any = server.channel
    call = channel.stream_unary("/runstore.v1.RunIngestService/WriteRuns")(iter(()))
    code, _, detail = await server.error(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert detail.reason == error_pb2.ERROR_REASON_MALFORMED_BODY


async def test_key_decides_the_tenant(locked: Server) -> None:
    """The tenant is the key's, named in any case or not at all."""
    for metadata in ((("x-api-key", "good"),), (("x-api-key", "good"), ("x-tenant-id", TENANT.upper()))):
        reply = await locked.stub.WriteRuns(pb.WriteRunsRequest(), metadata=metadata)
        assert reply.write_token == TENANT


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"x-api-key": " k "}, "k"),
        ({"x-service-key": "s", "authorization": "Bearer b"}, "s"),
        ({"x-api-key": "k", "x-service-key": "s"}, "s"),
        ({"x-api-key": "k", "authorization": "bearer b"}, "b"),
        ({"x-api-key": "k", "cookie": "runstore_session=c"}, "c"),
        ({"x-api-key": "k", "cookie": "a=1", "authorization": "Basic b"}, "k"),
        ({"authorization": "Basic b"}, ""),
        ({"authorization": "Bearer "}, ""),
        ({"cookie": "a=1; runstore_session=c"}, "c"),
        ({"cookie": "\x00;=;"}, ""),
        ({}, ""),
    ],
)
def test_credential_is_found_wherever_sdks_put_it(metadata: Mapping[str, str], found: str) -> None:
    """Every header of the contract carries a key; one that was given for a single call comes first."""
    assert credential(metadata) == found


@pytest.mark.parametrize(("role", "may_write"), [(role, role is not Role.READER) for role in Role])
async def test_role_decides_in_calls_and_streams(locked: Server, role: Role, may_write: bool) -> None:
    """A reader writes nothing, an ingest-only key does; the refusal names role and access."""
    pairs = (("x-api-key", role.value),)
    if may_write:
        await locked.stub.WriteRuns(pb.WriteRunsRequest(), metadata=pairs)
        return
    code, message, _ = await locked.error(locked.stub.WriteRuns(pb.WriteRunsRequest(), metadata=pairs))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "ingest" in message
    assert "reader" in message
    stream = locked.stub.StreamRuns(iter([pb.StreamRunsRequest()]), metadata=pairs)
    assert (await locked.error(stream.read()))[0] is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("metadata", "answer"),
    [
        ({"x-tenant-id": TENANT}, TENANT),
        ({"x-tenant-id": TENANT.upper(), "x-organization-id": ORGANIZATION.upper()}, TENANT),
        ({}, "WORKSPACE_REQUIRED"),
        ({"x-organization-id": ORGANIZATION}, "WORKSPACE_REQUIRED"),
        ({"x-tenant-id": OTHER}, "PERMISSION_DENIED"),
        ({"x-tenant-id": "no id"}, "PERMISSION_DENIED"),
        ({"x-tenant-id": TENANT, "x-organization-id": OTHER}, "PERMISSION_DENIED"),
    ],
)
async def test_key_of_an_organisation_opens_its_tenants(
    locked: Server, metadata: dict[str, str], answer: str
) -> None:
    """The call names one of them; another organisation's tenant is as closed as one that nobody has."""
    pairs = tuple({"x-api-key": "organisation", **metadata}.items())
    call = locked.stub.WriteRuns(pb.WriteRunsRequest(), metadata=pairs)
    if answer == TENANT:
        assert (await call).write_token == TENANT
    else:
        _, _, detail = await locked.error(call)
        assert error_pb2.ErrorReason.Name(detail.reason) == f"ERROR_REASON_{answer}"


@pytest.mark.parametrize(("organization", "is_good"), [(ORGANIZATION, True), (OTHER, False)])
async def test_organisation_of_a_tenants_key_is_checked(
    locked: Server, organization: str, is_good: bool
) -> None:
    """A key of one tenant may name the organisation of it, and no other."""
    pairs = (("x-api-key", "good"), ("x-organization-id", organization))
    call = locked.stub.WriteRuns(pb.WriteRunsRequest(), metadata=pairs)
    if is_good:
        await call
    else:
        assert (await locked.error(call))[0] is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("peer", "trusted", "is_counted"),
    [
        ("ipv4:192.0.2.1:5", "", True),
        ("ipv6:%5B2001:db8::1%5D:5", "", True),
        ("ipv4:192.0.2.1:5", "192.0.2.0/24", False),
        ("ipv6:[::1]:5", "::1", False),
        ("unix:/tmp/store.sock", "", False),
        ("unix:", "", False),
    ],
)
async def test_guesses_are_counted_where_they_come_from(
    clock: ManualClock, peer: str, trusted: str, is_counted: bool
) -> None:
    """A stranger is slowed down after a burst; a gateway, which speaks for many, never is."""
    interceptor = CallInterceptor(
        KeyAuthentication(Keys(), "rso_operator"),
        CallMetrics(CollectorRegistry()),
        attempts=FailedAttempts(clock, per_minute=3),
        trusted=parse_networks(trusted),
    )
    reasons = []
    for number in range(5):
        with pytest.raises(RunstoreError) as refused:
            await interceptor._principal({"x-api-key": f"guess {number}"}, peer)
        reasons.append(refused.value.reason.name)
    limited = ["UNAUTHENTICATED"] * 3 + ["RATE_LIMITED"] * 2
    assert reasons == (limited if is_counted else ["UNAUTHENTICATED"] * 5)


def test_operators_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a refusal takes does not tell how much of a guess was right."""
    compared = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return left == right

    monkeypatch.setattr("runstore.rpc.authentication.hmac.compare_digest", compare)
    authentication = KeyAuthentication(Keys(), "rso_operator")
    principal = asyncio.run(authentication.principal({"x-api-key": "rso_operator"}))
    assert principal.is_operator
    assert compared == [(b"rso_operator", b"rso_operator")]


@pytest.mark.parametrize("value", ["é", "\x00", "a" * 100_000])
async def test_any_text_is_a_bad_credential_at_worst(value: str) -> None:
    """What no metadata could carry is refused like everything else that nobody has issued."""
    with pytest.raises(RunstoreError) as refused:
        await KeyAuthentication(Keys(), "rso_operator").principal({"x-api-key": value})
    assert refused.value.reason is ErrorReason.UNAUTHENTICATED
