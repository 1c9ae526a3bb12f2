"""Deletes runs on request: the deletion is an operation in the log, like those that made the runs."""

from collections.abc import Sequence
from typing import Final, Protocol

from runstore.domain.conditions import AnyOf, Compare, MetadataPath, Relation
from runstore.domain.errors import invalid
from runstore.domain.runs import RunQuery

MAX_IDS: Final = 1_000
MAX_PAIRS: Final = 100


class Ingest(Protocol):
    """The way into the log."""

    async def write_deletion(
        self, tenant_id: str, *, run_ids: Sequence[str], trace_ids: Sequence[str], project_id: str | None
    ) -> int:
        """Return once the deletion is durable: the sequence number to wait for."""
        ...


class Visibility(Protocol):
    """Waits until operations are stored."""

    async def see_sequence(self, sequence: int) -> None: ...

    async def see_writes(self, tenant_id: str, project_ids: Sequence[str] = ()) -> None: ...


class Traces(Protocol):
    """Finds traces in the database. Raises StoreUnavailable."""

    async def projects_of(self, tenant_id: str, /) -> Sequence[str]:
        """Ids of all projects that have runs."""
        ...

    async def traces_of(self, query: RunQuery, /) -> Sequence[str]:
        """Ids of the traces of up to `limit` runs that the query means."""
        ...


class Peers(Protocol):
    """What deleting needs of the other stores."""

    async def settle(self) -> None:
        """Return once what they have accepted so far is stored, or after some seconds."""
        ...


class DeleteRuns:
    """Deletes; every method returns once no reader can see what was meant. Raises UNAVAILABLE, OVERLOADED."""

    def __init__(self, ingest: Ingest, visibility: Visibility, traces: Traces, peers: Peers) -> None:
        self._ingest = ingest
        self._peers = peers
        self._visibility = visibility
        self._traces = traces

    async def runs(self, tenant_id: str, run_ids: Sequence[str], project_id: str | None) -> None:
        """Delete runs. Raises INVALID_ARGUMENT for none or too many."""
        if not 0 < len(run_ids) <= MAX_IDS:
            raise invalid("ids", f"1 to {MAX_IDS} are needed")
        await self._delete(tenant_id, run_ids, (), project_id)

    async def traces(self, tenant_id: str, trace_ids: Sequence[str], project_id: str | None) -> None:
        """Delete all runs of some traces. Raises INVALID_ARGUMENT for none or too many."""
        if not 0 < len(trace_ids) <= MAX_IDS:
            raise invalid("trace_ids", f"1 to {MAX_IDS} are needed")
        await self._delete(tenant_id, (), trace_ids, project_id)

    async def traces_with(
        self, tenant_id: str, pairs: Sequence[tuple[str, str]], project_id: str | None
    ) -> None:
        """Delete the traces with a run that has any of these pairs of metadata: those that began before the
        call and maybe some that began meanwhile. Raises INVALID_ARGUMENT for no pairs or too many."""
        if not 0 < len(pairs) <= MAX_PAIRS:
            raise invalid("metadata", f"1 to {MAX_PAIRS} pairs are needed")
        await self._visibility.see_writes(tenant_id, () if project_id is None else (project_id,))
        await self._peers.settle()
        projects = [project_id] if project_id is not None else await self._traces.projects_of(tenant_id)
        query = RunQuery(
            tenant_id,
            frozenset(),
            project_ids=tuple(projects),
            filter=AnyOf(tuple(Compare(MetadataPath((key,)), Relation.EQ, value) for key, value in pairs)),
            limit=MAX_IDS,
        )
        deleted: set[str] = set()
        # What is found again is written anew all the time; it must not keep the call from ending.
        while projects and not deleted.issuperset(trace_ids := await self._traces.traces_of(query)):
            await self._delete(tenant_id, (), trace_ids, project_id)
            deleted.update(trace_ids)

    async def _delete(
        self, tenant_id: str, run_ids: Sequence[str], trace_ids: Sequence[str], project_id: str | None
    ) -> None:
        await self._peers.settle()
        sequence = await self._ingest.write_deletion(
            tenant_id, run_ids=run_ids, trace_ids=trace_ids, project_id=project_id
        )
        await self._visibility.see_sequence(sequence)
