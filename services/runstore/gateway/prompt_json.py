"""Prompts and their commits between the JSON of the contract (resources, section 7) and protobuf."""

from typing import Any, Final, Literal

import msgspec
from google.protobuf.message import Message
from pydantic import BaseModel, Field

from runstore.domain.times import format_time
from runstore.gateway.time_fields import to_time_us
from runstore.v1 import prompt_service_pb2 as pb

KINDS: Final = {
    "prompt": pb.PROMPT_KIND_PROMPT,
    "agent": pb.PROMPT_KIND_AGENT,
    "skill": pb.PROMPT_KIND_SKILL,
}
_KIND_NAMES: Final = {number: name for name, number in KINDS.items()}

KindName = Literal["prompt", "agent", "skill"]


class PromptCreate(BaseModel):
    """A new prompt, agent or skill."""

    repo_handle: str
    repo_type: KindName = "prompt"
    description: str | None = None
    readme: str | None = None
    tags: list[str] | None = None
    is_public: bool = False


class PromptUpdate(BaseModel):
    """Changes; null is the same as absent."""

    description: str | None = None
    readme: str | None = None
    tags: list[str] | None = None
    is_public: bool | None = None
    is_archived: bool | None = None


class CommitCreate(BaseModel):
    """A new commit."""

    manifest: Any
    parent_commit: str | None = Field(
        None, description="Hash of the latest commit, null for the first one; the latest when absent."
    )
    description: str | None = None

    @property
    def parent(self) -> str:
        """What the new commit follows, as the store is told."""
        return (self.parent_commit or "") if "parent_commit" in self.model_fields_set else "latest"


class DirectoryCommitCreate(BaseModel):
    """Changes to the files of an agent or a skill: entries by path, null for one to remove."""

    files: dict[str, Any]
    parent_commit: str | None = None


def show_prompt(prompt: pb.Prompt) -> dict[str, Any]:
    """A prompt as JSON content."""
    return {
        "id": prompt.id,
        "repo_handle": prompt.handle,
        "repo_type": _KIND_NAMES[prompt.kind],
        "owner": prompt.owner,
        "full_name": f"{prompt.owner}/{prompt.handle}",
        "tenant_id": prompt.tenant_id,
        "description": prompt.description,
        "readme": prompt.readme,
        "tags": list(prompt.tags),
        "is_public": prompt.is_public,
        "is_archived": prompt.is_archived,
        "num_likes": prompt.num_likes,
        "num_downloads": prompt.num_downloads,
        "num_views": prompt.num_views,
        "num_commits": prompt.num_commits,
        "last_commit_hash": _optional(prompt, "last_commit_hash"),
        "liked_by_auth_user": prompt.is_liked,
        "original_repo_id": None,
        "original_repo_full_name": None,
        "upstream_repo_id": None,
        "upstream_repo_full_name": None,
        "created_at": _time(prompt, "create_time"),
        "updated_at": _time(prompt, "update_time"),
    }


def show_listed_commit(commit: pb.PromptCommit) -> dict[str, Any]:
    """A commit in a list, as JSON content."""
    return {
        "id": commit.id,
        "repo_id": commit.prompt_id,
        "commit_hash": commit.hash,
        "manifest_id": None,
        "parent_id": _optional(commit, "parent_id"),
        "parent_commit_hash": _optional(commit, "parent_hash"),
        "description": _optional(commit, "description"),
        "num_downloads": commit.num_downloads,
        "num_views": 0,
        "example_run_ids": [],
        "created_at": _time(commit, "create_time"),
        "updated_at": _time(commit, "create_time"),
    }


def show_commit(commit: pb.PromptCommit) -> dict[str, Any]:
    """A commit with its manifest, as JSON content."""
    return {
        "id": commit.id,
        "commit_hash": commit.hash,
        "manifest": msgspec.Raw(commit.manifest),
        "description": _optional(commit, "description"),
        "examples": [],
    }


def show_tag(tag: pb.PromptTag, repo_id: str | None = None) -> dict[str, Any]:
    """A tag as JSON content."""
    return {
        "tag_name": tag.name,
        "repo_id": repo_id,
        "commit_id": tag.commit_id,
        "commit_hash": tag.commit_hash,
        "created_at": _time(tag, "create_time"),
        "updated_at": _time(tag, "update_time"),
    }


def _optional(message: Message, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _time(message: Message, field: str) -> str | None:
    return format_time(to_time_us(getattr(message, field))) if message.HasField(field) else None
