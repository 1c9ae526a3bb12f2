"""Starts `runstore serve` as a user does, and tells when it answers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from tests.bench import processes
from tests.bench.http_client import Connection, get
from tests.ports import free_port

from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import project_service_pb2_grpc as projects_grpc
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_query_service_pb2_grpc as query_grpc

_LONGEST_START_S = 120.0
_LONGEST_STOP_S = 120.0
_POLL_S = 0.005
PROJECT_NAME = "bench"

CHANNEL_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and how to reach it."""

    process: "subprocess.Popen[bytes]"
    http_port: int
    grpc_address: str
    started_after_s: float
    """From the start of the process until HTTP and gRPC both answered."""
    project_id: str
    parts: dict[int, str]
    """Its processes: pid → part."""

    def channel(self) -> grpc.Channel:
        """A connection of its own."""
        return grpc.insecure_channel(self.grpc_address, options=CHANNEL_OPTIONS)

    def query(self) -> query_grpc.RunQueryServiceStub:
        """Reads over gRPC."""
        return query_grpc.RunQueryServiceStub(self.channel())

    def ingest(self) -> ingest_grpc.RunIngestServiceStub:
        """Writes over gRPC."""
        return ingest_grpc.RunIngestServiceStub(self.channel())

    def http(self) -> Connection:
        """A keep-alive connection."""
        return Connection(self.http_port)

    def pid_of(self, part: str) -> int:
        """The first process of a part."""
        return next(pid for pid, name in self.parts.items() if name == part)


@contextmanager
def serving(data_dir: Path, **settings: str) -> Iterator[Server]:
    """`runstore serve` on free ports with the default settings, but for `settings` and RUNSTORE_… of the
    environment."""
    http_port, grpc_port = free_port(), free_port()
    address = f"127.0.0.1:{grpc_port}"
    command = [sys.executable, "-m", "runstore.runtime.cli", "serve"]
    command += ["--data-dir", str(data_dir), "--http", f"127.0.0.1:{http_port}", "--grpc", address]
    log = data_dir.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        started_at = time.monotonic()
        # A session of its own: Ctrl-C stops the benchmark, which then stops the server.
        environment = {**os.environ, **settings}
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        _wait_until_it_answers(process, http_port, address, started_at + _LONGEST_START_S, log)
        started_after_s = time.monotonic() - started_at
        project_id = _project(address)
        parts = processes.parts_of(process.pid)
        yield Server(process, http_port, address, started_after_s, project_id, parts)
    finally:
        _stop(process)


def _wait_until_it_answers(
    process: "subprocess.Popen[bytes]", http_port: int, address: str, give_up_at: float, log: Path
) -> None:
    """Both protocols, each with an answer that needs the store."""
    answers = {"http": False, "grpc": False}
    with grpc.insecure_channel(address, options=[("grpc.max_reconnect_backoff_ms", 50)]) as channel:
        stub = projects_grpc.ProjectServiceStub(channel)
        while not all(answers.values()):
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(
                    f"runstore serve does not answer; its log ends:\n{log.read_text()[-2_000:]}"
                )
            if not answers["http"]:
                answers["http"] = get(http_port, "/sessions?limit=1") == 200
            if not answers["grpc"]:
                try:
                    stub.ListProjects(projects.ListProjectsRequest(page_size=1), timeout=1)
                    answers["grpc"] = True
                except grpc.RpcError:
                    pass
            time.sleep(_POLL_S)


def _project(address: str) -> str:
    with grpc.insecure_channel(address) as channel:
        request = projects.CreateProjectRequest(name=PROJECT_NAME, upsert=True)
        answer = projects_grpc.ProjectServiceStub(channel).CreateProject(request)
    return answer.project.id


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_LONGEST_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
