"""What the rest of runstore may ask of the database that holds the runs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from runstore.domain.dead_letters import DeadLetter
from runstore.domain.deletions import PendingDeletions, PurgeStep, RunDeletion
from runstore.domain.feedback import Feedback, FeedbackByKey, FeedbackPatch, FeedbackQuery
from runstore.domain.retention import ExpiredTrace, ExpiryQuery, Freed, Month, TraceKeep
from runstore.domain.run_stats import GroupStats, StatsQuery
from runstore.domain.runs import (
    Attachment,
    AttachmentRef,
    RunField,
    RunMove,
    RunPage,
    RunPatch,
    RunPlace,
    RunQuery,
    RunRow,
)
from runstore.domain.threads import ThreadPage, ThreadQuery, ThreadStat, ThreadStats
from runstore.domain.traces import Usage


class StoreUnavailable(Exception):
    """The engine cannot be reached or is out of resources; the same call may succeed later."""


class QueryTooLong(StoreUnavailable):
    """The engine gave a question up that takes longer than one may; so it will again."""


class QueryTooLarge(StoreUnavailable):
    """The engine gave a question up that needs more memory than one may; so it will again."""


class BlockRefused(Exception):
    """The engine refuses the content of a block and will again; split it and retry the halves."""


class Block(msgspec.Struct, frozen=True):
    """Partial rows, ready to be inserted."""

    files: tuple[tuple[str, str], ...]
    """(table, path of a file in a format of the engine), in the order in which they are to be inserted."""
    price_model_ids: tuple[str, ...]
    """Prices that the block brings."""


@dataclass(frozen=True, slots=True)
class TableFigures:
    """What a table of the engine takes."""

    name: str
    parts: int
    rows: int
    """Partial rows, as far as they are not merged."""
    disk_bytes: int
    raw_bytes: int
    """Before compression."""


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What the engine says of itself."""

    version: str
    tables: tuple[TableFigures, ...]
    dead_letters: int
    parked_operations: int
    deleted_runs: int
    """Hidden, and not purged yet."""


class DeadLetterStore(Protocol):
    """Keeps operations that the engine refuses. Every method raises StoreUnavailable."""

    async def page(self, after: str, limit: int, /) -> list[DeadLetter]:
        """Letters of all tenants in the order of their operations, behind the one with the id `after`."""
        ...

    async def find(self, ids: Collection[str], /) -> list[DeadLetter]:
        """Those of the letters that exist, in the order of their operations."""
        ...

    async def open(self, letter_id: str, /) -> DeadLetter | None:
        """A letter with its operation."""
        ...

    async def forget(self, letters: Collection[DeadLetter], /) -> None:
        """Remove letters as they were found: one that has been refused again since stays."""
        ...


class FeedbackStore(Protocol):
    """Keeps feedback. Every method raises StoreUnavailable.

    Writes are durable when they return and safe to repeat; they may come in any order.
    """

    async def append(self, patches: Sequence[FeedbackPatch], /) -> None:
        """Insert operations. Raises BlockRefused."""
        ...

    async def get(self, tenant_id: str, feedback_id: str, /) -> Feedback | None:
        """A record; None when there is none."""
        ...

    async def page(self, query: FeedbackQuery, /) -> list[Feedback]:
        """Records, the last created first."""
        ...

    async def stats(self, query: FeedbackQuery, /) -> FeedbackByKey:
        """All records of a query summed up, whatever its offset and limit."""
        ...

    async def stats_of_runs(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, FeedbackByKey]:
        """The feedback of each of the runs summed up; runs without any are left out."""
        ...

    async def delete_of_runs(self, tenant_id: str, run_ids: Collection[str], /) -> None:
        """Delete all feedback on the runs."""
        ...

    async def delete_of_project(self, tenant_id: str, project_id: str, /) -> None:
        """Delete all feedback on the project and its runs; to be called while the runs are still there."""
        ...


