"""Turns templates into operations on the wire, fast enough never to be the bottleneck.

Each template is encoded once, by protobuf or as JSON parts, with markers for ids and times; a new
trace then costs ten ids, ten dotted orders, twenty times and one join. Markers and values have
equal lengths, so every length that frames them stays right.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from tests.bench import corpus
from tests.bench.corpus import RUNS_PER_TRACE, RunTemplate, TraceTemplate
from tests.bench.stencil import Stencil

from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_pb2


class Form(StrEnum):
    """How the runs of a trace travel."""

    WHOLE = "whole"
    """One creation per run, with everything: a tracer that sends what has ended."""
    PAIR = "pair"
    """Creation and update in the same batch, in the order in which they happened: the SDK."""
    APART = "apart"
    """Creations first, updates in later batches: a long-running agent."""


# Which slot holds what, for run i: kind * RUNS_PER_TRACE + i.
_ID, _ORDER, _START, _END = (kind * RUNS_PER_TRACE for kind in range(4))
_PHRASE = 4 * RUNS_PER_TRACE
_PROJECT = _PHRASE + 1

Values = list[bytes]
"""What fills the slots of one trace."""


@dataclass(frozen=True, slots=True)
class TraceStencils:
    """One template on the wire. `creates` and `updates` are in the order of starts and ends."""

    pair: Stencil
    creates: Stencil
    updates: Stencil
    whole: Stencil
    offsets_us: tuple[int, ...]
    durations_us: tuple[int, ...]
    parents: tuple[int | None, ...]
    raw_bytes: int
    """The trace's runs as JSON, as the API returns them."""


class Generator:
    """Makes traces for ever. Not for several threads at once."""

    def __init__(
        self,
        stencils: Sequence[TraceStencils],
        time_text: Callable[[int], bytes],
        seed: int,
        project_ids: Sequence[str] = (),
    ) -> None:
        """`project_ids`: for stencils that name a project by its id; traces go to them in turn."""
        self.stencils = stencils
        self._project_ids = [project_id.encode() for project_id in project_ids] or [b""]
        self._time_text = time_text
        self._random = random.Random(
            f"{seed} {time.time_ns()}"
        )  # Ids must differ from those of other phases.
        self._phrases = corpus.phrases(seed)
        self._made = 0

    def trace(self, now_us: int, project: int = 0) -> tuple[TraceStencils, Values]:
        """A trace that begins at `now_us` in a project (its index), and the values that fill its stencils."""
        stencils = self.stencils[self._made % len(self.stencils)]
        phrase = self._phrases[self._made % len(self._phrases)]
        self._made += 1
        bits, time_text = self._random.getrandbits, self._time_text
        ids: Values = []
        orders: Values = []
        starts: Values = []
        ends: Values = []
        prefix = f"{now_us // 1_000:012x}"
        head = f"{prefix[:8]}-{prefix[8:]}-7"
        for offset, duration, parent in zip(
            stencils.offsets_us, stencils.durations_us, stencils.parents, strict=True
        ):
            tail = f"{bits(72):018x}"
            run_id = f"{head}{tail[:3]}-8{tail[3:6]}-{tail[6:]}".encode()
            start_us = now_us + offset
            segment = _compact_time(start_us) + run_id
            ids.append(run_id)
            orders.append(segment if parent is None else orders[parent] + b"." + segment)
            starts.append(time_text(start_us))
            ends.append(time_text(start_us + duration))
        project_id = self._project_ids[project % len(self._project_ids)]
        return stencils, [*ids, *orders, *starts, *ends, phrase, project_id]


def trace_id_of(values: Values) -> str:
    """Id of the trace, which is that of its root."""
    return values[0].decode()


def run_ids_of(values: Values) -> list[str]:
    """Ids of the trace's runs, the root first."""
    return [run_id.decode() for run_id in values[:RUNS_PER_TRACE]]


# -- times -------------------------------------------------------------------------------------------


class _Seconds:
    """The text of the last second asked for: times of one trace share few."""

    def __init__(self, layout: str) -> None:
        self._layout = layout
        self._known: dict[int, str] = {}

    def text(self, second: int) -> str:
        text = self._known.get(second)
        if text is None:
            if len(self._known) > 1_000:
                self._known.clear()
            text = self._known[second] = time.strftime(self._layout, time.gmtime(second))
        return text


_COMPACT = _Seconds("%Y%m%dT%H%M%S")
_ISO = _Seconds("%Y-%m-%dT%H:%M:%S")


