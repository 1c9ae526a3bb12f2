"""What has to hold for every answer."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import grpc
import psutil
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.fuzz.case import Case
from tests.fuzz.target import LIMITS, Answer, Target

from runstore.domain.runs import RunPatch
from runstore.v1 import run_ingest_service_pb2 as pb

_LONGEST_S = 15.0
_GROWTH_BYTES = 300 * 1024 * 1024 + 4 * (LIMITS.max_body_bytes + LIMITS.max_decompressed_bytes)
_INSIDES = (b"Traceback", b'.py"', b"site-packages", b"grpc", b"sqlite", b"pyarrow", b"object at 0x")
_REFUSALS = frozenset({400, 413, 422})
_OPERATION_CODES = frozenset(
    {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE}
)


class Checker:
    """Sends cases to one target and says what was wrong."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._process = psutil.Process()
        self._baseline_bytes = 0
        self._checked = 0
        self.answers: Counter[str] = Counter()
        """What came back, by kind of request."""

    async def problems(self, case: Case, *, at_once: bool = False) -> list[str]:
        """What is wrong with the answer, or with what the case has left behind; `at_once` flushes it."""
        started_s = time.perf_counter()
        try:
            async with asyncio.timeout(2 * _LONGEST_S):
                answer = await self._target.send(case)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            return [f"raised {error!r}", *self._target.take_defects()]
        status = answer.status if answer.code is None else answer.code.name
        self.answers[f"{case.kind} {status}"] += 1
        accepted = self._target.take_accepted()
        found = list(_CHECKS[case.kind](case, answer, accepted))
        if (seconds := time.perf_counter() - started_s) > _LONGEST_S:
            found.append(f"took {seconds:.1f} s")
        await self._target.store(accepted, at_once=at_once)
        return [*found, *self._target.take_defects(), *self._memory()]

    def _memory(self) -> Iterator[str]:
        self._checked += 1
        if self._checked % 500:
            return
        size = self._process.memory_info().rss
        if self._checked == 2_000:  # Caches are full.
            self._baseline_bytes = size
        elif self._baseline_bytes and size > self._baseline_bytes + _GROWTH_BYTES:
            yield f"memory grew from {self._baseline_bytes >> 20} to {size >> 20} MiB"
            self._baseline_bytes = size


def _http(case: Case, answer: Answer, accepted: list[RunPatch]) -> Iterator[str]:
    if case.disconnects:
        if answer.status not in (0, 499, *_REFUSALS) or accepted:
            yield f"a client that went away got {answer.status}, {len(accepted)} operations stored"
        return
    if answer.status not in (_accepted_status(case), *_REFUSALS):
        yield f"status {answer.status}: {answer.body[:500]!r}"
        return
    if any(inside in answer.body for inside in _INSIDES):
        yield f"the answer shows the server's inside: {answer.body[:500]!r}"
    yield from _otlp_answer(case, answer) if case.kind == "otlp" else _json_answer(answer)
    # An exporter does not choose the ids of runs.
    ids = {patch.name if case.kind == "otlp" else patch.run_id for patch in accepted}
    if answer.status in (400, 413) and accepted:
        yield f"{answer.status}, yet {len(accepted)} operations were stored: {answer.body[:300]!r}"
    if answer.status in (200, 202, 422) and case.witness is not None and case.witness not in ids:
        yield f"{answer.status}, and the good run {case.witness} was not stored: {answer.body[:300]!r}"
    if case.is_whole and answer.status != 202:
        yield f"a request without a fault got {answer.status}: {answer.body[:300]!r}"


def _feedback(case: Case, answer: Answer, accepted: list[RunPatch]) -> Iterator[str]:
    if answer.status not in (0, 499, 200, *_REFUSALS):
        yield f"status {answer.status}: {answer.body[:500]!r}"
    if any(inside in answer.body for inside in _INSIDES):
        yield f"the answer shows the server's inside: {answer.body[:500]!r}"
    if answer.status not in (0, 499):
        keys = {200: {"id", "key"}}.get(answer.status, {"detail"})
        if not keys <= json.loads(answer.body).keys():
            yield f"{answer.status} without {keys}: {answer.body[:300]!r}"


