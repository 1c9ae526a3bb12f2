"""Reads a run as clients write it in JSON, and says the same in protobuf.

Payloads are not looked into: they are cut out as bytes and passed on. Null means "not given".
"""

import re
from typing import Final, TypeVar

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from runstore.domain.agent_addresses import project_of_address
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.json_text import replace_lone_surrogates
from runstore.domain.times import MAX_TIME_US, MIN_TIME_US, out_of_range, parse_time
from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_pb2

_T = TypeVar("_T")

_ABSENT: Final = msgspec.Raw()

RUN_TYPES: Final[dict[str, "run_pb2.RunType.ValueType"]] = {
    "tool": run_pb2.RUN_TYPE_TOOL,
    "chain": run_pb2.RUN_TYPE_CHAIN,
    "llm": run_pb2.RUN_TYPE_LLM,
    "retriever": run_pb2.RUN_TYPE_RETRIEVER,
    "embedding": run_pb2.RUN_TYPE_EMBEDDING,
    "prompt": run_pb2.RUN_TYPE_PROMPT,
    "parser": run_pb2.RUN_TYPE_PARSER,
}
"""The contract's names of the kinds of work, in lower case."""

PAYLOAD_FIELDS: Final = {
    "inputs": "inputs",
    "outputs": "outputs",
    "events": "events",
    "extra": "extra",
    "serialized": "manifest",
    "error": "error",
}
"""What clients call a payload → the field of `RunFields`."""

_CANONICAL_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII)
_UUID: Final = re.compile(
    r"[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE
)
_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)

# JavaScript's Date.now() gives milliseconds. A number above this is no seconds (year 2603); as pydantic.
_MAX_SECONDS: Final = 20_000_000_000


class RunJson(msgspec.Struct):
    """The keys of a run that are understood (contract runs-v1, section 4.2); all others are ignored."""

    id: str | None = None
    trace_id: str | None = None
    dotted_order: str | None = None
    parent_run_id: str | None = None
    session_id: str | None = None
    session_name: str | None = None
    address: str | None = None
    name: str | None = None
    run_type: str | None = None
    start_time: str | int | float | None = None
    end_time: str | int | float | None = None
    tags: list[str] | None = None
    reference_example_id: str | None = None
    inputs: msgspec.Raw = _ABSENT
    outputs: msgspec.Raw = _ABSENT
    events: msgspec.Raw = _ABSENT
    extra: msgspec.Raw = _ABSENT
    serialized: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


_DECODER: Final = msgspec.json.Decoder(RunJson)
_STRING_DECODER: Final = msgspec.json.Decoder(str)
_ANY_DECODER: Final = msgspec.json.Decoder(msgspec.Raw)
_JSON_SPACES: Final = b" \t\r\n"


def parse_run(raw: bytes | msgspec.Raw) -> RunJson:
    """The run in a JSON object. Raises as `parse_object`."""
    return parse_object(_DECODER, raw)


