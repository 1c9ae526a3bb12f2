"""Indexed datasets with SDKs that search them, 0.7 being the last, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import LONGEST_WAIT_S

from .servers import ROOT, Server, clean_environment

SCRIPT = Path(__file__).parent / "index_script.py"
pytestmark = pytest.mark.both_catalogs


@pytest.mark.parametrize("version", ["0.7", pytest.param("0.4", marks=pytest.mark.slow)])
def test_indexed_datasets_are_searched(server: Server, version: str) -> None:
    """Matches come best first, filtered, and see every write; what is not indexed says so."""
    sdk = ROOT / ".venv" / f"langsmith-{version}"
    if not sdk.is_dir():
        pytest.fail(f"{sdk} is missing: `make test` (or `make .venv/.installed-old-sdks`) installs it")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), server.url],
        env=clean_environment(PYTHONPATH=str(sdk)),
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen.pop("version").startswith(f"{version}.")
    assert seen == {
        "refused_before": True,
        "first": ["how to load a page", "load load load"],
        "filtered": ["how to load a page"],
        "page": ["page page page"],
        "load": ["load more"],
        "words_of_filters": [],
        "asynchronous": ["a lambda that says über"],
    }
