"""Reads what is shared: a token stands for a tenant and for the runs that it was made for, and no others."""

from dataclasses import replace
from typing import Protocol

from runstore.domain.conditions import Compare, Relation, ScalarField
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.runs import RunField, RunQuery, StoredRun
from runstore.domain.shares import Share, ShareSubject
from runstore.query.list_runs import ListRuns, Page

_NEEDED = frozenset({RunField.ID, RunField.PARENT_RUN_IDS})


class Shares(Protocol):
    """What reading needs of the catalog."""

    async def find(self, token: str) -> Share:
        """What the token covers. Raises NOT_FOUND."""
        ...


class SharedRuns:
    """Lists runs under a token."""

    def __init__(self, runs: ListRuns, shares: Shares) -> None:
        self._runs = runs
        self._shares = shares

    async def subject(self, tenant_id: str, run_id: str, project_id: str | None) -> ShareSubject:
        """The run, as it is to be shared. Raises NOT_FOUND."""
        fields = frozenset({RunField.ID, RunField.PROJECT_ID, RunField.TRACE_ID})
        run = await self._runs.get(tenant_id, run_id, project_id, fields)
        return ShareSubject(
            run_id=run_id,
            project_id=str(run.values[RunField.PROJECT_ID]),
            trace_id=str(run.values[RunField.TRACE_ID]),
        )

    async def page(
        self,
        token: str,
        fields: frozenset[RunField],
        *,
        run_ids: tuple[str, ...] = (),
        shared_run_only: bool = False,
        start_time_us: int | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[str, Page]:
        """The tenant, and a page of the runs that the token covers, the first first; empty at the end alone.

        Raises NOT_FOUND, and INVALID_CURSOR.
        """
        share = await self._shares.find(token)
        subject = share.subject
        if shared_run_only:
            if subject.run_id is None:
                raise RunstoreError(ErrorReason.NOT_FOUND, "the token is of a thread", field="share_token")
            run_ids = (subject.run_id,)
        query = RunQuery(
            share.tenant_id,
            fields | _NEEDED,
            project_ids=(subject.project_id or "",),
            run_ids=run_ids,
            trace_id=subject.trace_id,
            min_start_time_us=start_time_us,
            max_start_time_us=start_time_us,
            descending=False,
        )
        if subject.thread_id is not None:
            query = replace(query, filter=Compare(ScalarField.THREAD_ID, Relation.EQ, subject.thread_id))
        while True:
            page = await self._runs.page(query, page_size, page_token)
            covered = tuple(run for run in page.runs if _covers(subject, run))
            page_token = page.next_page_token
            if covered or not page_token:
                return share.tenant_id, replace(page, runs=covered)


def _covers(subject: ShareSubject, run: StoredRun) -> bool:
    """Whether the run belongs to what is shared; that it is of the trace, or the thread, is known."""
    if subject.run_id is None or subject.run_id == subject.trace_id:
        return True
    below = run.values.get(RunField.PARENT_RUN_IDS) or ()
    return run.values[RunField.ID] == subject.run_id or subject.run_id in below