def _accepted_status(case: Case) -> int:
    return 200 if case.kind == "otlp" else 202


def _otlp_answer(case: Case, answer: Answer) -> Iterator[str]:
    """In the encoding of the request: what was refused, or why everything was."""
    asked = dict(case.headers)["content-type"]
    if answer.headers.get("content-type") != asked:
        yield f"the answer to {asked} is {answer.headers.get('content-type')}"
        return
    message: Message = ExportTraceServiceResponse() if answer.status == 200 else Status()
    try:
        if asked == "application/json":
            json_format.Parse(answer.body, message)
        else:
            message.ParseFromString(answer.body)
    except (DecodeError, json_format.ParseError) as error:
        yield f"the answer is no {type(message).__name__}: {error}: {answer.body[:300]!r}"
        return
    if isinstance(message, Status) and not message.message:
        yield f"{answer.status} without a reason"


def _json_answer(answer: Answer) -> Iterator[str]:
    try:
        body = json.loads(answer.body)
    except ValueError:
        yield f"the answer is not JSON: {answer.body[:300]!r}"
        return
    if answer.headers.get("content-type") != "application/json":
        yield f"the answer's type is {answer.headers.get('content-type')}"
    key = "message" if answer.status == 202 else "error"
    if not isinstance(body, dict) or not isinstance(body.get(key), str) or not body[key]:
        yield f"{answer.status} without {key}: {answer.body[:300]!r}"
    if "details" in body and not isinstance(body["details"], str):
        yield f"details is no text: {answer.body[:300]!r}"


def _grpc(case: Case, answer: Answer, accepted: list[RunPatch]) -> Iterator[str]:
    requests = list(_decoded(case))
    if len(requests) == len(case.messages):
        if answer.code not in _OPERATION_CODES:
            yield f"{answer.code}: {answer.text}"
    elif answer.code is not grpc.StatusCode.INVALID_ARGUMENT:
        yield f"{answer.code} for bytes that are no message: {answer.text}"


def _write_runs(case: Case, answer: Answer, accepted: list[RunPatch]) -> Iterator[str]:
    yield from _grpc(case, answer, accepted)
    if answer.code is not grpc.StatusCode.OK:
        return
    errors = pb.WriteRunsResponse.FromString(answer.replies[0]).errors
    operations = len(pb.WriteRunsRequest.FromString(case.messages[0]).operations)
    if len(errors) + len(accepted) != operations:
        yield f"{operations} operations, of which {len(accepted)} were stored and {len(errors)} refused"
    if any(error.index >= operations or not error.message for error in errors):
        yield f"errors without a place or a text: {errors}"
    if case.witness is not None and case.witness not in {patch.run_id for patch in accepted}:
        yield f"the good run {case.witness} was not stored: {errors}"


def _export(case: Case, answer: Answer, accepted: list[RunPatch]) -> Iterator[str]:
    yield from _grpc(case, answer, accepted)
    if answer.code is grpc.StatusCode.OK and case.witness is not None:
        partial = ExportTraceServiceResponse.FromString(answer.replies[0]).partial_success
        if case.witness not in {patch.name for patch in accepted}:
            yield f"the good span {case.witness} was not stored: {partial}"


_MESSAGES: Final[dict[str, type[Message]]] = {
    "protobuf": pb.WriteRunsRequest,
    "stream": pb.StreamRunsRequest,
    "otlp grpc": ExportTraceServiceRequest,
}


def _decoded(case: Case) -> Iterator[Message]:
    for data in case.messages:
        try:
            yield _MESSAGES[case.kind].FromString(data)
        except DecodeError:
            return


_CHECKS: Final[dict[str, Callable[[Case, Answer, list[RunPatch]], Iterator[str]]]] = {
    **dict.fromkeys(("multipart", "batch", "single", "whole", "otlp"), _http),
    "protobuf": _write_runs,
    "stream": _grpc,
    "feedback": _feedback,
    "otlp grpc": _export,
}
