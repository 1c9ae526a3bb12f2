"""Bodies and answers of the routes that are not hot, as pydantic models: validation and documentation."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from runstore.gateway import run_stats, run_v1, run_v2
from runstore.gateway.time_fields import TimeUs
from runstore.gateway.trace_tiers import TierName


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _known_select_v1(value: str) -> str:
    if value not in run_v1.SELECTABLE:
        raise PydanticCustomError("enum", "not a field that can be selected")
    return value


def _known_select_v2(value: str) -> str:
    name = run_v2.select_name(value)
    if name is None:
        raise PydanticCustomError("enum", "not a field that can be selected")
    return name


RunTypeName = Annotated[
    Literal["tool", "chain", "llm", "retriever", "embedding", "prompt", "parser"], BeforeValidator(_lower)
]
"""A kind of work, in any case."""

SelectV1 = Annotated[
    str, AfterValidator(_known_select_v1), WithJsonSchema({"type": "string", "enum": list(run_v1.SELECTABLE)})
]
SelectV2 = Annotated[
    str, AfterValidator(_known_select_v2), WithJsonSchema({"type": "string", "enum": list(run_v2.SELECTABLE)})
]
"""Validated to the key of the answer."""

Order = Annotated[Literal["asc", "desc"], BeforeValidator(_lower)]

AiSearch = Annotated[
    str | None,
    Field(
        # The second is what the API of July 2026 calls it.
        validation_alias=AliasChoices("ai_search", "ai_query"),
        description="A criterion in plain language.",
    ),
]


class RunConditionsV1(BaseModel):
    """Which runs are meant. Conditions hold together; `id` switches all others off."""

    session: list[UUID] | None = Field(None, description="Projects.")
    id: list[UUID] | None = Field(None, description="Runs, whatever the other conditions say.")
    trace: UUID | None = None
    parent_run: UUID | None = Field(None, description="Direct children of this run.")
    reference_example: list[UUID] | None = None
    run_type: RunTypeName | None = None
    start_time: TimeUs | None = Field(None, description="Started at this time or later.")
    end_time: TimeUs | None = Field(None, description="Started at this time or earlier.")
    error: bool | None = None
    is_root: bool | None = None
    execution_order: int | None = Field(None, description="Deprecated; 1 means roots only.")
    filter: str | None = Field(None, description='Such as `and(eq(run_type, "llm"), gt(latency, 5))`.')
    trace_filter: str | None = Field(None, description="As `filter`, on the root of the run's trace.")
    tree_filter: str | None = Field(None, description="As `filter`, on any run of the run's trace.")
    query: str | None = Field(
        None,
        description="A question in natural language, which a language model turns into another filter; "
        "501 when none is configured.",
    )
    search_filter: str | None = Field(None, description="As `query`, which has precedence.")
    use_experimental_search: bool | None = None
    data_source_type: str | None = Field(None, description="Ignored.")


class RunsQueryV1(RunConditionsV1):
    """Which runs to list, and how."""

    select: list[SelectV1] | None = None
    order: Order | None = Field(None, description="`desc`, newest first, when absent.")
    limit: int | None = Field(None, description="1 to 100; what is outside is moved to the nearest.")
    cursor: str | None = Field(None, description="`cursors.next` of the previous page.")
    skip_pagination: bool | None = Field(None, description="Answer one page without cursors.")
    skip_prev_cursor: bool | None = None


class GenerateQuery(BaseModel):
    """A question to make a filter of."""

    query: str = Field(description="At most 2,000 bytes.")
    feedback_keys: list[str] | None = Field(None, description="Keys of feedback that it may be about.")


class RunGroupByV1(BaseModel):
    """How to group runs."""

    attribute: Literal["name", "run_type", "tag", "metadata"]
    path: str | None = Field(None, description="Of the metadata value; dotted.")
    max_groups: int = Field(5, ge=1, le=1_000, description="The largest groups.")


class RunStatsQueryV1(RunConditionsV1):
    """Which runs to sum up, and what of them. Keys of paging are without effect."""

    group_by: RunGroupByV1 | None = None
    groups: list[str] | None = Field(None, description="Only these groups.")
    select: list[run_stats.StatsName] | None = Field(None, description="Everything when absent.")


_MetadataValue = str | int | float | bool


class RunsDeleteV1(BaseModel):
    """Which traces to delete: exactly one of `trace_ids` and `metadata`."""

    trace_ids: list[UUID] | None = Field(
        None,
        max_length=1_000,
        # As older documentation spells it.
        validation_alias=AliasChoices("trace_ids", "run_ids"),
    )
    metadata: dict[str, _MetadataValue | list[_MetadataValue]] | None = Field(
        None, description="Traces with a run that has any of these pairs, in the whole workspace."
    )
    session_id: UUID | None = Field(None, description="Only runs of this project.")


class TracesDeleteV1(BaseModel):
    """Which traces of a project to delete."""

    session_id: UUID
    trace_ids: list[UUID] = Field(min_length=1, max_length=1_000)


class RunsQueryV2(BaseModel):
    """Which runs to list. All conditions hold together. Older names of keys are accepted."""

    model_config = ConfigDict(populate_by_name=True)

    project_ids: list[UUID] | None = Field(
        None, validation_alias=AliasChoices("project_ids", "session", "session_ids")
    )
    reference_dataset_id: UUID | None = Field(
        None, description="All experiments on it; from their beginning on when min_start_time is absent."
    )
    min_start_time: TimeUs | None = Field(
        None,
        validation_alias=AliasChoices("min_start_time", "start_time"),
        description="Inclusive; a day ago when absent.",
    )
    max_start_time: TimeUs | None = Field(
        None,
        validation_alias=AliasChoices("max_start_time", "end_time"),
        description="Inclusive; now when absent.",
    )
    ids: list[UUID] | None = Field(None, validation_alias=AliasChoices("ids", "id"))
    trace_id: UUID | None = Field(None, validation_alias=AliasChoices("trace_id", "trace"))
    run_type: RunTypeName | None = Field(
        None,
        json_schema_extra={"enum": ["TOOL", "CHAIN", "LLM", "RETRIEVER", "EMBEDDING", "PROMPT", "PARSER"]},
    )
    is_root: bool | None = None
    has_error: bool | None = Field(None, validation_alias=AliasChoices("has_error", "error"))
    reference_examples: list[UUID] | None = Field(
        None, validation_alias=AliasChoices("reference_examples", "reference_example")
    )
    filter: str | None = None
    trace_filter: str | None = None
    tree_filter: str | None = None
    min_feedback_modified_at: TimeUs | None = Field(
        None, description="Inclusive; of the feedback that the filters look at."
    )
    max_feedback_modified_at: TimeUs | None = Field(
        None, description="Exclusive; of the feedback that the filters look at."
    )
    include_subtree_usage: bool | None = Field(
        None, description="Tokens, costs and first token time of a run are those of everything below it, too."
    )
    ai_search: AiSearch = None
    selects: list[SelectV2] | None = Field(
        None, validation_alias=AliasChoices("selects", "select"), description="Only `id` when absent."
    )
    page_size: int | None = Field(
        None,
        ge=1,
        le=1_000,
        validation_alias=AliasChoices("page_size", "limit"),
        description="100 when absent.",
    )
    cursor: str | None = Field(None, description="`next_cursor` of the previous page.")
    sort_order: Order | None = Field(
        None,
        validation_alias=AliasChoices("sort_order", "order"),
        json_schema_extra={"enum": ["ASC", "DESC"]},
        description="DESC, newest first, when absent.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.project_ids) == (self.reference_dataset_id is not None):
            raise PydanticCustomError(
                "one_source", "exactly one of project_ids and reference_dataset_id must be given"
            )
        return self


class ProjectCreate(BaseModel):
    """A project to create."""

    name: str
    id: UUID | None = None
    description: str | None = None
    extra: dict[str, Any] | None = None
    reference_dataset_id: UUID | None = None
    start_time: TimeUs | None = None
    tag_value_ids: list[UUID] | None = Field(None, max_length=100, description="Values of tags.")
    trace_tier: TierName | None = Field(None, description="How long traces are kept that nothing keeps.")


class ProjectUpdate(BaseModel):
    """Changes to a project; null and absent keys change nothing."""

    name: str | None = None
    description: str | None = None
    extra: dict[str, Any] | None = Field(None, description="Replaces the old one as a whole.")
    end_time: TimeUs | None = None
    reference_dataset_id: UUID | None = None
    trace_tier: TierName | None = Field(None, description="How long traces are kept that nothing keeps.")


# --- answers; for documentation only -------------------------------------------------------------------


class TracerSession(BaseModel):
    """A project. The statistics are null unless asked for."""

    id: UUID
    tenant_id: UUID
    name: str
    description: str | None
    start_time: str
    end_time: str | None
    extra: dict[str, Any]
    reference_dataset_id: UUID | None
    trace_tier: TierName | None = None
    run_count: int | None = None
    latency_p50: float | None = None
    latency_p99: float | None = None
    first_token_p50: float | None = None
    first_token_p99: float | None = None
    total_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_cost: str | None = None
    prompt_cost: str | None = None
    completion_cost: str | None = None
    last_run_start_time: str | None = None
    feedback_stats: dict[str, Any] | None = None
    session_feedback_stats: dict[str, Any] | None = None
    run_facets: list[Any] | None = None
    error_rate: float | None = None
    streaming_rate: float | None = None
    test_run_number: int | None = None


class RunStatsV1(BaseModel):
    """Statistics of runs. A key is null when it was not selected, or when no run has such a value."""

    model_config = ConfigDict(extra="allow")

    run_count: int | None
    latency_p50: float | None = Field(description="Seconds, as `latency_p99`, of the runs that have ended.")
    latency_p99: float | None
    first_token_p50: float | None = Field(description="Seconds, of the runs that streamed.")
    first_token_p99: float | None
    total_tokens: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    median_tokens: int | None
    completion_tokens_p50: int | None
    prompt_tokens_p50: int | None
    tokens_p99: int | None
    completion_tokens_p99: int | None
    prompt_tokens_p99: int | None
    last_run_start_time: str | None
    feedback_stats: dict[str, Any] | None
    run_facets: list[dict[str, Any]] | None = Field(
        description="The commonest names, types, states and tags: `key`, `value`, `n`, the `query` for them."
    )
    error_rate: float | None = Field(description="0 to 1, as `streaming_rate`.")
    streaming_rate: float | None
    total_cost: float | None = Field(description="Dollars, as all costs.")
    prompt_cost: float | None
    completion_cost: float | None
    cost_p50: float | None
    cost_p99: float | None
    prompt_token_details: dict[str, int] | None
    completion_token_details: dict[str, int] | None
    prompt_cost_details: dict[str, float] | None
    completion_cost_details: dict[str, float] | None


class QueryError(BaseModel):
    """What is wrong with one key of a body."""

    field: str
    message: str


class QueryValidation(BaseModel):
    """Whether a body would be accepted."""

    valid: bool
    errors: list[QueryError]


class GeneratedQuery(BaseModel):
    """A filter that a language model wrote; valid."""

    filter: str
    feedback_urls: dict[str, str]


class RunV1(BaseModel):
    """A run. Keys that were not selected are absent, but for those required here."""

    model_config = ConfigDict(extra="allow")

    id: UUID
    name: str | None
    run_type: RunTypeName
    status: Literal["success", "error", "pending"]
    start_time: str = Field(description="UTC without offset, microseconds.")
    trace_id: UUID
    dotted_order: str
    session_id: UUID
    app_path: str | None
    s3_urls: dict[str, Any] | None = Field(
        description="`attachment.<name>` → `{presigned_url, mime_type}`; the address needs no credentials."
    )
    end_time: str | None = None
    inputs: dict[str, Any] | None = None
    outputs: dict[str, Any] | None = None
    error: str | None = None
    total_tokens: int = 0
    total_cost: str | None = Field(None, description="Dollars, decimal text.")


class FeedbackSource(BaseModel):
    """Who gave feedback."""

    type: str
    metadata: dict[str, Any] | None
    user_id: str | None
    user_name: str | None


class FeedbackRecord(BaseModel):
    """A record of feedback."""

    id: UUID
    created_at: str
    modified_at: str
    run_id: UUID | None
    trace_id: UUID | None
    session_id: UUID | None
    start_time: str | None
    key: str
    score: float | None
    value: Any
    comment: str | None
    correction: Any
    error: bool
    feedback_source: FeedbackSource
    comparative_experiment_id: UUID | None
    feedback_group_id: UUID | None
    extra: dict[str, Any] | None


class Cursors(BaseModel):
    """Where a list goes on."""

    next: str | None
    prev: str | None = Field(description="Null on the first page, and with `skip_prev_cursor`.")


class RunPageV1(BaseModel):
    """A page of runs."""

    runs: list[RunV1]
    cursors: Cursors
    search_cursors: None
    parsed_query: str | None = Field(description="The filter that was made of `query`.")


class RunV2(BaseModel):
    """A run; exactly the selected keys, in lower case."""

    model_config = ConfigDict(extra="allow")


class RunPageV2(BaseModel):
    """A page of runs."""

    items: list[RunV2]
    next_cursor: str | None


class Detail(BaseModel):
    """An error of v1."""

    detail: str


class Problem(BaseModel):
    """An error of v2 (RFC 7807)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
