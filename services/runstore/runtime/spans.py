"""Spans: what a process does for a request, told to whoever records it (`runtime.telemetry`).

Nobody does until `record_with`; until then each call here is one comparison. Only `request` begins a trace,
or joins its caller's; everything else is made below a span that is recorded, or not at all. Attributes hold
figures and names of ours, never what callers sent: no values of filters, no payloads, no keys, no paths.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

Attributes = Mapping[str, str | int | float | bool]

TRACEPARENT = "traceparent"
"""Header and call metadata that join traces: https://www.w3.org/TR/trace-context/."""


class Span:
    """A span that nobody records, and the base of those that are. It is current inside of its `with`."""

    is_recorded = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""

    def rename(self, name: str) -> None:
        """Give it a name that was not known when it began."""

    def fail(self, reason: str) -> None:
        """It has not done what it was to do; `reason` is one of a few words of ours."""


class Recorder(Protocol):
    """Makes the spans of a process; see the functions below."""

    def request(self, name: str, traceparent: str, *, is_wanted: bool) -> Span: ...
    def inner(self, name: str, attributes: Attributes, *, is_call: bool) -> Span: ...
    def below(self, name: str, traceparents: Sequence[str], attributes: Attributes) -> Span: ...
    def traceparent(self) -> str: ...


NO_SPAN = Span()
_NONE: Attributes = {}
_recorder: Recorder | None = None


def record_with(recorder: Recorder | None) -> None:
    """Tell `recorder` from now on; nobody when it is None."""
    global _recorder  # noqa: PLW0603 - of the process, as the configuration of its log is
    _recorder = recorder


def are_recorded() -> bool:
    """Whether somebody is told at all."""
    return _recorder is not None


def request(name: str, traceparent: str = "", *, is_wanted: bool = True) -> Span:
    """A request that has come in; `traceparent` is its caller's, if it has one that is valid.

    `is_wanted`: False for what would only be in the way; other processes do not record it then, either.
    """
    return NO_SPAN if _recorder is None else _recorder.request(name, traceparent, is_wanted=is_wanted)


def inner(name: str, attributes: Attributes = _NONE, *, is_call: bool = False) -> Span:
    """A part of what the current span does; `is_call` when it waits for another process."""
    return NO_SPAN if _recorder is None else _recorder.inner(name, attributes, is_call=is_call)


def below(name: str, traceparents: Sequence[str], attributes: Attributes = _NONE) -> Span:
    """What is done later, for several: below the first of them, linked to the others. Nothing without any."""
    if _recorder is None or not traceparents:
        return NO_SPAN
    return _recorder.below(name, traceparents, attributes)


def traceparent() -> str:
    """The current span, for another process that goes on; empty when there is none."""
    return "" if _recorder is None else _recorder.traceparent()
