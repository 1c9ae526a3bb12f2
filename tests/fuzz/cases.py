"""Requests that begin as SDKs write them, and are then broken: case I of a seed is always the same."""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import zstandard
from google.protobuf.timestamp_pb2 import Timestamp
from tests.fuzz import mutations
from tests.fuzz.case import Case, encoded
from tests.fuzz.mutations import RawJson, broken_bytes, broken_run, json_text
from tests.fuzz.otlp_cases import otlp

from runstore.v1 import run_ingest_service_pb2 as pb

BOUNDARY: Final = "d8b6aa39f0d24c1f9a7a0d8b6aa3239f"
PROJECTS: Final = ("fuzz-a", "fuzz-b")
_FIELD_PARTS: Final = ("inputs", "outputs", "events", "extra", "error", "serialized")


def case(seed: int, index: int) -> Case:
    """Case `index` of a seed."""
    chance = random.Random(f"{seed} {index}")
    make = chance.choices(list(_KINDS), weights=list(_KINDS.values()))[0]
    made = make(chance)
    if made.path and not made.is_whole and chance.random() < 0.01:
        made.disconnects = True
    return made


def run_json(chance: random.Random, **more: Any) -> dict[str, Any]:
    """A root run with some payloads, as SDKs send it."""
    run_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    run: dict[str, Any] = {
        "id": run_id,
        "trace_id": run_id,
        "dotted_order": f"20260101T000000000000Z{run_id}",
        "name": "fuzz",
        "run_type": chance.choice(("llm", "chain", "tool")),
        "start_time": "2026-01-01T00:00:00+00:00",
        "session_name": chance.choice(PROJECTS),
        "tags": ["a"],
        "inputs": {"messages": [{"role": "user", "content": "question"}]},
        "extra": {"runtime": {"sdk": "x"}, "metadata": {"ls_model_name": "gpt-4o", "thread_id": "t"}},
    }
    if chance.random() < 0.5:
        run |= {
            "end_time": "2026-01-01T00:00:01+00:00",
            "outputs": {"text": "answer", "usage_metadata": {"input_tokens": 1, "output_tokens": 2}},
            "events": [{"name": "new_token", "time": "2026-01-01T00:00:00.5Z"}],
        }
    return run | more


def feedback_json(chance: random.Random) -> dict[str, Any]:
    """A record of feedback with every key, as SDKs send it."""
    return {
        "id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        "run_id": mutations.RUN_ID,
        "trace_id": mutations.RUN_ID,
        "key": "correctness",
        "score": 0.5,
        "value": "good",
        "comment": "because",
        "correction": {"answer": 42},
        "feedback_source": {"type": "api", "metadata": {"a": 1}, "user_id": None},
        "extra": {},
        "error": False,
        "feedback_group_id": None,
        "start_time": "2026-01-01T00:00:00+00:00",
        "created_at": "2026-01-01T00:00:00+00:00",
        "modified_at": "2026-01-01T00:00:00+00:00",
    }


# -- JSON --------------------------------------------------------------------------------------------


def _single(chance: random.Random) -> Case:
    run = broken_run(chance, run_json(chance))
    body = json_text(run, ascii_only=chance.random() < 0.5)
    if chance.random() < 0.3:
        body = broken_bytes(chance, body)
    made = Case("single", path="/runs", body=body, headers=[("content-type", "application/json")])
    if chance.random() < 0.4:
        own_id = run.get("id")
        path_id = own_id if isinstance(own_id, str) and own_id.isalnum() else mutations.RUN_ID
        made.method, made.path = "PATCH", f"/runs/{path_id}"
    return encoded(chance, made)


def _feedback(chance: random.Random) -> Case:
    body = json_text(broken_run(chance, feedback_json(chance)), ascii_only=chance.random() < 0.5)
    if chance.random() < 0.3:
        body = broken_bytes(chance, body)
    made = Case("feedback", path="/feedback", body=body, headers=[("content-type", "application/json")])
    return encoded(chance, made)


