"""The run, from the operations that build it to the questions asked about it.

Ids are UUIDs as lower-case text with dashes. Times are integers: microseconds since the Unix epoch,
UTC. Payloads (`inputs`, `outputs`, `events`, `extra`, `manifest`) are JSON as bytes, kept as sent; large ones
are references to blobs (`domain.blob_refs`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from runstore.domain.blob_refs import BlobRef
from runstore.domain.conditions import Condition
from runstore.domain.extra import ExtraFacts, merge_extra
from runstore.domain.prices import Cost, Price
from runstore.domain.usage import Usage


class RunType(StrEnum):
    """Kind of work; the values are those of the public contract."""

    TOOL = "tool"
    CHAIN = "chain"
    LLM = "llm"
    RETRIEVER = "retriever"
    EMBEDDING = "embedding"
    PROMPT = "prompt"
    PARSER = "parser"


class RunField(StrEnum):
    """The fields that a reader can select; the values are the keys of the public contract, v2."""

    ID = "id"
    NAME = "name"
    RUN_TYPE = "run_type"
    STATUS = "status"
    START_TIME = "start_time"
    END_TIME = "end_time"
    LATENCY_SECONDS = "latency_seconds"
    FIRST_TOKEN_TIME = "first_token_time"
    ERROR = "error"
    ERROR_PREVIEW = "error_preview"
    EXTRA = "extra"
    METADATA = "metadata"
    EVENTS = "events"
    INPUTS = "inputs"
    INPUTS_PREVIEW = "inputs_preview"
    OUTPUTS = "outputs"
    OUTPUTS_PREVIEW = "outputs_preview"
    MANIFEST = "manifest"
    PARENT_RUN_IDS = "parent_run_ids"
    PROJECT_ID = "project_id"
    TRACE_ID = "trace_id"
    THREAD_ID = "thread_id"
    DOTTED_ORDER = "dotted_order"
    IS_ROOT = "is_root"
    REFERENCE_EXAMPLE_ID = "reference_example_id"
    REFERENCE_DATASET_ID = "reference_dataset_id"
    TOTAL_TOKENS = "total_tokens"
    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    TOTAL_COST = "total_cost"
    PROMPT_COST = "prompt_cost"
    COMPLETION_COST = "completion_cost"
    PROMPT_TOKEN_DETAILS = "prompt_token_details"
    COMPLETION_TOKEN_DETAILS = "completion_token_details"
    PROMPT_COST_DETAILS = "prompt_cost_details"
    COMPLETION_COST_DETAILS = "completion_cost_details"
    PRICE_MODEL_ID = "price_model_id"
    TAGS = "tags"
    APP_PATH = "app_path"
    ATTACHMENTS = "attachments"
    THREAD_EVALUATION_TIME = "thread_evaluation_time"
    IS_IN_DATASET = "is_in_dataset"
    LAST_QUEUED_AT = "last_queued_at"
    SHARE_URL = "share_url"
    FEEDBACK_STATS = "feedback_stats"
    LS_USER_ID = "ls_user_id"
    TRACE_TIER = "trace_tier"
    """Of v1 alone, with all that is said of retention."""


class Attachment(msgspec.Struct, frozen=True):
    """A file that came with a run."""

    mime_type: str
    content: bytes
    blob: BlobRef | None = None
    """Where the file is instead of in `content`, which is empty then."""

    def size_bytes(self) -> int:
        """Length of the file."""
        return len(self.content) if self.blob is None else self.blob.size_bytes


class RunPatch(msgspec.Struct, omit_defaults=True, gc=False):
    """What is known of one run: one operation, or several merged. None means "says nothing".

    Mutable, because operations merge into it. What every operation passes through is a msgspec Struct
    here rather than a dataclass: it is made in a tenth of the time, encodes to MessagePack in a
    microsecond (the log stores it), and the collector leaves it alone.
    """

    tenant_id: str
    run_id: str
    sequence: int = 0
    """Position in the order of all operations; see `ingest.sequence`. Of the last one merged in."""
    is_create: bool = False
    project_id: str | None = None
    project_name: str | None = None
    """Stands in for `project_id` until the operation is accepted; never stored."""
    trace_id: str | None = None
    dotted_order: str | None = None
    parent_run_id: str | None = None
    name: str | None = None
    run_type: str | None = None
    start_time_us: int | None = None
    end_time_us: int | None = None
    inputs: bytes | None = None
    outputs: bytes | None = None
    error: str | None = None
    events: bytes | None = None
    extra: bytes | None = None
    manifest: bytes | None = None
    tags: tuple[str, ...] | None = None
    reference_example_id: str | None = None
    attachments: dict[str, Attachment] | None = None

    def merge(self, later: "RunPatch") -> None:
        """Apply an operation that comes after this: its fields win, absent ones erase nothing.

        `extra` merges key by key and attachments accumulate by name; all others replace.
        """
        self.sequence = later.sequence
        self.is_create |= later.is_create
        for field in _REPLACED:
            value = getattr(later, field)
            if value is not None:
                setattr(self, field, value)
        if later.extra is not None:
            self.extra = later.extra if self.extra is None else merge_extra(self.extra, later.extra)
        if later.attachments is not None:
            self.attachments = {**(self.attachments or {}), **later.attachments}

    def size_bytes(self) -> int:
        """About how much memory and log the operation takes."""
        size = 512
        for payload in (self.inputs, self.outputs, self.events, self.extra, self.manifest, self.error):
            if payload is not None:
                size += len(payload)
        if self.attachments:
            size += sum(len(attachment.content) for attachment in self.attachments.values())
        return size


_REPLACED = tuple(
    field
    for field in RunPatch.__struct_fields__
    if field not in ("tenant_id", "run_id", "sequence", "is_create", "extra", "attachments")
)


class RunKey(msgspec.Struct, frozen=True, gc=False):
    """Where a run is stored: the sort key of the runs table, within its tenant."""

    project_id: str
    start_time_us: int
    run_id: str


class RunPlace(msgspec.Struct, frozen=True, gc=False):
    """A run's key and its position in its trace."""

    key: RunKey
    trace_id: str
    dotted_order: str
    parent_run_ids: tuple[str, ...]
    """Root first, direct parent last."""
    is_settled: bool = True
    """False while the parent has not arrived, so that trace and ancestors are a guess."""


