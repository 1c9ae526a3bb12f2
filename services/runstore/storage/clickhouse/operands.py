"""How the operands of conditions are read: of a merged run, of one of its partial rows, of a family's row."""

from collections.abc import Mapping
from dataclasses import dataclass

from runstore.domain.conditions import (
    DetailsField,
    ListField,
    Relation,
    RowFamily,
    RowPart,
    ScalarField,
    TextField,
    ThreadField,
)
from runstore.storage.clickhouse.columns import Present

MONEY = "Decimal(38, 18)"
WIDEST_DECIMAL = "Decimal(76, 38)"
"""Holds every number that a filter can spell, exactly."""


@dataclass(frozen=True, slots=True)
class Column:
    """How an operand is read."""

    expression: str
    columns: frozenset[str] = frozenset()
    """Columns of the merged run that the expression reads, but for its key."""
    nullable: bool = False
    present: str = "true"
    """Whether there is a value."""
    number_type: str = "Int64"
    """Type that a whole number is compared as, so that the engine widens as little as possible."""


def _always(name: str) -> Column:
    return Column(name, frozenset({name}))


def _text(name: str) -> Column:
    return Column(name, frozenset({name}), present=f"{name} != ''")


def _nullable(name: str, number_type: str = "Int64") -> Column:
    return Column(name, frozenset({name}), True, f"{name} IS NOT NULL", number_type)


_PARENT_RUN_ID = Column(
    # Out of its bounds an array yields the zero UUID, which a client may well ask for.
    "if(empty(parent_run_ids), NULL, parent_run_ids[-1])",
    frozenset({"parent_run_ids"}),
    nullable=True,
    present="notEmpty(parent_run_ids)",
)

SCALARS: Mapping[ScalarField | ThreadField, Column] = {
    ScalarField.RUN_ID: _always("run_id"),
    ScalarField.PROJECT_ID: _always("project_id"),
    ScalarField.TRACE_ID: _always("trace_id"),
    ScalarField.PARENT_RUN_ID: _PARENT_RUN_ID,
    ScalarField.REFERENCE_EXAMPLE_ID: _nullable("reference_example_id"),
    ScalarField.PRICE_MODEL_ID: _nullable("price_model_id"),
    ScalarField.THREAD_ID: _nullable("thread_id"),
    ScalarField.NAME: _text("name"),
    ScalarField.RUN_TYPE: _always("run_type"),
    ScalarField.STATUS: _always("status"),
    ScalarField.LS_USER_ID: _text("ls_user_id"),
    ScalarField.IS_ROOT: _always("is_root"),
    ScalarField.START_TIME: _always("start_time"),
    ScalarField.END_TIME: _nullable("end_time"),
    ScalarField.FIRST_TOKEN_TIME: _nullable("first_token_time"),
    ScalarField.LATENCY: _nullable("latency", "Float64"),
    ScalarField.PROMPT_TOKENS: _nullable("prompt_tokens"),
    ScalarField.COMPLETION_TOKENS: _nullable("completion_tokens"),
    ScalarField.TOTAL_TOKENS: _nullable("total_tokens"),
    ScalarField.PROMPT_COST: _nullable("prompt_cost", MONEY),
    ScalarField.COMPLETION_COST: _nullable("completion_cost", MONEY),
    ScalarField.TOTAL_COST: _nullable("total_cost", MONEY),
    ScalarField.EXECUTION_ORDER: Column("toInt64(1)"),
    ScalarField.APP_PATH: _always("app_path"),
}
"""Of a merged run."""


def _if_present(bit: Present, expression: str, number_type: str = "Int64") -> Column:
    is_present = f"bitAnd(present, {bit.value}) != 0"
    return Column(f"if({is_present}, {expression}, NULL)", nullable=True, number_type=number_type)


