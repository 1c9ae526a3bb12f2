"""Measures runs of a trivial graph: how long one `wait` takes, and how many a second clients get answered."""

import asyncio
import importlib.util
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.bench.http_client import get, post
from tests.bench.latency import percentile
from tests.bench.plan import Plan
from tests.bench.report import Figure, Report
from tests.bench.server import serving

_GRAPH = Path(__file__).parent / "agent_graph"
_SECTION = "Agents, `wait` of a trivial graph"
_CLIENTS = (1, 10, 100)
_WARM_UP_CALLS = 20
_END = b"\r\n0\r\n\r\n"

_Call = Callable[[], Awaitable[Any]]


def measure_agents(plan: Plan, work_dir: Path, report: Report) -> None:
    """The graph in this process, then behind a server: on threads with checkpoints, and stateless."""
    print("\nRuns of a trivial graph", flush=True)
    alone_ms = asyncio.run(_in_process(plan, report))
    settings = {"RUNSTORE_AGENTS": str(_GRAPH / "langgraph.json"), "RUNSTORE_AGENT_SLOTS": "100"}
    with serving(work_dir / "agents", **settings) as server:
        while get(server.http_port, "/assistants/trivial/graph") != 200:
            time.sleep(0.05)  # The worker imports its graphs while the server answers already.
        asyncio.run(_behind_server(server.http_port, plan, report, alone_ms))


async def _in_process(plan: Plan, report: Report) -> float:
    graph = _load().graph

    async def call() -> None:
        answer = await graph.ainvoke({"n": 1})
        assert answer == {"n": 2}

    milliseconds = await _latencies(call, plan.idle_samples)
    for name, share in (("P50", 0.5), ("P99", 0.99)):
        value = percentile(milliseconds, share)
        report.add(Figure(_SECTION, f"in process, no server, {name}", value, "ms"))
    return percentile(milliseconds, 0.5)


async def _behind_server(port: int, plan: Plan, report: Report, alone_ms: float) -> None:
    for kind, has_thread in (("on a thread", True), ("stateless", False)):
        client = _Client(port, has_thread=has_thread)
        milliseconds = await _latencies(client.wait, plan.idle_samples)
        for name, share, budget in (("P50", 0.5, 25.0), ("P99", 0.99, None)):
            value = percentile(milliseconds, share)
            engine = alone_ms if name == "P50" else None
            figure = Figure(_SECTION, f"{kind}, {name}", value, "ms", at_most=budget, engine=engine)
            report.add(figure)
        for count in _CLIENTS:
            clients = [_Client(port, has_thread=has_thread) for _ in range(count)]
            rate = await _rate([client.wait for client in clients], plan.latency_s / 2)
            plural = "s" if count > 1 else ""
            report.add(Figure(_SECTION, f"{kind}, {count} client{plural}", rate, "runs/s"))


class _Client:
    """A connection of its own, and a thread of its own if it has one."""

    def __init__(self, port: int, *, has_thread: bool) -> None:
        self._port = port
        self._has_thread = has_thread
        self._request = b""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def wait(self) -> None:
        """Creates a run and reads its result."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            self._request = await self._wait_request()
        answer = await self._exchange(self._request, _END)
        assert b'{"n":2}' in answer, answer

    async def _wait_request(self) -> bytes:
        body = json.dumps({"assistant_id": "trivial", "input": {"n": 1}}).encode()
        if not self._has_thread:
            return post("/runs/wait", body)
        created = await self._exchange(post("/threads", b"{}"), b"}")
        thread_id = json.loads(created[created.index(b"{") :])["thread_id"]
        return post(f"/threads/{thread_id}/runs/wait", body)

    async def _exchange(self, request: bytes, end: bytes) -> bytes:
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(request)
        received = b""
        while not received.endswith(end):
            more = await reader.read(1 << 16)
            assert more, f"the server closed the connection after {received[:500]!r}"
            received += more
        return received


async def _latencies(call: _Call, samples: int) -> list[float]:
    for _ in range(_WARM_UP_CALLS):
        await call()
    milliseconds = []
    for _ in range(samples):
        started_s = time.perf_counter()
        await call()
        milliseconds.append(1_000 * (time.perf_counter() - started_s))
    return milliseconds


async def _rate(calls: list[_Call], seconds: float) -> float:
    """Calls a second of clients that each call again as soon as they are answered."""
    await asyncio.gather(*(call() for call in calls))
    started_s = time.perf_counter()

    async def repeat(call: _Call) -> int:
        count = 0
        while time.perf_counter() - started_s < seconds:
            await call()
            count += 1
        return count

    counts = await asyncio.gather(*map(repeat, calls))
    return sum(counts) / (time.perf_counter() - started_s)


def _load() -> Any:
    """The graph's module, from where the worker has it."""
    spec = importlib.util.spec_from_file_location("trivial", _GRAPH / "trivial.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