def _compact_time(time_us: int) -> bytes:
    second, micros = divmod(time_us, 1_000_000)
    return f"{_COMPACT.text(second)}{micros:06d}Z".encode()


def iso_time(time_us: int) -> bytes:
    """As the SDK writes a time."""
    second, micros = divmod(time_us, 1_000_000)
    return f"{_ISO.text(second)}.{micros:06d}+00:00".encode()


def protobuf_time(time_us: int) -> bytes:
    """A `google.protobuf.Timestamp` of always 12 bytes: varints may be padded, and decoders take it."""
    second, micros = divmod(time_us, 1_000_000)
    return b"\x08" + _padded_varint(second) + b"\x10" + _padded_varint(micros * 1_000)


def _padded_varint(value: int) -> bytes:
    return bytes(
        (
            value & 0x7F | 0x80,
            value >> 7 & 0x7F | 0x80,
            value >> 14 & 0x7F | 0x80,
            value >> 21 & 0x7F | 0x80,
            value >> 28 & 0x7F,
        )
    )


# -- markers -----------------------------------------------------------------------------------------

_MARKER_TIME_US = 1_800_000_000_900_000
_MARKER_PROJECT = b"00000000-0000-7000-9000-000000000000"


def _marker_values(template: TraceTemplate, time_text: Callable[[int], bytes]) -> Values:
    """Values that occur nowhere else: every one of another run, or of another kind, is different."""
    ids = [f"00000000-0000-7000-8000-{index:012d}".encode() for index in range(RUNS_PER_TRACE)]
    orders: list[bytes] = []
    for index, run in enumerate(template.runs):
        segment = f"20000101T{index:012d}Z".encode() + ids[index]
        orders.append(segment if run.parent is None else orders[run.parent] + b"." + segment)
    starts = [time_text(_MARKER_TIME_US + index) for index in range(RUNS_PER_TRACE)]
    ends = [time_text(_MARKER_TIME_US + 100 + index) for index in range(RUNS_PER_TRACE)]
    return [*ids, *orders, *starts, *ends, corpus.PHRASE_SLOT.encode(), _MARKER_PROJECT]


def _stencils(
    template: TraceTemplate,
    time_text: Callable[[int], bytes],
    encode: Callable[[RunTemplate, int, Values, str], bytes],
) -> TraceStencils:
    """`encode` makes one operation ("create", "update" or "whole") of a run from its markers."""
    markers = _marker_values(template, time_text)
    slots = {marker: slot for slot, marker in enumerate(markers)}

    def stencil(operations: Sequence[tuple[str, int]]) -> Stencil:
        text = b"".join(encode(template.runs[index], index, markers, kind) for kind, index in operations)
        return Stencil(text, slots)

    timeline = template.timeline
    return TraceStencils(
        pair=stencil(timeline),
        creates=stencil([operation for operation in timeline if operation[0] == "create"]),
        updates=stencil([operation for operation in timeline if operation[0] == "update"]),
        whole=stencil([("whole", index) for index in range(RUNS_PER_TRACE)]),
        offsets_us=tuple(run.offset_us for run in template.runs),
        durations_us=tuple(run.duration_us for run in template.runs),
        parents=tuple(run.parent for run in template.runs),
        raw_bytes=sum(_raw_bytes(run) for run in template.runs),
    )


def _raw_bytes(run: RunTemplate) -> int:
    """Length of the run as one JSON object with everything that was sent of it."""
    unknown = "00000000-0000-7000-8000-000000000000"
    segment = 22 + len(unknown)
    fields: dict[str, object] = {
        "id": unknown,
        "trace_id": unknown,
        "dotted_order": "x" * (segment + run.depth * (segment + 1)),
        "parent_run_id": unknown if run.depth else None,
        "name": run.name,
        "run_type": run.run_type,
        "start_time": iso_time(0).decode(),
        "end_time": iso_time(0).decode(),
        "session_id": unknown,
        "tags": run.tags,
        "error": run.error,
    }
    payloads = {
        "inputs": run.inputs,
        "outputs": run.outputs,
        "extra": run.final_extra,
        "serialized": run.serialized,
    }
    fields |= {name: msgspec.Raw(payload) for name, payload in payloads.items() if payload is not None}
    return len(msgspec.json.encode(fields))


# -- gRPC --------------------------------------------------------------------------------------------


