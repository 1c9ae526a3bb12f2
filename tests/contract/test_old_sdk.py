"""The Python SDK of a year ago, unmodified, in a process of its own."""

import json
import logging
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import LONGEST_WAIT_S

from .servers import ROOT, Server, clean_environment

OLD_SDK = ROOT / ".venv" / "langsmith-0.4"
SCRIPT = Path(__file__).parent / "old_sdk_script.py"


@pytest.fixture(scope="module")
def answers(server: Server) -> dict[str, Any]:
    """What the script saw."""
    if not OLD_SDK.is_dir():
        pytest.fail(f"{OLD_SDK} is missing: `make test` (or `make .venv/.installed-old-sdks`) installs it")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), server.url, f"old-{uuid.uuid4().hex}"],
        env=clean_environment(PYTHONPATH=str(OLD_SDK)),
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_S,
        check=False,
    )
    logging.getLogger(__name__).info("the SDK's output:\n%s", done.stderr)
    assert done.returncode == 0, done.stderr
    # The SDK logs and drops what a server refuses; nothing may have been refused.
    assert "Failed to" not in done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def facts(runs: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """The named facts of each run."""
    return [tuple(run[name] for name in names) for run in runs]


def test_it_is_the_old_sdk(answers: dict[str, Any]) -> None:
    """The process did not import the newest one by mistake."""
    assert answers["is_old"]
    assert answers["version"] == "0.4.43"


def test_traceable_tree(answers: dict[str, Any]) -> None:
    """Three levels, one leaf failed, streamed tokens."""
    runs = answers["traced"]
    assert facts(runs, "name", "run_type", "status", "depth") == [
        ("root", "chain", "success", 0),
        ("branch", "llm", "error", 1),
        ("leaf", "tool", "error", 2),
        ("branch", "llm", "success", 1),
        ("leaf", "tool", "success", 2),
        ("stream", "llm", "success", 0),
    ]
    assert facts(runs, "inputs", "outputs")[3:] == [
        ({"word": "good"}, {"output": "GOOD"}),
        ({"word": "good"}, {"output": "GOOD"}),
        ({}, {"output": ["a", "b", "c"]}),
    ]
    assert "it broke" in runs[2]["error"]
    assert runs[3]["tags"] == ["t"]
    assert runs[3]["m"] == 1
    assert [run["first_token"] for run in runs] == [False] * 5 + [True]


def test_async_traceable_tree(answers: dict[str, Any]) -> None:
    """Coroutines and an asynchronous generator."""
    runs = answers["traced_async"]
    assert sorted(facts(runs, "name", "status", "depth")) == [
        ("leaf", "success", 1),
        ("leaf", "success", 1),
        ("root", "success", 0),
        ("stream", "success", 1),
    ]
    assert runs[0]["outputs"] == {"output": ["X", "Y", "a", "b", "c"]}


def test_update_run_with_every_parameter(answers: dict[str, Any]) -> None:
    """All fields of one update arrive."""
    assert answers["updated"] == {
        "name": "after",
        "run_type": "llm",
        "status": "error",
        "error": "late error",
        "inputs": {"i": 1},
        "outputs": {"o": 2},
        "tags": ["u"],
        "m": 5,
        "depth": 0,
        "first_token": True,
        "seconds": 3.0,
        "start_time": "2026-02-03T04:05:06.000789",
        "events": ["new_token"],
        "reference_example_id": str(uuid.UUID(int=7)),
    }


def test_attachments_are_read_back(answers: dict[str, Any]) -> None:
    """By `read_run` and by `list_runs`, which does not select them in this version."""
    file = {"a": ["text/plain", "bytes"]}
    assert answers["attachments"] == {"read": file, "listed": file}


def test_lists(answers: dict[str, Any]) -> None:
    """Parameters of `list_runs` leave the right runs."""
    assert answers["lists"] == {
        "error": ["branch", "leaf"],
        "run_type": ["leaf", "leaf"],
        "is_root": ["root", "stream"],
        "filter": ["branch"],
        "limit": ["root"],
        "select": ["root", "stream"],
    }


def test_async_client(answers: dict[str, Any]) -> None:
    """`AsyncClient` creates, updates, reads and lists."""
    found = answers["async"]
    assert found["pending"] == "pending"
    assert found["done"] == ["success", {"o": 1}]
    assert found["listed"] == ["made"]
    assert found["project"].endswith("-client")
