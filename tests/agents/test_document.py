"""docs/agents.md, executed as it stands, but for the address."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.agents.conftest import GUIDE, blocks
from tests.contract.servers import Server, clean_environment
from tests.waiting import LONGEST_WAIT_S

from runstore.domain.webhooks import webhook_policy

ADDRESS = "http://127.0.0.1:1984"
_, *PROGRAMS = blocks("python")
_, WEBHOOKS = blocks("json")


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


def test_example_of_the_contract(server: Server, tmp_path: Path) -> None:
    """`runs.wait` with breakpoints, webhook, context and a strategy prints what the document says."""
    [expected] = re.findall(r"It prints `(.*?)`", GUIDE)
    assert printed_by(server, PROGRAMS[0], tmp_path) == expected + "\n"


def test_question_to_a_person(server: Server, tmp_path: Path) -> None:
    """Asked, answered, and the run listed with its trace."""
    assert printed_by(server, PROGRAMS[1], tmp_path).splitlines() == [
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