def _batch(chance: random.Random) -> Case:
    witness = run_json(chance)
    broken = [broken_run(chance, run_json(chance)) for _ in range(chance.choice((1, 1, 2, 5)))]
    post: list[Any] = [*broken, witness]
    chance.shuffle(post)
    batch: dict[str, Any] = {"post": post}
    if chance.random() < 0.5:
        batch["patch"] = [broken_run(chance, run_json(chance))]
    made = Case("batch", path="/runs/batch", headers=[("content-type", "application/json")])
    shape = chance.random()
    if shape < 0.1:
        batch[chance.choice(("post", "patch"))] = chance.choice(mutations.ODD_VALUES)
    elif shape < 0.15:
        post.append(chance.choice(mutations.ODD_VALUES))
    # What is no JSON anywhere makes the whole body none.
    elif not any(isinstance(value, RawJson) for run in broken for value in run.values()):
        made.witness = witness["id"]
    made.body = json_text(batch, ascii_only=chance.random() < 0.5)
    if chance.random() < 0.25:
        made.body, made.witness = broken_bytes(chance, made.body), None
    return encoded(chance, made)


# -- multipart ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class Part:
    """A part before it is written."""

    name: str
    content: bytes
    headers: list[str]


def _parts(chance: random.Random, run: dict[str, Any], operation: str = "post") -> list[Part]:
    main = {key: value for key, value in run.items() if key not in _FIELD_PARTS}
    told = run.get("id")
    run_id = told if isinstance(told, str) else mutations.RUN_ID
    name = f"{operation}.{run_id}"
    is_ascii = chance.random() < 0.5
    parts = [_part(name, json_text(main, ascii_only=is_ascii))]
    parts += [
        _part(f"{name}.{key}", json_text(run[key], ascii_only=is_ascii)) for key in _FIELD_PARTS if key in run
    ]
    if chance.random() < 0.1:
        parts.append(_part(f"attachment.{run_id}.file", chance.randbytes(50), "image/png"))
    return parts


def _part(name: str, content: bytes, mime_type: str = "application/json") -> Part:
    return Part(name, content, [f"Content-Type: {mime_type}", f"Content-Length: {len(content)}"])


def _multipart(chance: random.Random) -> Case:
    made = Case("multipart", path="/runs/multipart")
    witness, run = run_json(chance), run_json(chance)
    is_broken_inside = chance.random() < 0.5
    if is_broken_inside:
        run = broken_run(chance, run)
    parts = _parts(chance, run, chance.choice(("post", "patch")))
    if chance.random() < 0.1:
        record = feedback_json(chance)
        content = json_text(broken_run(chance, record), ascii_only=True)
        parts.append(_part(f"feedback.{record['id']}", content))
    if not is_broken_inside or chance.random() < 0.3:
        parts = _broken_parts(chance, parts)
    made.witness = witness["id"]
    at = chance.randrange(len(parts) + 1)
    parts[at:at] = _parts(chance, witness)
    content_type, made.body = _framed(chance, made, parts)
    made.headers = [("content-type", content_type)]
    return encoded(chance, made)


