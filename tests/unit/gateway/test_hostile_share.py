"""The hostile load of `make hostile` on a clock that stands still: whose work fills the gateway's time."""

import heapq
import random
from collections import defaultdict
from dataclasses import dataclass

import pytest
from tests.manual_clock import ManualClock

from runstore.domain import pacing
from runstore.domain.pacing import Pacing

from .paced import PacedApp

WARM_S, END_S = 60.0, 180.0


@dataclass(frozen=True)
class Client:
    """One connection, whose next call follows the answer to the last one."""

    name: str
    address: str
    status: int
    cost_s: float
    """Of the gateway's time; about what a call of this kind was measured to take."""
    think_s: float = 0.0
    key: str = "good"
    good_every: int = 0
    """Every so many calls one is good."""

    def key_of(self, number: int) -> str:
        return self.key or f"invented {number}"

    def status_of(self, number: int) -> int:
        return 200 if self.good_every and number % self.good_every == 0 else self.status


HOSTILE = (
    Client("zstd bomb", "198.51.100.1", 413, 0.1),
    Client("gzip bomb", "198.51.100.2", 413, 0.2),
    Client("bombs and good calls", "198.51.100.3", 413, 0.2, good_every=2),
    Client("flood above its limit", "198.51.100.4", 429, 0.002, good_every=10),
    Client("strangers", "198.51.100.5", 429, 0.001, key=""),
    Client("public pages", "198.51.100.6", 200, 0.001, key="-"),
)


class Gateway:
    """Every client goes on as soon as its pause and its call end, as if the gateway had time for all."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy_s: defaultdict[str, float] = defaultdict(float)
        self.waited_s: defaultdict[str, float] = defaultdict(float)
        self._chance = random.Random(seed)
        self._clock = ManualClock()
        self._app = PacedApp(self._clock, Pacing(self._clock), monkeypatch)

    async def shares(self, clients: list[Client], warm_s: float, end_s: float) -> dict[str, float]:
        """Of the gateway's time, by name, from `warm_s` on: 1 is all of it."""
        begin_s = self._clock.monotonic()
        due = [(begin_s + self._chance.random(), number, 0) for number in range(len(clients))]
        heapq.heapify(due)
        while due[0][0] < begin_s + end_s:
            now_s, number, count = heapq.heappop(due)
            client = clients[number]
            self._clock.advance(max(0.0, now_s - self._clock.monotonic()))
            pause_s = await self._app.call(client.key_of(count), client.status_of(count), client.address)
            if now_s - begin_s >= warm_s:
                self.busy_s[client.name] += client.cost_s
                self.waited_s[client.name] += pause_s
            think_s = self._chance.expovariate(1 / client.think_s) if client.think_s else 0.0
            heapq.heappush(due, (now_s + pause_s + client.cost_s + think_s, number, count + 1))
        return {name: busy_s / (end_s - warm_s) for name, busy_s in self.busy_s.items()}


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_hostile_clients_get_little_of_the_gateways_time(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute none has more than what 50 public pages a second take; nobody honest waits."""
    honest = [Client("honest", f"192.0.2.{number}", 200, 0.003, think_s=1.0) for number in range(60)]
    gateway = Gateway(seed, monkeypatch)
    shares = await gateway.shares([*honest, *HOSTILE], WARM_S, END_S)
    assert gateway.waited_s["honest"] == 0
    for client in HOSTILE:
        assert gateway.waited_s[client.name] > 0
        assert shares[client.name] < 0.055, client.name


async def test_without_pauses_each_of_them_fills_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is the pauses that keep them at bay, and not what the clients are like."""
    monkeypatch.setattr(pacing, "_PAUSE_S_PER_POINT", 0.0)
    shares = await Gateway(1, monkeypatch).shares(list(HOSTILE), 1.0, 3.0)
    assert all(shares[client.name] > 0.9 for client in HOSTILE)
