"""Builds the operations of an ingest request, and collects what had to be refused on the way.

A refused run or part costs its neighbours nothing: everything good is sent on, and one answer lists
the rest.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.gateway.feedback_json import read_feedback
from runstore.gateway.multipart import Part
from runstore.gateway.run_json import (
    PAYLOAD_FIELDS,
    RunJson,
    canonical_uuid,
    drop_placeholders,
    fill_fields,
    fill_payload,
    not_json,
    parse_run,
    wrong_type,
)
from runstore.gateway.store_client import MAX_WRITE_BYTES, MAX_WRITE_OPERATIONS
from runstore.v1 import feedback_service_pb2 as feedback_pb
from runstore.v1 import run_ingest_service_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

_MAX_ATTACHMENT_NAME_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class Refusal:
    """A run or part that is not stored."""

    source: str
    """Where it was in the request: a part's name, or `post[3]`."""
    field: str
    """Key at fault; "" when no single one is."""
    message: str

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.field}: {self.message}" if self.field else f"{self.source}: {self.message}"
        )


@dataclass(slots=True)
class Operations:
    """What a request asks to store, in order, and what it asked in vain."""

    request: pb.WriteRunsRequest = field(default_factory=pb.WriteRunsRequest)
    """The operations, built where they are sent from: copying them there costs a tenth of reading them."""
    sources: list[str] = field(default_factory=list)
    """Where each operation was in the request."""
    refusals: list[Refusal] = field(default_factory=list)
    feedback: list[feedback_pb.Feedback] = field(default_factory=list)
    """Records of feedback, stored behind the operations."""

    @property
    def operations(self) -> "RepeatedCompositeFieldContainer[pb.RunOperation]":
        """All of them, in order."""
        return self.request.operations

    def add(self, source: str, run: RunJson, *, is_create: bool) -> pb.RunFields:
        """Adds one run as an operation, or raises INVALID_ARGUMENT naming the key at fault."""
        operation = self.operations.add()
        fields = operation.create if is_create else operation.update
        try:
            fill_fields(fields, run)
        except RunstoreError:
            del self.operations[-1]
            raise
        self.sources.append(source)
        return fields

    def refuse(self, source: str, error: RunstoreError) -> None:
        """Notes that what stood at `source` is not stored."""
        self.refusals.append(Refusal(source, error.field, error.message))

    def refuse_by_store(self, offset: int, errors: Iterable[pb.OperationError]) -> None:
        """Merges the store's refusals of a message whose first operation was number `offset`."""
        for error in errors:
            self.refusals.append(Refusal(self.sources[offset + error.index], error.field, error.message))

    def refuse_feedback_by_store(
        self, records: Sequence[feedback_pb.Feedback], errors: Iterable[pb.OperationError]
    ) -> None:
        """Merges the store's refusals of a message with these records."""
        for error in errors:
            source = f"feedback.{records[error.index].id}"
            self.refusals.append(Refusal(source, error.field, error.message))

    def messages(self) -> Iterator[tuple[int, pb.WriteRunsRequest]]:
        """WriteRuns messages within the protocol's limits, each with the number of its first operation.

        An operation that no message can hold is refused.
        """
        if len(self.operations) <= MAX_WRITE_OPERATIONS and self.request.ByteSize() <= MAX_WRITE_BYTES:
            if self.operations:
                yield 0, self.request
            return
        start, size, message = 0, 0, pb.WriteRunsRequest()
        for number, operation in enumerate(self.operations):
            operation_bytes = operation.ByteSize() + 16  # and its tag and length
            if size + operation_bytes > MAX_WRITE_BYTES or number - start >= MAX_WRITE_OPERATIONS:
                if message.operations:
                    yield start, message
                start, size, message = number, 0, pb.WriteRunsRequest()
            if operation_bytes > MAX_WRITE_BYTES:
                self.refuse(self.sources[number], _too_large_for_a_message("run"))
                start = number + 1
                continue
            message.operations.append(operation)
            size += operation_bytes
        if message.operations:
            yield start, message

    def feedback_messages(self) -> Iterator[feedback_pb.WriteFeedbackRequest]:
        """As `messages`, for the records of feedback."""
        size, message = 0, feedback_pb.WriteFeedbackRequest()
        for record in self.feedback:
            record_bytes = record.ByteSize() + 16
            if record_bytes > MAX_WRITE_BYTES:
                self.refuse(f"feedback.{record.id}", _too_large_for_a_message("record"))
                continue
            if size + record_bytes > MAX_WRITE_BYTES or len(message.feedback) >= MAX_WRITE_OPERATIONS:
                yield message
                size, message = 0, feedback_pb.WriteFeedbackRequest()
            message.feedback.append(record)
            size += record_bytes
        if message.feedback:
            yield message


