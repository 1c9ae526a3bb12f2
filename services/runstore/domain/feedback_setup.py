"""What is set up for feedback: tokens to give it with, and what its keys mean."""

from dataclasses import dataclass

MAX_CONFIG_PAGE = 1_000
"""Most configurations that one list answers; a larger limit is lowered to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackToken:
    """Lets anybody who has it give feedback on one run, under one key, until it expires."""

    id: str
    tenant_id: str
    run_id: str
    feedback_key: str
    created_at_us: int
    expires_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackConfig:
    """What a key of feedback means."""

    id: str
    tenant_id: str
    feedback_key: str
    """Unique in its tenant."""
    config: bytes
    """A JSON object with `type`."""
    is_lower_score_better: bool
    is_enforced: bool
    modified_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackConfigPatch:
    """Changes to a configuration. None keeps what is there."""

    config: bytes | None = None
    is_lower_score_better: bool | None = None
    is_enforced: bool | None = None
