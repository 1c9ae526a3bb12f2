"""Runs a load generator in a process of its own: prepared first, started on a word, its result sent back."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tests.bench.processes import own_cpu_seconds

Job = TypeVar("Job")
Result = TypeVar("Result")

_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(slots=True)
class Load:
    """What a load generator did. Times are of the monotonic clock, which processes share."""

    runs: int = 0
    """Complete runs sent and acknowledged."""
    operations: int = 0
    raw_bytes: int = 0
    """Of the complete runs as JSON."""
    wire_bytes: int = 0
    first_send_s: float = 0.0
    last_ack_s: float = 0.0
    write_tokens: list[str] = field(default_factory=list)
    """Of each stream's last acknowledgement; empty over HTTP."""
    latencies_ms: list[float] = field(default_factory=list)
    """Of each request, from when it should have been sent until its acknowledgement."""
    refused: int = 0
    """Operations or bodies that were refused for good."""
    told_to_wait: int = 0
    """Answers 429; the body was sent again."""
    samples: list[str] = field(default_factory=list)
    """Ids of some of the last runs, for a look whether they are there."""
    cpu_s: float = 0.0
    """CPU of the generator's process between start and end."""

    @property
    def seconds(self) -> float:
        """From the first send to the last acknowledgement."""
        return max(1e-9, self.last_ack_s - self.first_send_s)


class Worker(Generic[Job, Result]):
    """A process that prepares `job`, then waits."""

    def __init__(self, prepare: Callable[[Job], Callable[[], Result]], job: Job) -> None:
        """`prepare` is a module's function; what it returns is the measured part."""
        self._ours, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_work, args=(theirs, prepare, job), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def start(self) -> None:
        """Begin the measured part."""
        self._ours.send(True)

    def result(self) -> Result:
        """Wait for the end."""
        result: Result = self._receive()
        self._process.join()
        return result

    def stop(self) -> None:
        """End it, whatever it is doing."""
        self._process.terminate()
        self._process.join()

    def run(self) -> Result:
        """`start` and `result`."""
        self.start()
        return self.result()

    def _receive(self) -> Any:
        try:
            return self._ours.recv()
        except EOFError:
            raise RuntimeError("a load generator ended with an error, printed above") from None


def _work(pipe: Any, prepare: Callable[[Any], Callable[[], Any]], job: Any) -> None:
    run = prepare(job)
    pipe.send(True)
    pipe.recv()
    cpu_before = own_cpu_seconds()
    result = run()
    if isinstance(result, Load):
        result.cpu_s = own_cpu_seconds() - cpu_before
    pipe.send(result)


def now_us() -> int:
    """The wall clock, for the times of runs."""
    return time.time_ns() // 1_000