def _broken_parts(chance: random.Random, parts: list[Part]) -> list[Part]:  # noqa: C901 - a list of ways
    parts = list(parts)
    at = chance.randrange(len(parts))
    part = parts[at]
    match chance.randrange(12):
        case 0:
            del parts[at]
        case 1:
            parts.insert(chance.randrange(len(parts)), part)
        case 2:
            chance.shuffle(parts)
        case 3:
            part.content = broken_bytes(chance, part.content)
        case 4:
            part.headers[1] = (
                f"Content-Length: {chance.choice(('', '-1', '0', '9' * 30, '1e3', '٣', '5 ', '3'))}"
            )
        case 5:
            part.headers = part.headers[chance.randrange(2) :][: chance.randrange(2)]
        case 6:
            part.headers[0] += f"; length={chance.choice((len(part.content), -1, 'x', 10**15, '0' * 20))}"
        case 7:
            part.name = chance.choice(
                ("", ".", "post", "post.", f"post.{mutations.RUN_ID}.", part.name + ".inputs", part.name * 20,
                 "patch.x.inputs", f"attachment.{mutations.RUN_ID}.a.b", "attachment.x.", "feedback.", "\x00",
                 part.name.upper(), part.name + "\u00e9", part.name.replace("post", "put"), part.name + "%22")
            )  # fmt: skip
        case 8:
            part.headers.insert(
                0, f"X-{'y' * chance.choice((1, 100, 9_000))}: {'z' * chance.choice((1, 9_000))}"
            )
        case 9:
            part.headers[0] = chance.choice(
                ("Content-Type", "Content-Type:", "content-type: application/json", "Content-Type: x\x00y",
                 "Content-Encoding: gzip", "Content-Type: " + "a" * 9_000, "Content-Type: \u00e9/\u00e9")
            )  # fmt: skip
        case 10:
            part.content += f"\r\n--{BOUNDARY}{chance.choice(('', '--', 'x', chr(13)))}\r\n".encode()
        case 11:
            part.content = chance.choice(mutations.RAW_JSON)
            part.headers[1] = f"Content-Length: {len(part.content)}"
    return parts


def _framed(chance: random.Random, made: Case, parts: list[Part]) -> tuple[str, bytes]:
    """Content-Type and body; whatever touches the frame may cost the whole request."""
    boundary = BOUNDARY.encode()
    if any(boundary in part.content or "\x00" in part.name for part in parts):
        made.witness = None
    pieces = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n%b\r\n%b\r\n'
        % (boundary, part.name.encode(errors="replace"),
           "".join(f"{header}\r\n" for header in part.headers).encode(), part.content)
        for part in parts
    ]  # fmt: skip
    body = b"".join(pieces) + b"--%b--\r\n" % boundary
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    if any(len(piece) - len(part.content) > 8_000 for piece, part in zip(pieces, parts, strict=True)):
        made.witness = None
    broken = chance.random()
    if broken < 0.25:
        made.witness = None
        body = broken_bytes(chance, body)
    elif broken < 0.32:
        made.witness = None
        content_type = chance.choice(
            ("", "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x",
             f'multipart/form-data; boundary="{BOUNDARY}', f"multipart/mixed; boundary={BOUNDARY}",
             "application/json", f"multipart/form-data; boundary={'b' * 5_000}", ";;;=", "multipart/form-data; boundary=\xe9",
             f"multipart/form-data; boundary={BOUNDARY}; boundary=y", "multipart/form-data; boundary*=utf-8''%FF")
        )  # fmt: skip
    elif broken < 0.38:
        made.witness = None
        body = chance.choice(
            (body[: -len(BOUNDARY) - 8], body.replace(b"\r\n", b"\n"), b"preamble\r\n" + body, body + b"epilogue",
             body + body, b"", boundary, body.replace(b"\r\n\r\n", b"\r\n"), b"\r\n" * 1_000 + body)
        )  # fmt: skip
    elif not all(part.headers for part in parts):
        made.witness = None
    return content_type, body


# -- protobuf ----------------------------------------------------------------------------------------


def _operation(chance: random.Random) -> pb.RunOperation:
    run = run_json(chance)
    fields = pb.RunFields(
        id=run["id"],
        trace_id=run["trace_id"],
        dotted_order=run["dotted_order"],
        project_name=run["session_name"],
        name=run["name"],
        run_type=chance.randint(1, 7),  # type: ignore[arg-type] # an enum's number
        start_time=Timestamp(seconds=1_795_000_000),
        inputs=json_text(run["inputs"], ascii_only=True),
        extra=json_text(run["extra"], ascii_only=True),
        tags=pb.TagList(values=["a"]),
    )
    return pb.RunOperation(create=fields) if chance.random() < 0.7 else pb.RunOperation(update=fields)


