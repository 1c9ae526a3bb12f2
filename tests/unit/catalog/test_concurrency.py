"""Writers of one thing at one moment, in several processes: nothing is lost, counted or made twice."""

import asyncio
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, insert, select, text

from runstore.catalog import Catalog, database, tables
from runstore.catalog.database import Conflict, open_database
from runstore.catalog.metrics import CatalogMetrics
from runstore.domain.annotation_queues import AnnotationQueue, ItemFilter, NewItem, QueuePatch, ReviewStatus
from runstore.domain.datasets import Dataset
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID as TENANT
from runstore.domain.prompts import OWN, NewPrompt, Viewer

OWNER = Viewer(TENANT, "owner")


async def new_queue(catalog: Catalog, reviewers: int = 1) -> str:
    """The id of an empty queue."""
    queue_id = str(uuid.uuid4())
    await catalog.annotation_queues.create(
        AnnotationQueue(
            id=queue_id,
            tenant_id=TENANT,
            name=queue_id,
            num_reviewers_per_item=reviewers,
            created_at_us=1,
            updated_at_us=1,
        )
    )
    return queue_id


def runs(number: int) -> list[NewItem]:
    return [NewItem(project_id=TENANT, run_id=str(uuid.uuid4())) for _ in range(number)]


async def test_a_read_sees_one_moment(url: str, catalog: Catalog) -> None:
    """Two statements of one read agree, whatever is committed between them."""
    counting = select(func.count()).select_from(tables.projects)
    async with open_database(url) as database:
        async with database.read() as connection:
            before = (await connection.execute(counting)).scalar_one()
            await catalog.projects.resolve(TENANT, "made meanwhile")
            assert (await connection.execute(counting)).scalar_one() == before
        async with database.read() as connection:
            assert (await connection.execute(counting)).scalar_one() == before + 1


async def test_a_refused_statement_leaves_nothing_behind(url: str, catalog: Catalog) -> None:
    """A constraint is a Conflict, and the statements before it are taken back."""
    row = {"id": str(uuid.uuid4()), "tenant_id": TENANT, "name": "n", "extra": b"{}", "start_time_us": 1}
    row |= {"created_at_us": 1, "modified_at_us": 1}

    async def insert_twice() -> None:
        async with open_database(url) as database, database.write() as connection:
            for _ in range(2):
                await connection.execute(insert(tables.projects).values(row))

    with pytest.raises(Conflict):
        await insert_twice()
    with pytest.raises(RunstoreError) as refusal:
        await catalog.projects.get(TENANT, str(row["id"]))
    assert refusal.value.reason is ErrorReason.NOT_FOUND


async def test_a_long_result_is_streamed_and_may_be_left(url: str, catalog: Catalog) -> None:
    """Every row once, in order; a reader who stops early leaves the connection fit for the next."""
    ids = [f"{number:04}" for number in range(2_500)]
    rows_made = [{"id": each, "name": each, "created_at_us": 1} for each in ids]
    counting = select(tables.tenants.c.id).where(tables.tenants.c.created_at_us == 1)
    async with open_database(url) as database:
        async with database.write() as connection:
            await connection.execute(insert(tables.tenants), rows_made)
        for wanted in (1, 999, 1_000, 1_001, 2_500):
            async with database.read() as connection:
                found: list[str] = []
                async with connection.stream(counting.order_by(tables.tenants.c.id)) as rows:
                    while len(found) < wanted and (row := await rows.fetchone()):
                        found.append(row.id)
                assert found == ids[:wanted]
        async with database.read() as connection:
            assert len((await connection.execute(counting)).all()) == 2_500


async def test_a_writer_who_is_cancelled_holds_up_nobody(url: str, catalog: Catalog) -> None:
    """Wherever it is: what it has written is taken back, and others write at once."""
    async with open_database(url) as database:

        async def write(number: int) -> None:
            async with database.write() as connection:
                row = {"id": f"cancelled {number}", "name": "n", "created_at_us": 1}
                await connection.execute(insert(tables.tenants).values(row))
                await asyncio.Event().wait()

        for number in range(8):
            writing = asyncio.create_task(write(number))
            for _ in range(number * 4):
                await asyncio.sleep(0)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            await catalog.keys.create_tenant(f"after {number}")
        async with database.read() as connection:
            query = select(tables.tenants.c.id).where(tables.tenants.c.id.startswith("cancelled"))
            assert (await connection.execute(query)).all() == []


async def test_of_writers_of_one_name_one_wins(catalog: Catalog, other: Catalog) -> None:
    """The others are told that the name is taken, and there is one dataset."""

    def create(where: Catalog) -> asyncio.Future[Dataset]:
        dataset = Dataset(
            id=str(uuid.uuid4()), tenant_id=TENANT, name="wanted", created_at_us=1, modified_at_us=1
        )
        return asyncio.ensure_future(where.datasets.create(dataset))

    results = await asyncio.gather(*map(create, (catalog, other) * 4), return_exceptions=True)
    refusals = [result for result in results if isinstance(result, RunstoreError)]
    assert [(each.reason, each.field) for each in refusals] == [(ErrorReason.ALREADY_EXISTS, "name")] * 7


