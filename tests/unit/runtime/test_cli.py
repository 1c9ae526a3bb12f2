"""The command line as a person meets it: help, mistakes, keys, and `serve` with nothing behind it yet."""

import os
import re
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
    for command in ("serve", "store", "gateway", "keys", "migrate", "version", "health"):
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


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("keys", "create", "--name", "a", "--expires-in", "0"), 2, "--expires-in 0"),
        (("retention", "set"), 2, "nothing to set"),
        (("migrate",), 1, "runstore: the engine does not answer"),
    ],
)
def test_mistakes_end_with_a_sentence(run, arguments: tuple[str, ...], status: int, said: str) -> None:
    """What cannot be meant, and what cannot be reached, without a traceback; slips in names are warned of."""
    ended = run(
        *arguments,
        RUNSTORE_CLICKHOUSE_DSN="http://runstore:secret@127.0.0.1:1/runs",
        RUNSTORE_CLICKHOUSE_CLUSTERS="a",
        RUNSTORE_LOG_FORMAT="json",
    )
    assert ended.returncode == status
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "secret" not in ended.stderr
    assert status == 2 or '"did_you_mean": "RUNSTORE_CLICKHOUSE_CLUSTER"' in ended.stderr
