"""Questions in natural language: a language model writes a filter, which is then checked like anybody's.

Nothing that the model says is trusted: its answer is parsed and bound, and counts as what it is then, a
filter on the caller's own runs. It is shown to the caller.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from runstore.domain.chat import ChatMessage, ModelUnavailable
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.times import format_naive
from runstore.query.binding import parse_condition
from runstore.query.fields import FUNCTIONS, RUN_FIELDS

MAX_QUESTION_BYTES: Final = 2_000
"""Longest question, as UTF-8."""
MAX_FEEDBACK_KEYS: Final = 100
_ATTEMPTS: Final = 2
_FENCE: Final = re.compile(r"^```[a-z]*\s*|\s*```$|^`|`$")

_PROMPT: Final = """\
You translate a question about the traced runs of LLM applications into one filter of the language below.
Answer with the filter alone: no explanation, no quotes around it, no code fence.

function(field, value), combined by and(…, …), or(…, …), not(…). Strings are in double quotes with JSON
escapes, numbers and true, false, null are bare, lists are ["a", "b"]. Times are ISO 8601 in quotes, UTC.
Functions: eq, neq, gt, gte, lt, lte compare; in takes a list; like and notlike take a pattern with % and _;
has tests for an element of a list; exists tests for a value.
latency is in seconds; costs are in dollars. A failed run has eq(status, "error").
Metadata pairs: and(eq(metadata_key, "k"), eq(metadata_value, "v")) means that key with that value.

Fields and their functions:
{fields}
{feedback}
Examples:
slow LLM calls that failed -> and(eq(run_type, "llm"), gt(latency, 5), eq(status, "error"))
production runs with more than 1000 tokens since March 2026 -> \
and(has(tags, "production"), gt(total_tokens, 1000), gte(start_time, "2026-03-01T00:00:00Z"))
everything of user 42 -> and(eq(metadata_key, "user_id"), eq(metadata_value, "42"))

It is {now} UTC now."""

logger = structlog.get_logger()


class ChatModel(Protocol):
    """A language model."""

    async def complete(self, messages: Sequence[ChatMessage]) -> str:
        """The model's next message. Raises ModelUnavailable."""
        ...


class NaturalLanguage:
    """Turns questions into filters."""

    def __init__(self, model: ChatModel | None, timeout_s: float, now_us: Callable[[], int]) -> None:
        """Without a model every question is refused. `timeout_s` is for all that one question takes."""
        self._model = model
        self._timeout_s = timeout_s
        self._now_us = now_us

    async def filter_for(self, question: str, feedback_keys: Sequence[str] = ()) -> str:
        """A valid filter. `feedback_keys`: those that the model may think of.

        Raises UNIMPLEMENTED without a model, INVALID_ARGUMENT for a question that is blank, too long or not
        to be expressed, UNAVAILABLE when the model does not answer in time.
        """
        _check(question, feedback_keys)
        if self._model is None:
            raise RunstoreError(
                ErrorReason.UNIMPLEMENTED,
                "no language model is configured for questions in natural language (RUNSTORE_AI_URL)",
            )
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(self._model, question, feedback_keys)
        except TimeoutError as error:
            logger.warning("language_model_failed", error=f"no answer in {self._timeout_s} s")
            raise _unavailable() from error
        except ModelUnavailable as error:
            logger.warning("language_model_failed", error=str(error))
            raise _unavailable() from error

    async def _ask(self, model: ChatModel, question: str, feedback_keys: Sequence[str]) -> str:
        messages = [
            ChatMessage("system", _prompt(feedback_keys, self._now_us())),
            ChatMessage("user", question),
        ]
        refusal = ""
        for _ in range(_ATTEMPTS):
            answer = await model.complete(messages)
            candidate = _FENCE.sub("", answer.strip()).strip()
            try:
                if parse_condition(candidate) is not None:
                    return candidate
                refusal = "there is no filter"
            except RunstoreError as error:
                refusal = error.message
            messages += [
                ChatMessage("assistant", answer),
                ChatMessage("user", f"{refusal}. Answer with a filter that is correct, and nothing else."),
            ]
        raise invalid("query", f"the language model found no valid filter for this: {refusal}")


def _check(question: str, feedback_keys: Sequence[str]) -> None:
    if not question.strip():
        raise invalid("query", "must not be blank")
    if len(question.encode(errors="replace")) > MAX_QUESTION_BYTES:
        raise invalid("query", f"more than {MAX_QUESTION_BYTES} bytes of text")
    if len(feedback_keys) > MAX_FEEDBACK_KEYS:
        raise invalid("feedback_keys", f"more than {MAX_FEEDBACK_KEYS}")


def _unavailable() -> RunstoreError:
    return RunstoreError(ErrorReason.UNAVAILABLE, "the language model does not answer")


def _prompt(feedback_keys: Sequence[str], now_us: int) -> str:
    lines = []
    for name, field in RUN_FIELDS.items():
        words = f" (one of {', '.join(sorted(field.words))})" if field.words else ""
        lines.append(f"{name}{words}: {', '.join(sorted(FUNCTIONS[field.kind]))}")
    keys = ", ".join(feedback_keys)
    feedback = f"Keys of feedback (feedback_key): {keys}\n" if keys else ""
    return _PROMPT.format(fields="\n".join(lines), feedback=feedback, now=format_naive(now_us))
