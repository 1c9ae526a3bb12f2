"""A run in Python: from its partial rows to the fields that a reader selects, by the rules of `columns`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import itemgetter
from typing import Any

from runstore.domain.prices import Cost, Price, cost
from runstore.domain.runs import RunField, RunKey
from runstore.domain.times import format_naive
from runstore.domain.usage import Usage
from runstore.storage.clickhouse.columns import EPOCH, EXISTS, GROUPS, Group, Present

Prices = Mapping[str, tuple[Mapping[str, Decimal], Mapping[str, Decimal]]]
"""Dollars per token by category, of prompt and completion, by price model id."""

_MICROSECOND = timedelta(microseconds=1)


class MergedRun:
    """One run; reads its fields out of its partial rows."""

    def __init__(
        self, tenant_id: str, key: RunKey, columns: Mapping[str, int], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """`columns`: where in a row each column is, of those that `columns_of` names."""
        self.tenant_id = tenant_id
        self.key = key
        self._columns = columns
        self._rows = rows
        self._present = 0
        for row in rows:
            self._present |= row[columns["present"]]
        self._prices: Prices = {}
        self._late_cost: Cost | None = None

    def fields(self, wanted: Collection[RunField], prices: Prices) -> dict[RunField, Any]:
        """The wanted fields that have a value; those of other tables are left out."""
        self._prices = prices
        values = {field: _FIELDS[field][1](self) for field in wanted if field in _FIELDS}
        return {field: value for field, value in values.items() if value is not None}

    def exists(self) -> bool:
        """Whether the run was created, and is neither deleted nor moved away."""
        present, seq = self._columns["present"], self._columns["seq"]
        gone = max((row[seq] for row in self._rows if row[present] & Present.GONE.value), default=0)
        return self._present & EXISTS.value == EXISTS.value and max(row[seq] for row in self._rows) > gone

    def has(self, bit: Present) -> bool:
        """Whether any row spoke about what the bit stands for."""
        return self._present & bit.value != 0

    def value(self, group: str, column: str) -> Any:
        """One merged column; None when no row spoke about it."""
        row = self._row(GROUPS[group])
        return None if row is None else row[self._columns[column]]

    def _row(self, group: Group) -> tuple[Any, ...] | None:
        """The row that counts for a group."""
        columns, bit, rank = self._columns, group.bit, group.rank
        present, seq = columns["present"], columns["seq"]
        rows = self._rows if bit is None else [row for row in self._rows if row[present] & bit.value]
        if len(rows) <= 1:
            return rows[0] if rows else None
        if rank is None:
            return max(rows, key=itemgetter(seq))
        ranked = columns[rank.column]
        return max(rows, key=lambda row: (rank.of(row[ranked]), row[seq]))

    def time_us(self, group: str, bit: Present) -> int | None:
        """A merged time in microseconds, None when no row spoke about it."""
        return _time_us(self.value(group, group)) if self.has(bit) else None

    def first_token_time_us(self) -> int | None:
        """Of the last events; None when they have no token."""
        present = self.value("first_token_time", "present") or 0
        has_token = present & Present.FIRST_TOKEN.value
        return _time_us(self.value("first_token_time", "first_token_time")) if has_token else None

    def status(self) -> str:
        """Contract runs-v1, section 9."""
        if self.has(Present.ERROR):
            return "error"
        return "success" if self.has(Present.END_TIME) else "pending"

    def latency_seconds(self) -> float | None:
        end_us = self.time_us("end_time", Present.END_TIME)
        return None if end_us is None else (end_us - self.key.start_time_us) / 1e6

    def app_path(self) -> str:
        """Where a user interface shows the run; clients put their host before it."""
        start = format_naive(self.key.start_time_us)
        trace_id = self.value("position", "trace_id")
        return (
            f"/o/{self.tenant_id}/projects/p/{self.key.project_id}/r/{self.key.run_id}"
            f"?trace_id={trace_id}&start_time={start}"
        )

    def price_model_id(self) -> str | None:
        """None for a model that nobody prices, and without any."""
        price_model_id = self.value("price_model_id", "price_model_id")
        return None if price_model_id is None or price_model_id.int == 0 else str(price_model_id)

    def usage(self, column: str) -> Any:
        """Merged usage; None when the run has none."""
        return self.value("usage", column) if self.has(Present.USAGE) else None

    def needs_price(self) -> bool:
        """Whether its usage and its price came apart, so that its cost is still to be made."""
        if not (self.has(Present.USAGE) and self.has(Present.PRICE)):
            return False
        priced_by = self.value("usage", "price_model_id")
        is_told = self.value("usage", "is_cost_told")
        return not is_told and priced_by != self.value("price_model_id", "price_model_id")

    def cost(self, column: str) -> Any:
        """Merged cost; None when the run has none."""
        if not self.needs_price():
            return self.value("usage", column)
        if self._late_cost is None:
            self._late_cost = self._price_late()
        return getattr(self._late_cost, column)

    def _price_late(self) -> Cost:
        price_model_id = str(self.value("price_model_id", "price_model_id"))
        told = {field.value: self.value("usage", field.value) for field in _USAGE_FIELDS}
        usage = Usage(0, **told)
        prices = self._prices.get(price_model_id)
        return cost(usage, None if prices is None else Price(price_model_id, *prices))


def _time_us(time: datetime) -> int:
    return (time.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND


_Read = Callable[[MergedRun], Any]


def _text(group: str, bit: Present) -> tuple[tuple[str, ...], _Read]:
    return (group,), lambda run: str(run.value(group, group)) if run.has(bit) else None


def _usage(field: RunField) -> tuple[tuple[str, ...], _Read]:
    return (f"usage.{field.value}",), lambda run: run.usage(field.value)


def _cost(field: RunField) -> tuple[tuple[str, ...], _Read]:
    # With the columns that tell whether the cost holds.
    return (
        (f"usage.{field.value}", "usage.is_cost_told", "usage.price_model_id", "price_model_id"),
        lambda run: run.cost(field.value),
    )


COST_FIELDS = frozenset(
    {
        RunField.PROMPT_COST,
        RunField.COMPLETION_COST,
        RunField.TOTAL_COST,
        RunField.PROMPT_COST_DETAILS,
        RunField.COMPLETION_COST_DETAILS,
    }
)
_USAGE_FIELDS = (
    RunField.PROMPT_TOKENS,
    RunField.COMPLETION_TOKENS,
    RunField.TOTAL_TOKENS,
    RunField.PROMPT_TOKEN_DETAILS,
    RunField.COMPLETION_TOKEN_DETAILS,
)

# For each field of the runs table: what it needs, groups or single columns of these, and how to read it.
_FIELDS: dict[RunField, tuple[tuple[str, ...], _Read]] = {
    RunField.ID: ((), lambda run: run.key.run_id),
    RunField.PROJECT_ID: ((), lambda run: run.key.project_id),
    RunField.START_TIME: ((), lambda run: run.key.start_time_us),
    RunField.STATUS: ((), MergedRun.status),
    RunField.END_TIME: (("end_time",), lambda run: run.time_us("end_time", Present.END_TIME)),
    RunField.LATENCY_SECONDS: (("end_time",), MergedRun.latency_seconds),
    RunField.FIRST_TOKEN_TIME: (
        ("first_token_time",),
        MergedRun.first_token_time_us,
    ),
    RunField.TRACE_ID: (("position.trace_id",), lambda run: str(run.value("position", "trace_id"))),
    RunField.DOTTED_ORDER: (("position.dotted_order",), lambda run: run.value("position", "dotted_order")),
    RunField.PARENT_RUN_IDS: (
        ("position.parent_run_ids",),
        lambda run: [str(run_id) for run_id in run.value("position", "parent_run_ids")],
    ),
    RunField.IS_ROOT: (
        ("position.parent_run_ids",),
        lambda run: not run.value("position", "parent_run_ids"),
    ),
    RunField.APP_PATH: (("position.trace_id",), MergedRun.app_path),
    RunField.NAME: _text("name", Present.NAME),
    RunField.RUN_TYPE: _text("run_type", Present.RUN_TYPE),
    RunField.REFERENCE_EXAMPLE_ID: _text("reference_example_id", Present.REFERENCE_EXAMPLE),
    RunField.PRICE_MODEL_ID: (("price_model_id",), MergedRun.price_model_id),
    RunField.THREAD_ID: (("thread_id",), lambda run: run.value("thread_id", "thread_id") or None),
    RunField.LS_USER_ID: (("ls_user_id",), lambda run: run.value("ls_user_id", "ls_user_id") or None),
    RunField.TAGS: (("tags",), lambda run: run.value("tags", "tags") or []),
    **{field: _usage(field) for field in _USAGE_FIELDS},
    **{field: _cost(field) for field in COST_FIELDS},
}


def columns_of(fields: Collection[RunField], *, with_usage: bool = False) -> tuple[str, ...]:
    """The columns of partial rows that these fields are read from; `with_usage`: and all of what costs are
    made of when usage and price came apart."""
    needs = {need for field in fields if field in _FIELDS for need in _FIELDS[field][0]}
    if with_usage:
        needs.add("usage")
    names = {"present", "seq"}
    for need in needs:
        name, _, column = need.partition(".")
        group = GROUPS[name]
        names.update([column] if column else group.columns)
        if group.rank is not None:
            names.add(group.rank.column)
    return tuple(sorted(names))
