"""The outermost part of a store or gateway process: event loop, signals, readiness, an end in time.

A process that a supervisor started shares a socket with it: it writes one line when ready, and
stops when the other end closes, which the kernel does even if the supervisor is killed.
"""

import asyncio
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Protocol

import structlog

READY_LINE = b"ready\n"
# Beyond its own drain timeout a process is stuck: the log has everything that was acknowledged.
_GRACE_S = 5.0
_FILES = 65_536

_log = structlog.get_logger(__name__)


class Body(Protocol):
    """What a process does: `run_store` or `run_gateway` with its settings already bound."""

    async def __call__(self, *, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Serves until `stop` is set, then drains and returns. Calls `ready` once when it answers."""
        ...


def run_process(body: Body, *, drain_timeout_s: float, supervisor_fd: int | None = None) -> None:
    """Runs `body` until SIGINT, SIGTERM or the supervisor's end, and returns when it has drained.

    `supervisor_fd` is a connected stream socket, or None for a process that runs alone. Exits with
    status 1 when draining takes longer than `drain_timeout_s` and a few seconds. Raises what `body`
    raises.
    """
    _allow_many_files()
    supervisor = socket.socket(fileno=supervisor_fd) if supervisor_fd is not None else None
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        runner.run(_run(body, supervisor, drain_timeout_s + _GRACE_S))


def _allow_many_files() -> None:
    """Each connection is a file; the usual 1,024 are gone before a gateway is busy."""
    try:
        import resource
    except ModuleNotFoundError:  # Not on Windows.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ModuleNotFoundError:  # Not made for every platform.
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _run(body: Body, supervisor: socket.socket | None, kill_after_s: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_now(why: str) -> None:
        if not stop.is_set():
            _log.info("stopping", why=why)
            _exit_later(kill_after_s)
            stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop_now, number.name)
    if supervisor is not None:
        supervisor.setblocking(False)
        # It never sends anything: readable means closed.
        loop.add_reader(supervisor.fileno(), _on_supervisor_end, loop, supervisor, stop_now)
    try:
        await body(ready=lambda: _report_ready(supervisor), stop=stop)
    finally:
        if supervisor is not None:
            loop.remove_reader(supervisor.fileno())
            supervisor.close()


def _on_supervisor_end(
    loop: asyncio.AbstractEventLoop, supervisor: socket.socket, stop_now: Callable[[str], None]
) -> None:
    loop.remove_reader(supervisor.fileno())
    stop_now("the supervisor ended")


def _report_ready(supervisor: socket.socket | None) -> None:
    _log.info("ready")
    if supervisor is None:
        return
    try:
        supervisor.send(READY_LINE)
    except OSError:  # It has ended; the reader above is about to say so.
        _log.debug("supervisor is gone")


def _exit_later(after_s: float) -> None:
    def give_up() -> None:
        _log.error("draining takes too long, exiting", after_s=after_s)
        os._exit(1)

    # A thread, because an event loop that hangs runs no timers.
    timer = threading.Timer(after_s, give_up)
    timer.daemon = True
    timer.start()


def spare_the_collector() -> None:
    """Let reference counts free what a batch leaves behind.

    A flush holds a hundred thousand objects without a cycle among them; a collector that walks them
    time and again took two fifths of what deriving facts costs (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)
