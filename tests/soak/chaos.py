"""What goes wrong: parts of the server are killed, and the engine's front is cut off and slowed."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable

import psutil
from tests.engine_front import front as engine
from tests.soak.server import Server

_SHARE_KILLED = 0.75
"""Of the parts that are ended: by SIGKILL; the others by SIGTERM."""
_SHARE_OF_ALL = 0.06
"""Of the kills: the whole process group at once, as when the machine goes down."""
_LONGEST_FAULT_S = 25.0
_LOOK_S = 0.05


class Chaos:
    """Kills and faults at random moments."""

    def __init__(self, server: Server, front: engine.EngineFront | None, seed: int) -> None:
        self.kills: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._server = server
        self._front = front
        self._kill_chance = random.Random(f"{seed} kills")
        self._fault_chance = random.Random(f"{seed} faults")

    async def run(self, seconds: float, kills: int) -> None:
        """About `kills` kills within this time; afterwards nothing is wrong, but parts may be starting."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._kill(seconds, kills))
            if self._front is not None:
                tasks.create_task(self._cut_off(self._front, seconds))

    async def _kill(self, seconds: float, kills: int) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        moments = sorted(self._kill_chance.uniform(0, seconds) for _ in range(kills))
        for moment in moments:
            await asyncio.sleep(max(0.0, started_s + moment - loop.time()))
            await self._kill_something()
        await asyncio.sleep(max(0.0, started_s + seconds - loop.time()))

    async def _kill_something(self) -> None:
        chance = self._kill_chance
        if chance.random() < _SHARE_OF_ALL:
            await self._server.lose_power()
            self.kills["everything SIGKILL"] += 1
            await self._server.start()
            return
        part = chance.choice(("store", "store", "flusher", "gateway"))
        number = signal.SIGKILL if chance.random() < _SHARE_KILLED else signal.SIGTERM
        while not (processes := self._server.parts().get(part)):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(_LOOK_S)
        try:
            chance.choice(processes).send_signal(number)
        except psutil.NoSuchProcess:
            return
        self.kills[f"{part} {number.name}"] += 1

    async def _cut_off(self, front: engine.EngineFront, seconds: float) -> None:
        chance, end_s = self._fault_chance, asyncio.get_running_loop().time() + seconds

        def left_s() -> float:
            return max(0.0, end_s - asyncio.get_running_loop().time())

        while left_s():
            await asyncio.sleep(min(left_s(), chance.expovariate(1 / 4)))
            # Most are short, some are tens of seconds long.
            duration_s = min(left_s(), _LONGEST_FAULT_S, chance.expovariate(1 / 3))
            name, begin, end = chance.choice(self._ways(front))
            self.faults[name] += 1
            await asyncio.to_thread(begin)
            await asyncio.sleep(duration_s)
            await asyncio.to_thread(end)

    def _ways(self, front: engine.EngineFront) -> list[tuple[str, Callable[[], None], Callable[[], None]]]:
        faults = {
            "refuses": engine.REFUSE,
            "hangs": engine.HANG,
            "503": engine.UNAVAILABLE,
            "too many parts": engine.TOO_MANY_PARTS,
            "no memory": engine.MEMORY_LIMIT,
            "loses answers": engine.LOSE_ANSWERS,
            "is cut": engine.CUT,
            "is slow": engine.slow(self._fault_chance.uniform(0.02, 0.5)),
        }

        def suffer(fault: engine.Fault) -> Callable[[], None]:
            return lambda: front.suffer(fault)

        ways = [(name, suffer(fault), suffer(engine.NO_FAULT)) for name, fault in faults.items()]
        return [*ways, ("is killed", front.kill, front.start)]
