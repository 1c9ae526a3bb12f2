"""Sequence numbers never repeat and never go back."""

import pytest

from runstore.ingest.sequence import Sequence, accepted_time_us, node_of, sequence_at

NOW_US = 1_795_000_000_000_000


class SetClock:
    def __init__(self, now_us: int) -> None:
        self.time_us = now_us

    def now_us(self) -> int:
        return self.time_us

    def monotonic(self) -> float:
        raise AssertionError("durations do not matter here")


def test_numbers_carry_the_time_of_acceptance() -> None:
    """The time comes back out of the number, to the microsecond."""
    assert accepted_time_us(Sequence(SetClock(NOW_US)).take(1)[0]) == NOW_US


@pytest.mark.parametrize("step_us", [0, 1, -1, -3_600_000_000, 5_000_000])
def test_numbers_grow_whatever_the_clock_does(step_us: int) -> None:
    """Reservations follow one another without overlap when the clock stands, jumps or goes back."""
    clock = SetClock(NOW_US)
    sequence = Sequence(clock)
    taken: list[int] = []
    for count in (1, 10_000, 3):
        taken += sequence.take(count)
        assert sequence.last == taken[-1]
        clock.time_us += step_us
    assert taken == sorted(set(taken))


def test_numbers_grow_over_a_restart_with_an_older_clock() -> None:
    """A process whose clock is behind continues after the last number of the one before it."""
    last = Sequence(SetClock(NOW_US)).take(5)[-1]
    [following] = Sequence(SetClock(NOW_US - 10_000_000), last).take(1)
    assert following > last


def test_stores_never_give_the_same_number() -> None:
    """Also in the same microsecond, in any number, after a log of a time when stores had no numbers."""
    taken: list[int] = []
    for node in (0, 1, 255):
        numbers = list(Sequence(SetClock(NOW_US), last=(NOW_US << 12) + 77, node=node).take(10_000))
        assert numbers == sorted(numbers)
        assert {node_of(number) for number in numbers} == {node}
        taken += numbers
    assert len(set(taken)) == len(taken)
    assert min(taken) > sequence_at(NOW_US)
