"""Exports in OTLP's JSON: what is no export is refused whole, what is no span alone."""

import json
from typing import Any

import pytest
from google.protobuf import json_format

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.otlp.json_form import print_response, read_json_export
from runstore.otlp.places import run_id

from .making import PARENT, SPAN, T0_NS, TRACE, metadata, request, span

GOOD = {
    "traceId": TRACE.hex(),
    "spanId": SPAN.hex().upper(),
    "parentSpanId": PARENT.hex(),
    "name": "work",
    "kind": 3,
    "startTimeUnixNano": str(T0_NS),
    "endTimeUnixNano": T0_NS + 1,
    "attributes": [
        {"key": "big", "value": {"intValue": "9007199254740993"}},
        {"key": "raw", "value": {"bytesValue": "AAE="}},
        {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": True}, {"doubleValue": "NaN"}]}}},
    ],
    "links": [{"traceId": TRACE.hex(), "spanId": PARENT.hex()}],
    "newInTheStandard": {"a": [1]},
}


def body(*spans: Any) -> bytes:
    """An export of these."""
    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": spans}]}]}).encode()


def test_ids_are_hex_and_numbers_may_be_text() -> None:
    """As the specification has it, in any case of letters; unknown keys are ignored."""
    [operation] = read_json_export(body(GOOD)).operations
    run = operation.create
    assert (run.id, run.parent_run_id, run.name) == (run_id(SPAN), run_id(PARENT), "work")
    kept = metadata(run)
    assert (kept["big"], kept["raw"], kept["list"]) == (9007199254740993, "AAE=", [True, "nan"])
    assert kept["otel_trace_id"] == TRACE.hex()
    assert json.loads(run.extra)["otel"]["links"][0]["span_id"] == PARENT.hex()


def test_says_the_same_as_protobuf() -> None:
    """Names of fields as protobuf has them, and enums by name, are read as well."""
    told = json_format.MessageToDict(request(span()), preserving_proto_field_name=True)
    item = told["resource_spans"][0]["scope_spans"][0]["spans"][0]
    item |= {"trace_id": TRACE.hex(), "span_id": SPAN.hex(), "kind": "SPAN_KIND_CLIENT"}
    [operation] = read_json_export(json.dumps(told).encode()).operations
    assert operation.create.id == run_id(SPAN)
    assert json.loads(operation.create.extra)["otel"]["kind"] == "SPAN_KIND_CLIENT"


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (7, "not an object"),
        (None, "not an object"),
        ({**GOOD, "traceId": "xyz"}, "traceId: not hex digits"),
        ({**GOOD, "links": [{"spanId": "x"}]}, "spanId: not hex digits"),
        ({**GOOD, "links": [7]}, "not a span"),
        ({**GOOD, "startTimeUnixNano": "soon"}, "not a span"),
        ({**GOOD, "attributes": [{"key": 7}]}, "not a span"),
        ({**GOOD, "name": ["y" * 5_000]}, "not a span"),
        ({**GOOD, "spanId": 7}, "not a span"),
        ({**GOOD, "spanId": ""}, "span_id: not 8 bytes"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_no_span_costs_no_other(bad: Any, named: str) -> None:
    """It is counted and named, in a bounded answer."""
    export = read_json_export(body(bad, GOOD, bad))
    assert [each.create.name for each in export.operations] == ["work"]
    told = json.loads(print_response(export.response()))["partialSuccess"]
    assert told["rejectedSpans"] == "2"
    assert named in told["errorMessage"]
    assert len(told["errorMessage"]) < 1_000


@pytest.mark.parametrize(
    "malformed",
    [
        b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"resourceSpans": 7}', b'{"resourceSpans": [7]}',
        b'{"resourceSpans": [{"scopeSpans": {}}]}', b'{"resourceSpans": [{"scopeSpans": [{"spans": {}}]}]}',
        b'{"resourceSpans": [{"resource": 7}]}', b'{"resourceSpans": [{"scopeSpans": [null]}]}',
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused_whole(malformed: bytes) -> None:
    """Nobody knows what it was meant to say."""
    with pytest.raises(RunstoreError) as refused:
        read_json_export(malformed)
    assert refused.value.reason is ErrorReason.MALFORMED_BODY
    assert len(refused.value.message) < 400