def grpc_generator(seed: int, *project_ids: str) -> Generator:
    """Traces as operations of a `StreamRunsRequest`: joined, they are the message."""

    def encode(run: RunTemplate, index: int, markers: Values, kind: str) -> bytes:
        fields = _run_fields(run, index, markers, kind)
        fields.project_id = markers[_PROJECT].decode()
        operation = pb.RunOperation(update=fields) if kind == "update" else pb.RunOperation(create=fields)
        return pb.StreamRunsRequest(operations=[operation]).SerializeToString()

    templates = corpus.traces(seed)
    stencils = [_stencils(template, protobuf_time, encode) for template in templates]
    return Generator(stencils, protobuf_time, seed, project_ids)


def _run_fields(run: RunTemplate, index: int, markers: Values, kind: str) -> pb.RunFields:
    fields = pb.RunFields(
        id=markers[_ID + index].decode(),
        trace_id=markers[_ID].decode(),
        dotted_order=markers[_ORDER + index].decode(),
    )
    if run.parent is not None:
        fields.parent_run_id = markers[_ID + run.parent].decode()
    if kind != "update":
        fields.name = run.name
        fields.run_type = run_pb2.RunType.Value(f"RUN_TYPE_{run.run_type.upper()}")
        fields.start_time.ParseFromString(markers[_START + index])
        fields.inputs = run.inputs
        fields.extra = run.extra
        fields.tags.values.extend(run.tags)
        if run.serialized is not None:
            fields.manifest = run.serialized
    if kind != "create":
        fields.end_time.ParseFromString(markers[_END + index])
        fields.extra = run.final_extra
        if run.outputs is not None:
            fields.outputs = run.outputs
        if run.error is not None:
            fields.error = run.error
    return fields


# -- multipart ---------------------------------------------------------------------------------------


def multipart_generator(seed: int, project_name: str, boundary: str) -> Generator:
    """Traces as parts of a multipart body, as `langsmith` 0.14 writes them; without the closing line."""

    def encode(run: RunTemplate, index: int, markers: Values, kind: str) -> bytes:
        # The SDK knows no `whole`; a creation that says everything is what it merges in plain mode.
        operation = "patch" if kind == "update" else "post"
        name = f"{operation}.{markers[_ID + index].decode()}"
        main = _main_part(run, index, markers, kind, project_name)
        parts = [(name, msgspec.json.encode(main))]
        parts += [(f"{name}.{field}", payload) for field, payload in _field_parts(run, kind)]
        return b"".join(_part(part_name, content, boundary) for part_name, content in parts)

    templates = corpus.traces(seed)
    return Generator([_stencils(template, iso_time, encode) for template in templates], iso_time, seed)


def _part(name: str, content: bytes, boundary: str) -> bytes:
    headers = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n'
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return headers.encode() + content + b"\r\n"


def _main_part(
    run: RunTemplate, index: int, markers: Values, kind: str, project_name: str
) -> dict[str, object]:
    """Keys in the order in which the SDK writes them."""
    run_id, trace_id = markers[_ID + index].decode(), markers[_ID].decode()
    parent = None if run.parent is None else markers[_ID + run.parent].decode()
    order = markers[_ORDER + index].decode()
    start, end = markers[_START + index].decode(), markers[_END + index].decode()
    if kind == "update":
        return {
            "id": run_id,
            "name": run.name,
            "run_type": run.run_type,
            "trace_id": trace_id,
            "parent_run_id": parent,
            "dotted_order": order,
            "tags": run.tags,
            "session_id": None,
            "session_name": project_name,
            "start_time": start,
            "end_time": end,
        }
    main: dict[str, object] = {"id": run_id, "start_time": start}
    if kind == "whole":
        main["end_time"] = end
    if parent is not None:
        main["parent_run_id"] = parent
    return main | {
        "tags": run.tags,
        "dotted_order": order,
        "trace_id": trace_id,
        "session_name": project_name,
        "name": run.name,
        "run_type": run.run_type,
    }


def _field_parts(run: RunTemplate, kind: str) -> list[tuple[str, bytes]]:
    error = None if run.error is None else msgspec.json.encode(run.error)
    by_kind: dict[str, list[tuple[str, bytes | None]]] = {
        "create": [
            ("inputs", run.inputs),
            ("outputs", b"{}"),
            ("events", b"[]"),
            ("extra", run.extra),
            ("serialized", run.serialized),
        ],
        "update": [("outputs", run.outputs), ("events", b"[]"), ("extra", run.final_extra), ("error", error)],
        "whole": [
            ("inputs", run.inputs),
            ("outputs", run.outputs),
            ("events", b"[]"),
            ("extra", run.final_extra),
            ("error", error),
            ("serialized", run.serialized),
        ],
    }
    return [(field, payload) for field, payload in by_kind[kind] if payload is not None]
