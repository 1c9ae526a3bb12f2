"""Who is charged for which calls, and waits."""

import pytest
from tests.manual_clock import ManualClock

from runstore.domain.pacing import Pacing, stranger_at

from .paced import PacedApp


class Calls:
    """Calls, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = ManualClock()
        self.pacing = Pacing(self.clock)
        self.pauses = 0
        self._app = PacedApp(self.clock, self.pacing, monkeypatch, self._paused)

    async def of(self, key: str, status: int, count: int = 1, address: str = "192.0.2.1") -> float:
        """How long the last of these calls had to wait."""
        return [await self._app.call(key, status, address) for _ in range(count)][-1]

    def _paused(self) -> None:
        self.pauses += 1


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


async def test_a_flood_whose_calls_are_good_now_and_then(calls: Calls) -> None:
    """Successes do not buy refusals: what is refused adds up."""
    for _ in range(5):
        await calls.of("good", 413)
        await calls.of("good", 200, 5)
    assert await calls.of("good", 200) == pytest.approx(1.25)
    calls.clock.advance(30)
    assert await calls.of("good", 200) == 0
    assert calls.pauses == 6


async def test_good_calls_and_plain_mistakes_cost_nothing(calls: Calls) -> None:
    """An admitted caller may ask, and ask wrongly, as often as it likes."""
    for status in (200, 400, 404, 422):
        assert await calls.of("good", status, 3_000) == 0


async def test_strangers_are_one_by_address(calls: Calls) -> None:
    """A new invented key for each call does not help; a good one next door, and other addresses, go on."""
    await calls.of("good", 200)
    for number in range(130):
        await calls.of(f"invented {number}", 429)
    assert await calls.of("another", 401) == pytest.approx(1.5)
    assert await calls.of("", 200) > 0
    assert await calls.of("good", 200) == 0
    assert await calls.of("another", 401, address="192.0.2.2") == 0


async def test_strangers_who_ask_for_nothing_much(calls: Calls) -> None:
    """Even what is public has an end: 5,000 calls at once, and then fifty a second."""
    assert await calls.of("", 200, 5_000) == 0
    await calls.of("", 401, 500)
    assert calls.pacing.pause_s(stranger_at("192.0.2.1")) == pytest.approx(0.5)


async def test_a_network_is_one_address(calls: Calls) -> None:
    """A household has more addresses of IPv6 than anybody can count."""
    for number in range(130):
        await calls.of("", 429, address=f"2001:db8::{number:x}")
    assert await calls.of("", 200, address="2001:db8::ffff") > 0
    assert await calls.of("", 200, address="2001:db8:0:1::1") == 0
