"""What a question may take of the engine, and that nothing goes on for one that nobody asks any more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runstore.domain.principals import current_tenant_id
from runstore.storage.clickhouse.engine import Engine, ReadLimits
from runstore.storage.run_store import QueryTooLarge, QueryTooLong

pytestmark = pytest.mark.engine

HOURS = "SELECT sum(cityHash64(number)) FROM numbers(10000000000000)"
"""Takes hours."""
PROMPTLY_S = 60.0
"""Far below hours, far above what a machine under load needs to stop a statement."""
PATIENT = ReadLimits(max_seconds=300.0)
"""Statements that are to be stopped end by themselves only when it is too late: a test takes less."""


@asynccontextmanager
async def engine(dsn: str, limits: ReadLimits = PATIENT, readers: int = 4) -> AsyncIterator[Engine]:
    opened = Engine(dsn, limits=limits, readers=readers)
    try:
        yield opened
    finally:
        opened.close()


def query(text: str) -> Callable[[Any], Any]:
    return lambda client: client.query(text).result_rows


async def running(observer: Engine, text: str) -> int:
    """How many statements that begin so the engine executes now."""
    parameters = {"text": text}
    rows = await observer.read(
        lambda client: (
            client.query(
                "SELECT count() FROM system.processes WHERE startsWith(query, {text:String})",
                parameters=parameters,
            ).result_rows
        )
    )
    count: int = rows[0][0]
    return count


async def until(observer: Engine, text: str, count: int) -> None:
    """Return once so many of these statements are executed; fails when it takes too long."""
    async with asyncio.timeout(PROMPTLY_S):
        while await running(observer, text) != count:
            pass


async def test_cancelled_reader_stops_its_statement_and_frees_its_slot(engine_dsn: str) -> None:
    """The engine executes it no more, and the only slot of the pool takes the next reader at once."""
    statement = f"{HOURS} -- cancelled alone\n"
    async with (
        engine(engine_dsn, readers=1) as readers,
        engine(engine_dsn) as observer,
        asyncio.TaskGroup() as group,
    ):
        asked = group.create_task(readers.read(query(statement)))
        await until(observer, statement, 1)
        asked.cancel()
        async with asyncio.timeout(PROMPTLY_S):
            assert list(await readers.read(query("SELECT 7"))) == [(7,)]
        assert await running(observer, statement) == 0
    assert asked.cancelled()


async def test_cancelled_readers_leave_others_alone(engine_dsn: str) -> None:
    """Of two equal statements the one goes on whose reader still waits; one that has not begun never does."""
    statement = f"{HOURS} -- two of a kind\n"
    async with (
        engine(engine_dsn, readers=3) as readers,  # Two of them for one tenant.
        engine(engine_dsn) as observer,
        asyncio.TaskGroup() as group,
    ):
        first, second, waiting = (group.create_task(readers.read(query(statement))) for _ in range(3))
        await until(observer, statement, 2)
        first.cancel()
        waiting.cancel()
        await until(observer, statement, 1)
        assert not second.done()
        second.cancel()
        await until(observer, statement, 0)
    assert all(task.cancelled() for task in (first, second, waiting))


async def test_time_limit(engine_dsn: str) -> None:
    """A statement that takes longer than it may is given up; one without a limit may take its time."""
    limits = ReadLimits(max_seconds=0.2)
    statement = f"{HOURS} -- unlimited\n"
    async with (
        engine(engine_dsn, limits) as limited,
        engine(engine_dsn) as observer,
        asyncio.TaskGroup() as group,
    ):
        with pytest.raises(QueryTooLong):
            await limited.read(query(HOURS))
        long = group.create_task(limited.read(query(statement), is_limited=False))
        await until(observer, statement, 1)
        done, _ = await asyncio.wait([long], timeout=0.5)
        assert not done
        long.cancel()
        await until(observer, statement, 0)


async def test_memory_limit(engine_dsn: str) -> None:
    """A statement that needs more memory than it may is given up; limits hold for their own call alone."""
    much = "SELECT length(groupArray(number)) FROM numbers(10000000)"
    async with engine(engine_dsn, ReadLimits(max_memory_bytes=50_000_000), readers=1) as limited:
        with pytest.raises(QueryTooLarge):
            await limited.read(query(much))
        assert list(await limited.read(query(much), is_limited=False)) == [(10_000_000,)]
        with pytest.raises(QueryTooLarge):
            await limited.read(query(much))


async def test_a_tenant_with_slow_questions_leaves_others_a_reader(engine_dsn: str) -> None:
    """Ten questions that take hours hold up those of their own tenant, and nobody else's."""
    async with engine(engine_dsn) as shared:

        async def ask(tenant_id: str, text: str) -> Any:
            current_tenant_id.set(tenant_id)
            return await shared.read(query(text))

        slow = [asyncio.create_task(ask("slow", HOURS)) for _ in range(10)]
        try:
            for number in range(20):
                answer = asyncio.create_task(ask("quick", f"SELECT {number}"))
                assert list(await asyncio.wait_for(answer, PROMPTLY_S)) == [(number,)]
            assert not any(task.done() for task in slow)
        finally:
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
