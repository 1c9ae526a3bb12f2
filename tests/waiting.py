"""Waiting for what another process or thread brings about."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

LONGEST_WAIT_S = 60.0

_T = TypeVar("_T")


def until(condition: Callable[[], _T], what: str) -> _T:
    """The first true value of `condition`."""
    began = time.monotonic()
    while not (value := condition()):
        time.sleep(_pause_s(time.monotonic() - began, what))
    return value


async def until_async(condition: Callable[[], _T], what: str) -> _T:
    """The same, while the event loop goes on."""
    began = time.monotonic()
    while not (value := condition()):
        pause_s = _pause_s(time.monotonic() - began, what)
        await asyncio.sleep(pause_s)
    return value


def _pause_s(waited_s: float, what: str) -> float:
    """Longer the longer it takes: to look costs time, too."""
    assert waited_s < LONGEST_WAIT_S, f"waited {LONGEST_WAIT_S} s in vain: {what}"
    return min(0.01 + waited_s / 20, 0.2)
