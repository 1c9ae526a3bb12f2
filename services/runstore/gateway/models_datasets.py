"""Bodies and answers of the dataset and example routes, as pydantic models."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field

from runstore.gateway.models import SelectV2
from runstore.gateway.time_fields import TimeUs


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


DataType = Literal["kv", "llm", "chat"]


class _ExtraOfDataset(BaseModel):
    metadata: dict[str, Any] | None = None


class DatasetCreate(BaseModel):
    """A dataset to create."""

    name: str
    id: UUID | None = None
    description: str | None = None
    data_type: DataType | None = None
    metadata: dict[str, Any] | None = Field(None, description="Goes before that in `extra`.")
    extra: _ExtraOfDataset | None = Field(None, description="`metadata` in it is the dataset's.")
    inputs_schema_definition: dict[str, Any] | None = Field(None, description="JSON Schema.")
    outputs_schema_definition: dict[str, Any] | None = Field(None, description="JSON Schema.")
    transformations: list[dict[str, Any]] | None = None
    tag_value_ids: list[UUID] | None = Field(None, max_length=100, description="Values of tags.")


class DatasetUpdate(BaseModel):
    """Changes of a dataset. Absent keys keep what is there, and so does null, but for schemas and
    transformations, which it erases."""

    name: str | None = None
    description: str | None = None
    metadata: dict[str, Any] | None = None
    inputs_schema_definition: dict[str, Any] | None = None
    outputs_schema_definition: dict[str, Any] | None = None
    transformations: list[dict[str, Any]] | None = None


class DatasetRecord(BaseModel):
    """A dataset."""

    id: UUID
    tenant_id: UUID
    name: str
    description: str | None
    data_type: DataType
    created_at: str
    modified_at: str
    example_count: int
    session_count: int
    last_session_start_time: str | None
    inputs_schema_definition: dict[str, Any] | None
    outputs_schema_definition: dict[str, Any] | None
    transformations: list[dict[str, Any]] | None
    metadata: dict[str, Any]


class DatasetShareRecord(BaseModel):
    """How a dataset is shared."""

    dataset_id: UUID
    share_token: UUID


class ComparativeCreate(BaseModel):
    """Experiments on one dataset to compare."""

    id: UUID | None = None
    name: str
    experiment_ids: list[UUID]
    reference_dataset_id: UUID
    description: str | None = None
    created_at: TimeUs | None = None
    extra: dict[str, Any] | None = None


class ComparativeRecord(BaseModel):
    """A comparison of experiments."""

    id: UUID
    tenant_id: UUID
    name: str
    description: str | None
    reference_dataset_id: UUID
    experiment_ids: list[UUID]
    experiments_info: list[dict[str, UUID]]
    extra: dict[str, Any]
    created_at: str
    modified_at: str


class ExperimentRunsQuery(BaseModel):
    """Which runs of experiments to show beside the examples that they ran on."""

    session_ids: list[UUID] = Field(min_length=1, description="Experiments.")
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)
    preview: bool = Field(default=False, description="Beginnings of inputs and outputs instead.")
    comparative_experiment_id: UUID | None = Field(None, description="Must compare these experiments.")
    filters: dict[UUID, list[str]] | None = Field(None, description="Conditions on runs, by experiment.")


class ExperimentSort(BaseModel):
    """By the mean score of a key of feedback."""

    by: str
    order: Annotated[Literal["ASC", "DESC"], BeforeValidator(_upper)] = "DESC"


class ExperimentRunsQueryV2(BaseModel):
    """Which runs of experiments to show beside the examples that they ran on."""

    experiment_ids: list[UUID] = Field(min_length=1)
    example_ids: list[UUID] | None = Field(None, max_length=1000)
    filters: dict[UUID, list[str]] | None = Field(None, description="Conditions on runs, by experiment.")
    comparative_experiment_id: UUID | None = Field(None, description="Must compare these experiments.")
    selects: list[SelectV2] | None = Field(None, description="Keys of runs; only `id` when absent.")
    sort: ExperimentSort | None = Field(None, description="With one experiment alone.")
    page_size: int = Field(20, ge=1, le=100)
    cursor: str | None = None


class DatasetVersionRecord(BaseModel):
    """A version of a dataset."""

    as_of: str
    tags: list[str] | None


class DatasetDiffRecord(BaseModel):
    """Examples that differ between two versions."""

    examples_modified: list[UUID]
    examples_added: list[UUID]
    examples_removed: list[UUID]


class TagUpdate(BaseModel):
    """A name for a version."""

    as_of: str = Field(description="A time or a tag.")
    tag: str


class SplitUpdate(BaseModel):
    """What to put into a split, or to take out of it."""

    split_name: str
    examples: list[UUID]
    remove: bool = False


class AttachmentUrl(BaseModel):
    """Where a file can be fetched, without credentials."""

    presigned_url: str
    mime_type: str


class ExampleRecord(BaseModel):
    """An example."""

    id: UUID
    dataset_id: UUID
    name: str
    inputs: dict[str, Any]
    outputs: dict[str, Any] | None
    metadata: dict[str, Any]
    created_at: str
    modified_at: str
    source_run_id: UUID | None
    attachment_urls: dict[str, AttachmentUrl] | None = Field(None, description="When it was selected.")
