"""Sends the runs of files to a store, through its ordinary ingest: repeating an import changes nothing."""

from collections.abc import Callable
from typing import Final

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.feedback_json import read_feedback
from runstore.gateway.run_json import fill_fields
from runstore.runtime.transfer.client import StoreAccess
from runstore.runtime.transfer.readers import BadRow, File, FoundRun
from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1.feedback_service_pb2 import Feedback

_BATCH_RUNS: Final = 1_000
_BATCH_BYTES: Final = 8 * 1024 * 1024
_UPLOADED: Final = ("inputs", "outputs", "events", "manifest")
_UPLOADED_BYTES: Final = 1024 * 1024


class Import:
    """One import: takes rows in any order, and says what became of them."""

    def __init__(
        self, store: StoreAccess, project: str | None, on_refusal: Callable[[str, RunstoreError], None]
    ) -> None:
        """All runs go to the project of the name `project`; if None, to that of their own id, else of their
        own name. `on_refusal` is told of every row that is not stored: its place and why."""
        self._store = store
        self._on_refusal = on_refusal
        self._everything_to = None if project is None else store.project_by_name(project)
        self._projects: dict[tuple[str, str], str] = {}
        self._operations: list[pb.RunOperation] = []
        self._places: list[str] = []
        self._feedback: list[list[Feedback]] = []
        self._bytes = 0
        self.stored = 0
        """Runs."""
        self.stored_feedback = 0
        self.refused = 0

    def add(self, row: FoundRun | BadRow) -> None:
        """Send a row, with others. Raises RunstoreError when the store refuses more than single rows."""
        if isinstance(row, BadRow):
            self._refuse(row.place, row.error)
            return
        operation = pb.RunOperation()
        try:
            fill_fields(operation.create, row.run, takes_any_json=True)
            self._set_project(operation.create)
            self._set_files(operation.create, row.files)
            self._upload_payloads(operation.create)
            records = [_on(operation.create, read_feedback(bytes(record))) for record in row.feedback]
        except RunstoreError as error:
            if error.reason in _OF_THE_WHOLE:
                raise
            self._refuse(row.place, error)
            return
        size = operation.ByteSize() + sum(record.ByteSize() for record in records)
        if self._bytes + size > _BATCH_BYTES:
            self._send()
        self._operations.append(operation)
        self._places.append(row.place)
        self._feedback.append(records)
        self._bytes += size
        if len(self._operations) >= _BATCH_RUNS:
            self._send()

    def finish(self) -> None:
        """Send what is left, and wait until all of it can be read."""
        self._send()
        self._store.wait_visible()

    def _set_project(self, run: pb.RunFields) -> None:
        project_id, name = run.project_id, run.project_name
        run.ClearField("project_name")
        if self._everything_to is not None:
            run.project_id = self._everything_to
            return
        if not project_id and not name:
            name = "default"
        key = (project_id, name)
        if key not in self._projects:
            self._projects[key] = (
                self._store.project_for(project_id, name or project_id)
                if project_id
                else self._store.project_by_name(name)
            )
        run.project_id = self._projects[key]

    def _set_files(self, run: pb.RunFields, files: dict[str, File]) -> None:
        for name, file in files.items():
            attachment = run.attachments.add(name=name, mime_type=file.mime_type)
            if len(file.content) > _UPLOADED_BYTES:
                attachment.upload_token = self._store.upload(blobs.BLOB_KIND_ATTACHMENT, file.content)
            else:
                attachment.content = file.content

    def _upload_payloads(self, run: pb.RunFields) -> None:
        for field in _UPLOADED:
            content: bytes = getattr(run, field)
            if len(content) > _UPLOADED_BYTES:
                setattr(run.uploaded, field, self._store.upload(blobs.BLOB_KIND_PAYLOAD, content))
                run.ClearField(field)

    def _send(self) -> None:
        if not self._operations:
            return
        errors = self._store.write(self._operations).errors
        for error in errors:
            reason = ErrorReason.INVALID_ARGUMENT
            self._refuse(self._places[error.index], RunstoreError(reason, error.message, field=error.field))
        self.stored += len(self._operations) - len(errors)
        self._send_feedback({error.index for error in errors})
        self._operations, self._places, self._feedback, self._bytes = [], [], [], 0

    def _send_feedback(self, refused: set[int]) -> None:
        """What is said of the runs that are stored."""
        said = [
            (place, record)
            for index, (place, records) in enumerate(zip(self._places, self._feedback, strict=True))
            if index not in refused
            for record in records
        ]
        for begin in range(0, len(said), _BATCH_RUNS):
            some = said[begin : begin + _BATCH_RUNS]
            errors = self._store.write_feedback([record for _, record in some]).errors
            for error in errors:
                reason = RunstoreError(ErrorReason.INVALID_ARGUMENT, error.message, field=error.field)
                self._refuse(f"{some[error.index][0]}: feedback", reason)
            self.stored_feedback += len(some) - len(errors)

    def _refuse(self, place: str, error: RunstoreError) -> None:
        self.refused += 1
        self._on_refusal(place, error)


def _on(run: pb.RunFields, record: Feedback) -> Feedback:
    """The record in the project that the run goes to."""
    record.run_id = run.id
    record.ClearField("project_id")
    return record


# No other row would fare better.
_OF_THE_WHOLE: Final = (
    ErrorReason.UNAUTHENTICATED,
    ErrorReason.PERMISSION_DENIED,
    ErrorReason.WORKSPACE_REQUIRED,
    ErrorReason.UNAVAILABLE,
    ErrorReason.OVERLOADED,
    ErrorReason.RATE_LIMITED,
    ErrorReason.DEADLINE_EXCEEDED,
    ErrorReason.INTERNAL,
)
