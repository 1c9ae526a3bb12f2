"""Indexed datasets with the SDK of a year ago, the last that searches them, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

from .servers import LONGEST_WAIT_S, ROOT, Server, clean_environment

OLD_SDK = ROOT / ".venv" / "langsmith-0.4"
SCRIPT = Path(__file__).parent / "index_script.py"


def test_indexed_datasets_are_searched(server: Server) -> None:
    """Matches come best first, filtered, and see every write; what is not indexed says so."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), server.url],
        env=clean_environment(PYTHONPATH=str(OLD_SDK)),
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "refused_before": True,
        "first": ["how to load a page", "load load load"],
        "filtered": ["how to load a page"],
        "page": ["page page page"],
        "load": ["load more"],
        "words_of_filters": [],
        "asynchronous": ["a lambda that says über"],
    }
