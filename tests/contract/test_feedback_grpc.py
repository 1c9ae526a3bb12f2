"""Feedback over the public gRPC port, with the generated stubs."""

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from runstore.v1 import error_pb2, run_pb2
from runstore.v1 import feedback_service_pb2 as pb
from runstore.v1 import feedback_service_pb2_grpc as pb_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_query_service_pb2 as queries
from runstore.v1 import run_query_service_pb2_grpc as queries_grpc

from .servers import Server


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    """To the server without authentication."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> pb_grpc.FeedbackServiceStub:
    return pb_grpc.FeedbackServiceStub(channel)


def new_id() -> str:
    return str(uuid.uuid4())


def timestamp(moment: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def full(run_id: str) -> pb.Feedback:
    """A record with every field that needs no project."""
    created = datetime(2026, 4, 5, 6, 7, 8, 123_456, tzinfo=UTC)
    return pb.Feedback(
        id=new_id(), run_id=run_id, trace_id=new_id(), key="k", score=-0.5, value=b'{"a": "\xc3\xbc"}',
        comment="c", correction=b'"x"', error=True,
        source=pb.FeedbackSource(type="auto_eval", user_id="u", user_name="U", metadata=b'{"m": 1}'),
        extra=b"{}", comparative_experiment_id=new_id(), feedback_group_id=new_id(),
        run_start_time=timestamp(created), create_time=timestamp(created), update_time=timestamp(created),
    )  # fmt: skip


def write(stub: pb_grpc.FeedbackServiceStub, *records: pb.Feedback) -> pb.WriteFeedbackResponse:
    return stub.WriteFeedback(pb.WriteFeedbackRequest(feedback=records))


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Code and field of a call that fails."""
    with pytest.raises(grpc.RpcError) as failed:
        call()
    metadata: Any = failed.value.trailing_metadata()
    return failed.value.code(), error_pb2.ErrorDetail.FromString(dict(metadata)["runstore-error-bin"]).field


def test_every_field_comes_back(stub: pb_grpc.FeedbackServiceStub) -> None:
    """A record is read, listed and changed as it was written, and gone once it is deleted."""
    record = full(new_id())
    written = write(stub, record)
    assert not written.errors
    assert written.write_token
    assert stub.GetFeedback(pb.GetFeedbackRequest(id=record.id.upper())).feedback == record
    request = pb.ListFeedbackRequest(condition=pb.FeedbackCondition(run_ids=[record.run_id]))
    assert list(stub.ListFeedback(request).feedback) == [record]
    changed = stub.UpdateFeedback(pb.UpdateFeedbackRequest(id=record.id, score=0, comment="")).feedback
    assert (changed.score, changed.comment, changed.value) == (0, "", record.value)
    assert changed.update_time.ToDatetime(UTC) > record.update_time.ToDatetime(UTC)
    assert stub.GetFeedback(pb.GetFeedbackRequest(id=record.id)).feedback == changed
    stub.DeleteFeedback(pb.DeleteFeedbackRequest(id=record.id))
    for call in (
        lambda: stub.GetFeedback(pb.GetFeedbackRequest(id=record.id)),
        lambda: stub.UpdateFeedback(pb.UpdateFeedbackRequest(id=record.id, score=1)),
        lambda: stub.DeleteFeedback(pb.DeleteFeedbackRequest(id=record.id)),
    ):
        assert refusal(call) == (grpc.StatusCode.NOT_FOUND, "id")


def test_statistics(stub: pb_grpc.FeedbackServiceStub, channel: grpc.Channel) -> None:
    """Records are summed up for whatever condition, and for each run that is listed with them."""
    runs = [new_id(), new_id()]
    records = [
        pb.Feedback(id=new_id(), run_id=runs[n % 2], key="k", score=n, comment=f"{n}") for n in range(4)
    ]
    records += [
        pb.Feedback(id=new_id(), run_id=runs[0], key="l", value=json.dumps(v).encode()) for v in "aab"
    ]
    write(stub, *records)
    condition = pb.FeedbackCondition(run_ids=runs)
    stats = stub.GetFeedbackStats(pb.GetFeedbackStatsRequest(condition=condition)).stats
    assert stats.keys() == {"k", "l"}
    numbers, labels = stats["k"], stats["l"]
    assert (numbers.n, numbers.avg, numbers.min, numbers.max) == (4, 1.5, 0, 3)
    assert numbers.stdev == pytest.approx(1.2909944)
    assert sorted(numbers.comments) == ["0", "1", "2", "3"]
    assert (labels.n, dict(labels.values), labels.HasField("avg")) == (3, {"a": 2, "b": 1}, False)
    assert list(labels.sources) == ["api"]
    fields = ingest.RunFields(id=runs[1], name="n", run_type=run_pb2.RUN_TYPE_LLM)
    ingest_grpc.RunIngestServiceStub(channel).WriteRuns(
        ingest.WriteRunsRequest(operations=[ingest.RunOperation(create=fields)])
    )
    run = (
        queries_grpc.RunQueryServiceStub(channel)
        .GetRun(queries.GetRunRequest(id=runs[1], fields=[run_pb2.RUN_FIELD_FEEDBACK_STATS]))
        .run
    )
    assert run.feedback_stats.keys() == {"k"}
    assert (run.feedback_stats["k"].n, run.feedback_stats["k"].avg) == (2, 2)


