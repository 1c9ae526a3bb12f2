"""One supervised process: started, watched, restarted with a growing pause, stopped in time."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from runstore.runtime.clock import Clock
from runstore.runtime.failures import CannotStart
from runstore.runtime.process import READY_LINE

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start a child. `--supervisor-fd N` is added to its arguments at each start."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    inherited_fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next start: doubled each time, forgotten after a good while."""

    first_s: float = 0.1
    longest_s: float = 5.0
    forgotten_after_s: float = 30.0


class Child:
    """Keeps one process running until `stop`."""

    def __init__(self, spec: ChildSpec, clock: Clock, backoff: Backoff) -> None:
        self.name = spec.name
        self.ready = asyncio.Event()
        """Set when the process first said that it answers; stays set through restarts."""
        self._spec = spec
        self._clock = clock
        self._backoff = backoff
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._last_signal: signal.Signals | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process; None between two."""
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Starts the process again whenever it ends; returns once it ended after `stop`.

        Raises CannotStart when it gives up by itself before it was ever ready: that is a mistake in
        the set-up, which it has explained on standard error, and not an accident.
        """
        pause_s = self._backoff.first_s
        while not self._stopping.is_set():
            started_at = self._clock.monotonic()
            status = await self._run_once()
            if self._stopping.is_set():
                return
            if not self.ready.is_set() and status >= 0:
                raise CannotStart(f"the {self.name} did not start (exit status {status})")
            if self._clock.monotonic() - started_at >= self._backoff.forgotten_after_s:
                pause_s = self._backoff.first_s
            _log.warning("child ended, restarting", child=self.name, status=status, pause_s=pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, self._backoff.longest_s)

    async def _run_once(self) -> int:
        """One life of the process. Returns its exit status, negative for the signal that killed it."""
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            self._process = process = await asyncio.create_subprocess_exec(
                *self._spec.arguments,
                "--supervisor-fd",
                str(fd),
                env=self._spec.environment,
                pass_fds=(fd, *self._spec.inherited_fds),
                # Out of reach of the terminal's Ctrl-C: the order of stopping is the supervisor's.
                start_new_session=True,
            )
        _log.debug("child started", child=self.name, pid=process.pid)
        if self._last_signal is not None:  # Stopped while it was being started.
            self._signal(self._last_signal)
        reader, writer = await asyncio.open_connection(sock=ours)
        watch = asyncio.create_task(self._watch_ready(reader))
        try:
            return await process.wait()
        finally:
            watch.cancel()
            writer.close()
            self._process = None

    async def _watch_ready(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            if await reader.readline() == READY_LINE:
                _log.debug("child is ready", child=self.name)
                self.ready.set()

    def stop(self) -> None:
        """Asks the process to drain and end, and starts it no more. Idempotent."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the process at once, and starts it no more."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        self._last_signal = number
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
