"""The gateway's only way to the store: one gRPC channel."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, TypeVar

import grpc
import tenacity
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from starlette.datastructures import Headers

from runstore.domain.credentials import CREDENTIAL_HEADERS
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway import visible
from runstore.gateway.blob_streams import BlobContent, BlobUpload
from runstore.gateway.request_ids import HEADER, current_request_id
from runstore.gateway.store_errors import refusal, store_is_away, unreachable
from runstore.runtime import spans
from runstore.v1 import admin_service_pb2 as admin
from runstore.v1 import admin_service_pb2_grpc as admin_grpc
from runstore.v1 import agent_item_service_pb2_grpc as agent_items_grpc
from runstore.v1 import agent_registry_service_pb2_grpc as agent_registry_grpc
from runstore.v1 import agent_run_service_pb2_grpc as agent_runs_grpc
from runstore.v1 import annotation_queue_service_pb2_grpc as queues_grpc
from runstore.v1 import assistant_service_pb2_grpc as assistants_grpc
from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import blob_service_pb2_grpc as blobs_grpc
from runstore.v1 import comparative_experiment_service_pb2_grpc as comparative_grpc
from runstore.v1 import cron_service_pb2_grpc as crons_grpc
from runstore.v1 import dataset_service_pb2_grpc as datasets_grpc
from runstore.v1 import dataset_sharing_service_pb2_grpc as dataset_sharing_grpc
from runstore.v1 import example_search_service_pb2_grpc as example_search_grpc
from runstore.v1 import example_service_pb2_grpc as examples_grpc
from runstore.v1 import feedback_config_service_pb2_grpc as feedback_configs_grpc
from runstore.v1 import feedback_service_pb2 as feedback
from runstore.v1 import feedback_service_pb2_grpc as feedback_grpc
from runstore.v1 import feedback_token_service_pb2_grpc as feedback_tokens_grpc
from runstore.v1 import filter_service_pb2 as filters
from runstore.v1 import filter_service_pb2_grpc as filters_grpc
from runstore.v1 import online_evaluator_service_pb2_grpc as online_evaluators_grpc
from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import project_service_pb2_grpc as projects_grpc
from runstore.v1 import prompt_service_pb2_grpc as prompts_grpc
from runstore.v1 import run_deletion_service_pb2 as deletions
from runstore.v1 import run_deletion_service_pb2_grpc as deletions_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_query_service_pb2 as queries
from runstore.v1 import run_query_service_pb2_grpc as queries_grpc
from runstore.v1 import run_stats_service_pb2 as stats
from runstore.v1 import run_stats_service_pb2_grpc as stats_grpc
from runstore.v1 import share_service_pb2_grpc as shares_grpc
from runstore.v1 import tenant_service_pb2_grpc as tenants_grpc
from runstore.v1 import thread_query_service_pb2 as threads
from runstore.v1 import thread_query_service_pb2_grpc as threads_grpc
from runstore.v1 import thread_service_pb2_grpc as agent_threads_grpc
from runstore.v1 import trace_query_service_pb2 as traces
from runstore.v1 import trace_query_service_pb2_grpc as traces_grpc

MAX_WRITE_BYTES: Final = 64 * 1024 * 1024
"""Most bytes of one WriteRuns message (`run_ingest_service.proto`)."""

MAX_WRITE_OPERATIONS: Final = 10_000
"""Most operations of one WriteRuns message (`run_ingest_service.proto`)."""

# A page of runs with large payloads is far above gRPC's default of 4 MiB.
_MAX_RECEIVE_BYTES: Final = 1024 * 1024 * 1024
# Room for the framing of the last operation.
_MAX_SEND_BYTES: Final = MAX_WRITE_BYTES + 1024 * 1024

_WRITE_TIMEOUT_S: Final = 30.0
_READ_TIMEOUT_S: Final = 60.0
_HEALTH_TIMEOUT_S: Final = 2.0
_RETRY_PAUSE_S: Final = 0.2

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)
_T = TypeVar("_T")

Credentials = tuple[tuple[str, str], ...]
"""Call metadata: the caller's credential headers, names in lower case."""


