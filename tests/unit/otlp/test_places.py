"""Where spans belong: ids, parents, traces, projects."""

import uuid
from typing import Any

import pytest
from langsmith.integrations.otel import langsmith_run_id_from_otel_span_id

from runstore.otlp.places import run_id

from .making import PARENT, SPAN, TRACE, export, metadata, run, span

ROOT, CHILD = "019f0000-0000-7000-8000-00000000000a", "019f0000-0000-7000-8000-00000000000b"
ROOT_ORDER = f"20261118T110640123456Z{ROOT}"
CHILD_ORDER = f"{ROOT_ORDER}.20261118T110640124456Z{CHILD}"


@pytest.mark.parametrize("span_id", [SPAN, b"\x00" * 7 + b"\x01", b"\xff" * 8])
def test_run_has_the_id_that_the_langsmith_sdk_expects(span_id: bytes) -> None:
    """An application can name the run of its span before the span is exported."""
    assert run(span_id=span_id).id == str(langsmith_run_id_from_otel_span_id(span_id))


def test_parent_is_named_as_it_names_itself() -> None:
    """Whatever the export and its order: a child's parent id is the id of the parent's run."""
    child, parent = run(parent_span_id=PARENT), run(span_id=PARENT)
    assert child.parent_run_id == parent.id
    assert not parent.HasField("parent_run_id")
    assert not parent.HasField("trace_id")


def test_spans_without_their_root_are_one_trace() -> None:
    """The trace's own id groups them until the root tells a better one."""
    first, second = run(parent_span_id=PARENT), run(span_id=b"\x33" * 8, parent_span_id=b"\x44" * 8)
    assert first.trace_id == second.trace_id == str(uuid.UUID(bytes=TRACE))


@pytest.mark.parametrize(
    ("attributes", "parent"),
    [({}, b""), ({}, bytes(8)), ({}, TRACE[:8]), ({"langsmith.root_span": True}, PARENT)],
    ids=["none", "zeros", "of a langsmith SDK", "says so"],
)
def test_root(attributes: dict[str, Any], parent: bytes) -> None:
    """The SDK's exporter gives its roots the first half of the trace's id as parent."""
    fields = run(attributes, parent_span_id=parent)
    assert not fields.HasField("parent_run_id")
    assert not fields.HasField("trace_id")


def test_span_below_a_run_of_an_sdk() -> None:
    """As LangSmith documents it: four attributes put a span into a trace whose ids no span can have."""
    told = {
        "langsmith.trace.id": ROOT,
        "langsmith.span.parent_id": ROOT,
        "langsmith.span.id": CHILD,
        "langsmith.span.dotted_order": CHILD_ORDER,
    }
    fields = run(told, parent_span_id=PARENT)
    assert (fields.id, fields.parent_run_id, fields.trace_id) == (CHILD, ROOT, ROOT)
    assert fields.dotted_order == CHILD_ORDER
    assert not set(told) & set(metadata(fields))


def test_dotted_order_says_it_all() -> None:
    """Neither the span's own parent nor its id contradicts it."""
    fields = run({"langsmith.span.dotted_order": CHILD_ORDER}, parent_span_id=PARENT)
    assert (fields.id, fields.dotted_order) == (CHILD, CHILD_ORDER)
    assert not fields.HasField("parent_run_id")
    assert not fields.HasField("trace_id")


def test_told_parent_without_a_dotted_order() -> None:
    """The store finds the place below the parent."""
    fields = run({"langsmith.span.id": CHILD, "langsmith.span.parent_id": ROOT, "langsmith.trace.id": ROOT})
    assert (fields.id, fields.parent_run_id, fields.trace_id) == (CHILD, ROOT, ROOT)


@pytest.mark.parametrize(
    "told",
    [
        {"langsmith.span.id": "mine"},
        {"langsmith.span.parent_id": ""},
        {"langsmith.trace.id": 7},
        {"langsmith.span.dotted_order": f"20261118T110640123456Z{ROOT}.x"},
    ],
    ids=str,
)
def test_told_id_that_is_none_is_an_attribute(told: dict[str, Any]) -> None:
    """The span's own ids hold then."""
    fields = run(told, parent_span_id=PARENT)
    assert (fields.id, fields.parent_run_id) == (run_id(SPAN), run_id(PARENT))
    [(key, value)] = told.items()
    assert metadata(fields)[key] == value


@pytest.mark.parametrize(
    ("attributes", "resource", "caller", "expected"),
    [
        ({"langsmith.trace.session_name": "own"}, {"openinference.project.name": "r"}, "c", "own"),
        ({}, {"openinference.project.name": "resource", "service.name": "s"}, "caller", "resource"),
        ({}, {"service.name": "s"}, "caller", "caller"),
        ({}, {"service.name": "checkout"}, "", "checkout"),
        ({}, {"service.name": "unknown_service:python"}, "", ""),
        ({}, {}, "", ""),
    ],
)
def test_project(attributes: dict[str, Any], resource: dict[str, Any], caller: str, expected: str) -> None:
    """The span's own, else the resource's, else the caller's, else the service; else the default."""
    [operation] = export(span(attributes), resource=resource, project_name=caller).operations
    assert operation.create.project_name == expected


def test_project_by_id() -> None:
    """An id wins over every name."""
    project = str(uuid.uuid4())
    told = {"langsmith.trace.session_id": project, "langsmith.trace.session_name": "n"}
    assert run(told).project_id == project
