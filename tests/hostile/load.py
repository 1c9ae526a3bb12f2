"""A load of many honest clients, without and with a few hostile ones in turns: what the honest notice."""

import asyncio
import math
import multiprocessing
import os
import ssl
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final

import trustme
from tests.contract.servers import Server, serving
from tests.hostile.attacks import Target, attack, bombs
from tests.hostile.honest import HonestClient, Phases, Times

MOST_TIMES: Final = 2.0
"""How much slower the honest may be served beside hostile clients."""
_MAX_FAILURES: Final = 0.001
_SETTLE_S: Final = 1.0
_CONNECTING_AT_ONCE: Final = 20
_NICE: Final = 10
_LONGEST_START_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do."""

    seed: int
    connections: int
    hostile: int
    calls_per_s: float
    """Of all honest clients."""
    rounds: int
    """Each once without and once with hostile clients."""
    phase_s: float
    folder: Path
    attack: str | None = None
    """The only kind of attack, by the name of its function; None for all in turns."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the honest clients have seen."""

    calm: Times
    beside: Times
    defects: Counter[str]

    @property
    def is_good(self) -> bool:
        """Whether they were served as well beside hostile clients, within bounds."""
        calls = len(self.beside.writes) + len(self.beside.questions)
        return (
            not self.defects
            and len(self.beside.failures) <= calls * _MAX_FAILURES
            and all(ratio <= MOST_TIMES for *_, ratio in self.figures())
        )

    def figures(self) -> Iterator[tuple[str, float, float, float]]:
        """Name, milliseconds without and with hostile clients, and the ratio."""
        for name, calm, beside in (
            ("writes", self.calm.writes, self.beside.writes),
            ("questions", self.calm.questions, self.beside.questions),
        ):
            for share in (0.5, 0.99):
                before, after = percentile(calm, share), percentile(beside, share)
                yield f"{name} P{share * 100:.0f}", before, after, after / before

    def text(self) -> str:
        """For people."""
        lines = [f"{'':16}{'calm':>10}{'beside':>10}{'ratio':>8}"]
        lines += [
            f"{name:16}{before:>7.1f} ms{after:>7.1f} ms{ratio:>8.2f}"
            + ("" if ratio <= MOST_TIMES else "  TOO SLOW")
            for name, before, after, ratio in self.figures()
        ]
        for name, times in (("calm", self.calm), ("beside", self.beside)):
            calls = len(times.writes) + len(times.questions)
            lines.append(f"{name}: {calls} calls, failed: {dict(Counter(times.failures)) or 'none'}")
        lines += [f"DEFECT, {count} times: {what}" for what, count in self.defects.items()]
        return "\n".join(lines)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def hostile_load(plan: Plan) -> Outcome:
    """Starts a server, as one is started for strangers: with TLS, keys and limits; and loads it."""
    authority = trustme.CA()
    files = _write_certificate(authority, plan.folder)
    with serving(
        plan.folder,
        auth="keys",
        tls_certificate=files[0],
        tls_key=files[1],
        gateway_workers=str(max(1, (os.cpu_count() or 2) - 1)),
        tenant_queries_per_s="100",
        tenant_runs_per_s="2000",
    ) as server:
        authority.cert_pem.write_to_path(plan.folder / "ca.pem")
        keys = [server.create_key(f"honest-{number}") for number in range(5)]
        hostile_key = server.create_key("hostile")
        calm, beside = await _load(plan, server, keys, hostile_key)
        defects = Counter(str(line.get("event")) for line in server.defects())
    return Outcome(calm, beside, defects)


async def _load(plan: Plan, server: Server, keys: list[str], hostile_key: str) -> tuple[Times, Times]:
    tls = ssl.create_default_context(cafile=plan.folder / "ca.pem")
    port = int(server.url.rpartition(":")[2])
    honest = [
        HonestClient(port, keys[number % len(keys)], tls, f"{plan.seed} honest {number}")
        for number in range(plan.connections - plan.hostile)
    ]
    some = asyncio.Semaphore(_CONNECTING_AT_ONCE)

    async def connect(client: HonestClient) -> None:
        async with some:
            await client.connect()

    await asyncio.gather(*map(connect, honest))
    phases, stop = Phases(), asyncio.Event()
    calm, beside = Times(), Times()
    pause_s = len(honest) / plan.calls_per_s
    grpc_port = int(server.grpc.rpartition(":")[2])
    async with asyncio.TaskGroup() as clients:
        for client in honest:
            clients.create_task(client.run(pause_s, phases, stop))
        await asyncio.sleep(plan.phase_s / 2)  # What is cold gets warm.
        for _ in range(plan.rounds):
            await _measure(phases, calm, plan.phase_s)
            with _hostile_clients(plan, (port, grpc_port), hostile_key) as began:
                assert await asyncio.to_thread(began.wait, _LONGEST_START_S), "nobody attacks"
                await asyncio.sleep(_SETTLE_S)
                await _measure(phases, beside, plan.phase_s)
            await asyncio.sleep(_SETTLE_S)
        stop.set()
    for client in honest:
        client.close()
    return calm, beside


async def _measure(phases: Phases, times: Times, seconds: float) -> None:
    phases.current = times
    await asyncio.sleep(seconds)
    phases.current = Times()


@contextmanager
def _hostile_clients(plan: Plan, ports: tuple[int, int], key: str) -> Iterator[Event]:
    """In a process of their own, which takes nothing of the honest clients' time; and when they begin."""
    context = multiprocessing.get_context("spawn")
    stop, began = context.Event(), context.Event()
    arguments = (plan.seed, plan.hostile, plan.attack, ports, key, str(plan.folder / "ca.pem"), began, stop)
    process = context.Process(target=_attack, args=arguments, daemon=True)
    process.start()
    try:
        yield began
    finally:
        stop.set()
        process.join(10)
        if process.is_alive():
            process.kill()


def _attack(
    seed: int,
    count: int,
    kind: str | None,
    ports: tuple[int, int],
    key: str,
    ca: str,
    began: Event,
    stop: Event,
) -> None:
    os.nice(_NICE)  # Strangers bring machines of their own.
    bombs()
    tls = ssl.create_default_context(cafile=ca)

    async def run() -> None:
        tasks = [
            asyncio.create_task(attack(Target(*ports, key, tls, _address(number)), number, seed, kind))
            for number in range(count)
        ]
        began.set()
        await asyncio.to_thread(stop.wait)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def _address(number: int) -> str | None:
    """Each hostile client has its own, where the whole of 127.0.0.0/8 is this machine."""
    return f"127.0.1.{1 + number % 250}" if sys.platform == "linux" else None


def _write_certificate(authority: trustme.CA, folder: Path) -> tuple[str, str]:
    certificate = authority.issue_cert("127.0.0.1")
    paths = folder / "server.pem", folder / "server.key"
    certificate.cert_chain_pems[0].write_to_path(paths[0])
    certificate.private_key_pem.write_to_path(paths[1])
    return str(paths[0]), str(paths[1])
