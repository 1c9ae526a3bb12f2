"""What an operator can do with dead letters: look at them, send them on their way again, drop them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import msgspec

from runstore.domain.dead_letters import DeadLetter, Replayed, ReplayOutcome, is_dead_letter_id
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.runs import RunPatch, RunPlace
from runstore.storage.run_store import DeadLetterStore

MAX_LETTERS = 1_000
"""Letters in one call."""


class Ingest(Protocol):
    """What a replay needs of `IngestRuns`."""

    async def find_projects(self, patches: Sequence[RunPatch]) -> dict[int, RunstoreError]: ...

    async def write(self, patches: Sequence[RunPatch], *, keep_sequence: bool) -> int: ...

    async def write_feedback(self, patches: Sequence[FeedbackPatch], *, keep_sequence: bool) -> int: ...


class Places(Protocol):
    """Where runs are stored."""

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]: ...


class Visibility(Protocol):
    """Waits until operations are stored."""

    async def see_sequence(self, sequence: int) -> None: ...


class DeadLetters:
    """Dead letters of all tenants. Every method raises StoreUnavailable while the engine is away."""

    def __init__(
        self, letters: DeadLetterStore, runs: Places, ingest: Ingest, visibility: Visibility
    ) -> None:
        self._letters = letters
        self._runs = runs
        self._ingest = ingest
        self._visibility = visibility

    async def page(self, after: str, limit: int) -> list[DeadLetter]:
        """At most `limit` letters behind the one with the id `after`, which "" comes before all of."""
        if after and not is_dead_letter_id(after):
            raise RunstoreError(ErrorReason.INVALID_CURSOR, "not a page token of dead letters")
        return await self._letters.page(after, limit)

    async def get(self, letter_id: str) -> DeadLetter:
        """A letter with its operation. Raises NOT_FOUND."""
        letter = await self._letters.open(letter_id)
        if letter is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no dead letter {letter_id}", field="id")
        return letter

    async def replay(self, ids: Sequence[str]) -> list[Replayed]:
        """Accept operations once more, in their old place in the order, and wait for what becomes of them.

        A letter is removed once its operation is stored; cut short, the call can be repeated. Returns an
        outcome for each id. Raises OVERLOADED, UNAVAILABLE as `IngestRuns.write`.
        """
        _check(ids)
        outcomes: dict[str, Replayed] = {}
        written: list[DeadLetter] = []
        last_sequence = 0
        # One by one: an operation may be as large as a message.
        for letter_id in dict.fromkeys(ids):
            letter = await self._letters.open(letter_id)
            if letter is None:
                outcomes[letter_id] = Replayed(letter_id, ReplayOutcome.NOT_FOUND)
                continue
            try:
                last_sequence = await self._write(letter)
                written.append(replace(letter, patch=None))
            except _CannotReplay as error:
                outcomes[letter_id] = Replayed(letter_id, ReplayOutcome.REFUSED, str(error))
        await self._visibility.see_sequence(last_sequence)
        await self._letters.forget(written)
        refused_again = {letter.id: letter for letter in await self._letters.find([w.id for w in written])}
        for letter in written:
            again = refused_again.get(letter.id)
            outcomes[letter.id] = (
                Replayed(letter.id, ReplayOutcome.STORED)
                if again is None
                else Replayed(letter.id, ReplayOutcome.REFUSED, again.reason)
            )
        return [outcomes[letter_id] for letter_id in dict.fromkeys(ids)]

    async def drop(self, ids: Sequence[str]) -> list[str]:
        """Remove letters and with them their operations, for good; the ids of those that there were."""
        _check(ids)
        found = await self._letters.find(ids)
        await self._letters.forget(found)
        return [letter.id for letter in found]

    async def _write(self, letter: DeadLetter) -> int:
        patch = letter.patch
        if patch is None:
            raise _CannotReplay("the operation was kept by another version, which this one cannot read")
        if isinstance(patch, FeedbackPatch):
            return await self._ingest.write_feedback([patch], keep_sequence=True)
        if refusals := await self._ingest.find_projects([patch]):
            raise _CannotReplay(str(refusals[0]))
        if patch.run_id in await self._runs.places(patch.tenant_id, [patch.run_id]):
            # Newer operations have given the run its place; an old one must not move it.
            patch = msgspec.structs.replace(patch, project_id=None, start_time_us=None)
        return await self._ingest.write([patch], keep_sequence=True)


class _CannotReplay(Exception):
    """The operation is not fit to be accepted again."""


def _check(ids: Sequence[str]) -> None:
    if len(ids) > MAX_LETTERS:
        raise RunstoreError(
            ErrorReason.TOO_LARGE, f"more than {MAX_LETTERS} dead letters in a call", field="ids"
        )
    for index, letter_id in enumerate(ids):
        if not is_dead_letter_id(letter_id):
            raise invalid(f"ids[{index}]", f"{letter_id[:40]!r} is not the id of a dead letter")
