"""One soak on one engine: load and chaos, then power loss, then the comparison."""

import asyncio
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.engine_front.front import EngineFront, engine_front
from tests.soak.chaos import Chaos
from tests.soak.ledger import Counts
from tests.soak.load import LiveReads, Load
from tests.soak.readback import Comparison, compare, until_answering
from tests.soak.senders import open_channel
from tests.soak.server import Server

_WATCH_PAUSE_S = 0.5
_LONGEST_DRAIN_S = 240.0
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do."""

    seed: int
    engine: str
    """`embedded`, or `front`: a server of the engine that is taken away."""
    seconds: float
    kills: int
    max_operations_per_s: float
    folder: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    counts: Counts
    reads: LiveReads
    comparison: Comparison
    kills: Counter[str]
    faults: Counter[str]
    defects: Counter[str]
    largest_memory_bytes: int
    drain_s: float
    readback_s: float

    @property
    def is_good(self) -> bool:
        """Nothing missing, wrong, duplicated, refused or defective, and something was done at all."""
        found = self.comparison
        failures = (found.missing, found.wrong, found.duplicated, self.reads.wrong, self.counts.refusals)
        return not any(failures) and not self.defects and found.runs > 0 and self.kills.total() > 0

    def text(self) -> str:
        """For people."""
        counts, found = self.counts, self.comparison
        facts = {
            "operations": f"{counts.sent} sent, {counts.acknowledged} acknowledged, "
            f"{counts.retried} retried, {counts.abandoned} abandoned, {counts.refused} refused",
            "kills": f"{self.kills.total()}: {_listed(self.kills)}",
            "cut-offs": f"{self.faults.total()}: {_listed(self.faults)}",
            "live reads": f"{self.reads.made} made, {self.reads.unanswered} unanswered, "
            f"{len(self.reads.wrong)} wrong",
            "memory": f"{self.largest_memory_bytes >> 20} MiB at most, all processes of the server",
            "drained in": f"{self.drain_s:.1f} s",
            "compared": f"{found.runs} runs, {found.fields} fields ({found.uncertain_fields} with several "
            f"right values), {found.attachments} attachments, in {self.readback_s:.1f} s",
            "missing": len(found.missing),
            "wrong": len(found.wrong),
            "duplicated": len(found.duplicated),
            "defects": f"{self.defects.total()} in the server's log",
        }
        lines = [f"{name:<12} {fact}" for name, fact in facts.items()]
        for failures in (
            found.missing, found.wrong, found.duplicated, self.reads.wrong, self.counts.refusals,
            [f"{count} times {what}" for what, count in self.defects.most_common()],
        ):  # fmt: skip
            lines += [f"  {failure}" for failure in failures[:_SHOWN]]
        return "\n".join(lines)


async def soak(plan: Plan) -> Outcome:
    """Run it; every process that it starts has ended when this returns."""
    with ExitStack() as stack:
        front: EngineFront | None = None
        settings = {}
        if plan.engine == "front":
            front = stack.enter_context(engine_front(plan.folder / "engine"))
            settings["clickhouse_dsn"] = front.dsn
        server = Server(plan.folder, **settings)
        await server.start()
        try:
            return await _soak(plan, server, front)
        finally:
            await server.lose_power()


async def _soak(plan: Plan, server: Server, front: EngineFront | None) -> Outcome:
    load = Load(server.http_url, server.grpc_address, plan.seed, plan.max_operations_per_s)
    chaos = Chaos(server, front, plan.seed)
    watch = _Watch(server)
    async with open_channel(server.grpc_address) as channel:
        await until_answering(channel)
        watching = asyncio.create_task(watch.run())
        loading = asyncio.create_task(load.run())
        await chaos.run(plan.seconds, plan.kills)
        load.stop()
        started_s = time.monotonic()
        async with asyncio.timeout(_LONGEST_DRAIN_S):
            await loading
        drain_s = time.monotonic() - started_s
        watching.cancel()
        # What is only in memory must not count.
        await server.lose_power()
        await server.start()
        await until_answering(channel)
        started_s = time.monotonic()
        comparison = await compare(load.ledger, server.http_url, channel)
        readback_s = time.monotonic() - started_s
    await server.stop()
    return Outcome(
        load.ledger.counts, load.reads, comparison, chaos.kills, chaos.faults, server.defects(),
        watch.largest_bytes, drain_s, readback_s,
    )  # fmt: skip


class _Watch:
    """Keeps the server running and looks at its memory."""

    def __init__(self, server: Server) -> None:
        self.largest_bytes = 0
        self._server = server

    async def run(self) -> None:
        while True:
            self.largest_bytes = max(self.largest_bytes, self._server.memory_bytes())
            await self._server.ensure_running()
            await asyncio.sleep(_WATCH_PAUSE_S)


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(counter.items())) or "none"
