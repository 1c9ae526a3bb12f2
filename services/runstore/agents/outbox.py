"""What a worker has to say, in order, kept until its stream to the store takes it."""

import asyncio
import threading
from collections import deque
from typing import Final

from runstore.agents.attempts import Event
from runstore.agents.messages import events_message
from runstore.v1 import agent_worker_service_pb2 as pb

# Beyond this, graphs wait for the store to take what they have said.
_MAX_BYTES: Final = 64 * 1024 * 1024
_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
_POLL_S: Final = 0.02


class Outbox:
    """A queue from the graphs' event loop to the connection's. Any thread may put."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._queue: deque[tuple[pb.AgentRunClaim, Event] | pb.WorkRequest] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        # Said but not yet confirmed, by claim token.
        self._unrecorded: dict[str, pb.WorkRequest] = {}

    async def say(self, claim: pb.AgentRunClaim, event: Event) -> None:
        """Queues an event of a run; waits while too many bytes are queued."""
        while self._bytes > _MAX_BYTES:  # noqa: ASYNC110 - another loop's event cannot be awaited here
            await asyncio.sleep(_POLL_S)
        self._put((claim, event), len(event.data))

    def answer(self, answer: pb.WorkerAnswer) -> None:
        """Queues an answer."""
        self._put(pb.WorkRequest(answer=answer), 0)

    def drain(self) -> None:
        """Queues the news that no more runs are wanted."""
        self._put(pb.WorkRequest(draining=pb.WorkerDraining()), 0)

    def finish(self, message: pb.WorkRequest) -> None:
        """Queues the end of an attempt, and keeps it until `recorded`."""
        with self._lock:
            self._unrecorded[message.finished.claim.claim_token] = message
        self._put(message, 0)

    def recorded(self, claim_token: str) -> None:
        """The store has stored the end of an attempt, or wants it no more."""
        with self._lock:
            self._unrecorded.pop(claim_token, None)

    @property
    def is_settled(self) -> bool:
        """Whether the end of every attempt is stored."""
        return not self._unrecorded

    def reconnected(self) -> None:
        """Says again what the last stream may have lost; what was asked on it needs no answer any more."""
        with self._lock:
            kept = [said for said in self._queue if isinstance(said, tuple)]
            self._queue = deque([*kept, *self._unrecorded.values()])
        self._filled.set()

    async def next_messages(self) -> list[pb.WorkRequest]:
        """Everything queued, events of one run together; waits while there is nothing."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            with self._lock:
                queued, self._queue, self._bytes = self._queue, deque(), 0
            if queued:
                return _together(queued)

    def _put(self, said: tuple[pb.AgentRunClaim, Event] | pb.WorkRequest, size: int) -> None:
        with self._lock:
            self._queue.append(said)
            self._bytes += size
        self._loop.call_soon_threadsafe(self._filled.set)


def _together(queued: deque[tuple[pb.AgentRunClaim, Event] | pb.WorkRequest]) -> list[pb.WorkRequest]:
    messages: list[pb.WorkRequest] = []
    claim: pb.AgentRunClaim | None = None
    events: list[Event] = []
    size = 0
    for said in queued:
        if isinstance(said, tuple) and said[0] is claim and size < _MAX_MESSAGE_BYTES:
            events.append(said[1])
            size += len(said[1].data)
            continue
        if claim is not None:
            messages.append(events_message(claim, events))
        if isinstance(said, tuple):
            claim, events, size = said[0], [said[1]], len(said[1].data)
        else:
            claim = None
            messages.append(said)
    if claim is not None:
        messages.append(events_message(claim, events))
    return messages
