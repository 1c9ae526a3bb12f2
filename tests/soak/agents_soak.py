"""A soak of runs of graphs: many threads, all strategies and cancels, while workers are killed."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError
from langgraph_sdk.schema import CancelAction, MultitaskStrategy
from tests.soak.agents_model import Asked, Found, ended_as, judge
from tests.soak.server import Server

_MANIFEST = Path(__file__).parent / "agent_graph" / "langgraph.json"
_STRATEGIES: Final[dict[MultitaskStrategy, int]] = {"enqueue": 4, "interrupt": 3, "rollback": 2, "reject": 2}
_EXTRA_WORKERS = 2
"""Beside the one of the server."""
_SLOTS = 10
_LONGEST_SETTLING_S = 240.0
_KILL_EVERY_S = 4.0
_SHARE_KILLED = 0.75
"""Of the workers that are ended: by SIGKILL; the others by SIGTERM, on which they give their runs back."""
_SHARE_OF_BAD_ANSWERS = 0.05
_MOST_BAD_ANSWERS = 2
"""To one run's webhook, which is tried three times."""
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """What to do."""

    seed: int
    runs: int
    threads: int
    folder: Path


@dataclass(slots=True)
class AgentOutcome:
    """What came of it."""

    seconds: float
    ends: Counter[str]
    kills: Counter[str]
    accepted_cancels: int
    calls: int
    problems: list[str]
    defects: Counter[str]

    @property
    def is_good(self) -> bool:
        """Everything agrees, and something was done and broken at all."""
        return not self.problems and not self.defects and self.kills.total() > 0 and self.ends.total() > 0

    def text(self) -> str:
        """For people."""
        facts = {
            "runs": f"{self.ends.total()} in {self.seconds:.0f} s: {_listed(self.ends)}",
            "kills": f"{self.kills.total()} of workers: {_listed(self.kills)}",
            "cancels": f"{self.accepted_cancels} accepted, beside those by strategies",
            "webhooks": f"{self.calls} taken",
            "wrong": len(self.problems),
            "defects": f"{self.defects.total()} in the logs",
        }
        lines = [f"{name:<12} {fact}" for name, fact in facts.items()]
        lines += [f"  {problem}" for problem in self.problems[:_SHOWN]]
        lines += [f"  {count} times {what}" for what, count in self.defects.most_common(_SHOWN)]
        return "\n".join(lines)


async def soak_agents(plan: AgentPlan) -> AgentOutcome:
    """Run it; every process that it starts has ended when this returns."""
    server = Server(plan.folder, agents=str(_MANIFEST), agent_slots=str(_SLOTS))
    workers = _Workers(server, plan.seed)
    await server.start()
    try:
        async with _receiving(plan.seed) as receiver, get_client(url=server.http_url, api_key=None) as client:
            await _until_ready(client)
            workers.start()
            return await _soak(plan, server, workers, receiver, client)
    finally:
        workers.stop()
        await server.lose_power()


async def _soak(
    plan: AgentPlan, server: Server, workers: "_Workers", receiver: "_Receiver", client: LangGraphClient
) -> AgentOutcome:
    started_s = time.monotonic()
    killing = asyncio.create_task(workers.kill_some())
    async with asyncio.TaskGroup() as tasks:
        stories = [
            tasks.create_task(_Thread(plan, number, client, receiver.url).run())
            for number in range(plan.threads)
        ]
    killing.cancel()
    told = {story.result()[0]: story.result()[1] for story in stories}
    async with asyncio.timeout(_LONGEST_SETTLING_S):
        for thread_id in told:
            await _until_idle(client, thread_id)
    problems: list[str] = []
    ends: Counter[str] = Counter()
    for thread_id, story in told.items():
        found = await _settled(client, thread_id, story, receiver)
        ends.update(ended_as(asked, found) for asked in story)
        problems += [f"thread {thread_id}: {problem}" for problem in judge(story, found)]
    return AgentOutcome(
        seconds=time.monotonic() - started_s,
        ends=ends,
        kills=workers.kills,
        accepted_cancels=sum(len(asked.cancels) for story in told.values() for asked in story),
        calls=sum(map(len, receiver.taken.values())),
        problems=problems,
        defects=server.defects(),
    )


