"""Which writes of other stores a store waits for, and which runs it looks for."""

import asyncio
from collections.abc import Mapping

import pytest
from tests.waiting import LONGEST_WAIT_S

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.stores import StorePosition
from runstore.ingest.awaited import AwaitedRuns
from runstore.ingest.peers import EVERYTHING, Peers
from runstore.ingest.sequence import sequence_at

NOW_US = 1_795_000_000_000_000
OWN, OTHER = 3, 7


class SetClock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.time_us = NOW_US

    def now_us(self) -> int:
        return self.time_us

    def monotonic(self) -> float:
        return self.time_us / 1e6


class FakeStores:
    """A catalog's table; `reports` are those of the store under test."""

    def __init__(self) -> None:
        self.rows: dict[int, StorePosition] = {OWN: StorePosition(0, NOW_US)}
        self.reports: list[int] = []

    async def report(self, node: int, stored_sequence: int) -> None:
        self.reports.append(stored_sequence)

    async def positions(self) -> Mapping[int, StorePosition]:
        return self.rows


class FakeVisibility:
    """Notes what it was asked to wait for."""

    def __init__(self) -> None:
        self.waited: list[int] = []

    async def see_sequence(self, sequence: int) -> None:
        self.waited.append(sequence)


@pytest.fixture
def stores() -> FakeStores:
    return FakeStores()


@pytest.fixture
def visibility() -> FakeVisibility:
    return FakeVisibility()


@pytest.fixture
def peers(stores: FakeStores, visibility: FakeVisibility) -> Peers:
    return Peers(stores, OWN, visibility, lambda: 42, SetClock(), patience_s=2 * LONGEST_WAIT_S)


def number(node: int) -> int:
    """A sequence number of a store."""
    return sequence_at(NOW_US) + node


async def test_own_writes_are_waited_for_here(peers: Peers, visibility: FakeVisibility) -> None:
    """As is everything that a token without a store asks for."""
    await peers.see_sequence(number(OWN))
    await peers.see_sequence(EVERYTHING + 1)
    assert visibility.waited == [number(OWN), EVERYTHING + 1]


async def test_writes_of_another_store_are_waited_for(peers: Peers, stores: FakeStores) -> None:
    """Until it says that they are stored; a store that is not known has nothing."""
    await peers.see_sequence(number(OTHER + 1))
    stores.rows[OTHER] = StorePosition(number(OTHER) - 1, NOW_US)
    waiting = asyncio.create_task(peers.see_sequence(number(OTHER)))
    await asyncio.sleep(0.06)
    assert not waiting.done()
    stores.rows[OTHER] = StorePosition(number(OTHER), NOW_US)
    await asyncio.wait_for(waiting, LONGEST_WAIT_S)


async def test_store_that_does_not_come_back_is_not_waited_for_long(
    stores: FakeStores, visibility: FakeVisibility
) -> None:
    """The caller is told to come again."""
    hasty = Peers(stores, OWN, visibility, lambda: 42, SetClock(), patience_s=0.2)
    stores.rows[OTHER] = StorePosition(0, NOW_US)
    with pytest.raises(RunstoreError) as refused:
        await hasty.see_sequence(number(OTHER))
    assert refused.value.reason is ErrorReason.UNAVAILABLE


async def test_settling_waits_for_stores_that_are_there(peers: Peers, stores: FakeStores) -> None:
    """One that has said nothing for long is left out, but it holds back what is stored everywhere."""
    stores.rows[OWN] = StorePosition(number(OWN), NOW_US)
    stores.rows[OTHER] = StorePosition(5, NOW_US - 60_000_000)
    await asyncio.wait_for(peers.settle(), LONGEST_WAIT_S)
    assert await peers.stored_everywhere() == 5
    stores.rows[OTHER] = StorePosition(5, NOW_US)
    settling = asyncio.create_task(peers.settle())
    await asyncio.sleep(0.06)
    assert not settling.done()
    stores.rows[OTHER] = StorePosition(number(OTHER), NOW_US)
    await asyncio.wait_for(settling, LONGEST_WAIT_S)
    assert await peers.stored_everywhere() == number(OWN)


async def test_position_is_reported_at_once(peers: Peers, stores: FakeStores) -> None:
    """Others wait for it."""
    running = asyncio.create_task(peers.run())
    async with asyncio.timeout(LONGEST_WAIT_S):
        while len(stores.reports) < 2:
            peers.stored()
            await asyncio.sleep(0.01)
    running.cancel()
    assert set(stores.reports) == {42}


async def test_store_alone_waits_for_nobody(visibility: FakeVisibility) -> None:
    """There is no table to ask."""
    alone = Peers(None, 0, visibility, lambda: 0, SetClock())
    await alone.run()
    await alone.settle()
    await alone.see_sequence(number(OTHER))
    assert visibility.waited == [number(OTHER)]
    assert await alone.stored_everywhere() == EVERYTHING
    assert not await alone.forgotten()


def test_awaited_runs_are_looked_for_ever_more_rarely() -> None:
    """As long as operations wait for them, and never in a store that is alone."""
    now_s = [0.0]
    awaited = AwaitedRuns({("t", "a"): 1}, looks=True, clock=lambda: now_s[0])
    awaited.add(("t", "b"))
    awaited.add(("t", "b"))
    assert awaited.due() == []
    looks: dict[str, list[float]] = {"a": [], "b": []}
    while now_s[0] < 7:
        left_s = awaited.next_look_s
        assert left_s is not None
        now_s[0] += max(left_s, 0)
        for _, run_id in awaited.due():
            looks[run_id].append(round(now_s[0], 1))
        if now_s[0] > 1:
            awaited.remove(("t", "a"))
    assert looks["a"] == looks["b"][: len(looks["a"])]
    assert looks["b"] == [0.2, 0.6, 1.4, 3.0, 6.2, 12.6]
    assert len(looks["a"]) == 3
    awaited.remove(("t", "b"))
    assert ("t", "b") in awaited
    awaited.remove(("t", "b"))
    awaited.remove(("t", "b"))
    assert awaited.next_look_s is None
    assert not awaited
    assert AwaitedRuns({("t", "a"): 1}).next_look_s is None
