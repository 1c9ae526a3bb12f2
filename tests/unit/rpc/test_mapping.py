"""Messages and domain objects: every field has a way there and back, every number a meaning."""

import uuid
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.feedback import FeedbackStats
from runstore.domain.runs import Attachment, Position, RunField, RunPatch, RunType, StoredRun
from runstore.rpc import mapping
from runstore.v1 import error_pb2, run_pb2
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_query_service_pb2 as queries

TENANT, RUN, OTHER = (str(uuid.UUID(int=number, version=4)) for number in range(3))
TIME_US = -1_500_000
TIME = Timestamp(seconds=-2, nanos=500_000_000)

# What the store has of each field, and what the message has then.
VALUES: dict[RunField, tuple[Any, Any]] = {
    RunField.ID: (RUN, RUN),
    RunField.NAME: ("", ""),
    RunField.RUN_TYPE: ("llm", run_pb2.RUN_TYPE_LLM),
    RunField.STATUS: ("pending", run_pb2.RUN_STATUS_PENDING),
    RunField.START_TIME: (TIME_US, TIME),
    RunField.END_TIME: (TIME_US, TIME),
    RunField.LATENCY_SECONDS: (0.5, 0.5),
    RunField.FIRST_TOKEN_TIME: (TIME_US, TIME),
    RunField.ERROR: ("e", "e"),
    RunField.ERROR_PREVIEW: ("e", "e"),
    RunField.EXTRA: (b"{}", b"{}"),
    RunField.METADATA: (b"{}", b"{}"),
    RunField.EVENTS: (b"[]", b"[]"),
    RunField.INPUTS: (b"1", b"1"),
    RunField.INPUTS_PREVIEW: ("1", "1"),
    RunField.OUTPUTS: (b"2", b"2"),
    RunField.OUTPUTS_PREVIEW: ("2", "2"),
    RunField.MANIFEST: (b"3", b"3"),
    RunField.PARENT_RUN_IDS: ([OTHER], [OTHER]),
    RunField.PROJECT_ID: (OTHER, OTHER),
    RunField.TRACE_ID: (OTHER, OTHER),
    RunField.THREAD_ID: ("t", "t"),
    RunField.DOTTED_ORDER: ("d", "d"),
    RunField.IS_ROOT: (False, False),
    RunField.REFERENCE_EXAMPLE_ID: (OTHER, OTHER),
    RunField.REFERENCE_DATASET_ID: (OTHER, OTHER),
    RunField.TOTAL_TOKENS: (0, 0),
    RunField.PROMPT_TOKENS: (2**53 - 1, 2**53 - 1),
    RunField.COMPLETION_TOKENS: (1, 1),
    RunField.TOTAL_COST: (Decimal("1E-6"), "0.000001"),
    RunField.PROMPT_COST: (Decimal(100), "100"),
    RunField.COMPLETION_COST: (Decimal("0.500000000000000000"), "0.5"),
    RunField.PROMPT_TOKEN_DETAILS: ({"a": 1}, {"a": 1}),
    RunField.COMPLETION_TOKEN_DETAILS: ({"a": 1}, {"a": 1}),
    RunField.PROMPT_COST_DETAILS: ({"a": Decimal("0E-18")}, {"a": "0"}),
    RunField.COMPLETION_COST_DETAILS: ({"a": Decimal("1.10")}, {"a": "1.1"}),
    RunField.PRICE_MODEL_ID: (OTHER, OTHER),
    RunField.TAGS: (["a"], ["a"]),
    RunField.APP_PATH: ("/o", "/o"),
    RunField.IS_IN_DATASET: (False, False),
    RunField.SHARE_URL: ("s", "s"),
    RunField.LS_USER_ID: ("u", "u"),
    RunField.FEEDBACK_STATS: (
        {"k": FeedbackStats(2, 0.5, 0.0, 1.0, 0.7, {"good": 3}, ("c",), 1, ("api",))},
        {
            "k": run_pb2.FeedbackStats(
                n=2,
                avg=0.5,
                min=0,
                max=1,
                stdev=0.7,
                values={"good": 3},
                comments=["c"],
                errors=1,
                sources=["api"],
            )
        },
    ),
}
NOT_STORED_YET = {RunField.THREAD_EVALUATION_TIME, RunField.LAST_QUEUED_AT}
BY_THE_SERVICER = {RunField.ATTACHMENTS, RunField.TRACE_TIER}


def test_every_field_is_tested_here() -> None:
    """A field that is added needs its way out."""
    assert VALUES.keys() | NOT_STORED_YET | BY_THE_SERVICER == set(RunField)


@pytest.mark.parametrize("field", VALUES, ids=str)
def test_field_comes_out_alone(field: RunField) -> None:
    """A selected field is set to its value; every other one stays absent, stored or not."""
    run = StoredRun(Position(0, RUN), {each: stored for each, (stored, _) in VALUES.items()})
    message = mapping.run_message(run, frozenset({field}))
    value, wanted = getattr(message, field.value), VALUES[field][1]
    assert (
        dict(value) if isinstance(wanted, dict) else list(value) if isinstance(wanted, list) else value
    ) == wanted
    assert [descriptor.name for descriptor, _ in message.ListFields()] == [field.value]


