"""A real gateway on a loopback port, in front of a scripted store on a Unix socket.

Both live on one event loop in a thread, so that synchronous SDKs can call them.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.waiting import LONGEST_WAIT_S, until

from runstore.domain.errors import ErrorReason
from runstore.gateway import store_client
from runstore.runtime.gateway import run_gateway
from runstore.runtime.settings import load_settings
from runstore.v1 import admin_service_pb2 as admin
from runstore.v1 import admin_service_pb2_grpc as admin_grpc
from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import blob_service_pb2_grpc as blobs_grpc
from runstore.v1 import error_pb2
from runstore.v1 import feedback_service_pb2 as feedback
from runstore.v1 import feedback_service_pb2_grpc as feedback_grpc
from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import project_service_pb2_grpc as projects_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_query_service_pb2 as queries
from runstore.v1 import run_query_service_pb2_grpc as queries_grpc
from runstore.v1 import run_stats_service_pb2 as stats
from runstore.v1 import run_stats_service_pb2_grpc as stats_grpc

from .fake_agents import add_agents

_Result = TypeVar("_Result")

MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_DECOMPRESSED_BYTES = 40 * 1024 * 1024


@dataclass(slots=True)
class Refuse:
    """A scripted refusal."""

    reason: ErrorReason
    message: str
    field: str = ""
    has_detail: bool = True


@dataclass
class FakeStore:
    """Records every request with its metadata; answers from `answers`, by name of the method."""

    requests: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    serving: bool = True
    blobs: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """What can be read: token → MIME type and content."""
    uploads: list[tuple[int, bytes]] = field(default_factory=list)
    """What was uploaded: kind and content. The token of the first is `upload 1`."""
    metrics: "bytes | Refuse" = b""

    def of(self, method: str) -> list[Any]:
        """The requests of one method."""
        return [request for name, request, _ in self.requests if name == method]

    @property
    def operations(self) -> list[ingest.RunOperation]:
        """All operations of all WriteRuns requests."""
        return [operation for request in self.of("WriteRuns") for operation in request.operations]

    @property
    def metadata(self) -> dict[str, Any]:
        """Call metadata of the last request."""
        return self.requests[-1][2]

    async def answer(self, method: str, request: Any, context: Any, default: Any) -> Any:
        """Records the request; aborts or answers as scripted."""
        self.requests.append((method, request, dict(context.invocation_metadata())))
        answer = self.answers.get(method, default)
        if callable(answer):
            answer = answer(request)
        if asyncio.iscoroutine(answer):
            answer = await answer
        if isinstance(answer, Refuse):
            await self.refuse(answer, context)
        return answer

    async def refuse(self, refusal: Refuse, context: Any) -> None:
        """Ends a call as the store would."""
        if refusal.has_detail:
            reason = error_pb2.ErrorReason.Value(f"ERROR_REASON_{refusal.reason.name}")
            detail = error_pb2.ErrorDetail(reason=reason, field=refusal.field)
            context.set_trailing_metadata((("runstore-error-bin", detail.SerializeToString()),))
        await context.abort(grpc.StatusCode[refusal.reason.grpc_code], refusal.message)


class _Ingest(ingest_grpc.RunIngestServiceServicer):
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def WriteRuns(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        return await self._store.answer("WriteRuns", request, context, ingest.WriteRunsResponse())

    def StreamRuns(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        raise NotImplementedError  # the gateway never streams; a call would be a defect

    async def WaitVisible(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        raise NotImplementedError  # nor does it wait: reads through the store do


class _Queries(queries_grpc.RunQueryServiceServicer):
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def ListRuns(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        return await self._store.answer("ListRuns", request, context, queries.ListRunsResponse())

    async def GetRun(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        missing = Refuse(ErrorReason.NOT_FOUND, "no such run")
        return await self._store.answer("GetRun", request, context, missing)

    def ExportRuns(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        raise NotImplementedError  # the gateway never exports; a call would be a defect


class _Feedback(feedback_grpc.FeedbackServiceServicer):
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def WriteFeedback(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        return await self._store.answer("WriteFeedback", request, context, feedback.WriteFeedbackResponse())

    def _by_contract_tests(self, request: Any, context: Any) -> Any:
        raise NotImplementedError  # tests/contract calls these, on a real store

    UpdateFeedback = GetFeedback = ListFeedback = _by_contract_tests
    DeleteFeedback = GetFeedbackStats = _by_contract_tests


class _Stats(stats_grpc.RunStatsServiceServicer):
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def RunStats(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        return await self._store.answer("RunStats", request, context, stats.RunStatsResponse())


class _Blobs(blobs_grpc.BlobServiceServicer):
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def UploadBlob(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        header = (await anext(request_iterator)).header
        content = bytearray()
        async for request in request_iterator:
            assert 0 < len(request.chunk) <= 1024 * 1024
            content += request.chunk
        self._store.uploads.append((header.kind, bytes(content)))
        uploaded = blobs.UploadBlobResponse(
            upload_token=f"upload {len(self._store.uploads)}", size_bytes=len(content)
        )
        return await self._store.answer("UploadBlob", header, context, uploaded)

    async def ReadBlob(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        if request.read_token not in self._store.blobs:
            await self._store.answer(
                "ReadBlob", request, context, Refuse(ErrorReason.NOT_FOUND, "no such blob")
            )
        mime_type, content = self._store.blobs[request.read_token]
        yield blobs.ReadBlobResponse(
            header=blobs.ReadBlobHeader(mime_type=mime_type, size_bytes=len(content))
        )
        wanted = content[request.offset :][: request.length or None]
        for start in range(0, len(wanted), 7):
            yield blobs.ReadBlobResponse(chunk=wanted[start : start + 7])


class _Projects(projects_grpc.ProjectServiceServicer):
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def CreateProject(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        return await self._store.answer("CreateProject", request, context, None)

    async def GetProject(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        missing = Refuse(ErrorReason.NOT_FOUND, "no such project")
        return await self._store.answer("GetProject", request, context, missing)

    async def ListProjects(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        named = projects.ListProjectsResponse(projects=[projects.Project(id=id_) for id_ in request.ids])
        return await self._store.answer("ListProjects", request, context, named)

    async def UpdateProject(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        return await self._store.answer("UpdateProject", request, context, None)

    async def DeleteProject(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        return await self._store.answer("DeleteProject", request, context, projects.DeleteProjectResponse())


class _Admin(admin_grpc.AdminServiceServicer):
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def GetMetrics(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        if isinstance(self._store.metrics, bytes):
            return admin.GetMetricsResponse(exposition=self._store.metrics)
        return await self._store.answer("GetMetrics", request, context, self._store.metrics)

    def _not_for_gateways(self, request: Any, context: Any) -> Any:
        raise NotImplementedError  # a call would be a defect

    GetStatus = ListDeadLetters = GetDeadLetter = _not_for_gateways
    ReplayDeadLetters = DropDeadLetters = CreateBackup = _not_for_gateways
    CreateApiKey = ListApiKeys = RevokeApiKey = _not_for_gateways
    ListTenants = DeleteTenant = GetTenantLimits = SetTenantLimits = ListTenantLimits = _not_for_gateways


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # grpcio-health-checking has no types
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name of the method in the proto
        state = health_pb2.HealthCheckResponse
        return state(status=state.SERVING if self._store.serving else state.NOT_SERVING)


class BackgroundLoop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Awaitable[_Result]) -> _Result:
        """Runs on the loop; returns or raises here."""

        async def await_it() -> _Result:
            return await coroutine

        return asyncio.run_coroutine_threadsafe(await_it(), self._loop).result(timeout=2 * LONGEST_WAIT_S)

    def start(self, make: Callable[[], Any]) -> Any:
        """Calls `make` on the loop."""

        async def call() -> Any:
            return make()

        return self.run(call())

    async def wait_for(self, event: threading.Event) -> None:
        """Waits on the loop for an event that another thread sets."""
        await self._loop.run_in_executor(None, event.wait, LONGEST_WAIT_S)

    def close(self) -> None:
        """Stops the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=LONGEST_WAIT_S)
        self._loop.close()


