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

from .servers import clean_environment, free_port, run_command, serving, until
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


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command(command: tuple[str, ...], environment: dict[str, str]) -> None:
    """`--help` explains the command and every option of it, and opens nothing."""
    done = run_command(*command, "--help", environment=environment | {"COLUMNS": "120", "NO_COLOR": "1"})
    assert done.returncode == 0
    assert f"Usage: runstore {' '.join(command)}".strip() in " ".join(done.stdout.split()).replace(
        "root", "runstore"
    )
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


def test_migrate_prepares_an_empty_folder(environment: dict[str, str]) -> None:
    """Twice is as good as once."""
    for _ in range(2):
        done = run_command("migrate", environment=environment)
        assert "Schema is up to date." in done.stdout


def test_keys_are_made_listed_and_revoked(environment: dict[str, str]) -> None:
    """The secret is printed once, alone on standard output; lists show state; revoking is final."""
    made = run_command("keys", "create", "--name", "ci", "--tenant", "research", environment=environment)
    secret = made.stdout.strip()
    assert re.fullmatch(r"rsk_[A-Za-z0-9_-]{43}", secret)
    assert secret not in made.stderr
    expiring = run_command("keys", "create", "--name", "soon", "--expires-in", "1", environment=environment)
    assert "expires" in expiring.stderr

    listed = run_command("keys", "list", environment=environment).stdout
    assert secret not in listed
    lines = {line.split()[2]: line for line in listed.splitlines()[1:]}
    assert "research" in lines["ci"]
    assert "active" in lines["ci"]
    assert "expires" in lines["soon"]

    key_id = lines["ci"].split()[0]
    for _ in range(2):
        assert "Revoked" in run_command("keys", "revoke", key_id, environment=environment).stdout
    assert "revoked" in run_command("keys", "list", environment=environment).stdout
    unknown = run_command("keys", "revoke", str(uuid.uuid4()), environment=environment, check=False)
    assert unknown.returncode == 1
    assert "no key" in said(unknown)


def test_revoked_key_stops_working_while_the_server_runs(tmp_path: Path) -> None:
    """Keys made and revoked beside a running server take effect within seconds."""
    with serving(tmp_path, auth="keys") as server:
        secret = server.create_key("research")

        def status() -> int:
            return httpx.get(f"{server.url}/sessions", headers={"x-api-key": secret}).status_code

        assert status() == 200
        key_id = server.command("keys", "list").stdout.splitlines()[1].split()[0]
        server.command("keys", "revoke", key_id)
        until(lambda: status() == 401, "the revoked key is refused")


@pytest.mark.parametrize("option", ["--http", "--grpc"])
@pytest.mark.parametrize("address", ["0.0.0.0:18080", "[::]:18080"])
def test_without_authentication_only_loopback_is_served(
    environment: dict[str, str], option: str, address: str
) -> None:
    """`serve` refuses, names the setting, and says what to do."""
    done = run_command("serve", option, address, environment=environment, check=False)
    assert done.returncode == 2
    line = said(done)
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
    done = run_command("serve", environment=environment | {name: value}, check=False)
    assert done.returncode == 2
    assert name in said(done)


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


def test_second_server_in_one_folder_is_refused(tmp_path: Path) -> None:
    """One line that names the folder; the first one goes on."""
    with serving(tmp_path) as server:
        other = dict(server.environment) | {
            "RUNSTORE_HTTP": f"127.0.0.1:{free_port()}",
            "RUNSTORE_GRPC": f"127.0.0.1:{free_port()}",
        }
        done = run_command("serve", environment=other, check=False)
        assert done.returncode == 1
        assert str(tmp_path / "data") in done.stderr
        assert "Traceback" not in done.stderr
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_ready_server_says_where_it_is(tmp_path: Path) -> None:
    """Two addresses, and the three variables of an SDK, which then work as they stand."""
    with serving(tmp_path) as server:
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


def stored(url: str, project: str) -> set[str]:
    """Ids of all runs of a project."""
    client = Client(url, api_key="any")
    found = {str(run.id) for run in client.list_runs(project_name=project, select=["id"])}
    client.close()
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_stop_drains_and_keeps_what_was_acknowledged(tmp_path: Path, number: int) -> None:
    """Stopped under load the server ends with status 0; a restart has everything acknowledged."""
    with serving(tmp_path) as server, Load(server.url, "loaded") as load:
        until(lambda: len(load.acknowledged) >= 400, "some runs are acknowledged")
        assert server.stop(number) == 0
        assert server.defects() == []
    assert load.refused == []
    with serving(tmp_path) as server:
        assert set(load.acknowledged) - stored(server.url, "loaded") == set()


def test_killed_store_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """`kill -9` of the store during a load: its successor has every acknowledged run, each once."""
    with serving(tmp_path) as server:
        with Load(server.url, "loaded") as load:
            until(lambda: len(load.acknowledged) >= 400, "some runs are acknowledged")
            before = len(load.acknowledged)
            children = subprocess.run(
                ["ps", "-o", "pid=,args=", "--ppid", str(server.process.pid)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            [pid] = [int(line.split()[0]) for line in children.splitlines() if "store" in line.split()]
            subprocess.run(["kill", "-9", str(pid)], check=True)
            until(lambda: len(load.acknowledged) >= before + 400, "the server goes on")
        assert load.refused == []
        client = Client(server.url, api_key="any")
        runs = [str(run.id) for run in client.list_runs(project_name="loaded", select=["id"])]
        client.close()
        assert set(load.acknowledged) - set(runs) == set()
        assert len(runs) == len(set(runs))


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    """Runs, payloads, attachments, projects and addresses of attachments are there afterwards."""
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
        assert server.stop() == 0
    with serving(tmp_path, **ports) as server:
        after: dict[str, Any] = httpx.get(f"{server.url}/runs/{run_id}").json()
        assert httpx.get(address).content == b"bytes"
        assert after.pop("s3_urls")
        assert after == before
