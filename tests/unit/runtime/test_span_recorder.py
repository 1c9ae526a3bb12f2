"""Spans on their way to a receiver: what they are below and linked to, and which are not recorded."""

import asyncio
from collections.abc import AsyncGenerator, Iterator

import pytest
from tests.contract.otlp_receiver import OtlpReceiver, receiving
from tests.waiting import LONGEST_WAIT_S

from runstore.ingest.tail import Demand
from runstore.runtime import span_recorder
from runstore.runtime.span_recorder import SpanRecorder

CALLER = "00-{}-cccccccccccccccc-0{}"
TRACE, OTHER = "a" * 32, "b" * 32


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with receiving() as running:
        yield running


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the receiver does not take in time is lost."""
    monkeypatch.setattr(span_recorder, "_EXPORT_TIMEOUT_S", LONGEST_WAIT_S)


@pytest.fixture
def recorder(receiver: OtlpReceiver) -> Iterator[SpanRecorder]:
    """Records everything that its callers do."""
    receiver.spans.clear()
    recorder = recording(receiver, 1)
    yield recorder
    recorder.close()


def recording(receiver: OtlpReceiver, ratio: float) -> SpanRecorder:
    resource = {"service.name": "runstore-test"}
    return SpanRecorder(receiver.url, ratio=ratio, headers=(), credentials=None, resource=resource)


def test_what_is_done_for_several_is_below_the_first_and_linked_to_the_others(
    recorder: SpanRecorder, receiver: OtlpReceiver
) -> None:
    """A flush stores what many requests have written."""
    with recorder.below("flush", [CALLER.format(TRACE, 1), CALLER.format(OTHER, 1)], {"runstore.runs": 2}):
        pass
    recorder.close()
    [span] = receiver.spans
    assert (span.trace_id, span.parent_id, span.attributes) == (TRACE, "c" * 16, {"runstore.runs": 2})
    assert bytes.fromhex(OTHER) in span.raw


def test_parts_are_made_below_recorded_spans_alone(recorder: SpanRecorder, receiver: OtlpReceiver) -> None:
    """No request, or one whose caller does not want it: no part; and the next process is told so."""
    with recorder.inner("part of nothing", {}, is_call=False):
        assert recorder.traceparent() == ""
    for unwanted in (
        recorder.request("unsampled", CALLER.format(TRACE, 0), is_wanted=True),
        recorder.request("a probe", CALLER.format(TRACE, 1), is_wanted=False),
    ):
        with unwanted, recorder.inner("part", {}, is_call=True) as part:
            assert not part.is_recorded
            assert recorder.traceparent().endswith("-00")
    recorder.close()
    assert receiver.spans == []


def test_a_failure_is_named_and_its_text_is_not(recorder: SpanRecorder, receiver: OtlpReceiver) -> None:
    """Texts of errors repeat what callers sent."""
    with (
        pytest.raises(ValueError, match="a secret"),
        recorder.request("request", "no traceparent", is_wanted=True),
        recorder.inner("part", {}, is_call=False),
    ):
        raise ValueError("a secret")
    recorder.close()
    spans = {span.name: span for span in receiver.spans}
    assert spans["part"].attributes == {"error.type": "ValueError"}
    assert spans["part"].parent_id == spans["request"].span_id
    assert not any(b"a secret" in span.raw for span in receiver.spans)


async def test_a_stream_may_be_ended_by_somebody_else(recorder: SpanRecorder, receiver: OtlpReceiver) -> None:
    """What a client leaves in the midst of is closed in a context of its own."""

    async def stream() -> AsyncGenerator[int]:
        with recorder.request("stream", "", is_wanted=True):
            yield 1
            yield 2

    left = stream()
    assert await asyncio.create_task(left.asend(None)) == 1
    await asyncio.create_task(left.aclose())
    recorder.close()
    assert [span.name for span in receiver.spans] == ["stream"]


def test_callers_cannot_have_more_recorded_than_the_ratio(receiver: OtlpReceiver) -> None:
    """By the trace's id: what a caller says of it only takes away."""
    receiver.spans.clear()
    none = recording(receiver, 0)
    with none.request("request", CALLER.format(TRACE, 1), is_wanted=True) as span:
        assert not span.is_recorded
    none.close()
    assert receiver.spans == []


def test_the_flusher_takes_each_trace_once_and_in_order() -> None:
    """Up to the operations that it stores; the oldest make room when there are too many."""
    demand = Demand()
    for sequence in (1, 2, 3):
        demand.traced(sequence, f"trace {sequence}")
    assert demand.take_traces(2) == ["trace 1", "trace 2"]
    assert demand.take_traces(2) == []
    for sequence in range(4, 204):
        demand.traced(sequence, f"trace {sequence}")
    assert demand.take_traces(1_000) == [f"trace {sequence}" for sequence in range(76, 204)]