def line_of(answer: httpx.Response, logs: Sequence[MutableMapping[str, Any]]) -> MutableMapping[str, Any]:
    """What the gateway logs of a call once it has ended, which may be after its client has the answer."""
    request_id = answer.headers["x-request-id"]

    def lines() -> list[MutableMapping[str, Any]]:
        return [each for each in logs if each["event"] == "http_call" and each["request_id"] == request_id]

    [line] = until(lines, "the line of the call")
    return line


class RunningGateway:
    """`run_gateway` under way on a port of the system's choice."""

    def __init__(
        self,
        loop: BackgroundLoop,
        target: str,
        port: int = 0,
        *,
        drain_timeout_s: float = 5,
        has_store: bool = True,
        **more_settings: Any,
    ) -> None:
        """`has_store`: a store listens at `target`. The gateway has little patience with it, so
        they are connected before the first call."""
        self._loop = loop
        self._stop: asyncio.Event = loop.start(asyncio.Event)
        ready = threading.Event()
        listener = socket.create_server(("127.0.0.1", port))
        self.port = listener.getsockname()[1]
        settings = load_settings(
            store_address=target,
            max_body_bytes=MAX_BODY_BYTES,
            max_decompressed_bytes=MAX_DECOMPRESSED_BYTES,
            max_decompression_ratio=50,
            drain_timeout_s=drain_timeout_s,
            store_patience_s=0.5,
            **more_settings,
        )
        serve = run_gateway(settings, listen_fd=listener.detach(), ready=ready.set, stop=self._stop)
        self._task: asyncio.Task[None] = loop.start(lambda: asyncio.get_running_loop().create_task(serve))
        assert ready.wait(timeout=LONGEST_WAIT_S)
        if has_store:
            until(lambda: httpx.get(f"{self.url}/health").status_code == 200, "the connection to the store")

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def wait_until_refusing(self) -> None:
        """Returns once no new connection is accepted."""
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                    return

    def stop(self) -> None:
        """Drains and waits for the end."""
        self._loop.start(self._stop.set)
        self._loop.run(self._task)


