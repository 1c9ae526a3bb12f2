"""One attempt of a run: what a worker is asked to do, and what it says in the end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from runstore.agents.failures import Failure


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the store has claimed for this worker."""

    run_id: str
    thread_id: str
    assistant_id: str
    graph_id: str
    number: int
    """1 for the first."""
    kwargs: Mapping[str, Any]
    """`AgentRun.kwargs`, read."""
    metadata: Mapping[str, Any]
    has_checkpoints: bool
    user_id: str = ""


class Stop(Enum):
    """Why an attempt is to stop before its graph has ended."""

    INTERRUPT = "interrupt"
    """Cancelled; what was completed stays."""
    ROLLBACK = "rollback"
    """Cancelled; nothing of the run stays."""
    TIMEOUT = "timeout"
    DRAIN = "drain"
    """The worker ends; another attempt continues."""
    LOST = "lost"
    """Another worker may have the run; say and write nothing more."""


class Outcome(Enum):
    """How an attempt ended."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    ROLLED_BACK = "rolled_back"
    REQUEUE = "requeue"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a thread holds after its latest checkpoint."""

    values: bytes | None = None
    """JSON; None when there is no checkpoint."""
    interrupts: bytes = b"{}"
    """JSON object from task id to its interrupts."""
    has_next: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an attempt, for the store."""

    outcome: Outcome
    result: bytes = b"{}"
    """What `wait` answers: JSON."""
    snapshot: Snapshot | None = None
    """None when the run has not touched the checkpoints."""
    failure: Failure | None = None
    is_failure: bool = False
    """For REQUEUE: whether the attempt counts."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a run says."""

    mode: str
    data: bytes
    """JSON."""
    namespace: tuple[str, ...] = field(default=())
