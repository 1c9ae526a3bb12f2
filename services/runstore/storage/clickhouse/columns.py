"""The columns of a run: how a patch fills them, and how partial rows merge when they are read.

A run is stored as partial rows, one per flush that touched it, under the key (tenant, project,
start time, run). `seq` orders them; `present` says which fields a row speaks about. A merged field is
the value of the row with the highest `seq` among those that speak about it. Background merges
drop exact repetitions of a row and never combine rows, so that a read before a merge and one after
it agree by construction (docs/decisions/0001-partial-rows.md).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import IntFlag
from typing import Any

import pyarrow as pa

from runstore.domain.extra import ExtraFacts
from runstore.domain.prices import Cost
from runstore.domain.runs import RunFacts, RunPatch, RunPlace, RunRow
from runstore.domain.usage import EXACT, Usage

NIL_UUID = "00000000-0000-0000-0000-000000000000"


class Present(IntFlag):
    """Bits of `present`: which fields a partial row speaks about. Stored; never renumber."""

    NAME = 1 << 0
    RUN_TYPE = 1 << 1
    END_TIME = 1 << 2
    ERROR = 1 << 3
    INPUTS = 1 << 4
    OUTPUTS = 1 << 5
    EVENTS = 1 << 6
    EXTRA = 1 << 7
    MANIFEST = 1 << 8
    TAGS = 1 << 9
    REFERENCE_EXAMPLE = 1 << 10
    USAGE = 1 << 11
    PRICE = 1 << 13
    """The row names a model, which has a price or none."""
    SETTLED = 1 << 14
    """The position in the trace is certain; a guess yields to it whatever the order."""
    FIRST_TOKEN = 1 << 15
    DELETED = 1 << 30
    """The run is gone because it was deleted."""
    GONE = 1 << 31
    """The run has moved to another key, or was deleted; rows up to this one do not count."""


EXISTS = Present.NAME | Present.RUN_TYPE
"""A run is listed once its name and type are known."""


class Rows:
    """Partial rows taken apart once, for the columns that are made of them."""

    def __init__(self, rows: Sequence[RunRow]) -> None:
        self.patches: list[RunPatch] = [row.patch for row in rows]
        self.places: list[RunPlace] = [row.place for row in rows]
        self.facts: list[RunFacts] = [row.facts for row in rows]
        self.present: list[int] = [present(row) for row in rows]
        self.extras: list[ExtraFacts] = [facts.extra or _NO_EXTRA for facts in self.facts]
        self.usages: list[Usage] = [facts.usage or _NO_USAGE for facts in self.facts]
        self.costs: list[Cost] = [facts.cost or _NO_COST for facts in self.facts]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table of partial rows."""

    name: str
    sql_type: str
    arrow_type: pa.DataType
    values: Callable[[Rows], Sequence[Any]]
    """Of all rows at once: a call for each of a flush's million values would double their cost."""


_UUID = pa.string()  # ClickHouse parses the text faster than Python would.
_TIME = pa.timestamp("us", tz="UTC")
_TEXTS = pa.map_(pa.string(), pa.string())
_COUNTS = pa.map_(pa.string(), pa.int64())
_MONEY = pa.decimal128(38, 18)
_MONEYS = pa.map_(pa.string(), _MONEY)

_SQL_TIME = "DateTime64(6, 'UTC')"
_SQL_COUNTS = "Map(LowCardinality(String), Int64)"
_SQL_MONEY = "Nullable(Decimal(38, 18))"
_SQL_MONEYS = "Map(LowCardinality(String), Decimal(38, 18))"

_SMALLEST_MONEY = Decimal(1).scaleb(-18)

_NO_USAGE = Usage(rank=0)
_NO_EXTRA = ExtraFacts()
_NO_COST = Cost()


