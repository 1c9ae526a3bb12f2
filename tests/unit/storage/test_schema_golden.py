"""The statements of every migration, which are never edited once released: stores have carried them out.

`RUNSTORE_REWRITE_GOLDENS=1 pytest tests/unit/storage/test_schema_golden.py` writes the file anew. A diff may
only add a migration at the end.
"""

import os
from pathlib import Path

from runstore.storage.clickhouse.schema import MIGRATIONS, SCHEMA_VERSION

GOLDEN = Path(__file__).parents[2] / "golden" / "schema" / "clickhouse.sql"
_REWRITE = os.environ.get("RUNSTORE_REWRITE_GOLDENS") == "1"


def statements_of(version: int) -> list[str]:
    """The statements of a migration, as they were released."""
    _, _, rest = GOLDEN.read_text().partition(f"-- {version}: ")
    return rest.partition("\n-- ")[0].splitlines()[1:]


def test_released_migrations_stay_as_they_are() -> None:
    """A store that was migrated by them and one that is made anew have the same tables."""
    text = "".join(
        f"-- {migration.version}: {migration.name}\n"
        + "".join(f"{each}\n" for each in migration.statements())
        for migration in MIGRATIONS
    )
    if _REWRITE:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text
    assert [migration.version for migration in MIGRATIONS] == list(range(1, SCHEMA_VERSION + 1))
    assert statements_of(SCHEMA_VERSION) == list(MIGRATIONS[-1].statements())
