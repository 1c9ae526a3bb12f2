"""Copies of all tables by the engine itself: `BACKUP` and `RESTORE`, which run inside it while it works.

A place is where the engine reads and writes a copy: an absolute path of a file or folder on its machine,
`disk:NAME/PATH` of a disk that the server allows for backups, or the `http(s)://…` URL of a folder in an
S3 bucket, for which the server has the credentials.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from runstore.storage.clickhouse import schema
from runstore.storage.clickhouse.engine import Engine, ReadLimits
from runstore.storage.clickhouse.quoting import quoted
from runstore.storage.run_store import StoreUnavailable

_POLL_S: Final = 0.02
_RUNNING: Final = ("CREATING_BACKUP", "RESTORING")
_DONE: Final = ("BACKUP_CREATED", "RESTORED")


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far the engine is."""

    is_done: bool
    done_bytes: int


class EngineCopies:
    """Starts and watches copies on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def start_backup(self, name: str, place: str) -> None:
        """Begin to copy every table to a place; the copy goes by a name that no other has.

        Returns once it is settled which rows are copied: those that are there now. Raises StoreUnavailable.
        """
        await self._start(f"BACKUP DATABASE {await self._database()} TO {_target(place)}", name)
        while not (await self._look(name)).done_bytes:  # noqa: ASYNC110 - the engine can only be asked
            await asyncio.sleep(_POLL_S)

    async def start_restore(self, name: str, place: str, database: str) -> None:
        """Begin to make the tables of `database` in a copy at a place, with their rows, here."""
        source = f"RESTORE DATABASE {_identifier(database)} AS {await self._database()} FROM {_target(place)}"
        await self._start(source, name, "allow_different_database_def = 1")

    async def progress(self, name: str) -> CopyProgress:
        """How far a copy is. Raises StoreUnavailable with the engine's reason when it has failed."""
        return await self._look(name)

    async def cancel(self, name: str) -> None:
        """Have the engine give a copy up and remove what it has written; returns when it has."""
        statement = (
            "KILL QUERY WHERE query_id IN (SELECT query_id FROM system.backups WHERE id = {name:String}) SYNC"
        )
        await self._command(statement, {"name": name})

    async def database(self) -> str:
        """Name of the database whose tables are copied."""
        return str(await self._one("SELECT currentDatabase()"))

    async def data_bytes(self) -> int:
        """Bytes of all tables on disk."""
        query = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()"
        return int(await self._one(query))

    async def tables(self) -> list[str]:
        """Names of the tables that there are."""
        query = "SELECT name FROM system.tables WHERE database = currentDatabase() AND NOT is_temporary"
        rows = await self._engine.read(lambda client: client.query(query).result_rows, is_limited=False)
        return [name for (name,) in rows]

    async def drop_tables(self) -> None:
        """Remove every table with its rows, views first."""
        for table in sorted(await self.tables(), key=lambda name: not name.endswith("_feed")):
            await self._command(f"DROP TABLE IF EXISTS {_identifier(table)} SYNC")

    async def migrate(self) -> None:
        """Bring the tables to this version's schema. Raises SchemaTooNew."""
        await self._engine.write(schema.migrate)

    async def _database(self) -> str:
        return _identifier(await self.database())

    async def _start(self, statement: str, name: str, *settings: str) -> None:
        text = f"{statement} SETTINGS {', '.join((f'id = {quoted(name)}', *settings))} ASYNC"
        await self._command(text)

    async def _command(self, text: str, parameters: dict[str, Any] | None = None) -> None:
        await self._engine.read(lambda client: client.command(text, parameters=parameters), is_limited=False)

    async def _look(self, name: str) -> CopyProgress:
        query = (
            "SELECT status, if(bytes_read > 0, bytes_read, total_size), error FROM system.backups "
            "WHERE id = {name:String}"
        )

        def look(client: Any) -> Any:
            return client.query(query, parameters={"name": name}).result_rows

        rows = await self._engine.read(look, is_limited=False)
        if not rows:
            raise StoreUnavailable("the engine was started anew meanwhile, and has given the copy up")
        status, done_bytes, error = rows[0]
        if status not in (*_RUNNING, *_DONE):
            raise StoreUnavailable(str(error).partition(", Stack trace")[0] or str(status))
        is_done = status in _DONE
        return CopyProgress(is_done, max(int(done_bytes), int(is_done)))

    async def _one(self, query: str) -> Any:
        rows = await self._engine.read(lambda client: client.query(query).result_rows, is_limited=False)
        return rows[0][0]


def open_copies(dsn: str) -> tuple[EngineCopies, Engine]:
    """Copies on the engine at `dsn`, whose tables stay as they are; the engine is the caller's to close."""
    engine = Engine(dsn, limits=ReadLimits())
    return EngineCopies(engine), engine


def _target(place: str) -> str:
    if place.startswith("disk:"):
        disk, _, path = place.removeprefix("disk:").partition("/")
        return f"Disk({quoted(disk)}, {quoted(path)})"
    if place.startswith(("http://", "https://")):
        return f"S3({quoted(place)})"
    return f"File({quoted(place)})"


def _identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