def present(row: RunRow) -> int:
    """The `present` bits of a row."""
    patch, facts = row.patch, row.facts
    return (
        (patch.name is not None)
        | (patch.run_type is not None) << 1
        | (patch.end_time_us is not None) << 2
        | (patch.error is not None) << 3
        | (patch.inputs is not None) << 4
        | (patch.outputs is not None) << 5
        | (patch.events is not None) << 6
        | (patch.extra is not None) << 7
        | (patch.manifest is not None) << 8
        | (patch.tags is not None) << 9
        | (patch.reference_example_id is not None) << 10
        | (facts.usage is not None) << 11
        | (facts.extra is not None and facts.extra.model != "") << 13
        | row.place.is_settled << 14
        | (facts.first_token_time_us is not None) << 15
    )


def _money(amount: Decimal | None) -> Decimal | None:
    """Rounded to what the column holds: clients compute costs in binary floats."""
    return None if amount is None else amount.quantize(_SMALLEST_MONEY, context=EXACT)


def _moneys(details: Mapping[str, Decimal]) -> list[tuple[str, Decimal | None]]:
    return [(category, _money(amount)) for category, amount in details.items()] if details else []


KEY = (
    Column("tenant_id", "UUID", _UUID, lambda rows: [patch.tenant_id for patch in rows.patches]),
    Column("project_id", "UUID", _UUID, lambda rows: [place.key.project_id for place in rows.places]),
    Column("start_time", _SQL_TIME, _TIME, lambda rows: [place.key.start_time_us for place in rows.places]),
    Column("run_id", "UUID", _UUID, lambda rows: [patch.run_id for patch in rows.patches]),
    Column("seq", "UInt64", pa.uint64(), lambda rows: [patch.sequence for patch in rows.patches]),
    Column("present", "UInt32", pa.uint32(), lambda rows: rows.present),
)

RUN_COLUMNS = (
    *KEY,
    Column("trace_id", "UUID", _UUID, lambda rows: [place.trace_id for place in rows.places]),
    Column("dotted_order", "String", pa.string(), lambda rows: [place.dotted_order for place in rows.places]),
    Column(
        "parent_run_ids",
        "Array(UUID)",
        pa.list_(_UUID),
        lambda rows: [place.parent_run_ids for place in rows.places],
    ),
    Column("name", "String", pa.string(), lambda rows: [patch.name or "" for patch in rows.patches]),
    Column(
        "run_type",
        "LowCardinality(String)",
        pa.string(),
        lambda rows: [patch.run_type or "" for patch in rows.patches],
    ),
    Column("end_time", _SQL_TIME, _TIME, lambda rows: [patch.end_time_us or 0 for patch in rows.patches]),
    Column(
        "first_token_time",
        _SQL_TIME,
        _TIME,
        lambda rows: [facts.first_token_time_us or 0 for facts in rows.facts],
    ),
    Column(
        "tags",
        "Array(String)",
        pa.list_(pa.string()),
        lambda rows: [patch.tags or () for patch in rows.patches],
    ),
    # What filters can see; a null erases nothing, so `ExtraFacts` leaves it out.
    Column(
        "metadata",
        "Map(LowCardinality(String), String)",
        _TEXTS,
        lambda rows: [extra.metadata.items() for extra in rows.extras],
    ),
    Column("thread_id", "String", pa.string(), lambda rows: [extra.thread_id for extra in rows.extras]),
    Column("thread_rank", "UInt8", pa.uint8(), lambda rows: [extra.thread_rank for extra in rows.extras]),
    Column("ls_user_id", "String", pa.string(), lambda rows: [extra.ls_user_id for extra in rows.extras]),
    Column(
        "reference_example_id",
        "UUID",
        _UUID,
        lambda rows: [patch.reference_example_id or NIL_UUID for patch in rows.patches],
    ),
    Column("usage_rank", "UInt8", pa.uint8(), lambda rows: [usage.rank for usage in rows.usages]),
    Column("prompt_tokens", "Int64", pa.int64(), lambda rows: [usage.prompt_tokens for usage in rows.usages]),
    Column(
        "completion_tokens",
        "Int64",
        pa.int64(),
        lambda rows: [usage.completion_tokens for usage in rows.usages],
    ),
    Column("total_tokens", "Int64", pa.int64(), lambda rows: [usage.total_tokens for usage in rows.usages]),
    Column(
        "prompt_token_details",
        _SQL_COUNTS,
        _COUNTS,
        lambda rows: [usage.prompt_token_details.items() for usage in rows.usages],
    ),
    Column(
        "completion_token_details",
        _SQL_COUNTS,
        _COUNTS,
        lambda rows: [usage.completion_token_details.items() for usage in rows.usages],
    ),
    # Whether the client gave the costs; computed ones follow the price that holds for the run.
    Column(
        "is_cost_told",
        "Bool",
        pa.bool_(),
        lambda rows: [usage.total_cost is not None for usage in rows.usages],
    ),
    Column("prompt_cost", _SQL_MONEY, _MONEY, lambda rows: [_money(cost.prompt_cost) for cost in rows.costs]),
    Column(
        "completion_cost",
        _SQL_MONEY,
        _MONEY,
        lambda rows: [_money(cost.completion_cost) for cost in rows.costs],
    ),
    Column("total_cost", _SQL_MONEY, _MONEY, lambda rows: [_money(cost.total_cost) for cost in rows.costs]),
    Column(
        "prompt_cost_details",
        _SQL_MONEYS,
        _MONEYS,
        lambda rows: [_moneys(cost.prompt_cost_details) for cost in rows.costs],
    ),
    Column(
        "completion_cost_details",
        _SQL_MONEYS,
        _MONEYS,
        lambda rows: [_moneys(cost.completion_cost_details) for cost in rows.costs],
    ),
    Column(
        "price_model_id",
        "UUID",
        _UUID,
        lambda rows: [
            facts.price.price_model_id if facts.price is not None else NIL_UUID for facts in rows.facts
        ],
    ),
)

