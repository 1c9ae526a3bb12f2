"""The command line as a person meets it: help, mistakes, keys, and `serve` with nothing behind it yet."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

_COMMAND = [sys.executable, "-m", "runstore.runtime.cli"]


@pytest.fixture
def run(tmp_path: Path):
    """Runs the command in a clean environment, in an empty folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTORE_")}

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*_COMMAND, *arguments],
            env={**environment, "NO_COLOR": "1", "RUNSTORE_DATA_DIR": str(tmp_path / "data"), **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def test_help_names_every_command(run) -> None:
    """`--help` shows what there is."""
    shown = run("--help")
    assert shown.returncode == 0
    for command in ("serve", "store", "gateway", "keys", "migrate", "version"):
        assert re.search(rf"\b{command}\b", shown.stdout), command


def test_version_loads_nothing_heavy() -> None:
    """Asking for the version or help imports no engine, no server and no database library."""
    code = (
        "import sys, runstore.runtime.cli\n"
        "heavy = {'chdb', 'pyarrow', 'grpc', 'fastapi', 'sqlalchemy', 'pydantic', 'structlog', 'uvloop'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["serve", "store", "gateway", "migrate"])
def test_bad_setting_ends_with_status_2_and_no_traceback(run, command: str) -> None:
    """A mistake in a variable is one line on standard error that names it."""
    ended = run(command, RUNSTORE_FLUSH_INTERVAL_MS="soon")
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert "flush_interval_ms (RUNSTORE_FLUSH_INTERVAL_MS)" in line


@pytest.mark.parametrize("setting", ["http", "grpc"])
def test_port_in_use_is_one_line(run, setting: str) -> None:
    """`serve` on a taken port says which setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        free_port = free.getsockname()[1]
        free.close()
        other = "grpc" if setting == "http" else "http"
        ended = run(
            "serve",
            f"--{setting}", f"127.0.0.1:{taken.getsockname()[1]}",
            f"--{other}", f"127.0.0.1:{free_port}",
        )  # fmt: skip
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert f"RUNSTORE_{setting.upper()}" in line
    assert "in use" in line


def test_key_is_made_listed_and_revoked(run) -> None:
    """The secret is printed once, alone on standard output; lists show all but the secret."""
    made = run("keys", "create", "--name", "ci", "--tenant", "research", "--expires-in", "90")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert re.fullmatch(r"rsk_[A-Za-z0-9_-]{43}", secret)
    listed = run("keys", "list").stdout
    assert re.search(r"\bresearch +ci +editor +rsk_[\w-]{4}.* expires ", listed)
    assert secret not in listed
    key_id = listed.splitlines()[1].split()[0]
    assert run("keys", "revoke", key_id).returncode == 0
    assert "revoked" in run("keys", "list").stdout


def test_revoking_an_unknown_key_fails_with_a_sentence(run) -> None:
    """Status 1 and one line: a script notices, a person understands."""
    ended = run("keys", "revoke", "nothing")
    assert ended.returncode == 1
    assert "runstore: no key with id nothing" in ended.stderr.splitlines()