class _Thread:
    """Asks one run of a thread after the other, and remembers what was answered."""

    def __init__(self, plan: AgentPlan, number: int, client: LangGraphClient, hook: str) -> None:
        self._chance = random.Random(f"{plan.seed} thread {number}")
        self._number = number
        self._runs = plan.runs // plan.threads
        self._client = client
        self._hook = hook

    async def run(self) -> tuple[str, list[Asked]]:
        """The thread's id and its story."""
        thread_id = (await self._client.threads.create())["thread_id"]
        story = [await self._ask(thread_id, number) for number in range(self._runs)]
        return thread_id, story

    async def _ask(self, thread_id: str, number: int) -> Asked:
        chance = self._chance
        strategy = chance.choices(list(_STRATEGIES), list(_STRATEGIES.values()))[0]
        asked = Asked(f"t{self._number}r{number}", strategy, fails=chance.random() < 0.1)
        given: dict[str, Any] = {
            "tag": asked.tag,
            "secs": chance.choice((0.0, 0.02, 0.1, 0.3)),
            "fails": asked.fails,
        }
        try:
            run = await self._client.runs.create(
                thread_id,
                "letters",
                input=given,
                multitask_strategy=strategy,
                webhook=f"{self._hook}/{asked.tag}",
                durability="sync" if chance.random() < 0.5 else "async",
            )
        except ConflictError:
            await asyncio.sleep(chance.uniform(0, 0.5))
            return asked
        asked.run_id = run["run_id"]
        await self._go_on(thread_id, asked)
        return asked

    async def _go_on(self, thread_id: str, asked: Asked) -> None:
        """Waits for the run, cancels it, or leaves it alone for a while or at once."""
        chance = self._chance
        assert asked.run_id is not None
        way = chance.choices(("wait", "cancel", "pause", "hurry"), (3, 2, 3, 2))[0]
        if way == "wait":
            await self._client.runs.join(thread_id, asked.run_id)
        elif way == "pause":
            await asyncio.sleep(chance.uniform(0, 1.0))
        elif way == "cancel":
            await asyncio.sleep(chance.choice((0.0, 0.1, 0.5)))
            action: CancelAction = "rollback" if chance.random() < 0.4 else "interrupt"
            with suppress(NotFoundError):  # It has ended by itself.
                await self._client.runs.cancel(thread_id, asked.run_id, action=action)
                asked.cancels.add(action)


async def _settled(
    client: LangGraphClient, thread_id: str, story: list[Asked], receiver: "_Receiver"
) -> Found:
    """What there is of a thread, once its webhooks have come."""
    rows = {run["run_id"]: dict(run) for run in await client.runs.list(thread_id, limit=1_000)}
    owed = [
        asked.tag for asked in story if rows.get(asked.run_id or "", {}).get("status") in ("success", "error")
    ]
    with suppress(TimeoutError):
        async with asyncio.timeout(30):
            while any(tag not in receiver.taken for tag in owed):  # noqa: ASYNC110 - sockets fill it
                await asyncio.sleep(0.1)
    thread: Any = await client.threads.get(thread_id)
    state: Any = await client.threads.get_state(thread_id)
    log = (state["values"] or {}).get("log", [])
    if (thread["values"] or {}).get("log", []) != log:
        log = [*log, f"the thread's own values say {thread['values']}"]
    history: Any = await client.threads.get_history(thread_id, limit=1_000)
    return Found(
        rows=rows,
        log=log,
        status=thread["status"],
        checkpointed={checkpoint["metadata"].get("run_id") for checkpoint in history},
        webhooks={asked.tag: receiver.taken.get(asked.tag, []) for asked in story},
    )


async def _until_ready(client: LangGraphClient) -> None:
    """The server answers and has a worker that has the graph."""
    async with asyncio.timeout(120):
        while True:
            with suppress(httpx.HTTPError):
                if await client.assistants.search(graph_id="letters"):
                    return
            await asyncio.sleep(0.1)


async def _until_idle(client: LangGraphClient, thread_id: str) -> None:
    while (await client.threads.get(thread_id))["status"] == "busy":  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.1)


class _Workers:
    """Three workers, one of them the server's own; some are killed, all come back."""

    def __init__(self, server: Server, seed: int) -> None:
        self.kills: Counter[str] = Counter()
        self._server = server
        self._chance = random.Random(f"{seed} workers")
        self._own: list[psutil.Popen] = []

    def start(self) -> None:
        """Starts those that are not running."""
        while len(self._own) < _EXTRA_WORKERS:
            self._own.append(self._started())

    def _started(self) -> psutil.Popen:
        command = (sys.executable, "-m", "runstore.runtime.cli", "agents")
        store = ("--store", self._server.grpc_address)
        with self._server.log.open("ab") as log:
            return psutil.Popen(
                (*command, *store),
                env=self._server.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    async def kill_some(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / _KILL_EVERY_S))
            number = signal.SIGKILL if self._chance.random() < _SHARE_KILLED else signal.SIGTERM
            victim = self._chance.randrange(1 + _EXTRA_WORKERS)
            processes = self._server.parts().get("agents", []) if victim == 0 else [self._own[victim - 1]]
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
                    self.kills[number.name] += 1
            if victim:
                await asyncio.to_thread(psutil.wait_procs, processes, timeout=60)
                self._own[victim - 1] = self._started()

    def stop(self) -> None:
        """Ends them."""
        for process in self._own:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(self._own, timeout=30)


@dataclass(slots=True)
class _Receiver:
    """Takes most calls and fails some, which have to come again: not so often that they are given up."""

    chance: random.Random
    url: str = ""
    taken: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _failed: Counter[str] = field(default_factory=Counter)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call, as `asyncio.start_server` hands it over."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().split("content-length: ", 1)[1].split("\r\n", 1)[0])
            body = json.loads(await reader.readexactly(length))
            status, tag = "503 Later", head.split()[1].removeprefix("/")
            if self._failed[tag] < _MOST_BAD_ANSWERS and self.chance.random() < _SHARE_OF_BAD_ANSWERS:
                self._failed[tag] += 1
            else:
                status = "200 OK"
                self.taken.setdefault(tag, []).append(body)
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()


@asynccontextmanager
async def _receiving(seed: int) -> AsyncIterator[_Receiver]:
    receiver = _Receiver(random.Random(f"{seed} receiver"))
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield receiver
    server.close()


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(counter.items())) or "none"
