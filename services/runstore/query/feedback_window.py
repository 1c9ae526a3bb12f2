"""Narrows the feedback that filters look at to what was modified in a window of time."""

from runstore.domain.conditions import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Instant,
    Not,
    Relation,
    RowFamily,
    RowPart,
    SomeRow,
)
from runstore.domain.errors import ErrorReason, RunstoreError


class FeedbackWindow:
    """A window of modification times; one without bounds narrows nothing."""

    def __init__(self, first_us: int | None, before_us: int | None) -> None:
        """From `first_us` on, before `before_us`."""
        self._bounds: list[Condition] = [
            Compare(RowPart.MODIFIED_AT, relation, Instant(time_us))
            for relation, time_us in ((Relation.GTE, first_us), (Relation.LT, before_us))
            if time_us is not None
        ]
        self._narrowed = 0

    def narrow(self, condition: Condition | None) -> Condition | None:
        """The condition with every test of feedback narrowed."""
        if not self._bounds or condition is None:
            return condition
        return self._narrow(condition)

    def check(self) -> None:
        """Raises INVALID_FILTER when there are bounds and nothing was narrowed."""
        if self._bounds and not self._narrowed:
            raise RunstoreError(
                ErrorReason.INVALID_FILTER,
                "bounds of feedback need a filter with a condition on feedback",
                field="min_feedback_modified_at, max_feedback_modified_at",
            )

    def _narrow(self, condition: Condition) -> Condition:
        match condition:
            case AllOf(conditions):
                return AllOf(tuple(map(self._narrow, conditions)))
            case AnyOf(conditions):
                return AnyOf(tuple(map(self._narrow, conditions)))
            case Not(negated):
                return Not(self._narrow(negated))
            case SomeRow(RowFamily.FEEDBACK, test):
                self._narrowed += 1
                tests = test.conditions if isinstance(test, AllOf) else (test,)
                return SomeRow(RowFamily.FEEDBACK, AllOf((*tests, *self._bounds)))
            case _:
                return condition
