"""The hostile load in its small form."""

from pathlib import Path

import pytest
from tests.hostile.load import Plan, hostile_load

pytestmark = [pytest.mark.engine, pytest.mark.slow]


async def test_honest_clients_do_not_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a hundred connections is hostile; the rest is served as without them, within bounds."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # For the process of the hostile clients.
    plan = Plan(seed=7, connections=100, hostile=10, calls_per_s=30, rounds=2, phase_s=6, folder=tmp_path)
    outcome = await hostile_load(plan)
    assert outcome.is_good, outcome.text()
