"""Bounds on feedback's modification narrow every condition on feedback, and nothing else."""

import pytest

from runstore.domain.conditions import AllOf, Compare, Instant, Relation, RowFamily, RowPart, SomeRow
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.query.binding import parse_condition
from runstore.query.feedback_window import FeedbackWindow

BOUNDS = (
    Compare(RowPart.MODIFIED_AT, Relation.GTE, Instant(10)),
    Compare(RowPart.MODIFIED_AT, Relation.LT, Instant(20)),
)
KEY = Compare(RowPart.KEY, Relation.EQ, "k")


def test_without_bounds_nothing_changes() -> None:
    """The condition stays as it was, and need not be about feedback."""
    condition = parse_condition('eq(feedback_key, "k")')
    window = FeedbackWindow(None, None)
    assert window.narrow(condition) is condition
    assert window.narrow(None) is None
    window.check()


@pytest.mark.parametrize(
    ("first_us", "before_us", "bounds"), [(10, 20, BOUNDS), (10, None, BOUNDS[:1]), (None, 20, BOUNDS[1:])]
)
def test_a_row_has_to_lie_in_the_window(
    first_us: int | None, before_us: int | None, bounds: tuple[Compare, ...]
) -> None:
    """The bounds speak of the same record as the condition."""
    window = FeedbackWindow(first_us, before_us)
    narrowed = window.narrow(parse_condition('eq(feedback_key, "k")'))
    assert narrowed == SomeRow(RowFamily.FEEDBACK, AllOf((KEY, *bounds)))
    window.check()


def test_every_condition_is_reached() -> None:
    """Below and, or and not; several tests of one record stay together; other families stay as they are."""
    text = (
        'and(eq(name, "n"), or(not(eq(feedback_key, "k")), eq(metadata_key, "m")), '
        'and(eq(feedback_key, "k"), gt(feedback_score, 1)))'
    )
    window = FeedbackWindow(10, 20)
    narrowed = repr(window.narrow(parse_condition(text)))
    assert narrowed.count("Instant(time_us=10)") == narrowed.count("Instant(time_us=20)") == 2
    window.check()


def test_bounds_without_a_condition_on_feedback_are_refused() -> None:
    """Neither no filter nor one on something else gives the bounds a meaning."""
    window = FeedbackWindow(10, None)
    window.narrow(parse_condition('eq(name, "n")'))
    window.narrow(None)
    with pytest.raises(RunstoreError) as caught:
        window.check()
    assert caught.value.reason is ErrorReason.INVALID_FILTER
