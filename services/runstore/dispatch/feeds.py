"""What runs say, for those who follow them: in memory, bounded, and for a while after the end.

Only the end of a run is durable (the catalog has it); a store that restarts forgets the events.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from runstore.domain.agent_runs import AgentRun, RunEnd
from runstore.runtime.clock import Clock

_KEPT_S: Final = 10.0
"""So that a run may end before its creator has begun to follow it."""
_KEPT_RESUMABLE_S: Final = 120.0
_MAX_FEED_BYTES: Final = 8 * 1024 * 1024
_MAX_FEED_EVENTS: Final = 10_000
_MAX_ENDED_BYTES: Final = 128 * 1024 * 1024
_EVENT_OVERHEAD_BYTES: Final = 300

EventId = tuple[int, int]
"""Milliseconds and a sequence number among the events of the same one."""

BEFORE_ALL: Final = (0, 0)


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that a run said."""

    mode: str
    namespace: tuple[str, ...]
    data: bytes
    event_id: EventId = BEFORE_ALL


class RunFeed:
    """Events of one run, then its end, for any number of followers."""

    def __init__(self, run: AgentRun, *, is_resumable: bool, clock: Clock) -> None:
        self.tenant_id = run.tenant_id
        self.run_id = run.run_id
        self.thread_id = run.thread_id
        self.is_resumable = is_resumable
        self.end: RunEnd | None = None
        self.bytes = 0
        self.followers = 0
        self._clock = clock
        self._events: deque[RunEvent] = deque()
        self._last_id = BEFORE_ALL
        self._changed = asyncio.Event()

    def publish(self, events: Sequence[RunEvent]) -> list[RunEvent]:
        """Gives `events` their ids and lets followers have them; the oldest ones make room."""
        published = []
        for event in events:
            now_ms = max(self._clock.now_us() // 1_000, self._last_id[0])
            sequence = self._last_id[1] + 1 if now_ms == self._last_id[0] else 0
            self._last_id = (now_ms, sequence)
            published.append(RunEvent(event.mode, event.namespace, event.data, self._last_id))
        self._events.extend(published)
        self.bytes += sum(_size(event) for event in published)
        while len(self._events) > 1 and (
            self.bytes > _MAX_FEED_BYTES or len(self._events) > _MAX_FEED_EVENTS
        ):
            self.bytes -= _size(self._events.popleft())
        self._wake()
        return published

    def close(self, end: RunEnd) -> None:
        """The run has ended; followers are told after the last event."""
        self.end = end
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def last_id(self) -> EventId:
        """Id of the last event; before all when there was none."""
        return self._last_id

    def after(self, event_id: EventId) -> list[RunEvent]:
        """The kept events after `event_id`."""
        found = []
        for event in reversed(self._events):
            if event.event_id <= event_id:
                break
            found.append(event)
        found.reverse()
        return found

    async def changed(self, timeout_s: float) -> bool:
        """Waits until something is published or the run ends; False when the time is over first."""
        try:
            return await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return False


ThreadSteps: TypeAlias = "asyncio.Queue[tuple[str, RunEvent | RunEnd] | None]"


class RunFeeds:
    """The feeds of runs in flight, and of those that have ended lately."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._feeds: dict[str, RunFeed] = {}
        # Feeds by when they may go, for each kind in the order of their ends.
        self._ended: dict[bool, OrderedDict[str, float]] = {False: OrderedDict(), True: OrderedDict()}
        self._ended_bytes = 0
        self._followers: dict[str, set[ThreadSteps]] = {}

    def open(self, run: AgentRun, *, is_resumable: bool) -> RunFeed:
        """The feed of a run in flight, made when there is none."""
        feed = self._feeds.get(run.run_id)
        if feed is None:
            feed = self._feeds[run.run_id] = RunFeed(run, is_resumable=is_resumable, clock=self._clock)
        return feed

    def find(self, run_id: str) -> RunFeed | None:
        """The feed of a run, when it is known here."""
        return self._feeds.get(run_id)

    def publish(self, run_id: str, events: Sequence[RunEvent]) -> None:
        """What a run said; nothing when nobody can follow it any more."""
        feed = self._feeds.get(run_id)
        if feed is None or feed.end is not None:
            return
        for event in feed.publish(events):
            self._tell_followers(feed.thread_id, run_id, event)

    def close(self, end: RunEnd) -> None:
        """How a run ended. The feed is kept for a while, the catalog has the end for longer."""
        self.expire()
        feed = self._feeds.get(end.run_id)
        if feed is None or feed.end is not None:
            return
        feed.close(end)
        self._tell_followers(feed.thread_id, end.run_id, end)
        kept_s = _KEPT_RESUMABLE_S if feed.is_resumable else _KEPT_S
        self._ended[feed.is_resumable][end.run_id] = self._clock.monotonic() + kept_s
        self._ended_bytes += feed.bytes

    def expire(self) -> None:
        """Lets feeds go whose time is over, or that take too much room."""
        now = self._clock.monotonic()
        for ended in self._ended.values():
            while ended:
                run_id, until = next(iter(ended.items()))
                if until > now and self._ended_bytes <= _MAX_ENDED_BYTES:
                    break
                del ended[run_id]
                self._ended_bytes -= self._feeds.pop(run_id).bytes

    def unfollowed(self) -> list[str]:
        """Runs whose end is not known here and that nobody follows; another store may have ended them."""
        return [run_id for run_id, feed in self._feeds.items() if feed.end is None and not feed.followers]

    def discard(self, run_id: str) -> None:
        """Lets the feed go of a run that has ended elsewhere, unless somebody follows it."""
        feed = self._feeds.get(run_id)
        if feed is not None and feed.end is None and not feed.followers:
            del self._feeds[run_id]

    @contextmanager
    def following_thread(self, thread_id: str) -> Iterator[ThreadSteps]:
        """Steps of all runs of a thread from now on, each with its run; None once the reader was too slow."""
        steps: ThreadSteps = asyncio.Queue(_MAX_FEED_EVENTS)
        followers = self._followers.setdefault(thread_id, set())
        followers.add(steps)
        try:
            yield steps
        finally:
            followers.discard(steps)
            if not followers:
                self._followers.pop(thread_id, None)

    def _tell_followers(self, thread_id: str, run_id: str, step: RunEvent | RunEnd) -> None:
        for steps in self._followers.get(thread_id, ()):
            if not steps.full():
                steps.put_nowait((run_id, step))
                continue
            while not steps.empty():
                steps.get_nowait()
            steps.put_nowait(None)


def _size(event: RunEvent) -> int:
    return len(event.data) + _EVENT_OVERHEAD_BYTES
