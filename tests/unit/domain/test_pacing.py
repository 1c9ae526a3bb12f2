"""Callers that are refused again and again wait; how long is for the clock to tell."""

import pytest
from tests.manual_clock import ManualClock

from runstore.domain import pacing
from runstore.domain.pacing import MAX_PAUSE_S, TOLERATED, Pacing


def test_a_burst_is_tolerated() -> None:
    """Up to a level nobody waits; above it everybody by what is too much, and only that caller."""
    paces = Pacing(ManualClock())
    paces.charge("a", TOLERATED)
    assert paces.pause_s("a") == 0
    paces.charge("a", 10)
    assert paces.pause_s("a") == pytest.approx(0.5)
    assert paces.pause_s("b") == 0


def test_the_longest_pause() -> None:
    """A caller can always come to reason: its pause is bounded, and gone after some minutes."""
    clock = ManualClock()
    paces = Pacing(clock)
    paces.charge("a", 1_000_000)
    assert paces.pause_s("a") == pytest.approx(MAX_PAUSE_S)
    clock.advance(100)
    assert paces.pause_s("a") == pytest.approx(MAX_PAUSE_S / 2)
    clock.advance(100)
    assert paces.pause_s("a") == 0
    clock.advance(1_000)
    paces.charge("a", TOLERATED)
    assert paces.pause_s("a") == 0, "nobody saves up for later"


@pytest.mark.parametrize(("points", "refused"), [(1.0, 250), (10.0, 40)])
def test_who_goes_on_and_on_is_refused_about_a_point_a_second(points: float, refused: int) -> None:
    """Calls one after the other for two minutes, every one of them refused: the dearer, the fewer."""
    clock = ManualClock()
    paces = Pacing(clock)
    calls, end_s = 0, clock.monotonic() + 120
    while clock.monotonic() < end_s:
        clock.advance(0.005 + paces.pause_s("a"))
        paces.charge("a", points)
        calls += 1
    assert calls <= refused


def test_who_exceeds_a_limit_gets_near_it() -> None:
    """Of 200 calls a second 100 are allowed: most of those, and hardly any other, come through."""
    clock = ManualClock()
    paces = Pacing(clock)
    allowed, good, refused = 100.0, 0, 0
    for _ in range(100_000):
        step_s = 0.005 + paces.pause_s("a")
        if clock.monotonic() - 1_700_000_000 > 600:
            break
        clock.advance(step_s)
        allowed = min(100.0, allowed + step_s * 100)
        if allowed >= 1:
            allowed -= 1
            good += 1
        else:
            refused += 1
            paces.charge("a", 1)
    assert good > 600 * 30
    assert refused < 600 * 1.5


def test_callers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many, those whose last refusal is the oldest."""
    monkeypatch.setattr(pacing, "_MAX_CALLERS", 3)
    paces = Pacing(ManualClock())
    for caller in "abcdad":
        paces.charge(caller, 110)
    assert [caller for caller in "abcd" if paces.pause_s(caller)] == ["a", "c", "d"]
