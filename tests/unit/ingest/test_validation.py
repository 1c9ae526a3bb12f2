"""Validation: what can be stored passes, everything else is refused by the name of its field."""

import uuid
from typing import Any

import pytest

from runstore.domain import dotted_order
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.runs import Attachment, RunPatch
from runstore.domain.times import MAX_TIME_US, MIN_TIME_US
from runstore.ingest.validation import MAX_NAME_CHARS, MAX_TAGS, validate

TENANT, RUN, PARENT, OTHER = (str(uuid.UUID(int=number, version=4)) for number in range(4))
ROOT_ORDER = dotted_order.root(0, PARENT)
ORDER = dotted_order.child(ROOT_ORDER, 0, RUN)
FILE = Attachment("text/plain", b"")


def create(**fields: Any) -> RunPatch:
    given = {"run_id": RUN, "name": "n", "run_type": "llm", **fields}
    return RunPatch(TENANT, is_create=True, **given)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("id", {"run_id": ""}),
        ("id", {"run_id": RUN + "0"}),
        ("id", {"run_id": RUN.replace("-", "")}),
        ("id", {"run_id": RUN[:-1] + "\u0661"}),
        ("trace_id", {"trace_id": "x"}),
        ("parent_run_id", {"parent_run_id": "x"}),
        ("project_id", {"project_id": "x" * 10_000}),
        ("reference_example_id", {"reference_example_id": "x"}),
        ("name", {"name": None}),
        ("name", {"name": ""}),
        ("name", {"name": "n" * (MAX_NAME_CHARS + 1)}),
        ("run_type", {"run_type": None}),
        ("run_type", {"run_type": "agent"}),
        ("start_time", {"start_time_us": MIN_TIME_US - 1}),
        ("end_time", {"end_time_us": MAX_TIME_US + 1}),
        ("inputs", {"inputs": b"{"}),
        ("outputs", {"outputs": b'"\xff"'}),
        ("events", {"events": b""}),
        ("extra", {"extra": b"[1,]"}),
        ("manifest", {"manifest": b"[" * 100_000}),
        ("tags", {"tags": ("t",) * (MAX_TAGS + 1)}),
        ("attachments", {"attachments": {"": FILE}}),
        ("attachments", {"attachments": {"ä" * 200: FILE}}),
        ("parent_run_id", {"parent_run_id": RUN}),
        ("dotted_order", {"dotted_order": ROOT_ORDER}),
        ("dotted_order", {"dotted_order": "yesterday"}),
        ("dotted_order", {"dotted_order": ORDER, "trace_id": OTHER}),
        ("dotted_order", {"dotted_order": ORDER, "parent_run_id": OTHER}),
        ("dotted_order", {"dotted_order": dotted_order.root(0, RUN), "parent_run_id": PARENT}),
    ],
)
def test_refusal_names_its_field(field: str, fields: dict[str, Any]) -> None:
    """Each bad value is refused as the field that the client sent, in a message of bounded length."""
    with pytest.raises(RunstoreError) as refused:
        validate(create(**fields))
    assert (refused.value.reason, refused.value.field) == (ErrorReason.INVALID_ARGUMENT, field)
    assert len(refused.value.message) < 300


def test_update_needs_nothing_but_the_id() -> None:
    """What a creation must have, an update may leave out."""
    patch = RunPatch(TENANT, RUN)
    validate(patch)
    assert patch == RunPatch(TENANT, RUN)


def test_ids_are_spelled_one_way() -> None:
    """Capital letters in ids are the same ids."""
    patch = create(run_id=RUN.upper(), parent_run_id=PARENT.upper(), project_id=OTHER.upper())
    validate(patch)
    assert (patch.run_id, patch.parent_run_id, patch.project_id) == (RUN, PARENT, OTHER)


def test_dotted_order_fills_in_what_it_says() -> None:
    """Trace and parent come from the dotted order when they are not sent beside it."""
    patch = create(dotted_order=ORDER)
    validate(patch)
    assert (patch.trace_id, patch.parent_run_id) == (PARENT, PARENT)


def test_halves_of_surrogate_pairs_are_replaced() -> None:
    """JSON that engines would refuse is made readable, at the same length."""
    patch = create(inputs=b'"\\ud83d"')
    validate(patch)
    assert patch.inputs == b'"\\ufffd"'


def test_bounds_are_inclusive() -> None:
    """The longest name, the most tags and the first and last times pass."""
    validate(
        create(
            name="n" * MAX_NAME_CHARS,
            tags=("t",) * MAX_TAGS,
            start_time_us=MIN_TIME_US,
            end_time_us=MAX_TIME_US,
            attachments={"a" * 256: FILE},
        )
    )
