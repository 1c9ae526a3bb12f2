"""The SDK's pytest plugin: a run of pytest becomes an experiment on a dataset of its tests."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from langsmith import Client
from tests.waiting import LONGEST_WAIT_S

from .servers import Server, clean_environment

pytestmark = pytest.mark.both_catalogs(slow=True)

SCRIPT = Path(__file__).parent / "plugin_script.py"


def run_pytest(server: Server, suite: str, folder: Path) -> str:
    """What pytest said, in a process of its own."""
    environment = clean_environment(
        LANGSMITH_ENDPOINT=server.url, LANGSMITH_API_KEY="any", LANGSMITH_TRACING="true",
        LANGSMITH_TEST_SUITE=suite,
    )  # fmt: skip
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]  # The plugin names experiments after the workers of this pytest otherwise.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--noconftest", "-o", "asyncio_mode=auto"),
            *("-c", "/dev/null", "--rootdir", str(folder), str(SCRIPT)),
        ],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=LONGEST_WAIT_S, check=False,
    )  # fmt: skip
    # Submitting is retried and logged, never raised.
    assert "Failed to" not in done.stderr + done.stdout
    return done.stdout


def test_runs_of_pytest_are_experiments(server: Server, client: Client, tmp_path: Path) -> None:
    """Each test is an example, each run of pytest an experiment with outputs, errors and feedback."""
    suite = f"suite-{uuid.uuid4().hex}"
    for _ in range(2):
        assert "1 failed, 2 passed" in run_pytest(server, suite, tmp_path)
    dataset = client.read_dataset(dataset_name=suite)
    examples = {str(each.inputs): each for each in client.list_examples(dataset_id=dataset.id)}
    assert {inputs: each.outputs for inputs, each in examples.items()} == {
        "{'number': 1}": {"expected": 2},
        "{'number': 2}": {"expected": 4},
        "{'question': 'why'}": {"answer": "because"},
    }
    assert {str(each.inputs) for each in client.list_examples(dataset_id=dataset.id, splits=["fast"])} == {
        "{'number': 1}",
        "{'number': 2}",
    }
    experiments = list(client.list_projects(reference_dataset_id=dataset.id, include_stats=True))
    assert len(experiments) == 2
    for experiment in experiments:
        stats = experiment.feedback_stats or {}
        assert {key: (each["n"], each["avg"]) for key, each in stats.items()} == {
            "pass": (3, 2 / 3),
            "quality": (2, 0.75),
            "expectation": (2, 1),
            "judged": (1, 0),
        }
        runs = {
            run.reference_example_id: run for run in client.list_runs(project_id=experiment.id, is_root=True)
        }
        assert set(runs) == {each.id for each in examples.values()}
        assert runs[examples["{'number': 2}"].id].outputs == {"doubled": 4}
        # The plugin ends a run in a thread, which may be done before the error has been noted in the run.
        error = runs[examples["{'question': 'why'}"].id].error
        assert error is None or "as it must" in error
        version = (experiment.metadata or {})["dataset_version"]
        on_version = client.list_projects(reference_dataset_id=dataset.id, dataset_version=version)
        assert experiment.id in [each.id for each in on_version]