@dataclass(frozen=True, slots=True)
class RunMove:
    """A run that changes its key, with everything stored of it so far."""

    tenant_id: str
    run_id: str
    old: RunKey
    new: RunKey
    sequence: int


@dataclass(frozen=True, slots=True)
class AttachmentRef:
    """Names one attachment of one run."""

    tenant_id: str
    key: RunKey
    name: str


@dataclass(frozen=True, slots=True)
class Position:
    """A place between runs in start-time order; where a page ended."""

    start_time_us: int
    run_id: str


class RunFacts(msgspec.Struct, frozen=True, gc=False):
    """What a patch says without saying it: derived from its payloads, stored beside them."""

    first_token_time_us: int | None
    extra: ExtraFacts | None
    usage: Usage | None
    price: Price | None
    cost: Cost | None


class RunRow(msgspec.Struct, frozen=True, gc=False):
    """One partial row of a run: what a flush stores."""

    patch: RunPatch
    place: RunPlace
    facts: RunFacts


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list; all conditions hold together, and an empty one does not restrict."""

    tenant_id: str
    fields: frozenset[RunField]
    project_ids: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    trace_id: str | None = None
    parent_run_id: str | None = None
    reference_example_ids: tuple[str, ...] = ()
    run_type: RunType | None = None
    is_root: bool | None = None
    has_error: bool | None = None
    min_start_time_us: int | None = None
    max_start_time_us: int | None = None
    filter: Condition | None = None
    trace_filter: Condition | None = None
    tree_filter: Condition | None = None
    with_subtree_usage: bool = False
    """Tokens, costs and first token time of a run are those of it and everything below it together."""
    descending: bool = True
    limit: int = 100
    max_payload_bytes: int | None = None
    """End the page before its payloads take more than this, but not before its first run."""
    after: Position | None = None
    """Start behind this position."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One merged run, as far as it was asked for."""

    position: Position
    values: dict[RunField, Any]
    """Selected fields that have a value. Times in microseconds, costs as Decimal, payloads as bytes or, if
    they are in the blob store, `BlobRef`; attachments as {name: (MIME type, size in bytes)}, the statistics
    of feedback as `FeedbackByKey`."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """Runs in order, and whether any follow."""

    runs: tuple[StoredRun, ...]
    has_more: bool
