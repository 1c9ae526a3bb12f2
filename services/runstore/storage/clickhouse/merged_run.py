"""A run in Python: from its partial rows to the fields that a reader selects, by the rules of `columns`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Any

from runstore.domain.prices import Cost, Price, cost
from runstore.domain.runs import RunField, RunKey
from runstore.domain.times import format_naive
from runstore.domain.usage import Usage
from runstore.storage.clickhouse.columns import EXISTS, GROUPS, NIL_UUID, Present, Rank

Prices = Mapping[str, tuple[Mapping[str, Decimal], Mapping[str, Decimal]]]
"""Dollars per token by category, of prompt and completion, by price model id."""

# Bits of `present`: members of an enumeration are many times slower.
_EXISTS = int(EXISTS)
_END_TIME = int(Present.END_TIME)
_ERROR = int(Present.ERROR)
_FIRST_TOKEN = int(Present.FIRST_TOKEN)
_GONE = int(Present.GONE)
_PRICE = int(Present.PRICE)
_USAGE = int(Present.USAGE)

# By group: the bits of rows that speak about it, 0 for all; and what ranks them.
_MERGED_BY: Mapping[str, tuple[int, Rank | None]] = {
    name: (int(group.bit or 0), group.rank) for name, group in GROUPS.items()
}


class MergedRun:
    """One run; reads its fields out of its partial rows."""

    def __init__(
        self, tenant_id: str, key: RunKey, columns: Mapping[str, int], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """`columns`: where in a row each column is, those that `columns_of` names, as `selected` reads it."""
        self.tenant_id = tenant_id
        self.key = key
        self._columns = columns
        self._rows = rows
        present = columns["present"]
        self._present: int = rows[0][present]
        for row in rows[1:]:
            self._present |= row[present]
        self._prices: Prices = {}
        self._late_cost: Cost | None = None

    def fields(self, wanted: Collection[RunField], prices: Prices) -> dict[RunField, Any]:
        """The wanted fields that have a value; those of other tables are left out."""
        self._prices = prices
        return {
            field: value
            for field in wanted
            if field in _FIELDS and (value := _FIELDS[field][1](self)) is not None
        }

    def field(self, field: RunField) -> Any:
        """A field of the table of runs, whose cost would not be late; None when it has no value."""
        return _FIELDS[field][1](self)

    def exists(self) -> bool:
        """Whether the run was created, and is neither deleted nor moved away."""
        if self._present & _EXISTS != _EXISTS:
            return False
        if not self._present & _GONE:
            return True
        present, seq = self._columns["present"], self._columns["seq"]
        gone = max(row[seq] for row in self._rows if row[present] & _GONE)
        return bool(max(row[seq] for row in self._rows) > gone)

    def has(self, bit: int) -> bool:
        """Whether any row spoke about what the bit of `Present` stands for."""
        return self._present & bit != 0

    def value(self, group: str, column: str) -> Any:
        """One merged column; None when no row spoke about it."""
        row = self._row(group)
        return None if row is None else row[self._columns[column]]

    def _row(self, group: str) -> tuple[Any, ...] | None:
        """The row that counts for a group."""
        columns, rows = self._columns, self._rows
        bits, rank = _MERGED_BY[group]
        if bits:
            if not self._present & bits:
                return None
            if len(rows) > 1:
                present = columns["present"]
                rows = [row for row in rows if row[present] & bits]
        if len(rows) == 1:
            return rows[0]
        seq = columns["seq"]
        if rank is None:
            return max(rows, key=itemgetter(seq))
        ranked = columns[rank.column]
        return max(rows, key=lambda row: (rank.of(row[ranked]), row[seq]))

    def first_token_time_us(self) -> int | None:
        """Of the last events; None when they have no token."""
        row = self._row("first_token_time")
        if row is None or not row[self._columns["present"]] & _FIRST_TOKEN:
            return None
        time_us: int = row[self._columns["first_token_time"]]
        return time_us

    def status(self) -> str:
        """Contract runs-v1, section 9."""
        if self.has(_ERROR):
            return "error"
        return "success" if self.has(_END_TIME) else "pending"

    def latency_seconds(self) -> float | None:
        end_us = self.value("end_time", "end_time")
        return None if end_us is None else float(end_us - self.key.start_time_us) / 1e6

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
        price_model_id: str | None = self.value("price_model_id", "price_model_id")
        return None if price_model_id == NIL_UUID else price_model_id

    def needs_price(self) -> bool:
        """Whether its usage and its price came apart, so that its cost is still to be made."""
        if not (self.has(_USAGE) and self.has(_PRICE)):
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
        price_model_id = self.value("price_model_id", "price_model_id")
        told = {field.value: self.value("usage", field.value) for field in _USAGE_FIELDS}
        usage = Usage(0, **told)
        prices = self._prices.get(price_model_id)
        return cost(usage, None if prices is None else Price(price_model_id, *prices))


_Read = Callable[[MergedRun], Any]


def _column(group: str, column: str | None = None) -> tuple[tuple[str, ...], _Read]:
    """A column as it is, by default the only one of its group."""
    name = column or group
    return (f"{group}.{name}",), lambda run: run.value(group, name)


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
    RunField.END_TIME: _column("end_time"),
    RunField.LATENCY_SECONDS: (("end_time",), MergedRun.latency_seconds),
    RunField.FIRST_TOKEN_TIME: (("first_token_time",), MergedRun.first_token_time_us),
    RunField.TRACE_ID: _column("position", "trace_id"),
    RunField.DOTTED_ORDER: _column("position", "dotted_order"),
    RunField.PARENT_RUN_IDS: _column("position", "parent_run_ids"),
    RunField.IS_ROOT: (
        ("position.parent_run_ids",),
        lambda run: not run.value("position", "parent_run_ids"),
    ),
    RunField.APP_PATH: (("position.trace_id",), MergedRun.app_path),
    RunField.NAME: _column("name"),
    RunField.RUN_TYPE: _column("run_type"),
    RunField.REFERENCE_EXAMPLE_ID: _column("reference_example_id"),
    RunField.PRICE_MODEL_ID: (("price_model_id",), MergedRun.price_model_id),
    RunField.THREAD_ID: (("thread_id",), lambda run: run.value("thread_id", "thread_id") or None),
    RunField.LS_USER_ID: (("ls_user_id",), lambda run: run.value("ls_user_id", "ls_user_id") or None),
    RunField.TAGS: (("tags",), lambda run: run.value("tags", "tags") or []),
    **{field: _column("usage", field.value) for field in _USAGE_FIELDS},
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


def selected(columns: Sequence[str]) -> str:
    """SQL of these columns, as a `MergedRun` reads them: ids as text, times in microseconds."""
    return ", ".join(_SELECTED.get(column, column) for column in columns)


_SELECTED = {
    **{column: f"toString({column})" for column in ("trace_id", "reference_example_id", "price_model_id")},
    **{column: f"toUnixTimestamp64Micro({column})" for column in ("end_time", "first_token_time")},
    "parent_run_ids": "CAST(parent_run_ids, 'Array(String)')",
}
