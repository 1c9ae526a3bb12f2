"""What v2 lists say to a criterion in plain language (contract runs-v2, sections 0 and 15)."""

from typing import Final

from fastapi import HTTPException, Request

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.patch_streams import wants_events

_MOST_BYTES: Final = 2_000
_NOT_ACCEPTABLE: Final = 406


def refuse_ai_search(request: Request, ai_search: str | None) -> None:
    """Refuses a search: as malformed, without the streaming form, or because nobody here understands it."""
    if ai_search is None:
        return
    if not ai_search.strip() or len(ai_search.encode(errors="replace")) > _MOST_BYTES:
        raise HTTPException(400, f"ai_search: must be text of at most {_MOST_BYTES} bytes, and not blank")
    if not wants_events(request):
        raise HTTPException(_NOT_ACCEPTABLE, "ai_search: needs Accept: text/event-stream")
    raise RunstoreError(ErrorReason.UNIMPLEMENTED, "not offered by this deployment", field="ai_search")
