"""Replaying and dropping dead letters, on a table in memory and an engine that may refuse again."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pytest

from runstore.domain.dead_letters import DeadLetter, Replayed, ReplayOutcome
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.runs import RunKey, RunPatch, RunPlace
from runstore.ingest.dead_letters import MAX_LETTERS, DeadLetters
from runstore.storage.run_store import StoreUnavailable

TENANT, PROJECT = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


class Store:
    """Table, ingest and engine in one: what is written becomes visible, or a letter again."""

    def __init__(self) -> None:
        self.letters: dict[str, DeadLetter] = {}
        self.places_of: dict[str, RunPlace] = {}
        self.stored: list[RunPatch | FeedbackPatch] = []
        self.poison: set[str] = set()
        self.is_away = False
        self._written: list[RunPatch | FeedbackPatch] = []

    def bury(self, patch: RunPatch | FeedbackPatch, reason: str = "no") -> str:
        letter = DeadLetter(
            tenant_id=patch.tenant_id,
            run_id=patch.run_id or str(uuid.UUID(int=0)),
            sequence=patch.sequence,
            reason=reason,
            size_bytes=1,
            buried_at_us=1,
            burials=frozenset({str(uuid.uuid4())}),
            patch=patch,
        )
        known = self.letters.get(letter.id)
        self.letters[letter.id] = (
            letter if known is None else replace(letter, burials=known.burials | letter.burials)
        )
        return letter.id

    async def page(self, after: str, limit: int, /) -> list[DeadLetter]:
        return [self.letters[key] for key in sorted(self.letters) if key > after][:limit]

    async def find(self, ids: Collection[str], /) -> list[DeadLetter]:
        return [self.letters[key] for key in sorted(self.letters) if key in ids]

    async def open(self, letter_id: str, /) -> DeadLetter | None:
        return self.letters.get(letter_id)

    async def forget(self, letters: Collection[DeadLetter], /) -> None:
        for letter in letters:
            left = self.letters[letter.id].burials - letter.burials
            if left:
                self.letters[letter.id] = replace(self.letters[letter.id], burials=left)
            else:
                del self.letters[letter.id]

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]:
        return {run_id: place for run_id, place in self.places_of.items() if run_id in run_ids}

    async def find_projects(self, patches: Sequence[RunPatch]) -> dict[int, RunstoreError]:
        return {
            index: invalid("project_id", "there is no project")
            for index, patch in enumerate(patches)
            if patch.project_id not in (None, PROJECT)
        }

    async def write(self, patches: Sequence[RunPatch], *, keep_sequence: bool) -> int:
        assert keep_sequence
        self._written += patches
        return 1_000 + len(self._written)

    async def write_feedback(self, patches: Sequence[FeedbackPatch], *, keep_sequence: bool) -> int:
        assert keep_sequence
        self._written += patches
        return 1_000 + len(self._written)

    async def see_sequence(self, sequence: int) -> None:
        assert sequence in (0, 1_000 + len(self._written))
        if self.is_away:
            raise StoreUnavailable("away")
        for patch in self._written:
            if patch.run_id in self.poison:
                self.bury(patch, "refused again")
            else:
                self.stored.append(patch)
        self._written.clear()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def letters(store: Store) -> DeadLetters:
    return DeadLetters(store, store, store, store)


def patch(number: int, **fields: object) -> RunPatch:
    run_id = str(uuid.UUID(int=number << 96))
    return RunPatch(TENANT, run_id, sequence=number, **fields)  # type: ignore[arg-type]  # as tests need them


async def test_replay_reports_each_letter_in_the_order_asked_for(store: Store, letters: DeadLetters) -> None:
    """Stored ones are gone, one that is refused again stays with its new reason, unknown ones are said."""
    good, bad = store.bury(patch(1)), store.bury(patch(2))
    store.poison.add(patch(2).run_id)
    unknown = f"{9:016x}-{9:08x}"
    assert await letters.replay([bad, unknown, good, bad]) == [
        Replayed(bad, ReplayOutcome.REFUSED, "refused again"),
        Replayed(unknown, ReplayOutcome.NOT_FOUND),
        Replayed(good, ReplayOutcome.STORED),
    ]
    assert set(store.letters) == {bad}
    assert [each.sequence for each in store.stored] == [1]


async def test_replay_cut_short_loses_no_letter(store: Store, letters: DeadLetters) -> None:
    """While the engine is away letters stay; the next replay stores the operation."""
    letter = store.bury(patch(1))
    store.is_away = True
    with pytest.raises(StoreUnavailable):
        await letters.replay([letter])
    assert set(store.letters) == {letter}
    store.is_away = False
    assert [result.outcome for result in await letters.replay([letter])] == [ReplayOutcome.STORED]
    assert store.letters == {}


async def test_replay_does_not_move_a_run_that_is_there(store: Store, letters: DeadLetters) -> None:
    """Newer operations decided where the run is; without any, the letter does."""
    known, new = (
        patch(number, is_create=True, project_id=PROJECT, start_time_us=5, name="n") for number in (1, 2)
    )
    store.places_of[known.run_id] = RunPlace(RunKey(PROJECT, 7, known.run_id), known.run_id, "", ())
    await letters.replay([store.bury(known), store.bury(new)])
    first, second = store.stored
    assert isinstance(first, RunPatch)
    assert isinstance(second, RunPatch)
    assert (first.project_id, first.start_time_us, first.name) == (None, None, "n")
    assert (second.project_id, second.start_time_us) == (PROJECT, 5)


async def test_what_cannot_be_accepted_stays(store: Store, letters: DeadLetters) -> None:
    """A project that was deleted meanwhile, and an operation of another version, are told apart."""
    homeless = store.bury(patch(1, project_id=str(uuid.UUID(int=7))))
    strange = store.bury(patch(2))
    store.letters[strange] = replace(store.letters[strange], patch=None)
    first, second = await letters.replay([homeless, strange])
    assert (first.outcome, "there is no project" in first.reason) == (ReplayOutcome.REFUSED, True)
    assert (second.outcome, "another version" in second.reason) == (ReplayOutcome.REFUSED, True)
    assert set(store.letters) == {homeless, strange}
    assert store.stored == []


async def test_drop_removes_what_was_named(store: Store, letters: DeadLetters) -> None:
    """And says which of it there was."""
    first, second = store.bury(patch(1)), store.bury(patch(2))
    assert await letters.drop([first, f"{9:016x}-{9:08x}"]) == [first]
    assert set(store.letters) == {second}
    assert [letter.id for letter in await letters.page("", 10)] == [second]


@pytest.mark.parametrize("call", ["replay", "drop"])
async def test_strange_ids_are_refused(letters: DeadLetters, call: str) -> None:
    """Before anything is done; so are too many."""
    for ids, reason in (
        (["x" * 99], ErrorReason.INVALID_ARGUMENT),
        (["x"] * (MAX_LETTERS + 1), ErrorReason.TOO_LARGE),
    ):
        with pytest.raises(RunstoreError) as refused:
            await getattr(letters, call)(ids)
        assert refused.value.reason is reason
    with pytest.raises(RunstoreError) as refused:
        await letters.page("no token", 1)
    assert refused.value.reason is ErrorReason.INVALID_CURSOR


async def test_feedback_is_replayed_like_a_run(store: Store, letters: DeadLetters) -> None:
    """An operation on feedback, on a project too, goes back the way it came, whatever project it names."""
    feedback = FeedbackPatch(
        TENANT, str(uuid.UUID(int=7)), None, FeedbackAction.CREATE, sequence=9, project_id=TENANT, key="k"
    )
    letter_id = store.bury(feedback)
    assert await letters.replay([letter_id]) == [Replayed(letter_id, ReplayOutcome.STORED)]
    assert store.stored == [feedback]
    assert store.letters == {}