def parse_object(decoder: "msgspec.json.Decoder[_T]", raw: bytes | msgspec.Raw) -> _T:
    """What `decoder` reads in a JSON object.

    Raises MALFORMED_BODY when it is not JSON, INVALID_ARGUMENT naming the key for a wrong type.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise wrong_type(error) from error
    except msgspec.DecodeError as error:
        # msgspec refuses escapes of half a surrogate pair, which JavaScript writes for a cut emoji.
        text = bytes(raw)
        replaced = replace_lone_surrogates(text)
        if replaced is text:
            raise not_json(error) from error
        return parse_object(decoder, replaced)
    except (UnicodeDecodeError, RecursionError) as error:
        raise not_json(error) from error


def not_json(error: Exception) -> RunstoreError:
    """The refusal of bytes that are no JSON."""
    if isinstance(error, UnicodeDecodeError):
        return RunstoreError(ErrorReason.MALFORMED_BODY, "The JSON is not UTF-8.")
    if isinstance(error, RecursionError):
        return RunstoreError(ErrorReason.MALFORMED_BODY, "The JSON is nested too deeply.")
    return RunstoreError(ErrorReason.MALFORMED_BODY, f"The JSON is malformed: {error}.")


def wrong_type(error: msgspec.ValidationError) -> RunstoreError:
    """The refusal of a value of the wrong type, with its place as field."""
    text = str(error)
    place = _PLACE.search(text)
    return invalid(place.group(1) if place else "", text[: place.start()] if place else text)


def canonical_uuid(field: str, text: str) -> str:
    """A UUID in lower-case text with dashes; 32 hex digits are accepted. Raises `invalid(field, …)`."""
    if _CANONICAL_UUID.fullmatch(text) is not None:
        return text
    if _UUID.fullmatch(text) is None:
        raise invalid(field, "not a UUID")
    digits = text.replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def run_type_of(text: str) -> "run_pb2.RunType.ValueType":
    """The kind of work by its name, in any case. Raises `invalid("run_type", …)`."""
    run_type = RUN_TYPES.get(text) or RUN_TYPES.get(text.lower())
    if run_type is None:
        raise invalid("run_type", f"must be one of {', '.join(RUN_TYPES)}")
    return run_type


def fill_fields(fields: pb.RunFields, run: RunJson, *, takes_any_json: bool = False) -> None:
    """Says in `fields` what `run` says, its id and payloads included.

    `takes_any_json`: payloads need not be objects and arrays; what came over gRPC is not always.
    Raises INVALID_ARGUMENT naming the first key with an unusable value.
    """
    if run.id is None:
        raise invalid("id", "missing")
    fields.id = canonical_uuid("id", run.id)
    _fill_place(fields, run)
    if run.name is not None:
        fields.name = run.name
    if run.run_type is not None:
        fields.run_type = run_type_of(run.run_type)
    if run.start_time is not None:
        fill_time(fields.start_time, "start_time", run.start_time)
    if run.end_time is not None:
        fill_time(fields.end_time, "end_time", run.end_time)
    if run.tags is not None:
        fields.tags.SetInParent()  # An empty list says something, too.
        fields.tags.values.extend(run.tags)
    if run.reference_example_id is not None:
        fields.reference_example_id = canonical_uuid("reference_example_id", run.reference_example_id)
    for key in PAYLOAD_FIELDS:
        raw: msgspec.Raw = getattr(run, key)
        if raw is not _ABSENT:
            fill_payload(fields, key, bytes(raw), takes_any_json=takes_any_json)


def _fill_place(fields: pb.RunFields, run: RunJson) -> None:
    """Where the run is: trace, parent and project."""
    if run.trace_id is not None:
        # Equal for every root, and checked already then.
        fields.trace_id = fields.id if run.trace_id == run.id else canonical_uuid("trace_id", run.trace_id)
    if run.dotted_order is not None:
        fields.dotted_order = run.dotted_order
    if run.parent_run_id is not None:
        fields.parent_run_id = canonical_uuid("parent_run_id", run.parent_run_id)
    if run.session_id is not None:
        fields.project_id = canonical_uuid("session_id", run.session_id)
    if run.session_name is not None:
        fields.project_name = run.session_name
    elif run.address is not None:
        fields.project_name = project_of_address("address", run.address)


def fill_payload(fields: pb.RunFields, key: str, content: bytes, *, takes_any_json: bool = False) -> None:
    """Sets the payload that clients call `key` to JSON `content`; null is "not given".

    Raises KeyError for a key that is no payload, INVALID_ARGUMENT for content that cannot be one.
    """
    attribute = PAYLOAD_FIELDS[key]
    if content == b"null":
        return
    if not content:
        raise invalid(key, "empty; JSON expected")
    if attribute == "error":
        fields.error = _error_text(content)
        return
    # SDKs fail to read a whole page of runs when one of them has anything else here.
    opening = b"[" if attribute == "events" else b"{"
    if not takes_any_json and content[:1] != opening and content.lstrip(_JSON_SPACES)[:1] != opening:
        raise _other_than_a_container(key, content)
    setattr(fields, attribute, content)


def _other_than_a_container(key: str, content: bytes) -> RunstoreError:
    try:
        _ANY_DECODER.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return invalid(key, not_json(error).message)
    return invalid(key, f"must be {'an array' if key == 'events' else 'an object'}")


def drop_placeholders(create: pb.RunFields) -> None:
    """Unsays empty outputs and events of a run that has not ended.

    `RunTree.post` sends `{}` and `[]` for what is not known yet. The SDK's threads send bodies at the
    same time, so this may well come after the update that has the real values, and would erase them.
    """
    if create.HasField("end_time"):
        return
    if create.outputs == b"{}":
        create.ClearField("outputs")
    if create.events == b"[]":
        create.ClearField("events")


def _error_text(content: bytes) -> str:
    """The text of a JSON string; of any other JSON, the JSON itself."""
    try:
        return _STRING_DECODER.decode(replace_lone_surrogates(content))
    except msgspec.ValidationError:
        return content.decode(errors="replace")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid("error", not_json(error).message) from error


def fill_time(timestamp: Timestamp, field: str, value: str | float) -> None:
    """Sets a time given as ISO 8601, or as seconds or milliseconds since the epoch. Raises
    `invalid(field, …)`."""
    time_us = parse_time(field, value) if isinstance(value, str) else _time_of_number(field, value)
    timestamp.seconds, micros = divmod(time_us, 1_000_000)
    timestamp.nanos = micros * 1_000


def _time_of_number(field: str, value: float) -> int:
    """Microseconds since the epoch of a number of seconds or milliseconds since it."""
    unit_us = 1_000_000 if abs(value) <= _MAX_SECONDS else 1_000
    if not MIN_TIME_US <= value * unit_us <= MAX_TIME_US:
        raise out_of_range(field)
    return int(value * unit_us)
