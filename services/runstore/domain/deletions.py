"""The deletion of runs, as an operation among those that build them."""

from dataclasses import dataclass

import msgspec


class RunDeletion(msgspec.Struct, frozen=True, gc=False):
    """Deletes what was accepted before it of the runs with these ids, and of all runs of these traces."""

    tenant_id: str
    sequence: int
    """Position in the order of all operations; see `ingest.sequence`."""
    run_ids: tuple[str, ...] = ()
    trace_ids: tuple[str, ...] = ()
    project_id: str | None = None
    """Only what lies in this project, unless None."""
    started_before_us: int | None = None
    """Only of traces whose last run started before this time, unless None."""
    spares_kept: bool = False
    """Not of traces that are kept."""


class PendingDeletions(msgspec.Struct, frozen=True):
    """Deletions whose rows are still stored, hidden."""

    are_any: bool
    """Of whatever run and tenant."""
    sequences: dict[str, int]
    """Of the runs that were asked for: run id → the deletion that came last."""


@dataclass(frozen=True, slots=True)
class PurgeStep:
    """Some deletions of one tenant, to be purged together."""

    tenant_id: str
    sequences: tuple[int, ...]
