"""A criterion in plain language of the lists of v2 (contract runs-v2, sections 0 and 15).

A language model writes it as a filter, which holds beside the others; items show it in `query_metadata`.
"""

from typing import Any, Final

from fastapi import HTTPException, Request

from runstore.domain.errors import RunstoreError
from runstore.gateway.patch_streams import wants_events
from runstore.gateway.questions import Understood, both, understand
from runstore.gateway.store_client import Credentials, StoreClient

_MOST_BYTES: Final = 2_000
_NOT_ACCEPTABLE: Final = 406


class Search:
    """What a list searches for beside its filters, and the place in the walk that its cursor means."""

    def __init__(self, understood: Understood | None, cursor: str | None) -> None:
        """`understood`: None when there is no criterion."""
        self._understood = understood
        self.cursor = cursor if understood is None else understood.cursor or None
        """What is left of the client's cursor."""

    def beside(self, text: str | None) -> str:
        """A filter that holds when this one does and the criterion."""
        return text or "" if self._understood is None else both(text or "", self._understood.filter)

    def wrap(self, cursor: str | None) -> str | None:
        """What the client gets for a cursor."""
        return cursor if self._understood is None else self._understood.wrap(cursor)

    @property
    def metadata(self) -> dict[str, Any] | None:
        """`query_metadata` of an item."""
        return None if self._understood is None else {"filter": self._understood.filter}


async def search_of(
    request: Request, ai_search: str | None, cursor: str | None, store: StoreClient, credentials: Credentials
) -> Search:
    """The search of a body. Raises HTTPException and `RunstoreError` for one that is refused."""
    if ai_search is None:
        return Search(None, cursor)
    if not ai_search.strip() or len(ai_search.encode(errors="replace")) > _MOST_BYTES:
        raise HTTPException(400, f"ai_search: must be text of at most {_MOST_BYTES} bytes, and not blank")
    if not wants_events(request):
        raise HTTPException(_NOT_ACCEPTABLE, "ai_search: needs Accept: text/event-stream")
    try:
        return Search(await understand(store, ai_search, cursor, credentials), cursor)
    except RunstoreError as error:
        field = "ai_search" if error.field in ("", "query") else error.field
        raise RunstoreError(error.reason, error.message, field=field) from error