async def test_every_like_counts(catalog: Catalog, other: Catalog) -> None:
    """People who like a prompt together are all counted; saying so twice at once counts once."""
    await catalog.prompts.create(OWNER, NewPrompt(handle="liked"))

    async def like(*users: int) -> int:
        likes = [
            (catalog, other)[place % 2].prompts.like(
                Viewer(TENANT, f"user-{user}"), OWN, "liked", is_liked=True
            )
            for place, user in enumerate(users)
        ]
        await asyncio.gather(*likes)
        return (await catalog.prompts.get(OWNER, OWN, "liked")).num_likes

    assert await like(*range(8)) == 8
    assert await like(8, 8, 9, 9) == 10


async def test_items_added_together_are_in_the_queue_once(catalog: Catalog, other: Catalog) -> None:
    """Two processes that add the same runs in opposite orders neither fail nor add one twice."""
    queue_id = await new_queue(catalog)
    items = runs(400)
    first, second = await asyncio.gather(
        catalog.queue_items.add(TENANT, queue_id, "r", items),
        other.queue_items.add(TENANT, queue_id, "r", items[::-1]),
    )
    assert [item.run_id for item in first] == [item.run_id for item in items]
    assert {item.id for item in first} == {item.id for item in second}
    assert await catalog.queue_items.count(TENANT, ItemFilter(queue_id=queue_id, reviewer="r")) == 400


async def test_the_last_of_the_reviewers_archives(catalog: Catalog, other: Catalog) -> None:
    """Reviews at one moment are all counted, also when the number that is needed changes meanwhile."""
    queue_id = await new_queue(catalog, reviewers=9)
    items = await catalog.queue_items.add(TENANT, queue_id, "r", runs(3))
    reviews = [
        where.queue_items.review(TENANT, item.id, f"{name} {number}", ReviewStatus.COMPLETED, None)
        for item in items
        for number in range(2)
        for name, where in (("one", catalog), ("other", other))
    ]
    patch = QueuePatch(num_reviewers_per_item=4)
    await asyncio.gather(*reviews, other.annotation_queues.update(TENANT, queue_id, patch))
    page = await catalog.queue_items.page(TENANT, ItemFilter(queue_id=queue_id, reviewer="r"), limit=10)
    assert [len(item.completed_by) for item in page] == [4, 4, 4]
    assert all(item.archived_at_us for item in page)


async def test_writers_of_a_process_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that finds another one at work waits for its turn, however long that takes: SQLite itself
    would have it try again and again, and refuse it in the end."""
    monkeypatch.setattr(database, "_SQLITE_PRAGMAS", ("PRAGMA busy_timeout = 0", "PRAGMA journal_mode = WAL"))
    async with open_database(f"sqlite:///{tmp_path / 'turns.sqlite'}") as opened:
        begun, ended = [], []

        async def write(number: int) -> None:
            async with opened.write():
                begun.append(number)
                await asyncio.sleep(0)
                ended.append(number)

        async with opened.write():
            waiting = [asyncio.create_task(write(number)) for number in range(20)]
            await asyncio.sleep(0)
            assert begun == []
        await asyncio.gather(*waiting)
    assert begun == ended == list(range(20))


async def test_waiting_for_sqlite_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements, waits for a connection and for the lock are timed; locks that another process does not give
    up in time are counted."""
    monkeypatch.setattr(database, "_SQLITE_PRAGMAS", ("PRAGMA busy_timeout = 0", "PRAGMA journal_mode = WAL"))
    registry, path = CollectorRegistry(), tmp_path / "measured.sqlite"

    def count(name: str, **labels: str) -> float:
        return registry.get_sample_value(f"runstore_catalog_{name}", labels) or 0

    async with open_database(f"sqlite:///{path}", CatalogMetrics(registry)) as opened:
        async with opened.write() as connection:
            await connection.execute(text("CREATE TABLE things (id INTEGER)"))
        async with opened.read() as connection:
            await connection.execute(text("SELECT * FROM things"))
        for access in ("read", "write"):
            assert count("statement_seconds_count", access=access) == 1
            assert count("wait_seconds_count", access=access) == 1
        assert (count("lock_seconds_count"), count("lock_timeouts_total")) == (1, 0)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(RunstoreError) as refused:
                async with opened.write() as connection:
                    await connection.execute(text("DELETE FROM things"))
        assert refused.value.reason is ErrorReason.UNAVAILABLE
        assert (count("lock_seconds_count"), count("lock_timeouts_total")) == (1, 1)
