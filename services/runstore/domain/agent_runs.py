"""Runs of graphs and the threads that they share, as the catalog keeps them.

JSON is kept as bytes, ids are canonical UUID text, times microseconds since the epoch.
"""

import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

MAX_AGENT_PAGE: Final = 1_000
"""Most runs, threads or assistants of one page."""

MAX_FAILURES: Final = 3
"""Attempts that may fail by themselves, not by the graph, before their run does."""


class AgentRunStatus(StrEnum):
    """Where a run stands, in the contract's words."""

    PENDING = "pending"
    RUNNING = "running"
    ERROR = "error"
    SUCCESS = "success"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    ROLLED_BACK = "rollback"
    """Never stored with a run, which is gone: told to those who wait for it."""


class AgentThreadStatus(StrEnum):
    """Where a thread stands, in the contract's words."""

    IDLE = "idle"
    BUSY = "busy"
    INTERRUPTED = "interrupted"
    ERROR = "error"


class MultitaskStrategy(StrEnum):
    """What a new run does to those of its thread that are in flight."""

    REJECT = "reject"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"
    ENQUEUE = "enqueue"


class CancelAction(StrEnum):
    """How a run is cancelled."""

    INTERRUPT = "interrupt"
    """It stays, with what it had completed."""
    ROLLBACK = "rollback"
    """It goes, with its checkpoints."""


CANCEL_ERRORS: Final = {CancelAction.INTERRUPT: "UserInterrupt", CancelAction.ROLLBACK: "UserRollback"}
"""What a cancelled run leaves as its thread's error."""


@dataclass(frozen=True, slots=True)
class AgentRunError:
    """Why a run did not succeed, fit for the caller's eyes."""

    error: str
    """Class of the exception, `UserInterrupt` or `UserRollback`."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRun:
    """A run as stored."""

    run_id: str
    tenant_id: str
    thread_id: str
    assistant_id: str
    graph_id: str
    status: AgentRunStatus
    metadata: bytes
    kwargs: bytes
    """The request after merging: a JSON object, keys as in `agent_run.proto`."""
    multitask_strategy: MultitaskStrategy
    created_at_us: int
    due_at_us: int
    """When it may start: runs of a thread start in this order."""
    updated_at_us: int
    attempt: int = 0
    """Times that it was claimed."""
    failures: int = 0
    """Attempts that were lost."""
    cancel_action: CancelAction | None = None
    """Set once it is cancelled: whoever claims it afterwards only cleans up."""
    cancel_reason: str | None = None
    project_name: str | None = None
    webhook: str | None = None
    user_id: str = ""
    is_traced: bool = False
    """Whether the worker of its last attempt traces."""
    has_checkpoints: bool = True
    """False for runs whose thread goes with them."""
    result: bytes | None = None
    """What `wait` answers; None until the run has ended."""
    started_at_us: int | None = None
    ended_at_us: int | None = None

    @property
    def trace_id(self) -> str:
        """Root of the last attempt's trace: the run's id, or one of its own after the first; "" for none."""
        if not self.is_traced or not self.attempt:
            return ""
        if self.attempt == 1:
            return self.run_id
        return str(uuid.uuid5(uuid.UUID(self.run_id), str(self.attempt)))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAgentRun:
    """What a caller asks to run, its JSON checked already; None is as if never given."""

    thread_id: str | None = None
    input: bytes | None = None
    command: bytes | None = None
    metadata: dict[str, object] | None = None
    config: dict[str, object] | None = None
    context: dict[str, object] | None = None
    checkpoint: dict[str, object] | None = None
    options: dict[str, object]
    """What passes through to the worker: `stream_mode`, `durability`, `interrupt_before` and the like."""
    headers: dict[str, str]
    request_id: str = ""
    user_id: str = ""
    webhook: str | None = None
    multitask_strategy: MultitaskStrategy = MultitaskStrategy.ENQUEUE
    creates_thread: bool = False
    keeps_thread: bool = False
    """For a stateless run, which is one without a thread."""
    after_seconds: float = 0.0
    project_name: str | None = None
    example_id: str | None = None
    run_id: str | None = None
    """Made by the store unless given, which keeps whoever repeats the request from creating it twice."""
    cron_id: str | None = None
    """Whose time it is, for the run's metadata."""


