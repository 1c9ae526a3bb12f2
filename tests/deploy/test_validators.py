"""What the field's validators say of deploy/. `make check-deploy` installs those that are Python packages;
there a missing one is a failure, elsewhere it is skipped."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
COMPOSE = sorted((DEPLOY / "compose").glob("*.yaml"))
OVERLAYS = [DEPLOY / "kubernetes" / name for name in ("embedded", "cluster")]
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))

pytestmark = pytest.mark.slow


def run(tool: str, *arguments: str | Path, folder: Path = ROOT) -> str:
    """What a validator prints; it must find nothing wrong."""
    if shutil.which(tool) is None:
        missing = f"{tool} is not installed"
        if os.environ.get("EVERY_VALIDATOR"):
            pytest.fail(missing)
        pytest.skip(missing)  # Only by hand, `pytest -m slow`: `make check-deploy` fails instead, above.
    done = subprocess.run(
        [tool, *map(str, arguments)],
        cwd=folder, text=True, timeout=300, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        # Checkov would look for news of its rules.
        env={**os.environ, "LOG_LEVEL": "ERROR"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_dockerfile() -> None:
    """hadolint and Checkov find nothing in the image's recipe."""
    run("hadolint", DEPLOY / "Dockerfile")
    run(
        "checkov",
        "--framework",
        "dockerfile",
        "--file",
        DEPLOY / "Dockerfile",
        "--compact",
        "--quiet",
        "--skip-download",
    )


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose(path: Path) -> None:
    """Compose files follow the Compose specification's schema."""
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)


def test_alerts() -> None:
    """The rules are valid, and promtool's tests of them pass."""
    run("promtool", "check", "rules", "runstore.rules.yaml", folder=PROMETHEUS)
    run("promtool", "test", "rules", "runstore.tests.yaml", folder=PROMETHEUS)


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_questions_of_dashboards(path: Path, tmp_path: Path) -> None:
    """Every query of a dashboard is PromQL, with Grafana's variables filled in."""
    expressions = [
        target["expr"].replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")
        for panel in panels(json.loads(path.read_text()))
        for target in panel.get("targets", [])
    ]
    assert expressions
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run("promtool", "check", "rules", tmp_path / "rules.yaml")


@pytest.mark.parametrize("folder", OVERLAYS, ids=lambda path: path.name)
def test_kubernetes(folder: Path, tmp_path: Path) -> None:
    """What kustomize builds has valid objects only, and follows the rules of Checkov."""
    objects = tmp_path / "objects.yaml"
    objects.write_text(run("kubectl", "kustomize", folder))
    run("kubernetes-validate", "--strict", objects)
    run("checkov", "--framework", "kubernetes", "--file", objects, "--compact", "--quiet", "--skip-download")


def test_protos() -> None:
    """buf finds nothing in the contract."""
    run("buf", "lint")
