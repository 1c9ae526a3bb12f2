"""The time in tests: it stands still until it is told to advance."""


class ManualClock:
    """Stands still until it is told to advance."""

    def __init__(self) -> None:
        self._now_us = 1_700_000_000_000_000

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._now_us / 1_000_000

    def advance(self, seconds: float) -> None:
        self._now_us += round(seconds * 1_000_000)
