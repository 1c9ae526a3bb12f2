"""Bodies and answers of the dataset and example routes, as pydantic models."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field

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


def _names(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


SplitNames = Annotated[list[str], BeforeValidator(_names)]
"""One name or several."""
