"""A ClickHouse server for tests: chDB behind HTTP in its own process, which can be taken away.

The real `clickhouse-connect` HTTP client talks to it; see `server` for what it understands.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.ports import free_port

_SERVER = Path(__file__).with_name("server.py")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the front."""

    kind: str
    """`refuse` connections, `hang` without an answer, be `unavailable` (503), answer with an `error` code,
    `lose_answers` of what was done, `cut` connections once; `none` works, after `delay_s`."""
    code: int = 0
    """For `error`: the exception code of ClickHouse."""
    delay_s: float = 0.0
    """Seconds before each statement is executed."""
    only: str = ""
    """Nothing is wrong with statements that do not contain this."""


NO_FAULT = Fault("none")
REFUSE = Fault("refuse")
HANG = Fault("hang")
UNAVAILABLE = Fault("unavailable")
LOSE_ANSWERS = Fault("lose_answers")
CUT = Fault("cut")
TOO_MANY_PARTS = Fault("error", code=252)
MEMORY_LIMIT = Fault("error", code=241)


def slow(delay_s: float) -> Fault:
    """Every statement takes this much longer."""
    return Fault("none", delay_s=delay_s)


class EngineFront:
    """The engine's process, at the same ports and on one folder through all its lives."""

    def __init__(self, folder: Path, hosts: int = 1, *, is_cluster: bool = False) -> None:
        """Each port is a host to clients. A cluster is called `one`, as it has one shard."""
        self._options = ["--cluster"] if is_cluster else []
        # No node can call another one, not even itself.
        self._query = "?ch_prefer_localhost_replica=1" if is_cluster else ""
        self._ports = [free_port() for _ in range(hosts)]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """For `RUNSTORE_CLICKHOUSE_DSN` and `open_run_store`: all hosts, the first one preferred."""
        return "http://" + ",".join(f"127.0.0.1:{port}" for port in self._ports) + self._query

    def start(self) -> None:
        """Start the process; it answers when this returns."""
        self._process = subprocess.Popen(
            [sys.executable, str(_SERVER), *self._options, str(self._folder), *map(str, self._ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the test, which ends this process then.
        )
        self._expect(b"started\n")
        self.suffer(NO_FAULT)

    def suffer(self, fault: Fault, host: int | None = None) -> None:
        """Put a fault of one host, or of all, into force until the next one; it holds for every request from
        now on."""
        hosts = list(range(len(self._ports))) if host is None else [host]
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"hosts": hosts, "fault": asdict(fault)}).encode() + b"\n")
        self._process.stdin.flush()
        self._expect(b"done\n")

    def kill(self) -> None:
        """Kill the process, whatever it is doing. `start` brings it back with its data."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _expect(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if answer != line:
            raise RuntimeError(f"the engine's front said {answer!r} instead of {line!r}")


@contextmanager
def engine_front(folder: Path, hosts: int = 1, *, is_cluster: bool = False) -> Iterator[EngineFront]:
    """A running front with its data in `folder`."""
    front = EngineFront(folder, hosts, is_cluster=is_cluster)
    try:
        front.start()
        yield front
    finally:
        front.kill()
