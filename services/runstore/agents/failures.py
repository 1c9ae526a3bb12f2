"""What clients may read of an exception that ended a run."""

import asyncio
from dataclasses import dataclass

from langgraph.errors import (
    EmptyInputError,
    GraphBubbleUp,
    InvalidUpdateError,
    NodeTimeoutError,
    TaskNotFound,
    UnknownInterruptError,
)

from runstore.domain.errors import RunstoreError

MASKED = "An internal error occurred"

# Of these, authors of graphs expect their own words to reach the client. The text of any other class may hold
# what a driver or a vendor put there: addresses, keys, statements.
_TELLING = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,  # And with it RecursionError, hence langgraph's GraphRecursionError.
    TimeoutError,
    asyncio.CancelledError,
    EmptyInputError,
    GraphBubbleUp,
    InvalidUpdateError,
    NodeTimeoutError,
    TaskNotFound,
    UnknownInterruptError,
    RunstoreError,
)


RAISED_BY_USERS = (Exception, SystemExit, KeyboardInterrupt)
"""What code of users may raise: a node or a factory that calls sys.exit() ends its run, nothing else."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The class of an exception, and its text as far as it may be shown."""

    error: str
    message: str


def failure_of(error: BaseException) -> Failure:
    """`error` for clients: its class always, its text only for classes that speak to users."""
    return Failure(type(error).__name__, str(error) if isinstance(error, _TELLING) else MASKED)


class LeaseLost(Exception):
    """This worker may write nothing more for the run: another one may have taken it over."""
