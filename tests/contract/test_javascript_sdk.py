"""The published JavaScript SDK sends a trace; skipped loudly where Node is missing."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from langsmith import Client
from tests.waiting import LONGEST_WAIT_S

from .reading import files_of
from .servers import Server, clean_environment

FOLDER = Path(__file__).parent / "js"


@pytest.fixture(scope="module")
def node() -> str:
    """Node, with the SDK installed."""
    executable = shutil.which("node")
    if executable is None:
        pytest.skip("the JavaScript SDK is NOT tested: no `node` here")  # PyPI has none, make cannot help.
    if not (FOLDER / "node_modules" / "langsmith").is_dir():
        pytest.skip(  # npm was missing, or reached no registry, when the Makefile installed the SDK.
            "the JavaScript SDK is NOT tested: it is not installed; "
            "with npm present, `rm -f .venv/.installed-js-sdk` and `make test` do so"
        )
    return executable


def test_trace_of_the_javascript_sdk_arrives(node: str, server: Server, client: Client, project: str) -> None:
    """A tree with a failed leaf, a run built by hand, an attachment, feedback; listed by both SDKs alike."""
    done = subprocess.run(
        [node, "--no-deprecation", "trace.mjs", server.url, project],
        cwd=FOLDER,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["answer"] == "GOOD ?"
    assert said["listed"] == ["by hand", "leaf", "leaf", "root"]

    root, *leaves = sorted(
        client.list_runs(project_name=project, filter='neq(name, "by hand")'),
        key=lambda run: run.dotted_order,
    )
    assert (root.name, root.run_type, root.status) == ("root", "chain", "success")
    assert root.outputs == {"outputs": "GOOD ?"}
    assert root.tags == ["js"]
    assert root.metadata["emoji"] == "☃"
    assert [(leaf.name, leaf.status, leaf.parent_run_id) for leaf in leaves] == [
        ("leaf", "success", root.id),
        ("leaf", "error", root.id),
    ]
    assert "it broke" in (leaves[1].error or "")

    by_hand = client.read_run(said["byHand"])
    assert (by_hand.inputs, by_hand.outputs) == ({"question": "?"}, {"answer": "!"})
    assert files_of(by_hand) == {"file": ("text/plain", b"from JavaScript")}

    [record] = client.list_feedback(run_ids=[by_hand.id])
    assert (record.key, record.score, record.value, record.comment) == ("quality", 1, "fair", "☃")
    assert said["feedback"] == [said["read"]]
    assert (said["read"]["id"], said["read"]["score"]) == (str(record.id), 1)
