"""Dotted orders: round trips, order as text, and refusals that name the segment."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstore.domain import dotted_order
from runstore.domain.errors import RunstoreError
from runstore.domain.times import MAX_TIME_US, MIN_TIME_US

ROOT = "20240429T004912090000Z0190d8a0-1234-7abc-8def-0123456789ab"
CHILD = "20240429T004912090001Z0190d8a0-1234-7abc-8def-0123456789ac"
STEPS = st.tuples(st.integers(MIN_TIME_US, MAX_TIME_US), st.uuids().map(str))


def test_a_root_is_its_own_trace() -> None:
    """One segment: trace and run are the same, and there are no parents."""
    order = dotted_order.parse(ROOT)
    assert order.trace_id == order.run_id == "0190d8a0-1234-7abc-8def-0123456789ab"
    assert order.parent_run_ids == ()
    assert order.start_time_us == 1_714_351_752_090_000


def test_upper_case_ids_are_returned_in_lower_case() -> None:
    """Ids compare as text everywhere else, so they have one spelling."""
    order = dotted_order.parse(f"{ROOT[:22]}{ROOT[22:].upper()}.{CHILD[:22]}{CHILD[22:].upper()}")
    assert order.parent_run_ids == (ROOT[22:],)
    assert order.run_id == CHILD[22:]


@given(st.lists(STEPS, min_size=1, max_size=12))
def test_what_is_built_is_parsed(steps: list[tuple[int, str]]) -> None:
    """Root and children built step by step give back ids, ancestors and the last start time."""
    text = dotted_order.root(*steps[0])
    for step in steps[1:]:
        text = dotted_order.child(text, *step)
    ids = [run_id for _, run_id in steps]
    order = dotted_order.parse(text)
    assert order == dotted_order.DottedOrder(ids[0], ids[-1], tuple(ids[:-1]), steps[-1][0])


@given(st.lists(st.integers(MIN_TIME_US, MAX_TIME_US), min_size=2, max_size=2, unique=True))
def test_text_order_is_time_order(times: list[int]) -> None:
    """Segments sort as text as their times do, across centuries."""
    early, late = sorted(times)
    run_id = str(uuid.UUID(int=0))
    assert dotted_order.segment(early, run_id) < dotted_order.segment(late, run_id)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "empty"),
        ("x", "segment 1 of 1"),
        (ROOT + ".", "segment 2 of 2"),
        ("." + ROOT, "segment 1 of 2"),
        (f"{ROOT}..{CHILD}", "segment 2 of 3"),
        (f"{ROOT}.x.{CHILD}", "segment 2 of 3"),
        (f"{ROOT},{CHILD}", "segment 1 of 1"),
        (ROOT[:-1], "UUID"),
        (ROOT + "0", "UUID"),
        (ROOT + "\n", "UUID"),
        (ROOT.replace("-", ""), "UUID"),
        (ROOT.replace("Z", ""), "time"),
        (ROOT.replace("090000Z", "090Z"), "time"),
        (ROOT.replace("2024", "٢٠٢٤"), "time"),
        (ROOT.replace("0429T", "0431T"), "segment 1: no such time"),
        (ROOT + "." + CHILD.replace("T00", "T25"), "segment 2: no such time"),
        (ROOT.replace("2024", "1899"), "1900"),
        (ROOT.replace("2024", "2263"), "1900"),
        (ROOT.replace("2024", "0000"), "no such time"),
        (".".join([ROOT] * 1001), "1000 segments"),
    ],
)
def test_refusals_say_where(text: str, where: str) -> None:
    """What is wrong is named with its segment, the root being the first."""
    with pytest.raises(RunstoreError, match=where) as refusal:
        dotted_order.parse(text)
    assert refusal.value.field == "dotted_order"


def test_the_deepest_path() -> None:
    """A thousand segments are read; one more is neither read nor built."""
    deepest = ".".join([ROOT] * 1000)
    assert len(dotted_order.parse(deepest).parent_run_ids) == 999
    with pytest.raises(RunstoreError, match="1000 segments"):
        dotted_order.child(deepest, 0, CHILD[22:])
    assert dotted_order.child(deepest[59:], 0, CHILD[22:]).count(".") == 999


@pytest.mark.parametrize(
    ("time_us", "run_id"),
    [(0, ""), (0, ROOT[22:].replace("-", "")), (MIN_TIME_US - 1, ROOT[22:]), (MAX_TIME_US + 1, ROOT[22:])],
)
def test_no_segment_is_built_that_could_not_be_parsed(time_us: int, run_id: str) -> None:
    """Ids of another form and times out of range are refused when writing, too."""
    with pytest.raises(RunstoreError):
        dotted_order.segment(time_us, run_id)


@given(st.text(alphabet="0123456789TZabcdefABCDEF-.", max_size=130) | st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but RunstoreError comes out of a text."""
    with pytest.raises(RunstoreError):
        dotted_order.parse(text)