PAYLOAD_COLUMNS = (
    *KEY,
    Column("inputs", "String", pa.binary(), lambda rows: [patch.inputs or b"" for patch in rows.patches]),
    Column("outputs", "String", pa.binary(), lambda rows: [patch.outputs or b"" for patch in rows.patches]),
    Column("error", "String", pa.string(), lambda rows: [patch.error or "" for patch in rows.patches]),
    Column("events", "String", pa.binary(), lambda rows: [patch.events or b"" for patch in rows.patches]),
    Column("extra", "String", pa.binary(), lambda rows: [patch.extra or b"" for patch in rows.patches]),
    Column("manifest", "String", pa.binary(), lambda rows: [patch.manifest or b"" for patch in rows.patches]),
)

PAYLOAD_BITS = {
    "inputs": Present.INPUTS,
    "outputs": Present.OUTPUTS,
    "error": Present.ERROR,
    "events": Present.EVENTS,
    "extra": Present.EXTRA,
    "manifest": Present.MANIFEST,
}


ANY_PAYLOAD = sum(PAYLOAD_BITS.values())
"""Bits of a row that has something for the table of payloads."""

# -- merging ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rank:
    """What counts before the sequence number."""

    column: str
    sql: str
    of: Callable[[Any], Any]
    """The same of the column's value, in Python."""


@dataclass(frozen=True, slots=True)
class Group:
    """Columns that merge together: all of them come from one row."""

    columns: tuple[str, ...]
    bit: Present | None
    """Only rows with this bit speak about the columns; None: every row does."""
    rank: Rank | None = None
    """The row with the highest rank counts, and among equal ones that with the highest sequence number."""

    def aggregate(self, columns: Sequence[str]) -> str:
        """SQL of these of the columns, merged: of one the column, of several the tuple of them."""
        order = "seq"
        if self.rank is not None:
            # One number: tuples are compared value by value, boxed.
            order = f"bitOr(bitShiftLeft(toUInt128({self.rank.sql}), 64), toUInt128(seq))"
        condition = "1" if self.bit is None else f"bitAnd(present, {self.bit.value}) != 0"
        if len(columns) == 1:
            return f"argMaxIf({columns[0]}, {order}, {condition})"
        # Of tuples argMax keeps values one by one, boxed; arrays are columns, and few runs have many rows.
        rows = f"groupArrayIf(({order}, ({', '.join(columns)})), {condition})"
        return f"tupleElement(arrayReverseSort(row -> row.1, {rows})[1], 2)"


