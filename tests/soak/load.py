"""The load: tracers that tell their stories, send again what was not acknowledged, and read now and then."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import grpc
import httpx
from tests.soak import senders
from tests.soak.ledger import Ledger
from tests.soak.readback import Reader
from tests.soak.stories import Batch, StoryTeller

_TRACERS_OF_EACH_KIND = 3
_SHARE_GIVEN_UP = 0.02
"""Of the batches that got lost: their tracer goes away, as processes do."""
_SHARE_READ = 0.03
_LONGEST_PAUSE_S = 2.0
_READ_PATIENCE_S = 5.0


@dataclass(slots=True)
class LiveReads:
    """Reads right behind a write."""

    made: int = 0
    unanswered: int = 0
    """The server or its engine was away."""
    wrong: list[str] = field(default_factory=list)


class Load:
    """Runs tracers over both protocols until told to stop."""

    def __init__(self, http_url: str, grpc_address: str, seed: int, max_operations_per_s: float) -> None:
        self.ledger = Ledger()
        self.reads = LiveReads()
        self._http_url = http_url
        self._grpc_address = grpc_address
        self._seed = seed
        self._pause_s = 1 / max_operations_per_s
        self._next_s = 0.0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begin no more stories; those begun are told to their end."""
        self._stopping.set()

    async def run(self) -> None:
        """Return once every story is told after `stop`."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=self._http_url, timeout=senders.TIMEOUT_S)
            )
            channel = await stack.enter_async_context(senders.open_channel(self._grpc_address))
            stream = senders.StreamSender(channel)
            stack.push_async_callback(stream.close)
            kinds: list[senders.Sender] = [
                stream,
                senders.UnarySender(channel),
                senders.multipart_sender(client),
                senders.batch_sender(client),
                senders.single_sender(client),
            ]
            reader = Reader(channel)
            async with asyncio.TaskGroup() as tracers:
                for number in range(_TRACERS_OF_EACH_KIND * len(kinds)):
                    tracers.create_task(self._trace(number, kinds[number % len(kinds)], reader))

    async def _trace(self, number: int, sender: senders.Sender, reader: Reader) -> None:
        chance = random.Random(f"{self._seed} tracer {number}")
        teller = StoryTeller(
            f"{self._seed} stories {number}", sender.abilities, lambda: time.time_ns() // 1_000
        )
        while not self._stopping.is_set():
            for batch in teller.story().batches:
                if not await self._deliver(batch, sender, chance):
                    break
                if chance.random() < _SHARE_READ:
                    await self._read(batch, reader)

    async def _deliver(self, batch: Batch, sender: senders.Sender, chance: random.Random) -> bool:
        """Whether the batch was acknowledged in the end."""
        counts = self.ledger.counts
        parts = [[each] for each in batch] if sender.abilities.is_single else [batch]
        for part in parts:
            pause_s = 0.1
            while True:
                await self._pace(len(part))
                counts.sent += len(part)
                try:
                    await sender.deliver(part)
                except senders.Lost:
                    self.ledger.lose(part)
                except senders.Refused as refusal:
                    self.ledger.refuse(part, str(refusal))
                    return False
                else:
                    self.ledger.acknowledge(part)
                    break
                if chance.random() < _SHARE_GIVEN_UP:
                    counts.abandoned += len(part)
                    return False
                counts.retried += len(part)
                await asyncio.sleep(pause_s * chance.uniform(0.5, 1.5))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return True

    async def _pace(self, operations: int) -> None:
        """Keep to the rate that all tracers share."""
        now_s = time.monotonic()
        self._next_s = max(self._next_s, now_s - 1) + operations * self._pause_s
        if self._next_s > now_s:
            await asyncio.sleep(self._next_s - now_s)

    async def _read(self, batch: Batch, reader: Reader) -> None:
        """A read sees every write that was acknowledged before it."""
        run_ids = sorted({each.node.run_id for each in batch})
        self.reads.made += 1
        try:
            found = await reader.by_ids(run_ids, timeout_s=_READ_PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            if isinstance(refusal := senders.fate_of(error), senders.Refused):
                self.reads.wrong.append(f"reading failed: {refusal}")
            self.reads.unanswered += 1
            return
        by_id = {run.run_id: run for run in found}
        if len(by_id) < len(found):
            self.reads.wrong.append(f"a run of {run_ids} was listed twice")
        for run_id in run_ids:
            if run_id in by_id:
                wrong = self.ledger.wrong_fields(run_id, by_id[run_id].values)
                self.reads.wrong += [f"{run_id}: {each}" for each in wrong]
            elif self.ledger.runs[run_id].is_created:
                self.reads.wrong.append(f"{run_id} was created and is not listed")
