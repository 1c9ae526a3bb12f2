"""Definitions of evaluators, which are kept for those who manage them; nothing here runs one."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_EVALUATOR_PAGE: Final = 1_000
"""Most evaluators that one list answers; a larger limit is lowered to this."""

MAX_DEFINITION_BYTES: Final = 1024 * 1024


class EvaluatorType(StrEnum):
    """What judges."""

    CODE = "code"
    LLM = "llm"


class EvaluatorOrder(StrEnum):
    """By what to list."""

    CREATED = "created_at"
    UPDATED = "updated_at"
    NAME = "name"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineEvaluator:
    """An evaluator."""

    id: str
    tenant_id: str
    name: str
    type: EvaluatorType
    definition: bytes
    """A JSON object: code and its language, or the prompt."""
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorFilter:
    """Which evaluators to list, in which order. Conditions left at their default do not restrict."""

    name_contains: str | None = None
    """Part of the name, upper and lower case alike."""
    type: EvaluatorType | None = None
    order: EvaluatorOrder = EvaluatorOrder.CREATED
    descending: bool = True
    """Ties are broken by id."""
    offset: int = 0
    limit: int = 100