_SETTLED = int(Present.SETTLED)
_SETTLED_RANK = Rank("present", f"bitAnd(present, {_SETTLED})", lambda present: present & _SETTLED)
_THREAD_RANK = Rank("thread_rank", "thread_rank", int)
_USER_RANK = Rank("ls_user_id", "ls_user_id != ''", bool)
_USAGE_RANK = Rank("usage_rank", "usage_rank", int)

GROUPS = {
    "position": Group(
        ("trace_id", "dotted_order", "parent_run_ids"),
        None,
        _SETTLED_RANK,
    ),
    "name": Group(("name",), Present.NAME),
    "run_type": Group(("run_type",), Present.RUN_TYPE),
    "end_time": Group(("end_time",), Present.END_TIME),
    # Of the last events, which may have no token.
    "first_token_time": Group(("first_token_time", "present"), Present.EVENTS),
    "tags": Group(("tags",), Present.TAGS),
    "thread_id": Group(("thread_id",), Present.EXTRA, _THREAD_RANK),
    "ls_user_id": Group(("ls_user_id",), Present.EXTRA, _USER_RANK),
    "reference_example_id": Group(("reference_example_id",), Present.REFERENCE_EXAMPLE),
    "usage": Group(
        (
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "prompt_token_details",
            "completion_token_details",
            "prompt_cost",
            "completion_cost",
            "total_cost",
            "prompt_cost_details",
            "completion_cost_details",
            "is_cost_told",
            "price_model_id",
        ),
        Present.USAGE,
        _USAGE_RANK,
    ),
    "price_model_id": Group(("price_model_id",), Present.PRICE),
}

# Metadata merges key by key, as `extra` does.
_METADATA = (
    "arrayFold((merged, update) -> mapUpdate(merged, update), "
    "arrayMap(row -> row.2, arraySort(row -> row.1, "
    "groupArrayIf((seq, CAST(metadata, 'Map(String, String)')), bitAnd(present, "
    f"{Present.EXTRA.value}) != 0))), "
    "CAST(map(), 'Map(String, String)'))"
)

AGGREGATES = {"m_present": "groupBitOr(present)", "m_metadata": _METADATA}
"""SQL by which the partial rows of one run merge, beside the groups."""

METADATA_TERM_CHARS = 64
METADATA_TERMS = (
    "arrayConcat(mapKeys(metadata), arrayMap((key, value) -> "
    f"concat(key, '=', substringUTF8(value, 1, {METADATA_TERM_CHARS})), "
    "mapKeys(metadata), mapValues(metadata)))"
)
"""What a partial row is found by in the index on metadata: every key, and every key with the beginning of its
value's JSON. Part of the schema; never edit."""

# -- merged runs in SQL, for filters -----------------------------------------------------------------


def _is(bit: Present) -> str:
    return f"bitAnd(m_present, {bit.value}) != 0"


def _where(bit: Present, value: str) -> str:
    return f"if({_is(bit)}, {value}, NULL)"


def _element(group: str, column: str) -> str:
    return f"m_{group}.{column}"


def _usage_element(column: str) -> str:
    return _element("usage", column)


_END_TIME = _element("end_time", "end_time")
_MODEL = _element("price_model_id", "price_model_id")
_PRICE_MODEL_ID = f"nullIf({_MODEL}, toUUID('{NIL_UUID}'))"

# A cost counts when the client gave it, or when it was made with the price that holds for the run.
_COST_HOLDS = (
    f"({_usage_element('is_cost_told')} OR {_usage_element('price_model_id')} = {_MODEL} "
    f"OR NOT {_is(Present.PRICE)})"
)


def _prices(side: str) -> str:
    """Dollars per token by category that hold for the run."""
    return (
        f"(SELECT mapFromArrays(groupArray(price_model_id), groupArray({side}_prices)) FROM model_prices)"
        f"[{_MODEL}]"
    )


def _late_cost(side: str) -> str:
    """Cost of usage and price that came in different flushes: every token at the base price, and the
    difference for the categories that have their own. `MergedRun.cost` is exact where clients count
    more tokens in categories than there are."""
    details = _usage_element(f"{side}_token_details")
    # The lambda names the prices, which are costly to plan wherever they are mentioned.
    return (
        f"arrayMap(prices -> {_usage_element(f'{side}_tokens')} * prices[''] + arraySum(category -> "
        f"if(category = '', toDecimal128(0, 18), {details}[category] * (prices[category] - prices[''])), "
        f"mapKeys(prices)), [{_prices(side)}])[1]"
    )


