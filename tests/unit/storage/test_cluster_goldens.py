"""What the tables of every migration become on a cluster.

`RUNSTORE_REWRITE_GOLDENS=1 pytest tests/unit/storage/test_cluster_goldens.py` writes the file anew; read its
diff before committing.
"""

import os
from pathlib import Path

import pytest

from runstore.storage.clickhouse.cluster import ClusterDDL
from runstore.storage.clickhouse.schema import MIGRATIONS

_GOLDEN = Path(__file__).parents[2] / "golden" / "schema" / "cluster.sql"
_REWRITE = os.environ.get("RUNSTORE_REWRITE_GOLDENS") == "1"

_DDL = ClusterDDL("runs")


def test_migrations_on_a_cluster() -> None:
    """Every statement has a rule. What was released stays as it is: a cluster has it already."""
    lines = []
    for migration in MIGRATIONS:
        lines.append(f"-- {migration.version} {migration.name}")
        lines += [f"{each};" for statement in migration.statements() for each in _DDL.render(statement)]
    rendered = "\n".join(lines) + "\n"
    if _REWRITE:
        _GOLDEN.parent.mkdir(exist_ok=True)
        _GOLDEN.write_text(rendered)
    assert rendered == _GOLDEN.read_text()


def test_questions_stay_as_they_are() -> None:
    """They mean the tables in front."""
    for statement in (
        "SELECT 1 FROM runs",
        "INSERT INTO runs SELECT * FROM runs",
        "KILL QUERY WHERE 1 ASYNC",
    ):
        assert _DDL.render(statement) == [statement]


def test_deletions_go_to_every_node() -> None:
    """A table in front deletes nothing."""
    assert _DDL.render("DELETE FROM runs WHERE run_id IN (SELECT run_id FROM deleted_runs)") == [
        "DELETE FROM runs_local ON CLUSTER runs WHERE run_id IN (SELECT run_id FROM deleted_runs)"
    ]


def test_columns_change_in_front_and_behind() -> None:
    """All else that a table is altered in lies behind."""
    assert _DDL.render("ALTER TABLE runs ADD COLUMN IF NOT EXISTS x UInt8") == [
        "ALTER TABLE runs_local ON CLUSTER runs ADD COLUMN IF NOT EXISTS x UInt8",
        "ALTER TABLE runs ON CLUSTER runs ADD COLUMN IF NOT EXISTS x UInt8",
    ]
    assert _DDL.render("ALTER TABLE runs DROP PARTITION 202601") == [
        "ALTER TABLE runs_local ON CLUSTER runs DROP PARTITION 202601"
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE IF NOT EXISTS unknown (a UInt8) ENGINE = MergeTree ORDER BY a",
        "CREATE TABLE runs (a UInt8) ENGINE = MergeTree ORDER BY a",
        "ALTER TABLE runs ADD COLUMN x UInt8, ADD INDEX y x TYPE minmax",
        "DROP TABLE runs",
    ],
)
def test_statement_without_a_rule_is_refused(statement: str) -> None:
    """Rather than done on one node only."""
    with pytest.raises(ValueError, match=r"rule|sharding|columns"):
        _DDL.render(statement)