def test_numbers_are_those_of_the_domain() -> None:
    """Fields, types, statuses and reasons have one number each, and no number lacks its meaning."""
    fields = mapping.run_fields(number for number in run_pb2.RunField.values() if number)
    assert fields == frozenset(RunField)
    types = {name.removeprefix("RUN_TYPE_").lower() for name, number in run_pb2.RunType.items() if number}
    assert types == {each.value for each in RunType}
    reasons = {mapping.error_reason(reason) for reason in ErrorReason}
    assert reasons == {number for number in error_pb2.ErrorReason.values() if number}
    for number in (0, 48):
        with pytest.raises(RunstoreError) as refused:
            mapping.run_fields([number])  # type: ignore[list-item]  # as the wire may have it
        assert refused.value.field == "fields"


def test_operation_with_everything() -> None:
    """Every field of an operation arrives; a nanosecond is cut, an empty list of tags is one."""
    fields = ingest.RunFields(
        id=RUN, trace_id=OTHER, dotted_order="d", parent_run_id=OTHER, project_id=OTHER, project_name="p",
        name="n", run_type=run_pb2.RUN_TYPE_TOOL, start_time=Timestamp(seconds=1, nanos=1_999),
        end_time=TIME, inputs=b"1", outputs=b"2", error="e", events=b"3", extra=b"4", manifest=b"5",
        tags=ingest.TagList(), reference_example_id=OTHER,
        attachments=[ingest.AttachmentContent(name="a", mime_type="m", content=b"c")],
        uploaded=ingest.UploadedPayloads(),  # Which the servicer looks up.
    )  # fmt: skip
    assert {descriptor.name for descriptor, _ in fields.ListFields()} == set(fields.DESCRIPTOR.fields_by_name)
    assert mapping.run_patch(ingest.RunOperation(create=fields), TENANT) == RunPatch(
        TENANT, RUN, is_create=True, trace_id=OTHER, dotted_order="d", parent_run_id=OTHER,
        project_id=OTHER, project_name="p", name="n", run_type="tool", start_time_us=1_000_001,
        end_time_us=TIME_US, inputs=b"1", outputs=b"2", error="e", events=b"3", extra=b"4", manifest=b"5",
        tags=(), reference_example_id=OTHER, attachments={"a": Attachment("m", b"c")},
    )  # fmt: skip


def test_operation_that_says_nothing() -> None:
    """Absent and empty fields are None; an operation without a kind is refused."""
    fields = ingest.RunFields(id=RUN, name="", inputs=b"")
    assert mapping.run_patch(ingest.RunOperation(update=fields), TENANT) == RunPatch(TENANT, RUN)
    with pytest.raises(RunstoreError) as refused:
        mapping.run_patch(ingest.RunOperation(), TENANT)
    assert refused.value.field == "operation"


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("project_ids[1]", queries.ListRunsRequest(project_ids=[RUN, "x"])),
        ("ids[0]", queries.ListRunsRequest(ids=["x"])),
        ("trace_id", queries.ListRunsRequest(trace_id="")),
        ("parent_run_id", queries.ListRunsRequest(parent_run_id="x")),
        ("reference_example_ids[0]", queries.ListRunsRequest(reference_example_ids=["x"])),
        ("run_type", queries.ListRunsRequest(run_type=99)),  # type: ignore[arg-type]
        ("fields", queries.ListRunsRequest(fields=[99])),  # type: ignore[list-item]
        ("filter", queries.ListRunsRequest(filter="eq(")),
    ],
)  # fmt: skip
def test_bad_question_names_its_field(field: str, request_: queries.ListRunsRequest) -> None:
    """Each bad value in a question is refused as the field that has it."""
    with pytest.raises(RunstoreError) as refused:
        mapping.run_query(request_, TENANT)
    assert refused.value.field == field


def test_question_with_everything() -> None:
    """Conditions arrive with the caller's tenant; repeated ids count once; newest first is the default."""
    query = mapping.run_query(
        queries.ListRunsRequest(
            project_ids=[OTHER, OTHER.upper()], ids=[RUN], trace_id=RUN, parent_run_id=OTHER,
            reference_example_ids=[RUN], run_type=run_pb2.RUN_TYPE_LLM, is_root=False, has_error=True,
            min_start_time=TIME, max_start_time=Timestamp(seconds=1),
        ),
        TENANT,
    )  # fmt: skip
    assert (query.tenant_id, query.project_ids, query.run_ids) == (TENANT, (OTHER,), (RUN,))
    assert (query.trace_id, query.parent_run_id, query.reference_example_ids) == (RUN, OTHER, (RUN,))
    assert (query.run_type, query.is_root, query.has_error) == (RunType.LLM, False, True)
    assert (query.min_start_time_us, query.max_start_time_us) == (TIME_US, 1_000_000)
    assert query.descending
    assert query.fields == {RunField.ID}
    oldest_first = queries.ListRunsRequest(sort_order=run_pb2.SORT_ORDER_ASC)
    assert not mapping.run_query(oldest_first, TENANT).descending
