"""A merged run in Python: from the groups that SQL has merged to the fields that a reader selects."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from runstore.domain.prices import Cost, Price, cost
from runstore.domain.runs import RunField, RunKey
from runstore.domain.times import format_naive
from runstore.domain.usage import Usage
from runstore.storage.clickhouse.columns import EPOCH, GROUPS, NIL_UUID, Present

Prices = Mapping[str, tuple[Mapping[str, Decimal], Mapping[str, Decimal]]]
"""Dollars per token by category, of prompt and completion, by price model id."""

_MICROSECOND = timedelta(microseconds=1)


class MergedRun:
    """One run; reads its fields out of its groups."""

    def __init__(
        self, tenant_id: str, key: RunKey, present: int, groups: Mapping[str, Any], prices: Prices
    ) -> None:
        self.tenant_id = tenant_id
        self.key = key
        self._present = present
        self._groups = groups
        self._prices = prices
        self._late_cost: Cost | None = None

    def fields(self, wanted: Collection[RunField]) -> dict[RunField, Any]:
        """The wanted fields that have a value; those of other tables are left out."""
        values = {field: _FIELDS[field][1](self) for field in wanted if field in _FIELDS}
        return {field: value for field, value in values.items() if value is not None}

    def has(self, bit: Present) -> bool:
        """Whether any row spoke about what the bit stands for."""
        return bool(self._present & bit)

    def value(self, group: str, column: str) -> Any:
        """One merged column."""
        merged = self._groups[group]
        columns = GROUPS[group].columns
        return merged[columns.index(column)] if len(columns) > 1 else merged

    def time_us(self, group: str, bit: Present) -> int | None:
        """A merged time in microseconds, None when no row spoke about it."""
        return _time_us(self._groups[group]) if self.has(bit) else None

    def first_token_time_us(self) -> int | None:
        """Of the last events; None when they have no token."""
        has_token = self.value("first_token_time", "present") & Present.FIRST_TOKEN
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
        price_model_id = str(self._groups["price_model_id"])
        return None if price_model_id == NIL_UUID else price_model_id

    def usage(self, column: str) -> Any:
        """Merged usage; None when the run has none."""
        return self.value("usage", column) if self.has(Present.USAGE) else None

    def cost(self, column: str) -> Any:
        """Merged cost; that of usage and price which came apart is made here."""
        if not self.has(Present.USAGE):
            return None
        priced_by = self.value("cost", "price_model_id")
        holds = self.value("cost", "is_cost_told") or priced_by == self._groups["price_model_id"]
        if holds or not self.has(Present.PRICE):
            return self.value("cost", column)
        if self._late_cost is None:
            self._late_cost = self._price_late()
        return getattr(self._late_cost, column)

    def _price_late(self) -> Cost:
        price_model_id = str(self._groups["price_model_id"])
        usage = Usage(0, **dict(zip(GROUPS["usage"].columns, self._groups["usage"], strict=True)))
        prices = self._prices.get(price_model_id)
        return cost(usage, None if prices is None else Price(price_model_id, *prices))


def _time_us(time: datetime) -> int:
    return (time.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND


_Read = Callable[[MergedRun], Any]


def _text(group: str, bit: Present) -> tuple[tuple[str, ...], _Read]:
    return (group,), lambda run: str(run.value(group, group)) if run.has(bit) else None


def _usage(field: RunField) -> tuple[tuple[str, ...], _Read]:
    return ("usage",), lambda run: run.usage(field.value)


def _cost(field: RunField) -> tuple[tuple[str, ...], _Read]:
    return ("usage", "cost", "price_model_id"), lambda run: run.cost(field.value)


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

# For each field of the runs table: the groups it needs and how to read it from them.
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
    RunField.TRACE_ID: (("position",), lambda run: str(run.value("position", "trace_id"))),
    RunField.DOTTED_ORDER: (("position",), lambda run: run.value("position", "dotted_order")),
    RunField.PARENT_RUN_IDS: (
        ("position",),
        lambda run: [str(run_id) for run_id in run.value("position", "parent_run_ids")],
    ),
    RunField.IS_ROOT: (("position",), lambda run: not run.value("position", "parent_run_ids")),
    RunField.APP_PATH: (("position",), MergedRun.app_path),
    RunField.NAME: _text("name", Present.NAME),
    RunField.RUN_TYPE: _text("run_type", Present.RUN_TYPE),
    RunField.REFERENCE_EXAMPLE_ID: _text("reference_example_id", Present.REFERENCE_EXAMPLE),
    RunField.PRICE_MODEL_ID: (("price_model_id",), MergedRun.price_model_id),
    RunField.THREAD_ID: (("thread_id",), lambda run: run.value("thread_id", "thread_id") or None),
    RunField.LS_USER_ID: (("ls_user_id",), lambda run: run.value("ls_user_id", "ls_user_id") or None),
    RunField.TAGS: (("tags",), lambda run: run.value("tags", "tags")),
    **{field: _usage(field) for field in _USAGE_FIELDS},
    **{field: _cost(field) for field in COST_FIELDS},
}


def groups_of(fields: Collection[RunField]) -> tuple[str, ...]:
    """The merged groups that these fields are read from."""
    return tuple(sorted({group for field in fields if field in _FIELDS for group in _FIELDS[field][0]}))
