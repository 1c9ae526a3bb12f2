"""Workers and servers that die or are stopped while runs go on (contract agents, section 6, H)."""

import asyncio
import itertools
import signal
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_client
from tests.agents.conftest import MANIFEST
from tests.agents.steps import log_of, until_marks, until_next, until_status, until_thread
from tests.contract.servers import Server, run_command, serving
from tests.waiting import until


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server whose processes a test may kill, and whose runs end after twenty seconds."""
    folder = tmp_path_factory.mktemp("mortal")
    with serving(folder, agents=str(MANIFEST), agent_run_timeout_s="20") as server:
        yield server


async def test_run_outlives_its_worker(server: Server, tmp_path: Path) -> None:
    """Killed at `b`, the run goes on there; `a` is not run again, and the waiter gets the result (H2)."""
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    async with get_client(url=server.url, api_key=None) as client:
        thread = (await client.threads.create())["thread_id"]
        body: Any = {"gate": str(gate), "slow": "b", "marks": str(marks)}
        waiting = asyncio.create_task(client.runs.wait(thread, "steps", input=body))
        await until_next(client, thread, "b")
        await until_marks(marks, "ab")
        queued = await client.runs.create(thread, "steps", input={"secs": 0})
        server.part("agents").kill()
        gate.touch()
        result: Any = await waiting
        assert result["log"] == ["a", "b", "c"]
        await until_status(client, thread, queued["run_id"], "success")
        assert await log_of(client, thread) == "abcabc"
    assert marks.read_text()[:4] == "abbc"


def test_health_says_how_the_worker_is(server: Server) -> None:
    """The command for containers of workers: status 0 while it has its store."""

    def well() -> str:
        """What it says; nothing when it answers too late."""
        done = run_command("health", environment=server.environment, check=False)
        return done.stdout if done.returncode == 0 else ""

    said = until(well, "the worker is well")
    assert "connected to its store" in said
    assert "of 3 runs under way" in said


async def test_slots_bound_what_runs_at_once(server: Server, tmp_path: Path) -> None:
    """H5: six runs on three slots all end, and no more than three run at once."""
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    body: Any = {"secs": 0.1, "gate": str(gate), "marks": str(marks)}
    async with get_client(url=server.url, api_key=None) as client:
        threads = [(await client.threads.create())["thread_id"] for _ in range(6)]
        all_of_them = asyncio.gather(*(client.runs.wait(thread, "sblock", input=body) for thread in threads))
        await until_marks(marks, "aaa")
        gate.touch()
        results: Any = await all_of_them
    assert [result["log"] for result in results] == [["a", "b", "c"]] * 6
    # A node leaves a small letter when it begins, and a capital when it ends.
    running = list(itertools.accumulate(1 if mark.islower() else -1 for mark in marks.read_text()))
    assert max(running) == 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_run_outlives_its_server(tmp_path: Path, number: signal.Signals) -> None:
    """H1, H2: stopped or killed at `b` and started again, it goes on there, and the queued one follows."""
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    with serving(tmp_path, agents=str(MANIFEST), drain_timeout_s="4") as server:
        async with get_client(url=server.url, api_key=None) as client:
            thread = (await client.threads.create())["thread_id"]
            # A run that ends while the server drains would not have to go on.
            body: Any = {"gate": str(gate), "slow": "b", "marks": str(marks)}
            run = await client.runs.create(thread, "steps", input=body)
            await until_next(client, thread, "b")
            await until_marks(marks, "ab")
            queued = await client.runs.create(thread, "steps", input={"secs": 0})
        if number is signal.SIGKILL:
            server.kill()
        else:
            server.stop(number)
    gate.touch()
    with serving(tmp_path, agents=str(MANIFEST)) as server:
        async with get_client(url=server.url, api_key=None) as client:
            for run_id in (run["run_id"], queued["run_id"]):
                await until_status(client, thread, run_id, "success")
            assert await log_of(client, thread) == "abcabc"
    assert marks.read_text()[:4] == "abbc"


@pytest.mark.slow
async def test_wait_outlives_the_store(mortal: Server) -> None:
    """The store is killed in the middle; the client of `wait` notices nothing."""
    async with get_client(url=mortal.url, api_key=None) as client:
        thread = (await client.threads.create())["thread_id"]
        waiting = asyncio.create_task(client.runs.wait(thread, "steps", input={"secs": 4, "slow": "b"}))
        await until_next(client, thread, "b")
        mortal.part("store").kill()
        result: Any = await waiting
        assert result["log"] == ["a", "b", "c"]


@pytest.mark.slow
async def test_run_that_kills_its_workers_fails(mortal: Server, tmp_path: Path) -> None:
    """H3: attempts are bounded."""
    marks = tmp_path / "marks"
    async with get_client(url=mortal.url, api_key=None) as client:
        thread = (await client.threads.create())["thread_id"]
        body: Any = {"secs": 60, "marks": str(marks)}
        waiting = asyncio.create_task(client.runs.wait(thread, "steps", input=body, raise_error=False))
        for attempt in (1, 2, 3):
            await until_marks(marks, "a" * attempt)
            mortal.part("agents").kill()
        result: Any = await waiting
        assert "__error__" in result
        assert (await until_thread(client, thread, "error"))["status"] == "error"
    assert marks.read_text() == "aaa"


@pytest.mark.slow
async def test_run_that_takes_too_long(mortal: Server) -> None:
    """B9, B10: it ends as `timeout`, the thread as `error`, and the waiter is told so."""
    async with get_client(url=mortal.url, api_key=None) as client:
        thread = (await client.threads.create())["thread_id"]
        body: Any = {"secs": 60, "slow": "b"}
        result: Any = await client.runs.wait(thread, "steps", input=body, raise_error=False)
        assert result["__error__"]["error"] == "TimeoutError"
        assert [run["status"] for run in await client.runs.list(thread)] == ["timeout"]
        found = await until_thread(client, thread, "error")
        assert found["values"]["log"] == ["a"]
