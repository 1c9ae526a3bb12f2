"""Traces: trees of runs, each named after its root run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runstore.domain.runs import RunField, StoredRun

USAGE_FIELDS = (
    RunField.TOTAL_TOKENS,
    RunField.PROMPT_TOKENS,
    RunField.COMPLETION_TOKENS,
    RunField.TOTAL_COST,
    RunField.PROMPT_COST,
    RunField.COMPLETION_COST,
    RunField.PROMPT_TOKEN_DETAILS,
    RunField.COMPLETION_TOKEN_DETAILS,
    RunField.PROMPT_COST_DETAILS,
    RunField.COMPLETION_COST_DETAILS,
    RunField.FIRST_TOKEN_TIME,
)
"""What runs can be summed up by: sums, of details by category, and the earliest first token."""

Usage = Mapping[RunField, Any]
"""Several runs summed up; a field that none of them has is absent. Values as in `StoredRun`."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace as a list shows it."""

    root: StoredRun
    usage: Usage
    """Over all runs of the trace; empty when not asked for."""
    turn_number: int = 0
    """In its thread, from 1; 0 when not asked for."""


@dataclass(frozen=True, slots=True)
class TracePage:
    """Traces in order, and the token of the next page; "" at the end and only there."""

    traces: tuple[Trace, ...]
    next_page_token: str