def test_pages(stub: pb_grpc.FeedbackServiceStub) -> None:
    """Offsets and page sizes cut the list into pages; the newest come first."""
    run_id = new_id()
    records = [
        pb.Feedback(id=new_id(), run_id=run_id, key="k", create_time=Timestamp(seconds=1_795_000_000 + n))
        for n in range(5)
    ]
    write(stub, *records)
    condition = pb.FeedbackCondition(run_ids=[run_id])
    pages = [
        [record.id for record in stub.ListFeedback(request).feedback]
        for request in (
            pb.ListFeedbackRequest(condition=condition, offset=offset, page_size=2) for offset in (0, 2, 4, 6)
        )
    ]
    newest_first = [record.id for record in reversed(records)]
    assert pages == [newest_first[:2], newest_first[2:4], newest_first[4:], []]


def test_bad_records_are_refused_by_index(stub: pb_grpc.FeedbackServiceStub) -> None:
    """Each bad record is named with its field; its neighbours are stored."""
    run_id = new_id()
    good = pb.Feedback(id=new_id(), run_id=run_id, key="k")

    def bad(**fields: Any) -> pb.Feedback:
        record = pb.Feedback()
        record.CopyFrom(good)
        record.id = new_id()
        record.MergeFrom(pb.Feedback(**fields))
        return record

    wrong = [
        (bad(id="x"), "id"),
        (pb.Feedback(id=new_id(), key="k"), "run_id"),
        (pb.Feedback(id=new_id(), run_id=run_id), "key"),
        (bad(project_id=new_id()), "project_id"),
        (bad(score=float("nan")), "score"),
        (bad(score=float("inf")), "score"),
        (bad(value=b"{"), "value"),
        (bad(value=b"[1]"), "value"),
        (bad(value=b""), "value"),
        (bad(correction=b"1"), "correction"),
        (bad(extra=b'"x"'), "extra"),
        (bad(source=pb.FeedbackSource(metadata=b"\xff")), "source_metadata"),
        (bad(source=pb.FeedbackSource(user_id="u" * 2_000)), "source.user_id"),
        (bad(create_time=Timestamp(seconds=10**11)), "create_time"),
        (bad(run_start_time=Timestamp(seconds=-(10**11))), "run_start_time"),
    ]
    answer = write(stub, *(record for record, _ in wrong), good)
    assert [(error.index, error.field) for error in answer.errors] == [
        (index, field) for index, (_, field) in enumerate(wrong)
    ]
    request = pb.ListFeedbackRequest(condition=pb.FeedbackCondition(run_ids=[run_id]))
    assert [record.id for record in stub.ListFeedback(request).feedback] == [good.id]


BAD_CALLS: dict[str, tuple[Callable[[pb_grpc.FeedbackServiceStub], object], str]] = {
    "negative offset": (lambda stub: stub.ListFeedback(pb.ListFeedbackRequest(offset=-1)), "offset"),
    "negative page size": (lambda stub: stub.ListFeedback(pb.ListFeedbackRequest(page_size=-1)), "page_size"),
    "run id": (
        lambda stub: stub.ListFeedback(
            pb.ListFeedbackRequest(condition=pb.FeedbackCondition(run_ids=[new_id(), "x"]))
        ),
        "run_ids[1]",
    ),
    "many projects": (
        lambda stub: stub.GetFeedbackStats(
            pb.GetFeedbackStatsRequest(
                condition=pb.FeedbackCondition(project_ids=[new_id() for _ in range(101)])
            )
        ),
        "project_ids",
    ),
    "experiment": (
        lambda stub: stub.ListFeedback(
            pb.ListFeedbackRequest(condition=pb.FeedbackCondition(comparative_experiment_id="x"))
        ),
        "comparative_experiment_id",
    ),
    "time": (
        lambda stub: stub.GetFeedbackStats(
            pb.GetFeedbackStatsRequest(
                condition=pb.FeedbackCondition(max_create_time=Timestamp(seconds=-(2**62)))
            )
        ),
        "max_create_time",
    ),
    "id": (lambda stub: stub.GetFeedback(pb.GetFeedbackRequest(id="'")), "id"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_questions_are_refused(stub: pb_grpc.FeedbackServiceStub, name: str) -> None:
    """What cannot be asked is refused with the field."""
    call, field = BAD_CALLS[name]
    assert refusal(lambda: call(stub)) == (grpc.StatusCode.INVALID_ARGUMENT, field)


def test_bad_change_is_refused(stub: pb_grpc.FeedbackServiceStub) -> None:
    """A change that cannot be stored leaves the record as it is."""
    record = full(new_id())
    write(stub, record)
    change = pb.UpdateFeedbackRequest(id=record.id, score=float("nan"))
    assert refusal(lambda: stub.UpdateFeedback(change)) == (grpc.StatusCode.INVALID_ARGUMENT, "score")
    assert stub.GetFeedback(pb.GetFeedbackRequest(id=record.id)).feedback == record
