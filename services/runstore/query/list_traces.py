"""Lists traces and their runs: lists of runs, with what whole traces used beside them."""

from dataclasses import replace
from typing import Protocol

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.query_kinds import QueryKind, asking_for
from runstore.domain.runs import RunField, RunQuery, StoredRun
from runstore.domain.traces import USAGE_FIELDS, Trace, TracePage
from runstore.query.list_runs import ListRuns, Page
from runstore.storage.run_store import TraceReader

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100


class Projects(Protocol):
    """What questions about one project need of the catalog."""

    async def exists(self, tenant_id: str, project_id: str) -> bool:
        """Whether the tenant has the project."""
        ...


async def check_project(projects: Projects, tenant_id: str, project_id: str) -> None:
    """Raises NOT_FOUND when the tenant has no such project."""
    if not await projects.exists(tenant_id, project_id):
        raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no project {project_id}", field="project_id")


class ListTraces:
    """Answers questions about the traces of one project."""

    def __init__(self, runs: ListRuns, traces: TraceReader, projects: Projects) -> None:
        self._runs = runs
        self._traces = traces
        self._projects = projects

    async def page(self, query: RunQuery, page_size: int, page_token: str, *, with_usage: bool) -> TracePage:
        """One page of the traces whose roots the query means, which is about one project.

        Raises NOT_FOUND, INVALID_ARGUMENT and INVALID_CURSOR.
        """
        [project_id] = query.project_ids
        await check_project(self._projects, query.tenant_id, project_id)
        size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        with asking_for(QueryKind.TRACES):
            page = await self._runs.page(replace(query, is_root=True), size, page_token)
        traces = tuple(Trace(root, {}) for root in page.runs)
        if with_usage and traces:
            traces = await self._with_usage(query.tenant_id, project_id, traces)
        return TracePage(traces, page.next_page_token)

    async def runs(self, query: RunQuery, page_size: int, page_token: str) -> Page:
        """One page of the runs of a trace that the query means, oldest first.

        Raises NOT_FOUND when the project has no such trace, INVALID_ARGUMENT and INVALID_CURSOR.
        """
        with asking_for(QueryKind.TRACES):
            page = await self._runs.page(replace(query, descending=False), page_size, page_token)
        if not page.runs and not page_token:
            await self._check_trace(query)
        return page

    async def _with_usage(
        self, tenant_id: str, project_id: str, traces: tuple[Trace, ...]
    ) -> tuple[Trace, ...]:
        trace_ids = [_id(trace.root) for trace in traces]
        usage = await self._traces.trace_usage(tenant_id, project_id, trace_ids, USAGE_FIELDS)
        return tuple(replace(trace, usage=usage.get(_id(trace.root), {})) for trace in traces)

    async def _check_trace(self, query: RunQuery) -> None:
        """Tells a trace none of whose runs matches from one that is not there."""
        trace_id = query.trace_id
        some = RunQuery(
            query.tenant_id, frozenset({RunField.ID}), project_ids=query.project_ids, trace_id=trace_id
        )
        if not (await self._runs.page(some, 1, "")).runs:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no trace {trace_id}", field="trace_id")


def _id(run: StoredRun) -> str:
    return run.position.run_id