ROW_SCALARS: Mapping[ScalarField | ThreadField, Column] = {
    ScalarField.RUN_ID: Column("run_id"),
    ScalarField.PROJECT_ID: Column("project_id"),
    ScalarField.TRACE_ID: Column("trace_id"),
    ScalarField.PARENT_RUN_ID: _PARENT_RUN_ID,
    ScalarField.REFERENCE_EXAMPLE_ID: Column("reference_example_id"),
    ScalarField.PRICE_MODEL_ID: Column("price_model_id"),
    ScalarField.THREAD_ID: Column("thread_id"),
    ScalarField.NAME: Column("name"),
    ScalarField.RUN_TYPE: Column("run_type"),
    ScalarField.LS_USER_ID: Column("ls_user_id"),
    ScalarField.IS_ROOT: Column("empty(parent_run_ids)"),
    ScalarField.START_TIME: Column("start_time"),
    ScalarField.END_TIME: _if_present(Present.END_TIME, "end_time"),
    ScalarField.FIRST_TOKEN_TIME: _if_present(Present.FIRST_TOKEN, "first_token_time"),
    ScalarField.LATENCY: _if_present(
        Present.END_TIME, "date_diff('microsecond', start_time, end_time) / 1e6", "Float64"
    ),
    ScalarField.PROMPT_TOKENS: _if_present(Present.USAGE, "prompt_tokens"),
    ScalarField.COMPLETION_TOKENS: _if_present(Present.USAGE, "completion_tokens"),
    ScalarField.TOTAL_TOKENS: _if_present(Present.USAGE, "total_tokens"),
}
"""Of a partial row: the merged value is always that of one of them. Costs are missing because a reader may
compute them, and a status because it is of two rows."""

DETAILS_NUMBER_TYPES: Mapping[DetailsField, str] = {
    DetailsField.PROMPT_TOKEN_DETAILS: "Int64",
    DetailsField.COMPLETION_TOKEN_DETAILS: "Int64",
    DetailsField.PROMPT_COST_DETAILS: MONEY,
    DetailsField.COMPLETION_COST_DETAILS: MONEY,
}

LISTS: Mapping[ListField, str] = {
    ListField.TAGS: "tags",
    ListField.PARENT_RUN_IDS: "parent_run_ids",
}
"""Columns with lists, of merged runs and of partial rows alike."""

TEXT_BITS: Mapping[TextField, Present] = {
    TextField.INPUTS: Present.INPUTS,
    TextField.OUTPUTS: Present.OUTPUTS,
    TextField.ERROR: Present.ERROR,
}
"""Bits of the partial rows that bring a text."""

_JSON_TEXT = "if(startsWith(v, '\"'), JSONExtractString(v), v)"
JSON_TEXT = Column(_JSON_TEXT)
"""Of a JSON value `v`: the content of a string, the JSON of anything else."""
JSON_NUMBER = Column(f"toDecimal256OrNull({_JSON_TEXT}, 38)", nullable=True, number_type=WIDEST_DECIMAL)
"""That text as a number."""

_KEY_VALUE = {RowPart.KEY: Column("k")}
ROW_PARTS: Mapping[RowFamily, Mapping[RowPart, Column]] = {
    RowFamily.METADATA: _KEY_VALUE,
    RowFamily.INPUTS: _KEY_VALUE,
    RowFamily.OUTPUTS: _KEY_VALUE,
    RowFamily.FEEDBACK: {
        RowPart.KEY: Column("key"),
        RowPart.SCORE: Column("score", nullable=True, number_type="Float64"),
        RowPart.COMMENT: Column("comment", nullable=True),
        RowPart.SOURCE: Column("source_type"),
        RowPart.ERROR: Column("error"),
        RowPart.MODIFIED_AT: Column("modified_at"),
    },
}
"""Parts of the row under test, but for its value, which is JSON."""

OPERATORS: Mapping[Relation, str] = {
    Relation.EQ: "=",
    Relation.GT: ">",
    Relation.GTE: ">=",
    Relation.LT: "<",
    Relation.LTE: "<=",
}
