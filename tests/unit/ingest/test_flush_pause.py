"""A snapshot comes between two flushes, and never into one."""

import asyncio

from runstore.ingest.flush_pause import FlushPause


async def settled() -> None:
    """Every task has gone as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_pause_waits_for_the_flush_and_holds_the_next_one() -> None:
    """All writes of a flush that has begun are let through; the first of the next one waits."""
    pause = FlushPause()
    events: list[str] = []

    async def write(name: str) -> str:
        events.append(name)
        return name

    guarded = pause.writing(write)
    assert await guarded("first of one") == "first of one"
    end = asyncio.Event()

    async def hold() -> None:
        async with pause.held():
            events.append("held")
            await end.wait()
        events.append("released")

    holding = asyncio.create_task(hold())
    await settled()
    await guarded("second of one")
    assert events == ["first of one", "second of one"]
    await pause.ended()
    next_flush = asyncio.create_task(guarded("first of two"))
    await settled()
    assert events[2:] == ["held"]
    end.set()
    await asyncio.gather(holding, next_flush)
    assert sorted(events[3:]) == ["first of two", "released"]


async def test_pause_that_is_given_up_holds_nothing() -> None:
    """A backup that is cancelled while it waits for a flush does not stop the ones after it."""
    pause = FlushPause()
    writes = 0

    async def write() -> None:
        nonlocal writes
        writes += 1

    guarded = pause.writing(write)
    await guarded()

    async def hold() -> None:
        async with pause.held():
            raise AssertionError("a flush is under way")

    holding = asyncio.create_task(hold())
    await settled()
    holding.cancel()
    await asyncio.wait([holding])
    await pause.ended()
    await guarded()
    assert writes == 2
