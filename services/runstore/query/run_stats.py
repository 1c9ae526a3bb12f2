"""Answers questions about many runs together."""

from dataclasses import replace

from runstore.domain.errors import invalid
from runstore.domain.run_stats import GroupAttribute, Grouping, GroupStats, StatsQuery
from runstore.query.list_runs import Writes, check_query
from runstore.query.references import References
from runstore.storage.run_store import RunStatsReader

MAX_GROUPS = 1_000
DEFAULT_GROUPS = 5


class RunStatistics:
    """Sums up what the writers have acknowledged."""

    def __init__(self, store: RunStatsReader, writes: Writes, references: References) -> None:
        self._store = store
        self._writes = writes
        self._references = references

    async def of(self, query: StatsQuery) -> list[GroupStats]:
        """The groups, the largest first; one of all runs without grouping. Raises INVALID_ARGUMENT."""
        check_query(query.runs)
        if query.grouping is not None:
            _check_grouping(query.grouping)
        await self._writes.see_writes(query.runs.tenant_id, query.runs.project_ids)
        return await self._store.run_stats(replace(query, runs=await self._references.resolved(query.runs)))


def _check_grouping(grouping: Grouping) -> None:
    if grouping.attribute is GroupAttribute.METADATA and not any(grouping.path):
        raise invalid("grouping.path", "grouping by metadata needs the path of a value")
    if grouping.max_groups < 0:
        raise invalid("grouping.max_groups", "must not be negative")
    if len(grouping.values) > MAX_GROUPS:
        raise invalid("grouping.groups", f"more than {MAX_GROUPS}")
