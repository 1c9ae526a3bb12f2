"""The `runstore` command as people use it, and whole servers that stop, restart and refuse to start."""

import re
import signal
import socket
import subprocess
import threading
import uuid
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from langsmith import Client
from tests.data_folder import copy_prepared
from tests.ports import free_port
from tests.waiting import until
from typer.testing import CliRunner

from runstore.runtime.cli import app

from .servers import Server, clean_environment, run_command, serving, unless_slow
from .wire import CONTENT_TYPE, multipart, part, run_json

COMMANDS = [
    (),
    ("serve",),
    ("store",),
    ("gateway",),
    ("keys",),
    ("keys", "create"),
    ("keys", "list"),
    ("keys", "revoke"),
    ("keys", "operator"),
    ("tenants",),
    ("tenants", "list"),
    ("tenants", "move"),
    ("tenants", "limits"),
    ("tenants", "delete"),
    ("retention",),
    ("retention", "list"),
    ("retention", "set"),
    ("retention", "clear"),
    ("dead-letters",),
    ("dead-letters", "list"),
    ("dead-letters", "show"),
    ("dead-letters", "replay"),
    ("dead-letters", "drop"),
    ("status",),
    ("migrate",),
    ("version",),
]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Settings of a server in a folder of its own."""
    return clean_environment(
        RUNSTORE_DATA_DIR=str(tmp_path / "data"),
        RUNSTORE_HTTP=f"127.0.0.1:{free_port()}",
        RUNSTORE_GRPC=f"127.0.0.1:{free_port()}",
    )


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line that a refused command prints."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    [line] = done.stderr.strip().splitlines()
    return line


def refused_at_once(*arguments: str, environment: dict[str, str]) -> str:
    """The one line of a command whose settings are bad; without a process of its own, as nothing is begun."""
    done = CliRunner().invoke(app, arguments, env=environment, prog_name="runstore")
    assert (done.exit_code, done.stdout) == (2, "")
    [line] = done.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command(command: tuple[str, ...], environment: dict[str, str]) -> None:
    """`--help` explains the command and every option of it, and opens nothing."""
    shown = {"COLUMNS": "120", "NO_COLOR": "1"}
    done = CliRunner().invoke(app, [*command, "--help"], env=environment | shown, prog_name="runstore")
    assert done.exit_code == 0
    assert f"Usage: runstore {' '.join(command)}".strip() in " ".join(done.stdout.split())
    for line in done.stdout.splitlines():
        if re.match(r"[│|]\s+(\*\s+)?--(?!help)", line):
            assert re.search(r"--\S+.* \w+ \w+.*\.", line), line
    assert not Path(environment["RUNSTORE_DATA_DIR"]).exists()


def test_help_names_every_command(environment: dict[str, str]) -> None:
    """Somebody who knows none of them finds them all."""
    shown = run_command("--help", environment=environment).stdout
    assert all(command[0] in shown for command in COMMANDS if command)


def test_version(environment: dict[str, str]) -> None:
    """One line with three numbers."""
    assert re.fullmatch(
        r"runstore \d+\.\d+\.\d+\S*\n", run_command("version", environment=environment).stdout
    )


def test_unknown_command_and_option_are_refused(environment: dict[str, str]) -> None:
    """Status 2, and the culprit is named."""
    for arguments, culprit in ((("frobnicate",), "frobnicate"), (("serve", "--no-such"), "--no-such")):
        done = run_command(*arguments, environment=environment, check=False)
        assert done.returncode == 2
        assert culprit in done.stderr


def test_migrate_is_repeated(environment: dict[str, str]) -> None:
    """Twice is as good as once, which is how the folder that is copied here was made of an empty one."""
    copy_prepared(Path(environment["RUNSTORE_DATA_DIR"]))
    assert "Schema is up to date." in run_command("migrate", environment=environment).stdout


def test_keys_are_made_listed_and_revoked(environment: dict[str, str]) -> None:
    """The secret is printed once, alone on standard output; lists show state; revoking is final."""
    copy_prepared(Path(environment["RUNSTORE_DATA_DIR"]))
    made = run_command("keys", "create", "--name", "ci", "--tenant", "research", environment=environment)
    secret = made.stdout.strip()
    assert re.fullmatch(r"rsk_[A-Za-z0-9_-]{43}", secret)
    assert secret not in made.stderr
    soon = ("keys", "create", "--name", "soon", "--role", "reader", "--expires-in", "1")
    assert "expires" in run_command(*soon, environment=environment).stderr

    listed = run_command("keys", "list", environment=environment).stdout
    assert secret not in listed
    lines = {line.split()[2]: line for line in listed.splitlines()[1:]}
    assert re.search(r"\bresearch +ci +editor +rsk_[\w-]{4}.* active\b", lines["ci"])
    assert re.search(r" soon +reader +rsk_[\w-]{4}.* expires ", lines["soon"])

    key_id = lines["ci"].split()[0]
    for _ in range(2):
        assert "Revoked" in run_command("keys", "revoke", key_id, environment=environment).stdout
    assert "revoked" in run_command("keys", "list", environment=environment).stdout
    unknown = run_command("keys", "revoke", str(uuid.uuid4()), environment=environment, check=False)
    assert unknown.returncode == 1
    assert "runstore: no key with id" in said(unknown)


def test_revoked_key_stops_working_while_the_server_runs(guarded: Server) -> None:
    """Keys made and revoked beside a running server take effect within seconds."""
    secret = guarded.create_key("short-lived")

    def status() -> int:
        return httpx.get(f"{guarded.url}/sessions", headers={"x-api-key": secret}).status_code

    assert status() == 200
    [key] = [line for line in guarded.command("keys", "list").stdout.splitlines() if "short-lived" in line]
    guarded.command("keys", "revoke", key.split()[0])
    until(lambda: status() == 401, "the revoked key is refused")


@pytest.mark.parametrize("option", ["--http", "--grpc"])
@pytest.mark.parametrize("address", ["0.0.0.0:18080", "[::]:18080"])
def test_without_authentication_only_loopback_is_served(
    environment: dict[str, str], option: str, address: str
) -> None:
    """`serve` refuses, names the setting, and says what to do."""
    line = refused_at_once("serve", option, address, environment=environment)
    assert option.removeprefix("--") in line
    assert "RUNSTORE_AUTH=keys" in line
    assert not Path(environment["RUNSTORE_DATA_DIR"]).exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUNSTORE_HTTP", "nonsense"),
        ("RUNSTORE_AUTH", "maybe"),
        ("RUNSTORE_FLUSH_INTERVAL_MS", "-1"),
        ("RUNSTORE_MAX_BODY_BYTES", "many"),
    ],
)
def test_bad_setting_is_named(environment: dict[str, str], name: str, value: str) -> None:
    """One line with the variable; status 2."""
    assert name in refused_at_once("serve", environment=environment | {name: value})


@pytest.mark.parametrize("name", ["RUNSTORE_HTTP", "RUNSTORE_GRPC"])
def test_port_in_use_is_one_line(environment: dict[str, str], name: str) -> None:
    """`serve` says which address is taken and by which setting, status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_command("serve", environment=environment | {name: address}, check=False)
    assert done.returncode == 1
    line = said(done)
    assert address in line
    assert name in line
    assert "in use" in line