@dataclass(frozen=True, slots=True)
class ThreadSnapshot:
    """What a thread holds after its latest checkpoint."""

    values: bytes | None
    """JSON; None when there is no checkpoint."""
    interrupts: bytes | None
    """JSON object from task id to its interrupts."""
    has_next: bool
    """Whether nodes remain to be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentThread:
    """A thread as stored."""

    thread_id: str
    tenant_id: str
    status: AgentThreadStatus
    metadata: bytes
    config: bytes = b"{}"
    graph_id: str | None = None
    """Graph of its latest run."""
    values: bytes | None = None
    interrupts: bytes | None = None
    has_next: bool = False
    error: AgentRunError | None = None
    is_temporary: bool = False
    """Whether it goes when its last run ends."""
    created_at_us: int
    updated_at_us: int
    state_updated_at_us: int | None = None
    ttl_minutes: float | None = None
    ttl_strategy: str | None = None
    expires_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class Ttl:
    """How long a thread stays."""

    minutes: float
    """Time without change after which it expires."""
    strategy: str
    """`delete`, or `keep_latest` for its latest checkpoint."""


class ThreadOrder(StrEnum):
    """What to order threads by."""

    UPDATED_AT = "updated_at_us"
    CREATED_AT = "created_at_us"
    THREAD_ID = "thread_id"
    STATUS = "status"
    STATE_UPDATED_AT = "state_updated_at_us"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadQuery:
    """Which threads, in which order; all that is given must hold."""

    metadata: dict[str, object] | None = None
    """What their metadata contains."""
    values: dict[str, object] | None = None
    """What their values contain."""
    status: AgentThreadStatus | None = None
    thread_ids: tuple[str, ...] = ()
    order: ThreadOrder = ThreadOrder.UPDATED_AT
    is_ascending: bool = False
    offset: int = 0
    limit: int = 10


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to one attempt of one run."""

    run_id: str
    token: str
    """Random; whatever a worker writes about the run is refused without it."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """A claimed run is to be stopped."""

    claim: Claim
    action: CancelAction
    reason: str


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that a worker is to run, or, when it was cancelled, to clean up after."""

    claim: Claim
    run: AgentRun
    is_last: bool = False
    """Whether there was nothing else that the worker could have claimed."""


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    ROLLED_BACK = "rollback"
    REQUEUE = "requeue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a worker says of an attempt that is over."""

    claim: Claim
    outcome: Outcome
    result: bytes
    snapshot: ThreadSnapshot | None = None
    """None when the run has made no checkpoint: the thread keeps what it holds."""
    error: AgentRunError | None = None
    started_at_us: int | None = None
    ended_at_us: int | None = None
    is_failure: bool = False
    """For REQUEUE: whether the attempt counts among the lost ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended, for those who wait for it and for its webhook."""

    run_id: str
    thread_id: str
    status: AgentRunStatus
    result: bytes
    error: AgentRunError | None = None


@dataclass(frozen=True, slots=True)
class Effects:
    """What a transaction did to runs besides its purpose; to be told to those concerned once it holds."""

    cancels: list[Cancel] = field(default_factory=list)
    """Runs that workers have to stop."""
    ends: list[RunEnd] = field(default_factory=list)
    """Runs that have ended."""
    claimed: list[ClaimedRun] = field(default_factory=list)
    """Runs that were claimed as they were created."""

    def add(self, more: "Effects") -> None:
        """Takes in what another step of the transaction did."""
        self.cancels.extend(more.cancels)
        self.ends.extend(more.ends)
        self.claimed.extend(more.claimed)
