"""Prompts, and the agents and skills that are kept like them: names, commits, tags."""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

MAX_PROMPT_PAGE = 1_000
"""Most prompts, or commits, that one list answers; a larger limit is lowered to this."""

LATEST = "latest"
"""The reference to the newest commit; no tag can have this name."""

OWN = "-"
"""The owner that stands for the caller's tenant."""

MIN_HASH_CHARACTERS = 8
"""A shorter reference can only be a tag."""

MAX_HANDLE_CHARACTERS = 128

_HANDLE = re.compile(rf"[a-z][a-z0-9_-]{{0,{MAX_HANDLE_CHARACTERS - 1}}}")


class PromptKind(StrEnum):
    """What is kept."""

    PROMPT = "prompt"
    AGENT = "agent"
    SKILL = "skill"


class PromptOrder(StrEnum):
    """By what prompts are listed: a field of `Prompt`."""

    UPDATED_AT = "updated_at_us"
    NUM_LIKES = "num_likes"
    NUM_DOWNLOADS = "num_downloads"
    NUM_VIEWS = "num_views"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt without its commits."""

    id: str
    tenant_id: str
    owner: str
    """The handle of its tenant."""
    handle: str
    """Unique in its tenant."""
    kind: PromptKind
    description: str
    readme: str
    tags: tuple[str, ...]
    is_public: bool
    is_archived: bool
    num_likes: int
    num_downloads: int
    num_views: int
    num_commits: int
    last_commit_id: str | None
    last_commit_hash: str | None
    is_liked: bool
    """By whoever asks."""
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPrompt:
    """What a prompt begins with."""

    handle: str
    kind: PromptKind = PromptKind.PROMPT
    description: str = ""
    readme: str = ""
    tags: tuple[str, ...] = ()
    is_public: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPatch:
    """Changes to a prompt. None keeps what is there."""

    description: str | None = None
    readme: str | None = None
    tags: tuple[str, ...] | None = None
    is_public: bool | None = None
    is_archived: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFilter:
    """Which prompts to list, in which order. Conditions left at their default do not restrict."""

    kind: PromptKind = PromptKind.PROMPT
    is_public: bool | None = None
    """True: public ones of all tenants. False: the caller's that are not. None: all of the caller's."""
    is_archived: bool | None = None
    query: str | None = None
    """Part of handle, description or readme, upper and lower case alike."""
    is_prefix: bool = False
    """`query` is the beginning of the handle."""
    tags: tuple[str, ...] = ()
    order: PromptOrder = PromptOrder.UPDATED_AT
    descending: bool = True
    offset: int = 0
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCommit:
    """One version of a prompt."""

    id: str
    prompt_id: str
    number: int
    """From 1, without gaps."""
    hash: str
    """By `commit_hash`."""
    parent_id: str | None
    parent_hash: str | None
    manifest: bytes | None
    """A JSON object; None in lists."""
    description: str | None
    num_downloads: int
    created_at_us: int


@dataclass(frozen=True, slots=True)
class PromptTag:
    """A name for a commit."""

    name: str
    commit_id: str
    commit_hash: str
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks for prompts."""

    tenant_id: str
    """ "" for somebody without credentials, who sees what is public."""
    user: str
    """Whose likes count once."""


def is_handle(text: str) -> bool:
    """Whether `text` can name a prompt or a tenant."""
    return _HANDLE.fullmatch(text) is not None


def commit_hash(parent_hash: str | None, manifest: bytes) -> str:
    """64 hex digits of SHA-256 over the parent's hash and the manifest: equal histories have equal hashes."""
    return hashlib.sha256((parent_hash or "").encode() + b"\0" + manifest).hexdigest()