@pytest.fixture(scope="session", autouse=True)
def _patient_gateways() -> Iterator[None]:
    """Gateways take a store for one that is away only if it is, not while the machine is busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_client, "_HEALTH_TIMEOUT_S", LONGEST_WAIT_S)
        yield


@pytest.fixture(scope="session")
def loop() -> Iterator[BackgroundLoop]:
    """The loop of the fake store and of the gateway."""
    background = BackgroundLoop()
    yield background
    background.close()


@pytest.fixture(scope="session")
def store_and_target(
    loop: BackgroundLoop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FakeStore, str]]:
    """The scripted store of the whole session, and the gRPC target that it listens on."""
    store = FakeStore()
    path = Path(tmp_path_factory.mktemp("s")) / "store.sock"

    async def serve() -> Any:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 66 * 1024 * 1024)])
        ingest_grpc.add_RunIngestServiceServicer_to_server(_Ingest(store), server)
        queries_grpc.add_RunQueryServiceServicer_to_server(_Queries(store), server)
        feedback_grpc.add_FeedbackServiceServicer_to_server(_Feedback(store), server)
        stats_grpc.add_RunStatsServiceServicer_to_server(_Stats(store), server)
        projects_grpc.add_ProjectServiceServicer_to_server(_Projects(store), server)
        blobs_grpc.add_BlobServiceServicer_to_server(_Blobs(store), server)
        admin_grpc.add_AdminServiceServicer_to_server(_Admin(store), server)
        health_pb2_grpc.add_HealthServicer_to_server(_Health(store), server)
        add_agents(store, server)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        return server

    server = loop.run(serve())
    yield store, f"unix:{path}"
    loop.run(server.stop(None))


@pytest.fixture(scope="session")
def _gateway(loop: BackgroundLoop, store_and_target: tuple[FakeStore, str]) -> Iterator[RunningGateway]:
    running = RunningGateway(loop, store_and_target[1])
    yield running
    running.stop()


@pytest.fixture
def store(store_and_target: tuple[FakeStore, str]) -> FakeStore:
    """The scripted store, with nothing recorded and default answers."""
    store = store_and_target[0]
    store.requests.clear()
    store.answers.clear()
    store.blobs.clear()
    store.uploads.clear()
    store.serving = True
    store.metrics = b""
    return store


@pytest.fixture
def url(_gateway: RunningGateway) -> str:
    """The gateway's address."""
    return _gateway.url


@pytest.fixture
def http(url: str, store: FakeStore) -> Iterator[httpx.Client]:
    """A client of the gateway that follows no redirects."""
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client