def operation_of(run: RunJson, *, is_create: bool) -> Operations:
    """One run, the only one of its request. Raises INVALID_ARGUMENT naming the key at fault."""
    found = Operations()
    fields = found.add("", run, is_create=is_create)
    if is_create:
        drop_placeholders(fields)
    return found


class _Batch(msgspec.Struct):
    post: list[msgspec.Raw] | None = None
    patch: list[msgspec.Raw] | None = None


_BATCH_DECODER: Final = msgspec.json.Decoder(_Batch)


def operations_of_batch(body: bytes) -> Operations:
    """The operations of a `/runs/batch` body: `{"post": [run…], "patch": [run…]}`, creates first.

    Raises MALFORMED_BODY or INVALID_ARGUMENT when the body as a whole is not that.
    """
    try:
        batch = _BATCH_DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise wrong_type(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(error) from error
    found = Operations()
    for key, runs in (("post", batch.post), ("patch", batch.patch)):
        for index, raw in enumerate(runs or ()):
            source = f"{key}[{index}]"
            try:
                run = parse_run(raw)
                _require_place(run)
                fields = found.add(source, run, is_create=key == "post")
            except RunstoreError as error:
                found.refuse(source, error)
            else:
                if key == "post":
                    drop_placeholders(fields)
    return found


def operations_of_parts(parts: Iterable[Part]) -> Operations:
    """The operations of a `/runs/multipart` body (contract runs-v1, section 4.6).

    `parts` may raise; nothing is kept then.
    """
    assembly = Assembly()
    for part in parts:
        assembly.add(part)
    return assembly.finish()


class LargePart(NamedTuple):
    """A part whose content was uploaded while it arrived (`streamed_parts`)."""

    name: str
    mime_type: str
    declared_bytes: int
    """-1 when its length was not declared."""
    size_bytes: int
    upload_token: str
    """"" when it was refused."""
    refusal: RunstoreError | None


class Assembly:
    """Puts the field parts and attachments of a body to the runs they belong to."""

    def __init__(self) -> None:
        self._found = Operations()
        self._runs: dict[str, pb.RunFields | None] = {}
        """`post.<id>` as it was sent → its fields; None when the run was refused, and its parts with it."""
        self._by_id: dict[str, pb.RunFields | None] = {}
        """The same by canonical id, for attachments."""
        self._early: list[Part | LargePart] = []
        """Parts that came before their run."""

    def add(self, part: Part | LargePart) -> None:
        """Takes the next part of the body."""
        if isinstance(part, LargePart):
            self._add_large(part)
            return
        name, content = part.name, part.content
        try:
            if part.declared_bytes != len(content):
                raise _wrong_length(part.declared_bytes, len(content))
            owner, _, last = name.rpartition(".")
            if owner in self._runs:
                self._add_payload(self._runs[owner], last, content)
            elif owner in ("post", "patch"):
                self._add_run(name, last, content, is_create=owner == "post")
            else:
                self._add_other(part)
        except RunstoreError as error:
            self._found.refuse(name, error)

    def finish(self) -> Operations:
        """What was built; parts whose run never came are refused."""
        early, self._early = self._early, []
        for part in early:
            self.add(part)
        for part in self._early:
            self._found.refuse(part.name, invalid("", "the request has no run of this id for the part"))
        for operation in self._found.operations:
            if operation.HasField("create"):
                drop_placeholders(operation.create)
        return self._found

    def _add_large(self, part: LargePart) -> None:
        owner, _, last = part.name.rpartition(".")
        try:
            if part.refusal is not None:
                raise part.refusal
            if part.declared_bytes != part.size_bytes:
                raise _wrong_length(part.declared_bytes, part.size_bytes)
            if owner in self._runs:
                fields = self._runs[owner]
                if fields is not None:
                    fields.ClearField(PAYLOAD_FIELDS[last])  # type: ignore[arg-type]  # a Literal of every name
                    setattr(fields.uploaded, PAYLOAD_FIELDS[last], part.upload_token)
            else:
                self._add_other(part)
        except RunstoreError as error:
            self._found.refuse(part.name, error)

    def _add_run(self, name: str, name_id: str, content: bytes, *, is_create: bool) -> None:
        self._runs[name] = None
        run_id = canonical_uuid("id", name_id)
        self._by_id.setdefault(run_id, None)
        run = parse_run(content)
        _require_place(run)
        if run.id not in (None, name_id) and canonical_uuid("id", run.id) != run_id:
            raise invalid("id", "differs from the id in the part's name")
        self._runs[name] = self._by_id[run_id] = self._found.add(name, run, is_create=is_create)

    def _add_payload(self, fields: pb.RunFields | None, key: str, content: bytes) -> None:
        if key not in PAYLOAD_FIELDS:
            raise invalid("", f"unknown part; after the id comes one of {', '.join(PAYLOAD_FIELDS)}")
        if fields is not None:
            fill_payload(fields, key, content)

    def _add_other(self, part: Part | LargePart) -> None:
        kind, _, rest = part.name.partition(".")
        if kind == "attachment" and "." in rest:
            self._add_attachment(part, *rest.split(".", 1))
        elif kind == "feedback" and rest and isinstance(part, Part):
            self._found.feedback.append(read_feedback(part.content, canonical_uuid("id", rest)))
        elif kind in ("post", "patch") and "." in rest:
            self._early.append(part)
        else:
            raise invalid("", "unknown part; names begin with post, patch, attachment or feedback, and an id")

    def _add_attachment(self, part: Part | LargePart, sent_id: str, name: str) -> None:
        run_id = canonical_uuid("id", sent_id)
        if run_id not in self._by_id:
            self._early.append(part)
            return
        if not name or "." in name or "/" in name or len(name.encode()) > _MAX_ATTACHMENT_NAME_BYTES:
            raise invalid("name", "an attachment's name has 1 to 256 bytes, no dots and no slashes")
        fields = self._by_id[run_id]
        if fields is None:
            return
        if isinstance(part, LargePart):
            fields.attachments.add(name=name, mime_type=part.mime_type, upload_token=part.upload_token)
        else:
            fields.attachments.add(name=name, mime_type=part.mime_type, content=part.content)


def _require_place(run: RunJson) -> None:
    if run.trace_id is None:
        raise invalid("trace_id", "missing")
    if run.dotted_order is None:
        raise invalid("dotted_order", "missing")


def _wrong_length(declared_bytes: int, size_bytes: int) -> RunstoreError:
    if declared_bytes < 0:
        return invalid("", "its length is missing: Content-Length, or `; length=N` in Content-Type")
    return invalid("", f"its length is {size_bytes} bytes, not {declared_bytes} as declared")


def _too_large_for_a_message(kind: str) -> RunstoreError:
    return RunstoreError(ErrorReason.TOO_LARGE, f"the {kind} is above {MAX_WRITE_BYTES} bytes")
