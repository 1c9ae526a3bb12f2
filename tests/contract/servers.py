"""Starts whole servers (`runstore serve` as a process) and talks to their command line."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.data_folder import copy_prepared
from tests.ports import free_port
from tests.waiting import LONGEST_WAIT_S, until

from runstore.catalog import open_catalog
from runstore.domain.principals import Role

ROOT = Path(__file__).parents[2]
COMMAND = (str(Path(sys.executable).with_name("runstore")),)


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without settings of runstore or of SDKs, plus those given."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RUNSTORE_", "LANGSMITH_", "LANGCHAIN_"))
    }
    return {**own, **settings}


@dataclass(frozen=True)
class Server:
    """A running `runstore serve`."""

    url: str
    """Address of the HTTP interface, without a slash at the end."""
    grpc: str
    """HOST:PORT of the gRPC interface."""
    process: "subprocess.Popen[bytes]"
    environment: Mapping[str, str]
    folder: Path
    """Holds `data`, `out` and `log`."""

    @property
    def output(self) -> str:
        """What it printed for people."""
        return (self.folder / "out").read_text()

    def log(self) -> list[dict[str, Any]]:
        """The lines of its log so far, without the one that is being written."""
        *whole, _ = (self.folder / "log").read_text().split("\n")
        return [json.loads(line) for line in whole if line[:1] == "{"]

    def defects(self) -> list[dict[str, Any]]:
        """Log lines that tell of a defect: errors, tracebacks, answers 500."""
        return [
            line
            for line in self.log()
            if line.get("level") in ("error", "critical") or "exception" in line or line.get("status") == 500
        ]

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs `runstore …` with the same settings as the server."""
        return run_command(*arguments, environment=self.environment)

    def create_key(self, tenant: str, role: str = "editor") -> str:
        """The secret of a new API key, made as by `runstore keys create`, but in this process."""
        url = self.environment.get("RUNSTORE_CATALOG_URL", f"sqlite:///{self.folder}/data/catalog.sqlite")
        with ThreadPoolExecutor(1) as thread:  # The test may have an event loop.
            return thread.submit(asyncio.run, _create_key(url, tenant, Role(role))).result()

    def processes(self) -> list[psutil.Process]:
        """The supervisor and all below it."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def part(self, name: str) -> psutil.Process:
        """The one process with this argument, as "store"."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # Ended since it was found.
                found += [process] if name in process.cmdline() else []
        [one] = found
        return one

    def memory_bytes(self) -> int:
        """What its processes hold alone: pages of files, which the system may drop, are not counted."""
        total = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().uss
        return total

    def kill(self) -> None:
        """Everything at once, as a power cut does."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(LONGEST_WAIT_S)
        psutil.wait_procs(processes, LONGEST_WAIT_S)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Interrupts it, as Ctrl-C does, and waits: the exit status."""
        self.process.send_signal(number)
        return self.process.wait(LONGEST_WAIT_S)


async def _create_key(catalog_url: str, tenant_name: str, role: Role) -> str:
    async with open_catalog(catalog_url) as catalog:
        tenants = {tenant.name: tenant for tenant in await catalog.keys.list_tenants()}
        tenant = tenants.get(tenant_name) or await catalog.keys.create_tenant(tenant_name)
        _, secret = await catalog.keys.create_key(tenant.id, "test", role=role)
    return secret


def unless_slow(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """What `/health` answers when the store has answered it within two seconds."""

    def in_time() -> list[httpx.Response]:
        answer = ask()
        return [] if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else [answer]

    [answer] = until(in_time, "the store serves")
    return answer


def run_command(
    *arguments: str, environment: Mapping[str, str], check: bool = True
) -> "subprocess.CompletedProcess[str]":
    """Runs `runstore …` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_S,
        check=check,
    )


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[Server]:
    """A server on free ports with its data in `folder`, ready to answer.

    Another one in the same folder goes on where the last one ended. The first one finds its tables, unless
    `folder/data` is there.
    """
    environment = clean_environment(
        RUNSTORE_DATA_DIR=str(folder / "data"),
        RUNSTORE_HTTP=f"127.0.0.1:{free_port()}",
        RUNSTORE_GRPC=f"127.0.0.1:{free_port()}",
        RUNSTORE_LOG_FORMAT="json",
        RUNSTORE_GATEWAY_WORKERS="1",
    )
    environment.update({f"RUNSTORE_{name.upper()}": value for name, value in settings.items()})
    folder.mkdir(parents=True, exist_ok=True)
    copy_prepared(folder / "data")
    with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, "serve"], env=environment, stdout=out, stderr=log, cwd=folder)
    server = Server(
        url=f"{'https' if 'tls_certificate' in settings else 'http'}://{environment['RUNSTORE_HTTP']}",
        grpc=environment["RUNSTORE_GRPC"],
        process=process,
        environment=environment,
        folder=folder,
    )

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        return "LANGSMITH_API_KEY=" in server.output

    try:
        until(is_ready, "the server is ready")
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(LONGEST_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