def _cost_of(column: str, late: str) -> str:
    return (
        f"multiIf(NOT {_is(Present.USAGE)}, NULL, {_COST_HOLDS}, {_usage_element(column)}, "
        f"{_PRICE_MODEL_ID} IS NULL, NULL, "
        f"CAST({late}, 'Nullable(Decimal(38, 18))'))"
    )


def _cost_details_of(side: str) -> str:
    details = _usage_element(f"{side}_token_details")
    late = (
        f"mapFilter((category, cost) -> category != '' AND {details}[category] > 0, "
        f"mapApply((category, price) -> (category, CAST(price * {details}[category], 'Decimal(38, 18)')), "
        f"CAST({_prices(side)}, 'Map(LowCardinality(String), Decimal(38, 18))')))"
    )
    return f"if({_COST_HOLDS} OR NOT {_is(Present.USAGE)}, {_usage_element(f'{side}_cost_details')}, {late})"


MERGED = {
    "trace_id": _element("position", "trace_id"),
    "parent_run_ids": _element("position", "parent_run_ids"),
    "is_root": f"empty({_element('position', 'parent_run_ids')})",
    "name": _element("name", "name"),
    "run_type": _element("run_type", "run_type"),
    "status": f"multiIf({_is(Present.ERROR)}, 'error', {_is(Present.END_TIME)}, 'success', 'pending')",
    "has_inputs": _is(Present.INPUTS),
    "has_outputs": _is(Present.OUTPUTS),
    "has_error": _is(Present.ERROR),
    "end_time": _where(Present.END_TIME, _END_TIME),
    "latency": _where(Present.END_TIME, f"date_diff('microsecond', start_time, {_END_TIME}) / 1e6"),
    "first_token_time": (
        f"if(bitAnd({_element('first_token_time', 'present')}, {Present.FIRST_TOKEN.value}) != 0, "
        f"{_element('first_token_time', 'first_token_time')}, NULL)"
    ),
    "tags": _element("tags", "tags"),
    "metadata": "m_metadata",
    "thread_id": f"nullIf({_element('thread_id', 'thread_id')}, '')",
    "ls_user_id": _element("ls_user_id", "ls_user_id"),
    "reference_example_id": _where(
        Present.REFERENCE_EXAMPLE, _element("reference_example_id", "reference_example_id")
    ),
    "prompt_tokens": _where(Present.USAGE, _usage_element("prompt_tokens")),
    "completion_tokens": _where(Present.USAGE, _usage_element("completion_tokens")),
    "total_tokens": _where(Present.USAGE, _usage_element("total_tokens")),
    "prompt_token_details": _usage_element("prompt_token_details"),
    "completion_token_details": _usage_element("completion_token_details"),
    "prompt_cost": _cost_of("prompt_cost", _late_cost("prompt")),
    "completion_cost": _cost_of("completion_cost", _late_cost("completion")),
    "total_cost": _cost_of("total_cost", f"{_late_cost('prompt')} + {_late_cost('completion')}"),
    "prompt_cost_details": _cost_details_of("prompt"),
    "completion_cost_details": _cost_details_of("completion"),
    "price_model_id": _PRICE_MODEL_ID,
    # As `MergedRun.app_path`.
    "app_path": (
        "concat('/o/', toString({tenant:UUID}), '/projects/p/', toString(project_id), '/r/', "
        f"toString(run_id), '?trace_id=', toString({_element('position', 'trace_id')}), "
        "'&start_time=', replaceOne(toString(start_time), ' ', 'T'))"
    ),
}
"""The merged run as filters see it, over AGGREGATES, the columns of GROUPS (`m_group.column`) and the key."""

# -- times as the driver takes them ------------------------------------------------------------------

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def sql_time(time_us: int) -> datetime:
    """A time as a query parameter; always aware, because the driver binds naive ones as local."""
    return EPOCH + timedelta(microseconds=time_us)
