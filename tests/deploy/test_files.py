"""What deploy/ names exists: settings, pages of the manual. The field's validators: `make check-deploy`."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from runstore.runtime.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
RULES = DEPLOY / "prometheus" / "runstore.rules.yaml"
TESTS_OF_RULES = DEPLOY / "prometheus" / "runstore.tests.yaml"

VARIABLE = re.compile(r"\bRUNSTORE_[A-Z0-9_]+")
HEADING = re.compile(r"^#+ (.+)$", flags=re.MULTILINE)


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def anchors(page: Path) -> set[str]:
    """Where links into a page lead, as GitHub makes them of its headings."""
    titles = HEADING.findall(page.read_text())
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_settings_exist(path: Path) -> None:
    """A variable that a file of deploy/ names is one that the server reads."""
    known = {f"RUNSTORE_{name.upper()}" for name in Settings.model_fields}
    assert set(VARIABLE.findall(path.read_text())) - known == set()


def test_configuration_of_clickhouse_is_xml() -> None:
    """Servers of a cluster and its Keepers name each other as the Compose file does."""
    services = yaml.safe_load((DEPLOY / "compose" / "cluster.yaml").read_text())["services"]
    hosts = {
        element.text
        for path in (DEPLOY / "compose" / "clickhouse").rglob("*.xml")
        for tag in ("host", "hostname")
        for element in ET.parse(path).iter(tag)
    }
    named = {name for name in services if name.startswith(("clickhouse-", "keeper-"))}
    assert hosts == named
    assert len(named) == 7


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_alerts_name_their_page(alert: dict[str, Any]) -> None:
    """Each alert has a severity, says what is wrong, and names a page that exists and speaks of it."""
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert anchor in anchors(ROOT / page)
    assert f"`{alert['alert']}`, {alert['labels']['severity']}" in (ROOT / page).read_text()


def test_every_alert_is_tested() -> None:
    """promtool's tests see each alert fire at least once."""
    cases = yaml.safe_load(TESTS_OF_RULES.read_text())["tests"]
    fired = {test["alertname"] for case in cases for test in case["alert_rule_test"] if test["exp_alerts"]}
    assert {alert["alert"] for alert in alerts()} - fired == set()


@pytest.mark.parametrize("path", sorted((DEPLOY / "grafana").glob("*.json")), ids=lambda path: path.name)
def test_dashboards_are_laid_out(path: Path) -> None:
    """Panels have ids of their own, say what they show, ask the chosen data source, and do not overlap."""
    board = json.loads(path.read_text())
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "job", "instance"}
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not own & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        cells |= own
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert all('instance=~"$instance"' in target["expr"] for target in panel["targets"])
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
