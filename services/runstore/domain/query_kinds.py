"""What a question asks for, told to those who measure how long its answer takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum


class QueryKind(StrEnum):
    """Kinds of questions that differ in what they cost."""

    LIST = "list"
    """A page of runs."""
    GET = "get"
    """One run."""
    EXPORT = "export"
    """A page of an export."""
    STATS = "stats"
    """Statistics of runs."""
    TRACES = "traces"
    """A page of traces, or of the runs of one."""
    USAGE = "usage"
    """What the traces of a page used, summed up."""
    THREADS = "threads"
    """A page of threads, or threads summed up."""
    FEEDBACK = "feedback"
    """A page of records of feedback, or records summed up."""


current_kind: ContextVar[QueryKind] = ContextVar("current_kind", default=QueryKind.LIST)
"""What a list of runs is for."""


@contextmanager
def asking_for(kind: QueryKind) -> Iterator[None]:
    """Lists of runs inside of it are counted as `kind`."""
    token = current_kind.set(kind)
    try:
        yield
    finally:
        current_kind.reset(token)
