"""What a run has to satisfy to be listed: a checked, typed tree that any engine can evaluate.

The query layer builds it from filters; a storage engine turns it into its own language. Every node
is either true or false for a run, never unknown: a comparison with an absent value is false, and
`Not` of it therefore true.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

# ---------------------------------------------------------------- what is compared


class ScalarField(StrEnum):
    """A field of a run with at most one value, by its column's name."""

    RUN_ID = "run_id"
    PROJECT_ID = "project_id"
    TRACE_ID = "trace_id"
    PARENT_RUN_ID = "parent_run_id"
    """Direct parent; absent for a root."""
    REFERENCE_EXAMPLE_ID = "reference_example_id"
    PRICE_MODEL_ID = "price_model_id"
    THREAD_ID = "thread_id"
    NAME = "name"
    RUN_TYPE = "run_type"
    """Lower case."""
    STATUS = "status"
    """Lower case."""
    LS_USER_ID = "ls_user_id"
    IS_ROOT = "is_root"
    START_TIME = "start_time"
    END_TIME = "end_time"
    FIRST_TOKEN_TIME = "first_token_time"  # noqa: S105 - a time, no secret
    LATENCY = "latency"
    """Seconds; absent while the run is pending."""
    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    TOTAL_TOKENS = "total_tokens"
    PROMPT_COST = "prompt_cost"
    COMPLETION_COST = "completion_cost"
    TOTAL_COST = "total_cost"
    EXECUTION_ORDER = "execution_order"
    """Always 1; only old clients ask."""
    APP_PATH = "app_path"


class CatalogField(StrEnum):
    """A field of a run that no engine knows: conditions on it are replaced (`query.references`) before they
    are evaluated."""

    REFERENCE_DATASET_ID = "reference_dataset_id"
    """Of the run's reference example, if there is such an example."""
    SHARE_TOKEN = "share_token"  # noqa: S105 - a name, no secret


class ThreadField(StrEnum):
    """A field of a thread that no run has, by its column's name."""

    TURN_COUNT = "turn_count"
    NUM_ERRORED_TURNS = "num_errored_turns"
    """Traces whose root has an error."""
    THREAD_DURATION = "thread_duration"
    """Seconds from the first start of a trace to the last end; absent while none has ended."""
    TRACE_LATENCY_P50 = "trace_latency_p50"
    """Seconds; absent while no trace has ended."""
    TRACE_LATENCY_P99 = "trace_latency_p99"


class TextField(StrEnum):
    """A large text of a run."""

    INPUTS = "inputs"
    """JSON, as the client sent it; of a payload in the blob store its beginning."""
    OUTPUTS = "outputs"
    """As the inputs."""
    ERROR = "error"


class DetailsField(StrEnum):
    """A field that maps a category (`cache_read`) to a number."""

    PROMPT_TOKEN_DETAILS = "prompt_token_details"  # noqa: S105 - counts, no secret
    COMPLETION_TOKEN_DETAILS = "completion_token_details"  # noqa: S105 - counts, no secret
    PROMPT_COST_DETAILS = "prompt_cost_details"
    COMPLETION_COST_DETAILS = "completion_cost_details"


class ListField(StrEnum):
    """A field with any number of values."""

    TAGS = "tags"
    PARENT_RUN_IDS = "parent_run_ids"
    """All ancestors, the root first."""
    ATTACHMENTS = "attachments"
    """Names of the files that came with the run."""


class RowFamily(StrEnum):
    """A source of key/value rows beside a run; pairing asks for one row that fits."""

    METADATA = "metadata"
    """One row per top-level key whose value is not null."""
    INPUTS = "inputs"
    """One row per leaf of the JSON, but for nulls, empty texts and empty containers. Its key is the path of
    object keys joined by dots; array positions are no part of it."""
    OUTPUTS = "outputs"
    """As the inputs."""
    FEEDBACK = "feedback"
    """One row per feedback record of the run."""


class RowPart(StrEnum):
    """What a row of a family consists of."""

    KEY = "key"
    VALUE = "value"
    """JSON; of feedback absent when the record has none, or null."""
    SCORE = "score"
    """Of feedback alone, as all below; a number, absent when the record has none."""
    COMMENT = "comment"
    SOURCE = "source"
    """Type of what gave the feedback: `api`, `model`, `app`, …"""
    ERROR = "error"
    """Whether the evaluator failed."""
    MODIFIED_AT = "modified_at"


@dataclass(frozen=True, slots=True)
class DetailsEntry:
    """The number that a details field has for one category; absent when it has none."""

    field: DetailsField
    category: str


