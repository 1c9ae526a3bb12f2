"""docs/agents.md, executed as it stands, but for the address."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.servers import LONGEST_WAIT_S, ROOT, Server, clean_environment, serving

from runstore.domain.webhooks import webhook_policy

DOCUMENT = (ROOT / "docs" / "agents.md").read_text()
ADDRESS = "http://127.0.0.1:1984"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
GRAPH, *PROGRAMS = [text for language, text in BLOCKS if language == "python"]
MANIFEST, WEBHOOKS = [text for language, text in BLOCKS if language == "json"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the document's graphs."""
    folder = tmp_path_factory.mktemp("document")
    (folder / "agent.py").write_text(GRAPH)
    (folder / "langgraph.json").write_text(MANIFEST)
    with serving(folder / "server", agents=str(folder / "langgraph.json")) as server:
        yield server
        assert server.defects() == []


def printed_by(server: Server, program: str, folder: Path) -> str:
    """Standard output of a program of the document."""
    (folder / "program.py").write_text(program.replace(ADDRESS, server.url))
    done = subprocess.run(
        [sys.executable, "program.py"],
        env=clean_environment(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_example_of_the_contract(served: Server, tmp_path: Path) -> None:
    """`runs.wait` with breakpoints, webhook, context and a strategy prints what the document says."""
    [expected] = re.findall(r"It prints `(.*?)`", DOCUMENT)
    assert printed_by(served, PROGRAMS[0], tmp_path) == expected + "\n"


def test_question_to_a_person(served: Server, tmp_path: Path) -> None:
    """Asked, answered, and the run listed with its trace."""
    assert printed_by(served, PROGRAMS[1], tmp_path).splitlines() == [
        "{'question': 'Who are you?'}",
        "Hello, Bob.",
        "success enqueue True",
    ]


def test_webhooks_are_understood() -> None:
    """Every key of the policy in the document has its effect."""
    policy = webhook_policy(json.loads(WEBHOOKS), {"LG_WEBHOOK_TOKEN": "s3cret"})
    policy.check_url("https://hooks.example.com/")
    assert policy.headers == {"Authorization": "Bearer s3cret"}
    assert policy.visible({"run_id": 1, "kwargs": 2}) == {"run_id": 1}
    assert (policy.allowed_ports, policy.max_url_characters) == (frozenset({443}), 2_048)
