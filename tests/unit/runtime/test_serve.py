"""`runstore serve`, `store` and `migrate` as whole processes, with fakes for what they run."""

import os
import re
import select
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.waiting import LONGEST_WAIT_S, until

COMMAND = [sys.executable, "-m", "runstore.runtime.cli"]
FAKES = Path(__file__).parent / "fake_parts"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTORE_")}
    return {
        **own,
        "PYTHONPATH": str(FAKES),
        "RUNSTORE_DATA_DIR": str(tmp_path / "data"),
        "RUNSTORE_HTTP": "127.0.0.1:0",
        "RUNSTORE_GRPC": f"127.0.0.1:{free_port()}",
        "RUNSTORE_GATEWAY_WORKERS": "2",
    }


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A running server and what it printed when it was ready."""
    with subprocess.Popen(
        [*COMMAND, "serve"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            readable, _, _ = select.select([server.stdout], [], [], LONGEST_WAIT_S)
            assert readable, "not ready in time"
            greeting = ""
            while "LANGSMITH_API_KEY" not in greeting:
                line = server.stdout.readline()
                assert line, server.stderr.read() if server.stderr else ""
                greeting += line
            yield server, greeting
        finally:
            if server.poll() is None:
                server.kill()


def pid_behind(url: str) -> int:
    with urllib.request.urlopen(url, timeout=LONGEST_WAIT_S) as answer:
        return int(answer.read())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_greeting_tells_how_to_point_an_sdk_at_it(environment: dict[str, str]) -> None:
    """Once store and gateways answer, the addresses and the SDK's variables are printed; Ctrl-C exits 0."""
    with serving(environment) as (server, greeting):
        found = re.search(r"LANGSMITH_ENDPOINT=(http://127\.0\.0\.1:[1-9]\d*)", greeting)
        assert found
        assert "LANGSMITH_TRACING=true" in greeting
        assert environment["RUNSTORE_GRPC"] in greeting
        assert is_alive(pid_behind(found[1]))
        server.send_signal(signal.SIGINT)
        assert server.wait(LONGEST_WAIT_S) == 0


def test_killed_parts_come_back_behind_the_same_addresses(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """A killed gateway is replaced on the same port, a killed store in the same directory."""

    def store_pids() -> list[int]:
        return [int(pid) for pid in (tmp_path / "data" / "pids").read_text().split()]

    with serving(environment) as (server, greeting):
        url = re.findall(r"http://\S+:\d+", greeting)[0]
        for _ in range(2):
            os.kill(pid_behind(url), signal.SIGKILL)
        [store] = store_pids()
        os.kill(store, signal.SIGKILL)
        until(lambda: len(store_pids()) == 2, "the store is started again")
        assert is_alive(pid_behind(url))
        server.terminate()
        assert server.wait(LONGEST_WAIT_S) == 0
    assert not any(is_alive(pid) for pid in store_pids())


def test_nothing_outlives_a_killed_supervisor(environment: dict[str, str], tmp_path: Path) -> None:
    """After `kill -9` of `serve` a new one starts in the same directory, on the same gRPC port."""
    with serving(environment) as (server, greeting):
        gateway = pid_behind(re.findall(r"http://\S+:\d+", greeting)[0])
        store = int((tmp_path / "data" / "pids").read_text())
        server.kill()
        server.wait()
        until(lambda: not is_alive(gateway) and not is_alive(store), "gateway and store end")
    with serving(environment) as (server, _):
        server.terminate()
        assert server.wait(LONGEST_WAIT_S) == 0


def test_second_store_in_one_directory_names_the_first(environment: dict[str, str], tmp_path: Path) -> None:
    """The message has the pid of the process that owns the directory; the status is 1."""
    with serving(environment):
        owner = (tmp_path / "data" / "pids").read_text().strip()
        second = subprocess.run(
            [*COMMAND, "store", "--grpc", f"127.0.0.1:{free_port()}"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert second.returncode == 1
    assert f"(pid {owner})" in second.stderr.splitlines()[-1]


def test_migrate_brings_both_databases_up_to_date(environment: dict[str, str], tmp_path: Path) -> None:
    """`runstore migrate` migrates the catalog and calls the storage's migrations."""
    ended = subprocess.run(
        [*COMMAND, "migrate"], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "data" / "catalog.sqlite").exists()
    assert (tmp_path / "data" / "migrated").exists()