def test_second_server_in_one_folder_is_refused(server: Server) -> None:
    """One line that names the folder; the first one goes on, and keeps its sockets in it."""
    data = server.folder / "data"  # Whose other folders come and go.
    sockets = {each: each.stat().st_ino for each in (data / "store.sock", *(data / "metrics").glob("*.sock"))}
    assert len(sockets) >= 2  # Of the store, and of a gateway's metrics.
    other = dict(server.environment) | {
        "RUNSTORE_HTTP": f"127.0.0.1:{free_port()}",
        "RUNSTORE_GRPC": f"127.0.0.1:{free_port()}",
    }
    done = run_command("serve", environment=other, check=False)
    assert done.returncode == 1
    assert str(data) in done.stderr
    assert "Traceback" not in done.stderr
    assert unless_slow(lambda: httpx.get(f"{server.url}/health")).status_code == 200
    assert sockets == {each: each.stat().st_ino for each in sockets if each.exists()}


def test_ready_server_says_where_it_is(server: Server) -> None:
    """Two addresses, and the three variables of an SDK, which then work as they stand."""
    assert server.grpc in server.output
    exported = dict(re.findall(r"export (\w+)=(\S+)", server.output))
    assert exported["LANGSMITH_ENDPOINT"] == server.url
    assert exported["LANGSMITH_TRACING"] == "true"
    client = Client(exported["LANGSMITH_ENDPOINT"], api_key=exported["LANGSMITH_API_KEY"])
    assert client.has_project("default")
    client.close()


