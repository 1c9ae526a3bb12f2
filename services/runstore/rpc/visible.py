"""Tokens of writes in the metadata of calls: such a call sees these writes, whichever store took them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from runstore.domain.errors import invalid

VISIBLE_METADATA_KEY: Final = "x-runstore-visible"
"""`write_token` of answers to writes, with commas between several; gateways pass it on from HTTP."""

_MAX_TOKENS: Final = 256
_MAX_TOKEN_CHARS: Final = 20
# They answer writes in their order; a token there would only make them slow.
_WRITES: Final = "/runstore.v1.RunIngestService/"

See = Callable[[int], Awaitable[None]]
"""Waits until the write with a sequence number can be read. Raises UNAVAILABLE."""


def write_sequence(field: str, token: str) -> int:
    """The sequence number that a token of a write stands for. Raises INVALID_ARGUMENT."""
    if not (token.isascii() and token.isdigit() and len(token) <= _MAX_TOKEN_CHARS):
        raise invalid(field, "not a token of this service")
    return int(token)


async def see_writes(see: See, metadata: Mapping[str, str], method: str) -> None:
    """Return once the writes that the caller names can be read. Raises INVALID_ARGUMENT, UNAVAILABLE."""
    tokens = metadata.get(VISIBLE_METADATA_KEY)
    if not tokens or method.startswith(_WRITES):
        return
    found = tokens.split(",", _MAX_TOKENS)
    if len(found) > _MAX_TOKENS:
        raise invalid(VISIBLE_METADATA_KEY, f"more than {_MAX_TOKENS} tokens")
    for token in found:
        await see(write_sequence(VISIBLE_METADATA_KEY, token.strip()))
