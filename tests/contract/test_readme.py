"""README's first trace in a minute, executed as it stands, but for the addresses."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import LONGEST_WAIT_S

from .servers import COMMAND, ROOT, Server, clean_environment, serving

README = (ROOT / "README.md").read_text()
DEFAULT_HTTP, DEFAULT_GRPC = "127.0.0.1:1984", "127.0.0.1:1985"


def blocks(heading: str) -> list[tuple[str, str]]:
    """The fenced blocks under a heading: language ("" for none) and text."""
    found: list[tuple[str, str]] = []
    here, language = False, ""
    lines: list[str] | None = None
    for line in README.splitlines():
        if line.startswith("```") and lines is None:
            lines, language = [], line[3:]
        elif line.startswith("```") and lines is not None:
            if here:
                found.append((language, "\n".join(lines) + "\n"))
            lines = None
        elif lines is not None:
            lines.append(line)
        elif line.startswith("#"):
            here = line.lstrip("# ") == heading
    return found


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that nobody has used yet."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "data").mkdir()  # Empty, as that of a first start.
    with serving(folder) as server:
        yield server
        assert server.defects() == []


def run(server: Server, command: list[str], folder: Path, **variables: str) -> str:
    """Standard output of a block; it must succeed and complain of nothing."""
    done = subprocess.run(
        command,
        env=clean_environment(**variables),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Failed to" not in done.stderr
    return done.stdout


def placed(server: Server, text: str) -> str:
    """`text` with this server's addresses for the default ones."""
    return text.replace(DEFAULT_HTTP, server.url.removeprefix("http://")).replace(DEFAULT_GRPC, server.grpc)


def test_addresses_are_the_defaults() -> None:
    """The examples name the addresses that `make run` serves."""
    assert DEFAULT_HTTP in README
    assert DEFAULT_GRPC in README


def test_readme_is_short() -> None:
    """Under 150 lines."""
    assert len(README.splitlines()) < 150


def test_python_sdk_example(fresh: Server, tmp_path: Path) -> None:
    """The exported variables and the program: it prints the run that it traced."""
    (_, shell), (language, program) = blocks("Python SDK")
    assert language == "python"
    exported = dict(re.findall(r"^export (\w+)=(\S+)", placed(fresh, shell), flags=re.MULTILINE))
    assert exported["LANGSMITH_ENDPOINT"] == fresh.url
    (tmp_path / "example.py").write_text(placed(fresh, program))
    printed = run(fresh, [sys.executable, "-W", "ignore", "example.py"], tmp_path, **exported)
    assert "What is six times seven?" in printed
    assert "42" in printed


def test_curl_example(fresh: Server, tmp_path: Path) -> None:
    """Posts a run and reads it back."""
    [(_, shell)] = blocks("curl")
    printed = run(fresh, ["bash", "-euo", "pipefail", "-c", placed(fresh, shell)], tmp_path)
    assert '"name":"hello"' in printed
    assert '"inputs":{"question": "?"}' in printed or '"inputs":{"question":"?"}' in printed
    assert '"status":"success"' in printed


def test_grpc_example(fresh: Server, tmp_path: Path) -> None:
    """Writes a run and reads it back through the stubs that ship with runstore."""
    [(language, program)] = blocks("gRPC")
    assert language == "python"
    (tmp_path / "example.py").write_text(placed(fresh, program))
    printed = run(fresh, [sys.executable, "example.py"], tmp_path)
    assert "22222222-2222-4222-8222-222222222222" in printed
    assert "write_token" in printed


def test_keys_example(fresh: Server, tmp_path: Path) -> None:
    """The command that makes a key works as written."""
    [(_, shell)] = blocks("API keys")
    [create] = [line for line in shell.splitlines() if "keys create" in line]
    command = [*COMMAND, *create.split()[1:]]
    secret = run(fresh, command, tmp_path, RUNSTORE_DATA_DIR=str(tmp_path / "data"))
    assert secret.startswith("rsk_")