@dataclass(frozen=True, slots=True)
class MetadataPath:
    """A metadata value; absent when missing or null.

    The path of one name is a top-level key. A longer one is the top-level key that contains the
    dots where there is one, and otherwise leads into nested objects.
    """

    path: tuple[str, ...]


Operand: TypeAlias = (
    ScalarField | CatalogField | ThreadField | TextField | DetailsEntry | MetadataPath | RowPart
)
"""`RowPart` stands for the row under test and occurs below `SomeRow` only, `ThreadField` in conditions on
threads only: there rows of feedback are those of all runs of all traces.

Values of rows and of metadata (`MetadataPath`, `RowPart.VALUE`) are JSON. Compared with a str they are
their text: the content of a string, the JSON of anything else. Compared with a Decimal they are the
number that this text is, and absent when it is none.
"""

# ---------------------------------------------------------------- with what


@dataclass(frozen=True, slots=True)
class Instant:
    """A point in time."""

    time_us: int
    """Microseconds since 1970-01-01 UTC; may lie outside of the range that an engine stores."""


Scalar: TypeAlias = str | UUID | bool | Decimal | Instant
"""Numbers and seconds are exact decimals, at most 38 digits on either side of the point."""


class Relation(StrEnum):
    """How two values compare. Text compares by code point, case-sensitively."""

    EQ = "eq"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"


class JsonContainer(StrEnum):
    """The JSON types that have children."""

    OBJECT = "object"
    ARRAY = "array"


@dataclass(frozen=True, slots=True)
class JsonShape:
    """A container of exactly `size` children, each with a leaf of its own."""

    container: JsonContainer
    size: int


@dataclass(frozen=True, slots=True)
class JsonLeaf:
    """What a JSON document has at one place: object keys, and array positions from 0."""

    path: tuple[str | int, ...]
    value: str | Decimal | bool | JsonShape | None


# ---------------------------------------------------------------- conditions


@dataclass(frozen=True, slots=True)
class Always:
    """True or false for every run."""

    value: bool


@dataclass(frozen=True, slots=True)
class Compare:
    """The operand is present and stands in the relation to the value."""

    operand: Operand
    relation: Relation
    value: Scalar


@dataclass(frozen=True, slots=True)
class OneOf:
    """The operand is present and equals one of the values: at least one, all of one type."""

    operand: Operand
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Like:
    r"""The operand is present and its text matches the whole pattern, in any case of letters.

    In the pattern `%` is any run of characters, `_` is one, and a backslash stands only before
    `%`, `_` or another backslash, which it makes literal.
    """

    operand: Operand
    pattern: str


@dataclass(frozen=True, slots=True)
class Contains:
    """At least one of the texts is present and contains the word, in any case of letters."""

    texts: tuple[ScalarField | TextField, ...]
    word: str
    """Not empty, without white space."""


@dataclass(frozen=True, slots=True)
class Present:
    """The operand has a value; for text fields that are never null, other than ""."""

    operand: Operand


@dataclass(frozen=True, slots=True)
class ListNotEmpty:
    """The list has an element."""

    field: ListField


@dataclass(frozen=True, slots=True)
class ListHas:
    """The list has an element that equals the value."""

    field: ListField
    value: Scalar


@dataclass(frozen=True, slots=True)
class ListHasLike:
    """The list has an element that matches the pattern (see `Like`)."""

    field: ListField
    pattern: str


@dataclass(frozen=True, slots=True)
class MetadataNotEmpty:
    """There is metadata at all."""


@dataclass(frozen=True, slots=True)
class MetadataContains:
    """The metadata has every leaf, of the same JSON type; numbers compare as numbers.

    The first element of a leaf's path is a top-level key and always a str.
    """

    leaves: tuple[JsonLeaf, ...]


@dataclass(frozen=True, slots=True)
class SomeRow:
    """At least one row of the family satisfies the whole test."""

    family: RowFamily
    test: "Condition"


@dataclass(frozen=True, slots=True)
class TraceRoot:
    """The root of the run's trace is known, and satisfies the test.

    The runs of a trace are those of one project that have its id.
    """

    test: "Condition"


@dataclass(frozen=True, slots=True)
class SomeRunOfTrace:
    """At least one run of the run's trace, be it the run itself, satisfies the whole test."""

    test: "Condition"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one of the conditions; at least one is given."""

    conditions: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the conditions; at least one is given."""

    conditions: "tuple[Condition, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    condition: "Condition"


Condition: TypeAlias = (
    Always
    | Compare
    | OneOf
    | Like
    | Contains
    | Present
    | ListNotEmpty
    | ListHas
    | ListHasLike
    | MetadataNotEmpty
    | MetadataContains
    | SomeRow
    | TraceRoot
    | SomeRunOfTrace
    | AllOf
    | AnyOf
    | Not
)
