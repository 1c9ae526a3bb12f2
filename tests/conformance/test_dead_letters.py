"""The table of dead letters on the real engine."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.engine_front.front import engine_front

from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.runs import RunPatch
from runstore.storage.clickhouse.dead_letters import ClickHouseDeadLetters
from runstore.storage.clickhouse.run_store import ClickHouseRunStore, open_run_store

pytestmark = pytest.mark.engine

TENANTS = [str(uuid.UUID(int=number)) for number in (1, 2)]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ClickHouseRunStore]:
    """A store of its own: letters are of all tenants, and this process has one embedded engine already."""
    with engine_front(tmp_path) as front:
        async with open_run_store(front.dsn) as store:
            yield store


@pytest.fixture
def table(store: ClickHouseRunStore) -> ClickHouseDeadLetters:
    return store.dead_letters


def patch(number: int, tenant: str = TENANTS[0]) -> RunPatch:
    return RunPatch(
        tenant, str(uuid.UUID(int=number << 96 | number)), sequence=number, inputs=b'{"a": "\xc3\xbc"}'
    )


async def test_pages_show_each_letter_once(store: ClickHouseRunStore, table: ClickHouseDeadLetters) -> None:
    """In the order of the operations, of all tenants, however often each was refused."""
    for number in (3, 1, 2, 2):
        await store.bury([patch(number, TENANTS[number % 2])], f"reason {number}")
    walked, after = [], ""
    while page := await table.page(after, 2):
        walked += page
        after = page[-1].id
    assert [letter.sequence for letter in walked] == [1, 2, 3]
    assert [letter.reason for letter in walked] == ["reason 1", "reason 2", "reason 3"]
    assert [len(letter.burials) for letter in walked] == [1, 2, 1]
    assert all(letter.buried_at_us > 0 and letter.size_bytes > 0 for letter in walked)
    assert walked[0].id == f"{1:016x}-{1:08x}"


async def test_operation_comes_back_whole(store: ClickHouseRunStore, table: ClickHouseDeadLetters) -> None:
    """With every byte of it, its place in the order, and the last reason."""
    await store.bury([patch(7)], "first")
    await store.bury([patch(7)], "last")
    letter = await table.open(f"{7:016x}-{7:08x}")
    assert letter is not None
    assert (letter.patch, letter.reason) == (patch(7), "last")
    assert await table.open(f"{8:016x}-{8:08x}") is None


@pytest.mark.parametrize("run_id", [None, str(uuid.UUID(int=9))])
async def test_operation_on_feedback_comes_back_whole(
    store: ClickHouseRunStore, table: ClickHouseDeadLetters, run_id: str | None
) -> None:
    """Between letters of runs, and told from them."""
    feedback = FeedbackPatch(
        TENANTS[0],
        str(uuid.UUID(int=8)),
        run_id,
        FeedbackAction.UPDATE,
        sequence=8,
        value=b'"\xc3\xbc"',
        score=0.0,
    )
    await store.bury([patch(7)], "no")
    await store.bury_feedback([feedback], "no")
    run_letter, letter = await table.page("", 10)
    assert (await table.open(run_letter.id) or letter).patch == patch(7)
    assert (await table.open(letter.id) or run_letter).patch == feedback


async def test_letter_that_is_refused_again_outlives_its_removal(
    store: ClickHouseRunStore, table: ClickHouseDeadLetters
) -> None:
    """Removing a letter removes what was found of it; what came since stays."""
    await store.bury([patch(1), patch(2)], "first")
    found = await table.find([f"{1:016x}-{1:08x}", f"{2:016x}-{2:08x}"])
    assert [letter.sequence for letter in found] == [1, 2]
    await store.bury([patch(1)], "again")
    await table.forget(found)
    [left] = await table.page("", 10)
    assert (left.sequence, left.reason) == (1, "again")
    await table.forget([left])
    await table.forget([])
    assert await table.page("", 10) == []


async def test_figures_know_what_waits(store: ClickHouseRunStore) -> None:
    """Letters and parked operations are counted once each, tables by their size."""
    await store.bury([patch(1)], "first")
    await store.bury([patch(1)], "again")
    parked = [(str(uuid.UUID(int=9)), patch(number)) for number in (2, 3)]
    await store.park(parked)
    await store.park(parked[:1])
    await store.unpark(parked[1:])
    figures = await store.figures()
    assert (figures.dead_letters, figures.parked_operations) == (1, 1)
    sizes = {table.name: table for table in figures.tables}
    assert sizes["dead_letters"].rows >= 1
    assert sizes["dead_letters"].disk_bytes > 0
    assert figures.version
