"""What the tests of agents do again and again: wait for a condition, look at logs and threads."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from langgraph_sdk.client import LangGraphClient
from tests.waiting import LONGEST_WAIT_S, until_async

_T = TypeVar("_T")


async def until(condition: Callable[[], Awaitable[_T]], what: str) -> _T:
    """The first true value of `condition`, which another process brings about."""
    give_up_at = time.monotonic() + LONGEST_WAIT_S
    while not (value := await condition()):
        assert time.monotonic() < give_up_at, f"waited {LONGEST_WAIT_S} s in vain: {what}"
        await asyncio.sleep(0.02)
    return value


async def until_marks(marks: Path, letters: str) -> None:
    """Waits until the nodes have left these letters in a file, no more and no less."""
    await until_async(lambda: _are_in(marks, letters), f"the marks are {letters}")


def _are_in(marks: Path, letters: str) -> bool:
    return marks.exists() and marks.read_text() == letters


async def until_next(client: LangGraphClient, thread: str, node: str) -> None:
    """Waits until the thread has come to a node."""

    async def has_come() -> bool:
        return list((await client.threads.get_state(thread))["next"]) == [node]

    await until(has_come, f"the thread is at {node}")


async def until_status(client: LangGraphClient, thread: str, run: str, *statuses: str) -> Any:
    """The run, once it has one of these statuses."""

    async def run_then() -> Any:
        found = await client.runs.get(thread, run)
        return found if found["status"] in statuses else None

    return await until(run_then, f"the run is {' or '.join(statuses)}")


async def until_thread(client: LangGraphClient, thread: str, *statuses: str) -> Any:
    """The thread, once it has one of these statuses."""

    async def thread_then() -> Any:
        found = await client.threads.get(thread)
        return found if found["status"] in statuses else None

    return await until(thread_then, f"the thread is {' or '.join(statuses)}")


async def until_gone(client: LangGraphClient, thread: str, run: str) -> None:
    """Waits until a run is not found any more."""

    async def is_gone() -> bool:
        return run not in [each["run_id"] for each in await client.runs.list(thread, limit=100)]

    await until(is_gone, "the run is gone")


async def values_of(client: LangGraphClient, thread: str) -> Any:
    """What the thread holds."""
    return (await client.threads.get(thread))["values"]


async def log_of(client: LangGraphClient, thread: str) -> str:
    """The letters that the nodes of `steps` have left, in one word."""
    return "".join((await values_of(client, thread))["log"])
