"""Brings a catalog database to the schema of this version, and refuses one from a later version.

Alembic writes and orders the steps (`versions/`, shipped inside the package); it is imported
only when there is a step to take, because that import costs more than a whole start without it.
"""

from pathlib import Path

import structlog
from sqlalchemy import Connection, inspect, text

from runstore.catalog.database import Database
from runstore.catalog.tables import SCHEMA_VERSION
from runstore.domain.errors import ErrorReason, RunstoreError

_FOLDER = Path(__file__).parent

_log = structlog.get_logger(__name__)


class SchemaTooNew(RunstoreError):
    """The database was migrated by a later runstore; running this one could damage it."""

    def __init__(self, found: str) -> None:
        super().__init__(
            ErrorReason.UNAVAILABLE,
            f"the catalog has schema version {found}, this runstore knows up to {SCHEMA_VERSION}: "
            "start the version that migrated it, or a later one, or restore a backup of before",
        )


async def migrate(database: Database) -> None:
    """Applies the missing migrations, all or none. Safe to run from several processes at once.

    Raises SchemaTooNew when the database carries a version that this package does not ship.
    """
    async with database.read() as connection:
        if await connection.run_sync(_version) == SCHEMA_VERSION:
            return
    async with database.exclusive() as connection:
        await connection.run_sync(_upgrade)


def check_known(version: str) -> None:
    """Raises SchemaTooNew for a version that this package does not ship."""
    if not any(script.name.startswith(f"{version}_") for script in (_FOLDER / "versions").iterdir()):
        raise SchemaTooNew(version)


def _version(connection: Connection) -> str | None:
    """The version that the database carries; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    if (found := _version(connection)) == SCHEMA_VERSION:  # Another process was first.
        return
    if found is not None:
        check_known(found)
    config = Config()
    # Alembic interpolates option values; a path may hold a percent sign.
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    _log.info("catalog migrated", version_before=found, version_after=SCHEMA_VERSION)