def _odd_operation(chance: random.Random) -> pb.RunOperation:
    operation = _operation(chance)
    fields = operation.create if operation.HasField("create") else operation.update
    match chance.randrange(9):
        case 0:
            operation.Clear()
        case 1:
            name = chance.choice(("id", "trace_id", "parent_run_id", "project_id", "reference_example_id"))
            setattr(fields, name, chance.choice(mutations.ODD_IDS))
        case 2:
            fields.dotted_order = chance.choice(mutations.ODD_ORDERS)
        case 3:
            time = fields.start_time if chance.random() < 0.5 else fields.end_time
            time.seconds = chance.choice((0, -1, 2**63 - 1, -(2**63), 253_402_300_800, -62_135_596_801))
            time.nanos = chance.choice((0, -1, 2**31 - 1, -(2**31), 999_999_999))
        case 4:
            name = chance.choice(("inputs", "outputs", "events", "extra", "manifest"))
            value = chance.choice(mutations.ODD_VALUES)
            text = chance.choice(mutations.RAW_JSON)
            setattr(fields, name, text if chance.random() < 0.5 else json_text(value, ascii_only=True))
        case 5:
            fields.run_type = chance.choice((0, 8, 99, -1, 2**31 - 1))  # type: ignore[assignment] # no such type
        case 6:
            fields.tags.values.extend(
                [chance.choice(("", "\x00", "t" * 5_000))] * chance.choice((1, 999, 1_001))
            )
        case 7:
            for _ in range(chance.choice((1, 2, 100))):
                name = chance.choice(("", "a", "a.b", "a/b", "n" * 300, "\x00", "\u00e9" * 200))
                fields.attachments.add(name=name, mime_type="m" * chance.choice((0, 5_000)), content=b"x")
        case 8:
            name = chance.choice(("name", "error", "project_name", "parent_run_id"))
            setattr(fields, name, chance.choice(("", "\x00", "n" * 5_000, "\ufffd", mutations.RUN_ID)))
    return operation


def _protobuf(chance: random.Random) -> Case:
    made = Case("protobuf")
    is_broken = chance.random() < 0.5
    operations = [_odd_operation(chance) for _ in range(chance.choice((1, 1, 3)))]
    witness = _operation(chance)
    operations.insert(chance.randrange(len(operations) + 1), witness)
    if not is_broken:
        fields = witness.create if witness.HasField("create") else witness.update
        made.witness = fields.id
    data = pb.WriteRunsRequest(operations=operations).SerializeToString()
    made.messages = [mutations.broken_message(chance, data) if is_broken else data]
    return made


def _stream(chance: random.Random) -> Case:
    made = Case("stream")
    for number in range(chance.randint(1, 3)):
        request = pb.StreamRunsRequest(
            batch_id=chance.choice(("", str(number), "b" * 256, "b" * 257, "\u00e9" * 128, "\u00e9" * 129)),
            operations=[_odd_operation(chance), _operation(chance)],
        )
        data = request.SerializeToString()
        made.messages.append(mutations.broken_message(chance, data) if chance.random() < 0.3 else data)
    return made


def _whole(chance: random.Random) -> Case:
    """A request as good as any: everything before must have left the server able to take it."""
    run = run_json(chance)
    made = Case("whole", path="/runs/multipart", witness=run["id"], is_whole=True)
    body = b"".join(
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n%b\r\n\r\n%b\r\n'
        % (BOUNDARY.encode(), part.name.encode(), "\r\n".join(part.headers).encode(), part.content)
        for part in _parts(chance, run)
    )
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    made.body = compressor.compress(body + f"--{BOUNDARY}--\r\n".encode()) + compressor.flush()
    made.headers = [
        ("content-type", f"multipart/form-data; boundary={BOUNDARY}"),
        ("content-encoding", "zstd"),
    ]
    return made


_KINDS: Final[dict[Callable[[random.Random], Case], float]] = {
    _multipart: 40,
    _batch: 20,
    _single: 10,
    _feedback: 5,
    _protobuf: 20,
    _stream: 5,
    _whole: 5,
    otlp: 20,
}