CHANNEL_OPTIONS: Final = (
    ("grpc.max_send_message_length", _MAX_SEND_BYTES),
    ("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES),
    # Of several stores each gateway keeps to one while it is there, and so sees its own writes at once.
    ("grpc.service_config", '{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}'),
)
"""Of the channel to the store."""


def credentials_of(headers: Headers) -> Credentials:
    """The caller's credential headers, to be passed on with a call.

    Raises UNAUTHENTICATED for one with characters that gRPC metadata cannot carry.
    """
    credentials = tuple((name, headers[name]) for name in CREDENTIAL_HEADERS if headers.get(name))
    for name, value in credentials:
        if not (value.isascii() and value.isprintable()):
            raise RunstoreError(ErrorReason.UNAUTHENTICATED, f"Invalid characters in the header {name}.")
    return credentials


class StoreClient:
    """Calls the store, each call with a deadline.

    Every method raises `RunstoreError`: the store's own refusals with their reason, UNAVAILABLE
    when it cannot be reached, DEADLINE_EXCEEDED when it is too slow.

    A store that is being restarted is back within seconds, while SDKs drop a batch after three
    refusals in as many; so calls are repeated for `patience_s` before they fail as UNAVAILABLE. All
    of them but those of `ask_once` are safe to repeat.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        patience_s: float,
        on_retry: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_retry` is told each time that a call is repeated."""
        self._channel = channel
        self._patience_s = patience_s
        self._on_retry = on_retry
        self._admin = admin_grpc.AdminServiceStub(channel)
        self._ingest = ingest_grpc.RunIngestServiceStub(channel)
        self._feedback = feedback_grpc.FeedbackServiceStub(channel)
        self._queries = queries_grpc.RunQueryServiceStub(channel)
        self._filters = filters_grpc.FilterServiceStub(channel)
        self._deletions = deletions_grpc.RunDeletionServiceStub(channel)
        self._stats = stats_grpc.RunStatsServiceStub(channel)
        self._traces = traces_grpc.TraceQueryServiceStub(channel)
        self._threads = threads_grpc.ThreadQueryServiceStub(channel)
        self._projects = projects_grpc.ProjectServiceStub(channel)
        self.annotation_queues = queues_grpc.AnnotationQueueServiceStub(channel)
        self.datasets = datasets_grpc.DatasetServiceStub(channel)
        self.examples = examples_grpc.ExampleServiceStub(channel)
        self.example_search = example_search_grpc.ExampleSearchServiceStub(channel)
        """What `ask` can ask about annotation queues, likewise the others without a method of their own."""
        self.shares = shares_grpc.ShareServiceStub(channel)
        self.shared_runs = shares_grpc.SharedRunServiceStub(channel)
        self.feedback_tokens = feedback_tokens_grpc.FeedbackTokenServiceStub(channel)
        self.feedback_configs = feedback_configs_grpc.FeedbackConfigServiceStub(channel)
        self.prompts = prompts_grpc.PromptServiceStub(channel)
        self.tenants = tenants_grpc.TenantServiceStub(channel)
        self.dataset_sharing = dataset_sharing_grpc.DatasetSharingServiceStub(channel)
        self.shared_datasets = dataset_sharing_grpc.SharedDatasetServiceStub(channel)
        self.online_evaluators = online_evaluators_grpc.OnlineEvaluatorServiceStub(channel)
        self.agent_registry = agent_registry_grpc.AgentRegistryServiceStub(channel)
        self.comparative_experiments = comparative_grpc.ComparativeExperimentServiceStub(channel)
        self.agent_runs = agent_runs_grpc.AgentRunServiceStub(channel)
        self.agent_threads = agent_threads_grpc.ThreadServiceStub(channel)
        self.agent_items = agent_items_grpc.AgentItemServiceStub(channel)
        self.crons = crons_grpc.CronServiceStub(channel)
        self.assistants = assistants_grpc.AssistantServiceStub(channel)
        self._blobs = blobs_grpc.BlobServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    async def ask(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        credentials: Credentials,
    ) -> _Response:
        """The answer of a catalog's method, which is an attribute of one of the stubs here."""
        return await self._answer(method, request, credentials, _READ_TIMEOUT_S)

    async def ask_once(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        credentials: Credentials,
    ) -> _Response:
        """As `ask`, for what must not happen twice: waits for a connection, and then calls once."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self._channel.channel_ready()
            with _span(request):
                return await method(request, timeout=_READ_TIMEOUT_S, metadata=_metadata(credentials))
        except TimeoutError as error:
            raise unreachable() from error
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error

    async def stream(
        self, method: Any, request: Message, credentials: Credentials
    ) -> AsyncGenerator[Any, None]:
        """The answers of a method that goes on answering, for as long as it does; close it to stop."""
        call = method(request, metadata=_metadata(credentials))
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error
        finally:
            call.cancel()

    async def write_runs(
        self, request: ingest.WriteRunsRequest, credentials: Credentials, *, continues: bool = False
    ) -> ingest.WriteRunsResponse:
        """Makes operations durable; those that the store refuses are in the answer's `errors`.

        `continues`: others of the same HTTP request are durable already. A limit of the caller is then waited
        for: if the request failed, repeating it would only use the limit up again.
        """
        answer = await self._write(self._ingest.WriteRuns, request, credentials, continues=continues)
        visible.note_write(answer.write_token)
        return answer

    async def list_runs(
        self, request: queries.ListRunsRequest, credentials: Credentials
    ) -> queries.ListRunsResponse:
        """One page of runs."""
        return await self._answer(self._queries.ListRuns, request, credentials, _READ_TIMEOUT_S)

    async def get_run(
        self, request: queries.GetRunRequest, credentials: Credentials
    ) -> queries.GetRunResponse:
        """One run; NOT_FOUND when the tenant has none of that id."""
        return await self._answer(self._queries.GetRun, request, credentials, _READ_TIMEOUT_S)

    async def write_feedback(
        self, request: feedback.WriteFeedbackRequest, credentials: Credentials, *, continues: bool = False
    ) -> feedback.WriteFeedbackResponse:
        """As `write_runs`, for records of feedback."""
        answer = await self._write(self._feedback.WriteFeedback, request, credentials, continues=continues)
        visible.note_write(answer.write_token)
        return answer

    async def update_feedback(
        self, request: feedback.UpdateFeedbackRequest, credentials: Credentials
    ) -> feedback.UpdateFeedbackResponse:
        """Changes the given fields of a record; NOT_FOUND when the tenant has none of that id."""
        return await self._answer(self._feedback.UpdateFeedback, request, credentials, _WRITE_TIMEOUT_S)

    async def get_feedback(
        self, request: feedback.GetFeedbackRequest, credentials: Credentials
    ) -> feedback.GetFeedbackResponse:
        """One record; NOT_FOUND when the tenant has none of that id."""
        return await self._answer(self._feedback.GetFeedback, request, credentials, _READ_TIMEOUT_S)

    async def list_feedback(
        self, request: feedback.ListFeedbackRequest, credentials: Credentials
    ) -> feedback.ListFeedbackResponse:
        """One page of records."""
        return await self._answer(self._feedback.ListFeedback, request, credentials, _READ_TIMEOUT_S)

    async def delete_feedback(
        self, request: feedback.DeleteFeedbackRequest, credentials: Credentials
    ) -> feedback.DeleteFeedbackResponse:
        """Deletes a record; NOT_FOUND when the tenant has none of that id."""
        return await self._answer(self._feedback.DeleteFeedback, request, credentials, _WRITE_TIMEOUT_S)

    async def run_stats(
        self, request: stats.RunStatsRequest, credentials: Credentials
    ) -> stats.RunStatsResponse:
        """Statistics of runs, together or by group."""
        return await self._answer(self._stats.RunStats, request, credentials, _READ_TIMEOUT_S)

    async def list_traces(
        self, request: traces.ListTracesRequest, credentials: Credentials
    ) -> traces.ListTracesResponse:
        """One page of traces; NOT_FOUND without the project."""
        return await self._answer(self._traces.ListTraces, request, credentials, _READ_TIMEOUT_S)

    async def list_trace_runs(
        self, request: traces.ListTraceRunsRequest, credentials: Credentials
    ) -> traces.ListTraceRunsResponse:
        """One page of the runs of a trace; NOT_FOUND without it."""
        return await self._answer(self._traces.ListTraceRuns, request, credentials, _READ_TIMEOUT_S)

    async def list_threads(
        self, request: threads.ListThreadsRequest, credentials: Credentials
    ) -> threads.ListThreadsResponse:
        """One page of threads; NOT_FOUND without the project."""
        return await self._answer(self._threads.ListThreads, request, credentials, _READ_TIMEOUT_S)

    async def aggregate_thread_stats(
        self, request: threads.AggregateThreadStatsRequest, credentials: Credentials
    ) -> threads.AggregateThreadStatsResponse:
        """Many threads summed up; NOT_FOUND without the project."""
        return await self._answer(self._threads.AggregateThreadStats, request, credentials, _READ_TIMEOUT_S)

    async def get_thread_stats(
        self, request: threads.GetThreadStatsRequest, credentials: Credentials
    ) -> threads.GetThreadStatsResponse:
        """One thread summed up; NOT_FOUND without it."""
        return await self._answer(self._threads.GetThreadStats, request, credentials, _READ_TIMEOUT_S)

    async def list_thread_traces(
        self, request: threads.ListThreadTracesRequest, credentials: Credentials
    ) -> threads.ListThreadTracesResponse:
        """One page of the traces of a thread; NOT_FOUND without it."""
        return await self._answer(self._threads.ListThreadTraces, request, credentials, _READ_TIMEOUT_S)

    async def delete_traces(
        self, request: deletions.DeleteTracesRequest, credentials: Credentials
    ) -> deletions.DeleteTracesResponse:
        """Deletes whole traces; nobody sees them any more when this returns."""
        return await self._answer(self._deletions.DeleteTraces, request, credentials, _READ_TIMEOUT_S)

    async def check_filters(
        self, request: filters.CheckFiltersRequest, credentials: Credentials
    ) -> filters.CheckFiltersResponse:
        """What is wrong with filters."""
        return await self._answer(self._filters.CheckFilters, request, credentials, _READ_TIMEOUT_S)

    async def generate_filter(
        self, request: filters.GenerateFilterRequest, credentials: Credentials
    ) -> filters.GenerateFilterResponse:
        """A filter for a question in natural language."""
        return await self._answer(self._filters.GenerateFilter, request, credentials, _READ_TIMEOUT_S)

    def upload_blob(self, kind: "blobs.BlobKind.ValueType", credentials: Credentials) -> BlobUpload:
        """Begins to upload a payload or file. It is not repeated when the store goes away meanwhile."""
        begin: Any = self._blobs.UploadBlob  # Its stub cannot be called without an iterator, to mypy.
        return BlobUpload(begin(metadata=_metadata(credentials)), kind)

    async def read_blob(self, request: blobs.ReadBlobRequest) -> BlobContent:
        """A large payload or an attachment; its token is the credential. NOT_FOUND without one that holds."""

        async def begin() -> BlobContent:
            call = self._blobs.ReadBlob(request)
            first = await call.read()
            assert isinstance(first, blobs.ReadBlobResponse)  # noqa: S101 - no answer is without a header
            return BlobContent(call, first.header)

        return await self._patiently(begin)

    async def create_project(
        self, request: projects.CreateProjectRequest, credentials: Credentials
    ) -> projects.CreateProjectResponse:
        """Creates a project; ALREADY_EXISTS when the name is taken and `upsert` is false."""
        return await self._answer(self._projects.CreateProject, request, credentials, _READ_TIMEOUT_S)

    async def get_project(
        self, request: projects.GetProjectRequest, credentials: Credentials
    ) -> projects.GetProjectResponse:
        """One project; NOT_FOUND when the tenant has none of that id."""
        return await self._answer(self._projects.GetProject, request, credentials, _READ_TIMEOUT_S)

    async def list_projects(
        self, request: projects.ListProjectsRequest, credentials: Credentials
    ) -> projects.ListProjectsResponse:
        """One page of projects."""
        return await self._answer(self._projects.ListProjects, request, credentials, _READ_TIMEOUT_S)

    async def update_project(
        self, request: projects.UpdateProjectRequest, credentials: Credentials
    ) -> projects.UpdateProjectResponse:
        """Changes the given fields of a project."""
        return await self._answer(self._projects.UpdateProject, request, credentials, _READ_TIMEOUT_S)

    async def delete_project(
        self, request: projects.DeleteProjectRequest, credentials: Credentials
    ) -> projects.DeleteProjectResponse:
        """Deletes a project and its runs."""
        return await self._answer(self._projects.DeleteProject, request, credentials, _READ_TIMEOUT_S)

    async def get_metrics(self, credentials: Credentials) -> bytes:
        """All metrics of the store, within two seconds and without asking twice; PERMISSION_DENIED for an API
        key."""
        try:
            answer = await self._admin.GetMetrics(
                admin.GetMetricsRequest(), timeout=_HEALTH_TIMEOUT_S, metadata=_metadata(credentials)
            )
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error
        return answer.exposition

    async def is_serving(self) -> bool:
        """Whether the store says, within two seconds, that it serves. Raises nothing."""
        try:
            health = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(health.status == health_pb2.HealthCheckResponse.SERVING)

    async def _write(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        credentials: Credentials,
        *,
        continues: bool,
    ) -> _Response:
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: continues and _is_rate_limited(error)),
            stop=tenacity.stop_after_delay(_WRITE_TIMEOUT_S),
            wait=_as_told,
            reraise=True,
        )
        return await attempts(self._answer, method, request, credentials, _WRITE_TIMEOUT_S)

    async def _answer(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        credentials: Credentials,
        timeout_s: float,
    ) -> _Response:
        async def call() -> _Response:
            with _span(request):
                return await method(request, timeout=timeout_s, metadata=_metadata(credentials))

        return await self._patiently(call)

    async def _patiently(self, call: Callable[[], Awaitable[_T]]) -> _T:
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(store_is_away),
            stop=tenacity.stop_after_delay(self._patience_s),
            wait=tenacity.wait_fixed(_RETRY_PAUSE_S),
            before_sleep=lambda _: self._on_retry(),
            reraise=True,
        )
        try:
            return await attempts(call)
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error


def _is_rate_limited(error: BaseException) -> bool:
    return isinstance(error, RunstoreError) and error.reason is ErrorReason.RATE_LIMITED


def _as_told(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return float(error.retry_after_s) if isinstance(error, RunstoreError) else _RETRY_PAUSE_S


def _span(request: Message) -> spans.Span:
    """Of one call: every request of ours is named after its method."""
    return spans.inner(f"call {type(request).__name__.removesuffix('Request')}", is_call=True)


def _metadata(credentials: Credentials) -> Credentials:
    request_id = current_request_id.get()
    metadata = (*credentials, (HEADER, request_id)) if request_id else credentials
    if traceparent := spans.traceparent():
        metadata = (*metadata, (spans.TRACEPARENT, traceparent))
    call = visible.current_visible.get(None)
    return (*metadata, (visible.HEADER, call.asked)) if call and call.asked else metadata