class Load:
    """Writes batches through `/runs/multipart` until it is stopped; knows which runs were acknowledged."""

    def __init__(self, url: str, project: str) -> None:
        self._url = url
        self._project = project
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.acknowledged: list[str] = []
        self.refused: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as http:
            while not self._stop.is_set():
                ids = [str(uuid.uuid4()) for _ in range(20)]
                runs = [run_json(uuid.UUID(run_id), self._project, inputs={"x": "y" * 500}) for run_id in ids]
                body = multipart(part(f"post.{run['id']}", run) for run in runs)
                try:
                    answer = http.post(
                        "/runs/multipart", content=body, headers={"content-type": CONTENT_TYPE}
                    )
                except httpx.TransportError:
                    continue  # Nobody was told anything about these.
                if answer.status_code == 202:
                    self.acknowledged += ids
                elif answer.status_code not in (429, 503):
                    self.refused.append(answer.text)


def missing(server: Server, load: Load) -> set[str]:
    """Runs that were acknowledged and are not there; asserts that none is there twice."""
    client = Client(server.url, api_key="any")
    found = [str(run.id) for run in client.list_runs(project_name="loaded", select=["id"])]
    client.close()
    assert len(found) == len(set(found))
    return set(load.acknowledged) - set(found)


def test_restarts_keep_everything(tmp_path: Path) -> None:
    """A server that is interrupted or terminated under load ends with status 0. The next one in its folder
    has all that was acknowledged; runs, payloads, attachments, projects and addresses are as they were.
    So has the successor of a store that is killed (`kill -9`) under load."""
    run_id = uuid.uuid4()
    with serving(tmp_path) as server:
        run = run_json(run_id, "kept", inputs={"a": [1, "ü"]}, tags=["t"], extra={"metadata": {"m": 1}})
        parts = [part(f"post.{run_id}", run), part(f"attachment.{run_id}.file", b"bytes", "text/plain")]
        answer = httpx.post(
            f"{server.url}/runs/multipart", content=multipart(parts), headers={"content-type": CONTENT_TYPE}
        )
        assert answer.status_code == 202
        before: dict[str, Any] = httpx.get(f"{server.url}/runs/{run_id}").json()
        address = before.pop("s3_urls")["attachment.file"]["presigned_url"]
        ports = {"http": server.environment["RUNSTORE_HTTP"], "grpc": server.grpc}
        interrupted = stopped_under_load(server, signal.SIGINT)
    with serving(tmp_path, **ports) as server:
        assert missing(server, interrupted) == set()
        terminated = stopped_under_load(server, signal.SIGTERM)
    with serving(tmp_path, **ports) as server:
        assert missing(server, interrupted) | missing(server, terminated) == set()
        after: dict[str, Any] = httpx.get(f"{server.url}/runs/{run_id}").json()
        assert httpx.get(address).content == b"bytes"
        assert after.pop("s3_urls")
        assert after == before
        assert missing(server, survived_a_kill(server)) == set()


def stopped_under_load(server: Server, number: int) -> Load:
    """What was written up to the end of a server that a signal has stopped; it must end well."""
    with Load(server.url, "loaded") as load:
        until(lambda: len(load.acknowledged) >= 400, "some runs are acknowledged")
        assert server.stop(number) == 0
        assert server.defects() == []
    assert load.refused == []
    return load


def survived_a_kill(server: Server) -> Load:
    """What was written while the store was killed; nothing may be refused meanwhile."""
    with Load(server.url, "loaded") as load:
        until(lambda: len(load.acknowledged) >= 400, "some runs are acknowledged")
        before = len(load.acknowledged)
        server.part("store").kill()
        until(lambda: len(load.acknowledged) >= before + 400, "the server goes on")
    assert load.refused == []
    return load
