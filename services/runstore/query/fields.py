"""The fields of a run as filters know them (filter-language.md §3 and §4), as tables.

To support another field, give it its kind here; to support another kind, add its functions here
and its binder to `binding.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from runstore.domain.conditions import DetailsField, ListField, RowFamily, RowPart, ScalarField
from runstore.domain.runs import RunType
from runstore.query.filters import Function

_EQUAL = frozenset({Function.EQ, Function.NEQ})
_EXISTS = frozenset({Function.EXISTS})
_MEMBER = _EQUAL | {Function.IN}
_ORDER = _MEMBER | {Function.GT, Function.GTE, Function.LT, Function.LTE}
_LIKE = frozenset({Function.LIKE, Function.NOTLIKE})


class Kind(Enum):
    """How a field's values are written and compared."""

    UUID = auto()
    TEXT = auto()
    WORD = auto()
    """One of a few words, in any case."""
    BOOLEAN = auto()
    TIME = auto()
    SECONDS = auto()
    NUMBER = auto()
    PRESENCE = auto()
    """Large text of which only its being there is asked."""
    NUMBER_MAP = auto()
    """Numbers by category; a filter names the category after a dot."""
    TEXT_LIST = auto()
    UUID_LIST = auto()
    METADATA = auto()
    """The whole JSON object, or a path into it after a dot."""
    METADATA_VALUE = auto()
    """A path into the metadata; no field of its own."""
    ROW_KEY = auto()
    ROW_VALUE = auto()
    NOT_YET = auto()
    """In the contract, not in runstore."""


FUNCTIONS: Mapping[Kind, frozenset[Function]] = {
    Kind.UUID: _MEMBER | _EXISTS,
    Kind.TEXT: _MEMBER | _LIKE | _EXISTS,
    Kind.WORD: _MEMBER | _EXISTS,
    Kind.BOOLEAN: _EQUAL | _EXISTS,
    Kind.TIME: _ORDER | _EXISTS,
    Kind.SECONDS: _ORDER | _EXISTS,
    Kind.NUMBER: _ORDER | _EXISTS,
    Kind.PRESENCE: _EQUAL | _EXISTS,
    Kind.NUMBER_MAP: _ORDER | _EXISTS,
    Kind.TEXT_LIST: _EQUAL | _LIKE | _EXISTS | {Function.HAS},
    Kind.UUID_LIST: _EQUAL | _EXISTS | {Function.HAS},
    Kind.METADATA: _EXISTS | {Function.HAS},
    Kind.METADATA_VALUE: _ORDER | _LIKE | _EXISTS,
    Kind.ROW_KEY: _MEMBER | _LIKE,
    Kind.ROW_VALUE: _ORDER | _LIKE,
}
"""What a filter may ask of a kind; `NOT_YET` is refused before this is looked up."""

FUNCTIONS_NOT_YET = frozenset({Function.SEARCH})
"""In the contract, not in runstore, whatever the field."""


@dataclass(frozen=True, slots=True)
class Row:
    """The part of a family's rows that a field names."""

    family: RowFamily
    part: RowPart


@dataclass(frozen=True, slots=True)
class Field:
    """One name that a filter may compare."""

    kind: Kind
    target: ScalarField | DetailsField | ListField | Row | None = None
    """What it is called in a condition; None for the metadata object and for `NOT_YET`."""
    words: frozenset[str] = frozenset()
    """The values of a `WORD`, lower case."""


RUN_TYPES = frozenset(str(run_type) for run_type in RunType)
STATUSES = frozenset({"success", "error", "pending", "interrupted"})

_NOT_YET = Field(Kind.NOT_YET)

RUN_FIELDS: Mapping[str, Field] = {
    "id": Field(Kind.UUID, ScalarField.RUN_ID),
    "trace_id": Field(Kind.UUID, ScalarField.TRACE_ID),
    "session_id": Field(Kind.UUID, ScalarField.PROJECT_ID),
    "parent_run_id": Field(Kind.UUID, ScalarField.PARENT_RUN_ID),
    "parent_run_ids": Field(Kind.UUID_LIST, ListField.PARENT_RUN_IDS),
    "reference_example_id": Field(Kind.UUID, ScalarField.REFERENCE_EXAMPLE_ID),
    "price_model_id": Field(Kind.UUID, ScalarField.PRICE_MODEL_ID),
    "thread_id": Field(Kind.TEXT, ScalarField.THREAD_ID),
    "name": Field(Kind.TEXT, ScalarField.NAME),
    "ls_user_id": Field(Kind.TEXT, ScalarField.LS_USER_ID),
    "run_type": Field(Kind.WORD, ScalarField.RUN_TYPE, RUN_TYPES),
    "status": Field(Kind.WORD, ScalarField.STATUS, STATUSES),
    "is_root": Field(Kind.BOOLEAN, ScalarField.IS_ROOT),
    "error": Field(Kind.PRESENCE, ScalarField.HAS_ERROR),
    "start_time": Field(Kind.TIME, ScalarField.START_TIME),
    "end_time": Field(Kind.TIME, ScalarField.END_TIME),
    "first_token_time": Field(Kind.TIME, ScalarField.FIRST_TOKEN_TIME),
    "latency": Field(Kind.SECONDS, ScalarField.LATENCY),
    "execution_order": Field(Kind.NUMBER, ScalarField.EXECUTION_ORDER),
    "prompt_tokens": Field(Kind.NUMBER, ScalarField.PROMPT_TOKENS),
    "completion_tokens": Field(Kind.NUMBER, ScalarField.COMPLETION_TOKENS),
    "total_tokens": Field(Kind.NUMBER, ScalarField.TOTAL_TOKENS),
    "prompt_cost": Field(Kind.NUMBER, ScalarField.PROMPT_COST),
    "completion_cost": Field(Kind.NUMBER, ScalarField.COMPLETION_COST),
    "total_cost": Field(Kind.NUMBER, ScalarField.TOTAL_COST),
    "prompt_token_details": Field(Kind.NUMBER_MAP, DetailsField.PROMPT_TOKEN_DETAILS),
    "completion_token_details": Field(Kind.NUMBER_MAP, DetailsField.COMPLETION_TOKEN_DETAILS),
    "prompt_cost_details": Field(Kind.NUMBER_MAP, DetailsField.PROMPT_COST_DETAILS),
    "completion_cost_details": Field(Kind.NUMBER_MAP, DetailsField.COMPLETION_COST_DETAILS),
    "tags": Field(Kind.TEXT_LIST, ListField.TAGS),
    "metadata": Field(Kind.METADATA),
    "metadata_key": Field(Kind.ROW_KEY, Row(RowFamily.METADATA, RowPart.KEY)),
    "metadata_value": Field(Kind.ROW_VALUE, Row(RowFamily.METADATA, RowPart.VALUE)),
    "inputs": _NOT_YET,
    "input": _NOT_YET,  # The UI's name of inputs.
    "input_key": _NOT_YET,
    "input_value": _NOT_YET,
    "outputs": _NOT_YET,
    "output": _NOT_YET,  # The UI's name of outputs.
    "output_key": _NOT_YET,
    "output_value": _NOT_YET,
    "feedback_key": _NOT_YET,
    "feedback_score": _NOT_YET,
    "feedback_value": _NOT_YET,
    "feedback_comment": _NOT_YET,
    "feedback_source": _NOT_YET,
    "feedback_error": _NOT_YET,
    "reference_dataset_id": _NOT_YET,
    "attachments": _NOT_YET,
    "app_path": _NOT_YET,
    "share_token": _NOT_YET,
}
"""Every field of filter-language.md §3 by its name in a filter, but for those internal to cursors."""