class RunWriter(Protocol):
    """Takes runs as partial rows that merge when they are read.

    Every asynchronous method raises StoreUnavailable. Writes are durable when they return, in the order
    of the calls, and safe to repeat.
    """

    def block(self, rows: Sequence[RunRow], /) -> Block:
        """The rows, ready for `append`: the part of the work that needs no engine.

        Raises BlockRefused, and StoreUnavailable when there is no space for it.
        """
        ...

    async def append(self, block: Block, moves: Sequence[RunMove], /) -> None:
        """Insert a block, after giving the moved runs their new keys. Raises BlockRefused.

        The block is used up, unless StoreUnavailable is raised.
        """
        ...

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]:
        """Where the runs are stored; those that are not are left out."""
        ...

    async def moved_runs(self) -> set[tuple[str, str]]:
        """Every run that ever changed its key, as (tenant id, run id)."""
        ...

    async def park(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        """Keep patches until the run each awaits, given by its id, has a place."""
        ...

    async def awaited_runs(self) -> Mapping[tuple[str, str], int]:
        """The runs that parked patches await, as (tenant id, run id), with how many do."""
        ...

    async def parked(self, awaited: Collection[tuple[str, str]], /) -> Sequence[tuple[str, RunPatch]]:
        """Patches parked for these runs, oldest first, each with the id of the run it awaits."""
        ...

    async def unpark(self, patches: Sequence[tuple[str, RunPatch]], /) -> None:
        """Forget parked patches."""
        ...

    async def bury(self, patches: Sequence[RunPatch], reason: str, /) -> None:
        """Keep patches that the engine refuses as dead letters."""
        ...

    async def delete(self, deletion: RunDeletion, /) -> list[str]:
        """Hide all that is stored of the runs, with what waits for them and is said of them: their ids.

        Everything accepted before the deletion is to be stored by now, nothing accepted after it.
        """
        ...

    async def keep(self, keep: TraceKeep, /) -> None:
        """Keep traces, of runs that are stored or not, for the long period of their projects."""
        ...

    async def pending_deletions(self, tenant_id: str, run_ids: Collection[str], /) -> PendingDeletions:
        """Whether rows of deleted runs are still there, hidden, and of which of these."""
        ...

    async def append_feedback(self, patches: Sequence[FeedbackPatch], /) -> None:
        """Insert operations on feedback, which may come in any order, and keep the traces that it judges.

        Raises BlockRefused.
        """
        ...

    async def bury_feedback(self, patches: Sequence[FeedbackPatch], reason: str, /) -> None:
        """As `bury`."""
        ...


class DeletionStore(Protocol):
    """Purges deleted runs, which `RunWriter.delete` has hidden. Every method raises StoreUnavailable and is
    safe to repeat."""

    async def purge_steps(self) -> Sequence[PurgeStep]:
        """All deletions that are not forgotten, the oldest first."""
        ...

    async def deleted_blobs(self, step: PurgeStep, /) -> Sequence[str]:
        """Keys of the blobs that rows of the step refer to; other rows may, too."""
        ...

    async def purge(self, step: PurgeStep, /) -> None:
        """Remove the rows of a step from every table. They are hidden until the last is gone."""
        ...

    async def forget_deletions(self, step: PurgeStep, /) -> None:
        """Forget that the runs of a purged step are deleted: nothing older can come of them any more."""
        ...


class RetentionStore(Protocol):
    """Finds and removes what has expired. Every method raises StoreUnavailable and is safe to repeat."""

    async def tenants(self) -> Sequence[str]:
        """Ids of all tenants that have, or had, runs."""
        ...

    async def expired(self, query: ExpiryQuery, /) -> Sequence[ExpiredTrace]:
        """The oldest traces that have expired; when less than `query.limit`, all of them."""
        ...

    async def rows_of(self, query: ExpiryQuery, traces: Sequence[ExpiredTrace], /) -> Freed:
        """What all traces hold that have expired and end no later than these, which `expired` has found."""
        ...

    async def forget(self, query: ExpiryQuery, traces: Sequence[ExpiredTrace], /) -> None:
        """Remove the keys of all such traces that have no runs any more."""
        ...

    async def oldest_us(self, tenant_id: str, /) -> int | None:
        """When the oldest trace of a tenant began; None when there is none."""
        ...

    async def months(self) -> Sequence[Month]:
        """The partitions of the table of runs, the oldest first."""
        ...

    async def projects_of(self, month: Month, /) -> Sequence[tuple[str, str]]:
        """The (tenant id, project id) whose runs, or marks of them, are in a partition."""
        ...

    async def has_living(self, month: Month, cutoff_us: int, kept_cutoff_us: int, /) -> bool:
        """Whether a trace with runs in a partition has not expired, by these times for all its projects."""
        ...

    async def blobs_of(self, month: Month, after: str, limit: int, /) -> Sequence[tuple[str, str]]:
        """(key, tenant id) of blobs that rows of a partition refer to, by key, those behind `after`."""
        ...

    async def drop(self, month: Month, /) -> Mapping[str, Freed]:
        """Remove a partition with all that refers to its runs; what was freed, by tenant."""
        ...

    async def forget_parked(self, tenant_id: str, accepted_before_us: int, /) -> None:
        """Give up operations that were accepted before a time and still wait for another run."""
        ...

    async def kept(self, tenant_id: str, trace_ids: Collection[str], /) -> set[str]:
        """Those of the traces that are kept."""
        ...


class TenantStore(Protocol):
    """Removes tenants."""

    async def purge(self, tenant_id: str, /) -> int:
        """Remove every row of a tenant, of runs or of anything else: how many there were, as they are stored.

        Raises StoreUnavailable; safe to repeat.
        """
        ...


class RunReader(Protocol):
    """Answers questions about runs. Every method raises StoreUnavailable."""

    async def list_runs(self, query: RunQuery, /) -> RunPage:
        """A page of merged runs by (start time, id); never empty while more match.

        It may be shorter than the query's limit only at the end, or when the query limits its bytes.
        """
        ...

    async def attachment(self, ref: AttachmentRef, /) -> Attachment | None:
        """The file, or where it is; None when there is none."""
        ...


class TraceReader(Protocol):
    """Sums up the runs of traces. Every method raises StoreUnavailable."""

    async def trace_usage(
        self,
        tenant_id: str,
        project_id: str,
        trace_ids: Collection[str],
        fields: Collection[RunField],
        /,
    ) -> Mapping[str, Usage]:
        """What all runs of each trace used together, by trace id; of the fields those in USAGE_FIELDS."""
        ...

    async def subtree_usage(
        self,
        tenant_id: str,
        trace_ids: Collection[str],
        run_ids: Collection[str],
        fields: Collection[RunField],
        /,
    ) -> Mapping[str, Usage]:
        """As `trace_usage`, of each of some runs of these traces with everything below it, by run id."""
        ...


class ThreadReader(Protocol):
    """Answers questions about threads. Every method raises StoreUnavailable."""

    async def list_threads(self, query: ThreadQuery, /) -> ThreadPage:
        """A page of threads, the latest first; never empty while more match, short now and then."""
        ...

    async def aggregate_stats(self, query: ThreadQuery, stats: Collection[ThreadStat], /) -> ThreadStats:
        """The traces in the window of all threads that match, summed up."""
        ...

    async def thread_stats(
        self, query: ThreadQuery, thread_id: str, stats: Collection[ThreadStat], /
    ) -> ThreadStats:
        """The traces of one thread that satisfy the query's `filter`, summed up."""
        ...

    async def turn_numbers(
        self, tenant_id: str, project_id: str, thread_id: str, trace_ids: Collection[str], /
    ) -> Mapping[str, int]:
        """Places of some traces among all of a thread by (start time, id), from 1."""


class RunStatsReader(Protocol):
    """Sums runs up. Every method raises StoreUnavailable."""

    async def run_stats(self, query: StatsQuery, /) -> list[GroupStats]:
        """The groups, the largest first; without grouping one, of all runs, even when there are none."""
        ...


class RunStore(RunWriter, RunReader, Protocol):
    """All that the database does."""

    async def delete_project(self, tenant_id: str, project_id: str, /) -> None:
        """Delete every run of the project; none is listed once this returns."""
        ...

    async def project_blobs(self, tenant_id: str, project_id: str, /) -> Sequence[str]:
        """Keys of the blobs that runs of the project, and of no other, refer to."""
        ...

    async def blobs_in_use(self, tenant_id: str, keys: Collection[str], /) -> set[str]:
        """Those of the keys that a run, a parked patch or a dead letter refers to."""
        ...
