"""The fields of a run as filters know them (filter-language.md §3 and §4), as tables.

To support another field, give it its kind here; to support another kind, add its functions here
and its binder to `binding.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from runstore.domain.conditions import (
    CatalogField,
    DetailsField,
    ListField,
    RowFamily,
    RowPart,
    ScalarField,
    TextField,
    ThreadField,
)
from runstore.domain.runs import RunType
from runstore.query.filters import Function

_EQUAL = frozenset({Function.EQ, Function.NEQ})
_EXISTS = frozenset({Function.EXISTS})
_MEMBER = _EQUAL | {Function.IN}
_ORDER = _MEMBER | {Function.GT, Function.GTE, Function.LT, Function.LTE}
_LIKE = frozenset({Function.LIKE, Function.NOTLIKE})
_SEARCH = frozenset({Function.SEARCH})


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
    LARGE_TEXT = auto()
    """Text that is matched, but never compared with a whole."""
    JSON_TEXT = auto()
    """As `LARGE_TEXT`; a pattern without `%` is words to look for."""
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
    ROW_TEXT = auto()
    ROW_NUMBER = auto()
    ROW_BOOLEAN = auto()


FUNCTIONS: Mapping[Kind, frozenset[Function]] = {
    Kind.UUID: _MEMBER | _EXISTS,
    Kind.TEXT: _MEMBER | _LIKE | _EXISTS | _SEARCH,
    Kind.WORD: _MEMBER | _EXISTS,
    Kind.BOOLEAN: _EQUAL | _EXISTS,
    Kind.TIME: _ORDER | _EXISTS,
    Kind.SECONDS: _ORDER | _EXISTS,
    Kind.NUMBER: _ORDER | _EXISTS,
    Kind.LARGE_TEXT: _EQUAL | _LIKE | _EXISTS | _SEARCH,
    Kind.JSON_TEXT: _EQUAL | _LIKE | _EXISTS | _SEARCH,
    Kind.NUMBER_MAP: _ORDER | _EXISTS,
    Kind.TEXT_LIST: _EQUAL | _LIKE | _EXISTS | {Function.HAS},
    Kind.UUID_LIST: _EQUAL | _EXISTS | {Function.HAS},
    Kind.METADATA: _EXISTS | {Function.HAS},
    Kind.METADATA_VALUE: _ORDER | _LIKE | _EXISTS,
    Kind.ROW_KEY: _MEMBER | _LIKE,
    Kind.ROW_VALUE: _ORDER | _LIKE,
    Kind.ROW_TEXT: _MEMBER | _LIKE,
    Kind.ROW_NUMBER: _ORDER,
    Kind.ROW_BOOLEAN: _EQUAL,
}
"""What a filter may ask of a kind."""

SEARCHED = (ScalarField.NAME, TextField.INPUTS, TextField.OUTPUTS, TextField.ERROR)
"""Where `search` without a field looks for each word."""


@dataclass(frozen=True, slots=True)
class Row:
    """The part of a family's rows that a field names."""

    family: RowFamily
    part: RowPart


Target: TypeAlias = ScalarField | CatalogField | ThreadField | TextField | DetailsField | ListField | Row


@dataclass(frozen=True, slots=True)
class Field:
    """One name that a filter may compare."""

    kind: Kind
    target: Target | None = None
    """What it is called in a condition; None for the metadata object."""
    words: frozenset[str] = frozenset()
    """The values of a `WORD`, lower case."""


RUN_TYPES = frozenset(str(run_type) for run_type in RunType)
STATUSES = frozenset({"success", "error", "pending", "interrupted"})

_INPUTS = Field(Kind.JSON_TEXT, TextField.INPUTS)
_OUTPUTS = Field(Kind.JSON_TEXT, TextField.OUTPUTS)


def _row(kind: Kind, family: RowFamily, part: RowPart) -> Field:
    return Field(kind, Row(family, part))


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
    "error": Field(Kind.LARGE_TEXT, TextField.ERROR),
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
    "metadata_key": _row(Kind.ROW_KEY, RowFamily.METADATA, RowPart.KEY),
    "metadata_value": _row(Kind.ROW_VALUE, RowFamily.METADATA, RowPart.VALUE),
    "inputs": _INPUTS,
    "input": _INPUTS,  # The name of the user interface.
    "input_key": _row(Kind.ROW_KEY, RowFamily.INPUTS, RowPart.KEY),
    "input_value": _row(Kind.ROW_VALUE, RowFamily.INPUTS, RowPart.VALUE),
    "outputs": _OUTPUTS,
    "output": _OUTPUTS,  # The name of the user interface.
    "output_key": _row(Kind.ROW_KEY, RowFamily.OUTPUTS, RowPart.KEY),
    "output_value": _row(Kind.ROW_VALUE, RowFamily.OUTPUTS, RowPart.VALUE),
    "feedback_key": _row(Kind.ROW_KEY, RowFamily.FEEDBACK, RowPart.KEY),
    "feedback_score": _row(Kind.ROW_NUMBER, RowFamily.FEEDBACK, RowPart.SCORE),
    "feedback_value": _row(Kind.ROW_VALUE, RowFamily.FEEDBACK, RowPart.VALUE),
    "feedback_comment": _row(Kind.ROW_TEXT, RowFamily.FEEDBACK, RowPart.COMMENT),
    "feedback_source": _row(Kind.ROW_TEXT, RowFamily.FEEDBACK, RowPart.SOURCE),
    "feedback_error": _row(Kind.ROW_BOOLEAN, RowFamily.FEEDBACK, RowPart.ERROR),
    "attachments": Field(Kind.TEXT_LIST, ListField.ATTACHMENTS),
    "app_path": Field(Kind.TEXT, ScalarField.APP_PATH),
    "reference_dataset_id": Field(Kind.UUID, CatalogField.REFERENCE_DATASET_ID),
    "share_token": Field(Kind.UUID, CatalogField.SHARE_TOKEN),
}
"""Every field of filter-language.md §3 by its name in a filter, but for those internal to cursors."""
