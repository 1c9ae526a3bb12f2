"""Operations as they travel: protobuf, the JSON of `/runs` and `/runs/batch`, and the SDK's multipart."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import zstandard
from google.protobuf.timestamp_pb2 import Timestamp
from tests.soak.stories import Batch, Operation

from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_pb2

BOUNDARY = "d8b6aa39f0d24c1f9a7a0d8b6aa3239f"
MULTIPART = {
    "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
    "Content-Encoding": "zstd",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PARTS = ("inputs", "outputs", "events", "extra", "error", "serialized")
_JSON_TEXT = ("inputs", "outputs", "events", "serialized")


def protobuf(batch: Batch) -> list[pb.RunOperation]:
    """Operations of `WriteRuns` and `StreamRuns`."""
    return [
        pb.RunOperation(create=_fields(operation))
        if operation.is_create
        else pb.RunOperation(update=_fields(operation))
        for operation in batch
    ]


def _fields(operation: Operation) -> pb.RunFields:
    told = operation.told
    fields = _placed(operation)
    for name in ("name", "error", "inputs", "outputs", "events"):
        if name in told:
            setattr(fields, name, told[name])
    for name in ("start_time", "end_time"):
        if name in told:
            getattr(fields, name).CopyFrom(_timestamp(told[name]))
    if "run_type" in told:
        fields.run_type = run_pb2.RunType.Value(f"RUN_TYPE_{told['run_type'].upper()}")
    if "serialized" in told:
        fields.manifest = told["serialized"]
    if "extra" in told:
        fields.extra = msgspec.json.encode(told["extra"])
    if "tags" in told:
        fields.tags.values.extend(told["tags"])
    for name, (mime_type, content) in told.get("attachments", {}).items():
        fields.attachments.add(name=name, mime_type=mime_type, content=content)
    return fields


def _placed(operation: Operation) -> pb.RunFields:
    node = operation.node
    fields = pb.RunFields(id=node.run_id)
    if operation.is_create or not operation.is_bare:
        fields.project_name = node.project
        if node.parent is not None:
            fields.parent_run_id = node.parent.run_id
    if not operation.is_bare:
        fields.trace_id, fields.dotted_order = node.trace_id, node.dotted_order
    return fields


def _timestamp(time_us: int) -> Timestamp:
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1_000)


def run_json(operation: Operation) -> bytes:
    """A run as `/runs` and `PATCH /runs/{id}` take it; it cannot hold attachments."""
    return msgspec.json.encode(_main(operation) | _payloads(operation))


def batch_json(batch: Batch) -> bytes:
    """A body of `/runs/batch`, which applies creations first."""
    return msgspec.json.encode(
        {
            "post": [msgspec.Raw(run_json(each)) for each in batch if each.is_create],
            "patch": [msgspec.Raw(run_json(each)) for each in batch if not each.is_create],
        }
    )


def multipart(batch: Batch) -> bytes:
    """A body of `/runs/multipart` as the SDK compresses it: a stream without the content's size."""
    parts: list[bytes] = []
    for operation in batch:
        run_id = operation.node.run_id
        name = f"{'post' if operation.is_create else 'patch'}.{run_id}"
        parts.append(_part(name, msgspec.json.encode(_main(operation))))
        payloads = _payloads(operation)
        if operation.is_create:
            # What the SDK says of a run that has just begun.
            payloads = {"outputs": msgspec.Raw(b"{}"), "events": msgspec.Raw(b"[]")} | payloads
        parts += [
            _part(f"{name}.{part}", msgspec.json.encode(payloads[part]))
            for part in _PARTS
            if part in payloads
        ]
        for file, (mime_type, content) in operation.told.get("attachments", {}).items():
            parts.append(_part(f"attachment.{run_id}.{file}", content, mime_type))
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    return compressor.compress(body) + compressor.flush()


def _part(name: str, content: bytes, mime_type: str = "application/json") -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n'
        f"Content-Type: {mime_type}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content + b"\r\n"


def _main(operation: Operation) -> dict[str, Any]:
    """Everything but the payloads. Null means "not given", and SDKs send a lot of it."""
    node, told = operation.node, operation.told
    main: dict[str, Any] = {"id": node.run_id}
    if operation.is_create or not operation.is_bare:
        main["session_name"] = node.project
        main["parent_run_id"] = None if node.parent is None else node.parent.run_id
    if not operation.is_bare:
        main |= {"trace_id": node.trace_id, "dotted_order": node.dotted_order}
    for name in ("name", "run_type", "tags"):
        main[name] = told.get(name)
    for name in ("start_time", "end_time"):
        if name in told:
            main[name] = (_EPOCH + timedelta(microseconds=told[name])).isoformat()
    return main


def _payloads(operation: Operation) -> dict[str, Any]:
    told = operation.told
    payloads: dict[str, Any] = {name: msgspec.Raw(told[name]) for name in _JSON_TEXT if name in told}
    payloads |= {name: told[name] for name in ("extra", "error") if name in told}
    return payloads
