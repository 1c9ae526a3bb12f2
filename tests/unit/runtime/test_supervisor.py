"""Supervision of real processes with a fake body: restart, order of stopping, no orphans."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.waiting import LONGEST_WAIT_S, until_async

from runstore.runtime.child import Backoff, Child, ChildSpec
from runstore.runtime.clock import SystemClock
from runstore.runtime.failures import CannotStart
from runstore.runtime.supervisor import Supervisor

HERE = Path(__file__).parent


@dataclass
class Journal:
    path: Path

    def lines(self) -> list[tuple[str, str, int]]:
        if not self.path.exists():
            return []
        split = (line.split() for line in self.path.read_text().splitlines())
        return [(name, what, int(pid)) for name, what, pid in split]

    def events(self) -> list[tuple[str, str]]:
        return [(name, what) for name, what, _ in self.lines()]

    def pids(self, name: str) -> list[int]:
        return [pid for child, what, pid in self.lines() if (child, what) == (name, "started")]

    def has_more_lives_than(self, name: str, lives: int) -> bool:
        return len(self.pids(name)) > lives


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def child(journal: Journal, name: str, behaviour: str = "serves") -> Child:
    arguments = (sys.executable, str(HERE / "fake_child.py"), name, str(journal.path), behaviour)
    return Child(ChildSpec(name, arguments, os.environ), SystemClock(), Backoff(first_s=0.01))


@dataclass
class Running:
    ready: asyncio.Event
    stop: asyncio.Event
    force: asyncio.Event
    task: asyncio.Task[None]


@asynccontextmanager
async def running(store: Child, *gateways: Child) -> AsyncIterator[Running]:
    ready, stop, force = asyncio.Event(), asyncio.Event(), asyncio.Event()
    supervisor = Supervisor(store, gateways, drain_timeout_s=60)
    task = asyncio.create_task(supervisor.run(stop=stop, force=force, on_ready=ready.set))
    try:
        async with asyncio.timeout(LONGEST_WAIT_S):
            yield Running(ready, stop, force, task)
    finally:
        stop.set()
        force.set()
        await asyncio.gather(task, return_exceptions=True)


async def test_gateways_drain_before_the_store(journal: Journal) -> None:
    """Stopping ends every gateway while the store still answers, then the store, then returns."""
    async with running(child(journal, "store"), child(journal, "g1"), child(journal, "g2")) as supervised:
        await supervised.ready.wait()
        supervised.stop.set()
        await supervised.task
    events = journal.events()
    assert sorted(events[:3]) == [("g1", "started"), ("g2", "started"), ("store", "started")]
    assert sorted(events[3:7]) == [
        ("g1", "drained"), ("g1", "draining"), ("g2", "drained"), ("g2", "draining"),
    ]  # fmt: skip
    assert events[7:] == [("store", "draining"), ("store", "drained")]


async def test_killed_store_comes_back_while_gateways_keep_running(journal: Journal) -> None:
    """`kill -9` of the store restarts the store alone, as often as it happens."""
    async with running(child(journal, "store"), child(journal, "gateway")) as supervised:
        await supervised.ready.wait()
        for _ in range(2):
            killed = journal.pids("store")
            os.kill(killed[-1], signal.SIGKILL)
            await until_async(
                partial(journal.has_more_lives_than, "store", len(killed)), "the store is started again"
            )
    assert len(journal.pids("gateway")) == 1


async def test_child_that_cannot_start_ends_everything(journal: Journal) -> None:
    """A store that gives up by itself before it ever answered is a mistake to report, not to repeat."""
    async with running(child(journal, "store", "fails-at-start"), child(journal, "gateway")) as supervised:
        with pytest.raises(CannotStart, match=r"store did not start \(exit status 3\)"):
            await supervised.task
    assert journal.pids("store") == [pid for name, _, pid in journal.lines() if name == "store"]
    assert not supervised.ready.is_set()


async def test_force_kills_what_does_not_drain(journal: Journal) -> None:
    """A second Ctrl-C ends children that are stuck in draining."""
    async with running(child(journal, "store", "never-drains"), child(journal, "gateway")) as supervised:
        await supervised.ready.wait()
        supervised.stop.set()
        await until_async(lambda: ("store", "draining") in journal.events(), "the store drains")
        supervised.force.set()
        await supervised.task
    assert ("store", "drained") not in journal.events()
    with pytest.raises(ProcessLookupError):
        os.kill(journal.pids("store")[0], 0)


async def test_stop_while_starting_ends_at_once(journal: Journal) -> None:
    """Ctrl-C before anything is ready leaves no process behind."""
    async with running(child(journal, "store"), child(journal, "gateway")) as supervised:
        supervised.stop.set()
        await supervised.task
    assert not supervised.ready.is_set()


async def test_children_end_with_a_killed_supervisor(journal: Journal) -> None:
    """`kill -9` of the supervisor leaves no orphan: the children notice, drain and end."""
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "supervising_process.py"),
        str(journal.path),
        stdout=asyncio.subprocess.PIPE,
    )
    assert supervisor.stdout is not None
    async with asyncio.timeout(LONGEST_WAIT_S):
        assert await supervisor.stdout.readline() == b"ready\n"
    supervisor.kill()
    await supervisor.wait()
    drained = {("store", "drained"), ("gateway", "drained")}
    await until_async(lambda: drained <= set(journal.events()), "both have drained")
