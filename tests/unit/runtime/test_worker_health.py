"""Workers say how they are, and are found by those who ask on the same machine."""

import asyncio
import os
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tests.waiting import LONGEST_WAIT_S

from runstore.agents.graph_loop import GraphLoop
from runstore.runtime import worker_health
from runstore.runtime.worker_health import WorkerHealth, ask_workers, health_shown

SAID = WorkerHealth(os.getpid(), is_connected=True, do_graphs_answer=True, runs=1, slots=10)


async def read() -> WorkerHealth:
    return SAID


async def test_a_worker_is_asked_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket is there as long as it is, and no longer."""
    monkeypatch.setattr(worker_health, "_PATIENCE_S", LONGEST_WAIT_S)
    folder = tmp_path / "workers"
    async with health_shown(folder, read):
        assert await asyncio.to_thread(ask_workers, folder) == {os.getpid(): SAID}
    assert ask_workers(folder) == {}


def test_a_worker_that_was_killed_is_left_out(tmp_path: Path) -> None:
    """What it has left behind is removed."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "7.sock"))
    assert ask_workers(tmp_path) == {}
    assert not (tmp_path / "7.sock").exists()


async def test_a_worker_that_hangs_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of, and not waited for."""
    monkeypatch.setattr(worker_health, "_PATIENCE_S", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "7.sock"))
        silent.listen()
        assert ask_workers(tmp_path) == {7: None}


def test_a_worker_that_hangs_is_not_taken_for_a_killed_one(tmp_path: Path) -> None:
    """Nobody takes connections any more, but it is there: its socket stays."""
    path = tmp_path / "7.sock"
    with socket.socket(socket.AF_UNIX) as silent, ExitStack() as stack:
        silent.bind(str(path))
        silent.listen(0)
        with suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(path))
        assert ask_workers(tmp_path) == {7: None}
        assert path.exists()


async def test_a_folder_that_cannot_be_made_costs_the_answer_alone(tmp_path: Path) -> None:
    """A worker needs no data directory of its own."""
    (tmp_path / "file").touch()
    async with health_shown(tmp_path / "file" / "workers", read):
        pass


async def test_graphs_that_hold_each_other_up_do_not_answer() -> None:
    """A loop that somebody holds is not free within the time; later it is."""
    loop = GraphLoop(node_threads=1)
    begun, held = asyncio.Event(), asyncio.get_running_loop()
    release = threading.Event()

    def hold() -> None:
        held.call_soon_threadsafe(begun.set)
        release.wait(LONGEST_WAIT_S)

    loop.call(hold)
    await begun.wait()
    assert not await loop.answers(0.01)
    release.set()
    assert await loop.answers(LONGEST_WAIT_S)
    loop.close(1)
