"""Questions in natural language beside a filter: what the store is asked, and what travels in cursors."""

import base64
import binascii
from typing import Final, NamedTuple

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.store_client import Credentials, StoreClient
from runstore.v1 import filter_service_pb2 as pb

_PREFIX: Final = "q"
_SEPARATOR: Final = "."


class Understood(NamedTuple):
    """A question as a filter, and where its walk has come to.

    A model may understand the same question in another way the next time. So the filter travels in the
    cursor; the store's own signature, which covers every condition, covers it.
    """

    filter: str
    cursor: str
    """For the store."""

    def wrap(self, cursor: str | None) -> str | None:
        """What the client gets for a cursor of the store."""
        if not cursor:
            return cursor
        return f"{_PREFIX}{base64.urlsafe_b64encode(self.filter.encode()).decode()}{_SEPARATOR}{cursor}"


async def understand(
    store: StoreClient, question: str, cursor: str | None, credentials: Credentials
) -> Understood:
    """The filter of a cursor, or one that a language model writes now. Raises `RunstoreError`."""
    if not cursor:
        answer = await store.generate_filter(pb.GenerateFilterRequest(question=question), credentials)
        return Understood(answer.filter, "")
    encoded, separator, rest = cursor.removeprefix(_PREFIX).partition(_SEPARATOR)
    try:
        if not (cursor.startswith(_PREFIX) and separator):
            raise ValueError(cursor)
        text = base64.b64decode(encoded, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise RunstoreError(
            ErrorReason.INVALID_CURSOR, "not a cursor of this server and question", field="cursor"
        ) from error
    return Understood(text, rest)


def both(one: str, other: str) -> str:
    """A filter that holds when both do; each `and` of its own, so that conditions of one do not pair with the
    other's."""
    texts = [f"and({text})" for text in (one, other) if text.strip()]
    return f"and({', '.join(texts)})" if texts else ""
