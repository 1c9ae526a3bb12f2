"""Starts store processes, one after the other on one data directory."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from tests.data_folder import copy_prepared
from tests.ports import free_port
from tests.waiting import LONGEST_WAIT_S

COMMAND = [sys.executable, "-m", "runstore.runtime.cli", "store"]


class Store:
    """A store process on one data directory, which it shares with those before it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """`settings` are `RUNSTORE_…` variables by their name in lower case."""
        self.address = f"127.0.0.1:{free_port()}"
        own = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTORE_")}
        self.environment: dict[str, str] = {
            **own,
            "RUNSTORE_DATA_DIR": str(folder / "data"),
            "RUNSTORE_GRPC": self.address,
            "RUNSTORE_FLUSH_INTERVAL_MS": "20",
            "RUNSTORE_DRAIN_TIMEOUT_S": "3",
            "RUNSTORE_LOG_SEGMENT_BYTES": "200KB",
            **{f"RUNSTORE_{name.upper()}": value for name, value in settings.items()},
        }
        self._output = folder / "store.txt"
        if "clickhouse_dsn" not in settings:
            copy_prepared(folder / "data")

    @property
    def output(self) -> str:
        """What the processes have logged so far."""
        return self._output.read_text()

    @contextmanager
    def running(self) -> Iterator["subprocess.Popen[bytes]"]:
        """The process, once it answers."""
        with (
            self._output.open("ab") as output,
            subprocess.Popen(COMMAND, env=self.environment, stdout=output, stderr=output) as process,
        ):
            try:
                options = [("grpc.max_reconnect_backoff_ms", 200), ("grpc.use_local_subchannel_pool", 1)]
                with grpc.insecure_channel(self.address, options=options) as channel:
                    ready = grpc.channel_ready_future(channel)
                    give_up_at = time.monotonic() + LONGEST_WAIT_S
                    while True:
                        try:
                            ready.result(timeout=0.2)
                            break
                        except grpc.FutureTimeoutError:
                            assert process.poll() is None, self._output.read_text()
                            assert time.monotonic() < give_up_at, self._output.read_text()
                yield process
            finally:
                process.kill()
