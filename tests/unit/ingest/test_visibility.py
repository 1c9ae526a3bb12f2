"""Visibility: which reader waits for what, which writer has room."""

import asyncio
import uuid

import pytest
from tests.waiting import LONGEST_WAIT_S

from runstore.domain.deletions import RunDeletion
from runstore.domain.runs import RunPatch
from runstore.ingest.visibility import Visibility

TENANT, OTHER_TENANT, PROJECT, OTHER_PROJECT = (str(uuid.UUID(int=number)) for number in range(1, 5))


@pytest.fixture
def hurries() -> list[int]:
    return []


@pytest.fixture
async def visibility(hurries: list[int]) -> Visibility:
    return Visibility(stored_sequence=0, last_sequence=0, max_waiting_bytes=1_000, hurry=hurries.append)


def submit(
    visibility: Visibility, sequence: int, project: str | None = PROJECT, tenant: str = TENANT, size: int = 10
) -> None:
    patch = RunPatch(tenant, str(uuid.uuid4()), sequence=sequence, project_id=project)
    visibility.submitted([patch], sequence, size)


async def waits(
    visibility: Visibility, tenant: str, *projects: str, run: str = "", trace: str | None = None
) -> "asyncio.Task[None]":
    """A reader that has begun to wait, or has ended."""
    runs = (run,) if run else ()
    task = asyncio.create_task(visibility.see_writes(tenant, projects, run_ids=runs, trace_id=trace))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_readers_wait_for_their_projects_alone(visibility: Visibility, hurries: list[int]) -> None:
    """Writes of another project or tenant keep nobody waiting; those without a project concern all."""
    submit(visibility, 1)
    assert (await waits(visibility, TENANT, OTHER_PROJECT)).done()
    assert (await waits(visibility, OTHER_TENANT)).done()
    assert hurries == []
    submit(visibility, 2, project=None)
    reader = await waits(visibility, TENANT, OTHER_PROJECT)
    assert not reader.done()
    assert hurries == [2]
    await visibility.stored(1)
    assert not reader.done()
    await visibility.stored(2)
    await asyncio.wait_for(reader, LONGEST_WAIT_S)


async def test_readers_of_one_run_or_trace_wait_for_it_alone(visibility: Visibility) -> None:
    """An update that does not say its trace may be of any; a deletion may be of any run."""
    await visibility.stored(0)
    traced = RunPatch(TENANT, "run 1", trace_id="trace 1", dotted_order="…", project_id=PROJECT)
    visibility.submitted([traced], 1, 10)
    assert (await waits(visibility, TENANT, run="run 2")).done()
    assert (await waits(visibility, TENANT, trace="trace 2")).done()
    assert not (await waits(visibility, TENANT, run="run 1")).done()
    assert not (await waits(visibility, TENANT, trace="trace 1")).done()
    await visibility.stored(1)
    visibility.submitted([RunPatch(TENANT, "run 1")], 2, 10)
    assert (await waits(visibility, TENANT, run="run 2")).done()
    assert not (await waits(visibility, TENANT, trace="trace 2")).done()
    await visibility.stored(2)
    visibility.submitted([RunDeletion(TENANT, 3, run_ids=("run 1",))], 3, 10)
    assert not (await waits(visibility, TENANT, run="run 2")).done()


async def test_runs_that_others_await_concern_every_reader_of_their_project(visibility: Visibility) -> None:
    """Their arrival changes those: known as soon as what awaits them has been parked."""
    visibility.submitted([RunPatch(TENANT, "child", parent_run_id="parent", project_id=PROJECT)], 1, 10)
    visibility.submitted([RunPatch(TENANT, "parent", project_id=PROJECT)], 2, 10)
    reader = await waits(visibility, TENANT, run="child")
    await visibility.stored(1, awaited={"parent"})
    other_reader = await waits(visibility, TENANT, OTHER_PROJECT, run="child")
    assert other_reader.done()
    assert not reader.done()
    await visibility.stored(2)
    await asyncio.wait_for(reader, LONGEST_WAIT_S)


@pytest.mark.parametrize("awaited", [None, {"run 1"}])
async def test_as_long_as_nobody_knows_who_is_awaited(
    visibility: Visibility, awaited: set[str] | None
) -> None:
    """Or it is known, every reader of the project waits."""
    await visibility.stored(0, awaited)
    visibility.submitted([RunPatch(TENANT, "run 1", project_id=PROJECT)], 1, 10)
    assert not (await waits(visibility, TENANT, run="run 2")).done()


async def test_numbers_that_never_came_keep_nobody_waiting(visibility: Visibility) -> None:
    """A token of an earlier process, or of a write that failed, waits for what there is."""
    await asyncio.wait_for(visibility.see_sequence(1 << 60), LONGEST_WAIT_S)
    submit(visibility, 5)
    reader = asyncio.create_task(visibility.see_sequence(1 << 60))
    await visibility.stored(5)
    await asyncio.wait_for(reader, LONGEST_WAIT_S)


async def test_what_the_log_still_had_concerns_everybody() -> None:
    """After a restart nobody knows whose operations wait: every reader waits for all of them."""
    visibility = Visibility(stored_sequence=3, last_sequence=9, max_waiting_bytes=1_000)
    reader = await waits(visibility, TENANT, PROJECT)
    assert not reader.done()
    await visibility.stored(9)
    await asyncio.wait_for(reader, LONGEST_WAIT_S)
    assert (await waits(visibility, OTHER_TENANT)).done()


async def test_full_queue_slows_writers_until_it_drains(visibility: Visibility) -> None:
    """Whoever waits for room is woken when there is some."""
    submit(visibility, 1, size=1_000)
    assert not visibility.has_room(TENANT)
    writer = asyncio.create_task(visibility.wait_for_room(TENANT))
    await asyncio.sleep(0)
    assert not writer.done()
    await visibility.stored(1)
    await asyncio.wait_for(writer, LONGEST_WAIT_S)
    assert visibility.waiting_bytes == 0


async def test_loud_tenant_leaves_room_to_a_quiet_one(visibility: Visibility) -> None:
    """Alone a tenant may fill the queue; as soon as another comes, each has half of it."""
    for sequence in range(1, 10):
        assert visibility.has_room(TENANT)
        submit(visibility, sequence, size=100)
    assert visibility.has_room(OTHER_TENANT)
    submit(visibility, 10, tenant=OTHER_TENANT, size=100)
    assert not visibility.has_room(TENANT)
    assert visibility.has_room(OTHER_TENANT)


async def test_nobody_is_refused_while_the_engine_is_away(visibility: Visibility) -> None:
    """Then the log is the only bound; when the engine is back, the queue counts again."""
    submit(visibility, 1, size=5_000)
    writer = asyncio.create_task(visibility.wait_for_room(TENANT))
    await asyncio.sleep(0)
    assert not writer.done()
    await visibility.engine_away("gone")
    await asyncio.wait_for(writer, LONGEST_WAIT_S)
    submit(visibility, 2, size=5_000)
    assert visibility.last_error == "gone"
    await visibility.stored(1)
    assert not visibility.has_room(TENANT)
