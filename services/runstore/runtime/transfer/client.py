"""Calls the store for commands that move runs: as a client with a key, patient while the store restarts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from time import monotonic, sleep
from typing import Any, Final

import grpc
import tenacity

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.admin_client import reason_of, refusal
from runstore.runtime.settings import Settings
from runstore.runtime.tls import store_channel
from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import blob_service_pb2_grpc as blobs_grpc
from runstore.v1 import feedback_service_pb2 as feedback
from runstore.v1 import feedback_service_pb2_grpc as feedback_grpc
from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import project_service_pb2_grpc as projects_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as queries
from runstore.v1 import run_query_service_pb2_grpc as queries_grpc

_TIMEOUT_S: Final = 60.0
_PATIENCE_S: Final = 120.0
_PAUSE_S: Final = 0.5
_PAGE_SIZE: Final = 100
_FEEDBACK_PAGE_SIZE: Final = 1_000
_CHUNK_BYTES: Final = 1024 * 1024
_MAX_MESSAGE_BYTES: Final = 1024 * 1024 * 1024


class StoreAccess:
    """Every method raises RunstoreError: the store's refusal, or StoreAway when nobody answers for long."""

    def __init__(self, channel: grpc.Channel, target: str, api_key: str | None) -> None:
        self._target = target
        self._metadata = (("x-api-key", api_key),) if api_key else ()
        self._queries = queries_grpc.RunQueryServiceStub(channel)
        self._ingest = ingest_grpc.RunIngestServiceStub(channel)
        self._projects = projects_grpc.ProjectServiceStub(channel)
        self._feedback = feedback_grpc.FeedbackServiceStub(channel)
        self._blobs = blobs_grpc.BlobServiceStub(channel)

    # -- reading ---------------------------------------------------------------------------------

    def every_project(self) -> Iterator[projects.Project]:
        """Every project, the oldest first."""
        offset = 0
        while True:
            request = projects.ListProjectsRequest(oldest_first=True, offset=offset, page_size=_PAGE_SIZE)
            page = self._call(self._projects.ListProjects, request).projects
            yield from page
            offset += len(page)
            if len(page) < _PAGE_SIZE:
                return

    def project_named(self, name: str) -> projects.Project:
        """The project of this name. Raises NOT_FOUND."""
        found = self._call(self._projects.ListProjects, projects.ListProjectsRequest(name=name)).projects
        if not found:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no project {name!r}")
        project: projects.Project = found[0]
        return project

    def first_run(self, query: queries.ListRunsRequest) -> run_pb2.Run | None:
        """The first run of a query in its order."""
        request = queries.ListRunsRequest()
        request.CopyFrom(query)
        request.page_size = 1
        runs = self._call(self._queries.ListRuns, request).runs
        return runs[0] if runs else None

    def export(self, query: queries.ListRunsRequest) -> Iterator[Sequence[run_pb2.Run]]:
        """All runs of a query, some at a time. Goes on where it was when the connection fails."""
        request = queries.ExportRunsRequest(query=query)
        failing_since: float | None = None
        while True:
            try:
                for message in self._queries.ExportRuns(request, metadata=self._metadata):
                    request.query.page_token = message.resume_token
                    failing_since = None
                    yield message.runs
            except grpc.RpcError as error:
                failing_since = failing_since or monotonic()
                if not _passes(error) or monotonic() - failing_since > _PATIENCE_S:
                    raise refusal(error, self._target, _TIMEOUT_S) from error
                sleep(_PAUSE_S)
            else:
                return

    def feedback_of(self, run_ids: Sequence[str]) -> dict[str, list[feedback.Feedback]]:
        """Every feedback record of these runs, by run."""
        found: dict[str, list[feedback.Feedback]] = {}
        condition = feedback.FeedbackCondition(run_ids=run_ids)
        request = feedback.ListFeedbackRequest(condition=condition, page_size=_FEEDBACK_PAGE_SIZE)
        while True:
            page = self._call(self._feedback.ListFeedback, request).feedback
            for record in page:
                found.setdefault(record.run_id, []).append(record)
            request.offset += len(page)
            if len(page) < _FEEDBACK_PAGE_SIZE:
                return found

    def read_blob(self, token: str) -> Iterator[bytes]:
        """A large payload or a file, in chunks."""
        try:
            for answer in self._blobs.ReadBlob(blobs.ReadBlobRequest(read_token=token)):
                if answer.chunk:
                    yield answer.chunk
        except grpc.RpcError as error:
            raise refusal(error, self._target, _TIMEOUT_S) from error

    # -- writing ---------------------------------------------------------------------------------

    def project_for(self, project_id: str, name: str) -> str:
        """The id of the project of this id or else of this name; made when there is neither."""
        try:
            self._call(self._projects.GetProject, projects.GetProjectRequest(id=project_id))
        except RunstoreError as error:
            if error.reason is not ErrorReason.NOT_FOUND:
                raise
        else:
            return project_id
        try:
            return self.project_by_name(name, project_id)
        except RunstoreError as taken:
            if taken.reason is not ErrorReason.ALREADY_EXISTS:
                raise
            return self.project_by_name(name)  # Another tenant has the id.

    def project_by_name(self, name: str, new_id: str | None = None) -> str:
        """The id of the project of this name; made, with `new_id` if given, when there is none.

        Raises ALREADY_EXISTS when a project of another name or tenant has that id.
        """
        request = projects.CreateProjectRequest(name=name, upsert=True)
        if new_id is not None:
            request.id = new_id
        project_id: str = self._call(self._projects.CreateProject, request).project.id
        return project_id

    def write(self, operations: Sequence[ingest.RunOperation]) -> ingest.WriteRunsResponse:
        """Make operations durable; waits while the store is busy or away."""
        request = ingest.WriteRunsRequest(operations=operations)
        answer: ingest.WriteRunsResponse = self._call(self._ingest.WriteRuns, request)
        return answer

    def write_feedback(self, records: Sequence[feedback.Feedback]) -> feedback.WriteFeedbackResponse:
        """As `write`, of feedback records."""
        request = feedback.WriteFeedbackRequest(feedback=records)
        answer: feedback.WriteFeedbackResponse = self._call(self._feedback.WriteFeedback, request)
        return answer

    def upload(self, kind: "blobs.BlobKind.ValueType", content: bytes) -> str:
        """The token of an uploaded payload or file."""

        def parts() -> Iterator[blobs.UploadBlobRequest]:
            chunks = (content[at : at + _CHUNK_BYTES] for at in range(0, len(content), _CHUNK_BYTES))
            header = blobs.UploadBlobRequest(header=blobs.UploadBlobHeader(kind=kind))
            return chain([header], (blobs.UploadBlobRequest(chunk=chunk) for chunk in chunks))

        token: str = self._patiently(
            lambda: self._blobs.UploadBlob(parts(), metadata=self._metadata)
        ).upload_token
        return token

    def wait_visible(self) -> None:
        """Return once everything that was written can be read."""
        self._call(self._ingest.WaitVisible, ingest.WaitVisibleRequest())

    def _call(self, method: Any, request: Any) -> Any:
        return self._patiently(lambda: method(request, timeout=_TIMEOUT_S, metadata=self._metadata))

    def _patiently(self, call: Callable[[], Any]) -> Any:
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            stop=tenacity.stop_after_delay(_PATIENCE_S),
            wait=tenacity.wait_exponential(0.2, max=5),
            reraise=True,
        )
        try:
            return attempts(call)
        except grpc.RpcError as error:
            raise refusal(error, self._target, _TIMEOUT_S) from error


def _passes(error: BaseException) -> bool:
    """Whether the same call may succeed in a while."""
    if not isinstance(error, grpc.RpcError):
        return False
    reason, _ = reason_of(error)
    code = error.code()
    return reason.retryable if reason is not None else code is grpc.StatusCode.UNAVAILABLE


@contextmanager
def store_access(settings: Settings, api_key: str | None) -> Iterator[StoreAccess]:
    """A client of the store that these settings lead to; without a key for a store that asks for none."""
    options = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", -1)]
    with store_channel(settings, options) as channel:
        yield StoreAccess(channel, settings.store_target, api_key)
