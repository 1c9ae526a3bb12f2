"""Lists runs: checks a question, turns page tokens into positions and back, and asks the store."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.query_kinds import QueryKind, asking_for
from runstore.domain.runs import Position, RunField, RunQuery, StoredRun
from runstore.query.cursors import PageTokens, query_hash
from runstore.query.references import References
from runstore.storage.run_store import RunStore

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000
MAX_PROJECTS = 100
MAX_IDS = 10_000
MAX_REFERENCE_EXAMPLES = 1_000
EXPORT_PAGE_BYTES = 3 * 1024 * 1024
"""Payloads of one message, below gRPC's usual limit of 4 MiB with what is around them."""


class Writes(Protocol):
    """What a reader needs of the writers: to see what they had been promised."""

    async def see_writes(
        self,
        tenant_id: str,
        project_ids: tuple[str, ...] = (),
        *,
        run_ids: tuple[str, ...] = (),
        trace_id: str | None = None,
    ) -> None:
        """Return once everything acknowledged before, and of these projects, runs and trace, can be read."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """Runs, and the token of the next page; "" at the end and only there.

    `previous_page_token`: as well, of the page before, but "" on the first page.
    """

    runs: tuple[StoredRun, ...]
    next_page_token: str
    previous_page_token: str = ""


class ListRuns:
    """Answers lists and reads of single runs."""

    def __init__(
        self, store: RunStore, writes: Writes, page_tokens: PageTokens, references: References
    ) -> None:
        self._store = store
        self._writes = writes
        self._page_tokens = page_tokens
        self._references = references

    async def page(self, query: RunQuery, page_size: int, page_token: str) -> Page:
        """One page. Raises INVALID_ARGUMENT and INVALID_CURSOR."""
        limited, asked = self._begin(query, page_size)
        # A token of the page before is bound to this instead, and to where this page begins.
        asked_back = query_hash("back", asked)
        after, is_back = None, False
        if page_token:
            after, is_back = self._decode(page_token, asked, asked_back)
        await self._see_writes(query)
        limited = await self._references.resolved(limited)
        # Going back is going on in the other order.
        found = await self._store.list_runs(
            replace(limited, after=after, descending=query.descending != is_back)
        )
        runs = found.runs[::-1] if is_back else found.runs
        has_next = bool(runs) if is_back else found.has_more
        has_previous = found.has_more if is_back else bool(runs and page_token)
        return Page(
            runs,
            self._page_tokens.encode(runs[-1].position, asked) if has_next else "",
            self._page_tokens.encode(runs[0].position, asked_back) if has_previous else "",
        )

    def _decode(self, page_token: str, asked: bytes, asked_back: bytes) -> tuple[Position, bool]:
        """Where a token leads on from, and whether it leads back."""
        try:
            return self._page_tokens.decode(page_token, asked), False
        except RunstoreError:
            with suppress(RunstoreError):
                return self._page_tokens.decode(page_token, asked_back), True
            raise

    async def export(self, query: RunQuery, page_size: int, page_token: str) -> AsyncIterator[Page]:
        """All runs of a query in order, in pages of bounded bytes; each with a token that leads on behind it,
        the last one, too. Reads only as fast as pages are taken. Raises as `page` does."""
        limited, asked = self._begin(query, page_size)
        after = self._page_tokens.decode(page_token, asked) if page_token else None
        await self._see_writes(query)
        limited = await self._references.resolved(limited)
        limited = replace(limited, after=after, max_payload_bytes=EXPORT_PAGE_BYTES)
        has_more, limit = True, limited.limit
        while has_more:
            with asking_for(QueryKind.EXPORT):
                found = await self._store.list_runs(limited)
            has_more = found.has_more
            if found.runs:
                last = found.runs[-1].position
                yield Page(found.runs, self._page_tokens.encode(last, asked))
                # Where payloads are large, few runs make a page; looking for many more of them is a waste.
                limited = replace(limited, after=last, limit=min(limit, 2 * len(found.runs)))

    async def _see_writes(self, query: RunQuery) -> None:
        """What the answer depends on: a run's own operations, unless others of its trace count, too."""
        counts_others = query.trace_filter or query.tree_filter or query.with_subtree_usage
        await self._writes.see_writes(
            query.tenant_id,
            query.project_ids,
            run_ids=() if counts_others else query.run_ids,
            trace_id=query.trace_id,
        )

    def _begin(self, query: RunQuery, page_size: int) -> tuple[RunQuery, bytes]:
        """The query with the limit of a page, and the hash that its tokens are bound to."""
        check_query(query)
        if page_size < 0:
            raise invalid("page_size", "must not be negative")
        # What is selected may change from page to page, which runs they are may not.
        asked = query_hash(replace(query, fields=frozenset(), limit=0))
        return replace(query, limit=min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)), asked

    async def get(
        self, tenant_id: str, run_id: str, project_id: str | None, fields: frozenset[RunField]
    ) -> StoredRun:
        """One run by its id. Raises NOT_FOUND."""
        projects = (project_id,) if project_id is not None else ()
        query = RunQuery(tenant_id, fields, project_ids=projects, run_ids=(run_id,), limit=1)
        await self._see_writes(query)
        with asking_for(QueryKind.GET):
            found = await self._store.list_runs(query)
        if not found.runs:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no run {run_id}", field="id")
        return found.runs[0]


def check_query(query: RunQuery) -> None:
    """Raises INVALID_ARGUMENT for a query without a bound, or above a limit."""
    if not (
        query.project_ids
        or query.run_ids
        or query.trace_id
        or query.parent_run_id
        or query.reference_example_ids
    ):
        raise invalid(
            "project_ids",
            "at least one of project_ids, ids, trace_id, parent_run_id and reference_example_ids is needed",
        )
    for field, values, most in (
        ("project_ids", query.project_ids, MAX_PROJECTS),
        ("ids", query.run_ids, MAX_IDS),
        ("reference_example_ids", query.reference_example_ids, MAX_REFERENCE_EXAMPLES),
    ):
        if len(values) > most:
            raise invalid(field, f"more than {most}")
