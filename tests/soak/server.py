"""The server under test: `runstore serve` at fixed addresses, with all its processes."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from tests.ports import free_port

_COMMAND = (sys.executable, "-m", "runstore.runtime.cli", "serve")
_PARTS = ("flusher", "gateway", "store", "agents")
_GATEWAYS = 2
_LONGEST_STOP_S = 60.0


class Server:
    """Starts, loses power, starts again; on one folder."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """`settings` are `RUNSTORE_…` variables by their name in lower case."""
        http, grpc = free_port(), free_port()
        self.http_url = f"http://127.0.0.1:{http}"
        self.grpc_address = f"127.0.0.1:{grpc}"
        self.log = folder / "server.log"
        own = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTORE_")}
        all_settings: dict[str, str] = {
            "data_dir": str(folder / "data"),
            "http": f"127.0.0.1:{http}",
            "grpc": self.grpc_address,
            "log_format": "json",
            "log_level": "warning",
            "gateway_workers": str(_GATEWAYS),
            # Small, so that there are many to trim and to replay.
            "log_segment_bytes": "1MiB",
            "drain_timeout_s": "10",
            **settings,
        }
        self.environment = own | {f"RUNSTORE_{name.upper()}": value for name, value in all_settings.items()}
        self._process: psutil.Popen | None = None
        self._is_off = True

    async def start(self) -> None:
        """Start the supervisor; it may take its time to answer."""
        self._is_off = False
        with self.log.open("ab") as log:
            self._process = psutil.Popen(
                _COMMAND,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    async def ensure_running(self) -> None:
        """Start it again if it gave up, because its engine was away or a port still taken when it started."""
        if not self._is_off and self._process is not None and self._process.poll() is not None:
            await self.start()

    async def lose_power(self) -> None:
        """Kill every process at once; it stays off until it is started again."""
        self._is_off = True
        if self._process is None:
            return
        doomed = [self._process, *self._children()]
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await asyncio.to_thread(psutil.wait_procs, doomed, timeout=_LONGEST_STOP_S)
        self._process = None

    async def stop(self) -> int:
        """Ask it to end, and wait: its exit status."""
        assert self._process is not None
        self._process.terminate()
        try:
            return int(await asyncio.to_thread(self._process.wait, _LONGEST_STOP_S))
        except psutil.TimeoutExpired:
            await self.lose_power()
            return -1

    def parts(self) -> dict[str, list[psutil.Process]]:
        """The running processes below the supervisor, by part."""
        found: dict[str, list[psutil.Process]] = {}
        for process in self._children():
            with contextlib.suppress(psutil.Error):
                arguments = process.cmdline()
                part = next((part for part in _PARTS if part in arguments), None)
                if part is not None:
                    found.setdefault(part, []).append(process)
        return found

    def memory_bytes(self) -> int:
        """Resident memory of all processes."""
        total = 0
        for process in self._children():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def defects(self) -> Counter[str]:
        """Errors and tracebacks in the log, by what they say."""
        found: Counter[str] = Counter()
        for line in self.log.read_text().splitlines():
            entry = _parsed(line)
            if entry is None:
                found[line[:200]] += 1
            elif entry.get("level") in ("error", "critical") or "exception" in entry:
                found[f"{entry.get('event')}: {str(entry.get('exception', ''))[-300:]}"] += 1
        return found

    def _children(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        try:
            children: list[psutil.Process] = self._process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return children


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
