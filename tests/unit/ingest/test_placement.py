"""Placement: what a patch says of its run's key, what is remembered, and what is looked up."""

import uuid
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from runstore.domain import dotted_order
from runstore.domain.runs import RunKey, RunPatch, RunPlace
from runstore.ingest.placement import Placement, Placer

TENANT, PROJECT, OTHER_PROJECT, RUN, PARENT = (str(uuid.UUID(int=number, version=4)) for number in range(5))
T0_US = 1_795_000_000_000_000


class Places:
    """A store that only knows where runs are."""

    def __init__(self) -> None:
        self.known: dict[str, RunPlace] = {}
        self.asked: list[str] = []

    async def places(self, tenant_id: str, run_ids: Collection[str], /) -> Mapping[str, RunPlace]:
        self.asked += run_ids
        return {run_id: self.known[run_id] for run_id in run_ids if run_id in self.known}


@pytest.fixture
def store() -> Places:
    return Places()


@pytest.fixture
def placer(store: Places) -> Placer:
    return Placer(store)  # type: ignore[arg-type]  # as much of a store as a placer uses


def patch(run_id: str = RUN, **fields: Any) -> RunPatch:
    return RunPatch(TENANT, run_id, **{"sequence": 1, **fields})


def create(run_id: str = RUN, **fields: Any) -> RunPatch:
    return patch(run_id, is_create=True, project_id=PROJECT, **{"start_time_us": T0_US, **fields})


def place(run_id: str = RUN, *, project_id: str = PROJECT, start_us: int = T0_US) -> RunPlace:
    return RunPlace(RunKey(project_id, start_us, run_id), run_id, dotted_order.root(start_us, run_id), ())


async def placed(placer: Placer, *patches: RunPatch) -> Placement:
    return await placer.place(patches)


async def test_create_is_taken_at_its_word(placer: Placer, store: Places) -> None:
    """No look-up is made for a creation with project and time, told or in its dotted order."""
    order = dotted_order.root(T0_US, PARENT)
    outcome = await placed(placer, create(), create(PARENT, start_time_us=None, dotted_order=order))
    assert store.asked == []
    assert [where.key for _, where in outcome.placed] == [place().key, place(PARENT).key]


async def test_update_follows_what_is_remembered(placer: Placer, store: Places) -> None:
    """An update right after its creation needs nothing but the id."""
    await placed(placer, create())
    outcome = await placed(placer, patch())
    assert store.asked == []
    assert [where for _, where in outcome.placed] == [place()]


async def test_update_of_a_forgotten_run_is_looked_up(placer: Placer, store: Places) -> None:
    """However much it says: the run may be elsewhere."""
    store.known[RUN] = place(start_us=T0_US + 1)
    update = patch(project_id=PROJECT, dotted_order=dotted_order.root(T0_US, RUN))
    outcome = await placed(placer, update)
    assert store.asked == [RUN]
    assert [where.key for _, where in outcome.placed] == [store.known[RUN].key]
    assert outcome.moves == []


async def test_update_of_an_unknown_run_waits_or_tells_all(placer: Placer) -> None:
    """Without project or time it is parked for its own run; with both it is placed."""
    for fields in ({}, {"project_id": PROJECT}, {"start_time_us": T0_US}):
        outcome = await placer.place([patch(**fields)])
        assert [awaited for awaited, _ in outcome.parked] == [RUN]
        assert outcome.placed == []
    outcome = await placer.place([patch(project_id=PROJECT, start_time_us=T0_US)])
    assert outcome.parked == []
    assert [where for _, where in outcome.placed] == [place()]


@pytest.mark.parametrize("fields", [{"project_id": OTHER_PROJECT}, {"start_time_us": T0_US + 5}])
async def test_changed_key_moves_the_run(placer: Placer, store: Places, fields: dict[str, Any]) -> None:
    """The move has both keys; from then on even a creation of the run is looked up."""
    await placed(placer, create())
    outcome = await placed(placer, patch(**fields))
    [move] = outcome.moves
    assert (move.old, move.new) == (place().key, outcome.placed[0][1].key)
    forgetful = Placer(store, [(TENANT, RUN)])  # type: ignore[arg-type]
    store.known[RUN] = outcome.placed[0][1]
    assert [each.new for each in (await forgetful.place([create()])).moves] == [place().key]
    assert store.asked == [RUN]


async def test_child_before_its_parent_is_a_guess(placer: Placer) -> None:
    """It is stored below the parent's id, and its link is parked for the parent."""
    outcome = await placed(placer, create(parent_run_id=PARENT))
    [(_, where)] = outcome.placed
    assert (where.trace_id, where.parent_run_ids, where.is_settled) == (PARENT, (PARENT,), False)
    [(awaited, link)] = outcome.parked
    assert (awaited, link.run_id, link.parent_run_id, link.name) == (PARENT, RUN, PARENT, None)
    assert outcome.settled == set()
    await placed(placer, create(PARENT))
    settled = await placed(placer, link)
    [(_, where)] = settled.placed
    assert where.dotted_order == dotted_order.child(place(PARENT).dotted_order, T0_US, RUN)
    assert settled.settled == {(TENANT, RUN)}


async def test_parent_in_the_same_flush_comes_first(placer: Placer) -> None:
    """A child placed with its parent is settled, whatever the order of the two."""
    outcome = await placer.place([create(parent_run_id=PARENT), create(PARENT)])
    assert outcome.settled == {(TENANT, RUN), (TENANT, PARENT)}
    assert outcome.parked == []


async def test_place_counts_before_it_is_stored(placer: Placer, store: Places) -> None:
    """The next flush is placed while this one is inserted."""
    await placer.place([create()])
    outcome = await placer.place([patch()])
    assert store.asked == []
    assert [where for _, where in outcome.placed] == [place()]


async def test_path_that_is_too_deep_is_refused_alone(placer: Placer, store: Places) -> None:
    """A run whose ancestors are more than a dotted order holds has no place; others go on."""
    order = ".".join([dotted_order.root(T0_US, PARENT)] * dotted_order.MAX_SEGMENTS)
    store.known[PARENT] = RunPlace(RunKey(PROJECT, T0_US, PARENT), PARENT, order, ())
    child = create(parent_run_id=PARENT)
    outcome = await placer.place([child, create(OTHER_PROJECT)])
    assert [refused for refused, _ in outcome.refused] == [child]
    assert [patch.run_id for patch, _ in outcome.placed] == [OTHER_PROJECT]
