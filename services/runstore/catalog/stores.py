"""The stores that share the catalog: each has a number of its own, and says how far it has come."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import delete, insert, select, update

from runstore.catalog import tables
from runstore.catalog.database import Conflict, Database
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.stores import MAX_STORES, StorePosition
from runstore.runtime.clock import Clock

_stores = tables.stores.c

_CONFLICTS_ACCEPTED: Final = MAX_STORES


class StoreCatalog:
    """Every method may raise RunstoreError UNAVAILABLE when the database does not answer."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def register(self, instance_id: str, stored_sequence: int) -> int:
        """The number of the store with this data directory, the same at each start; below `MAX_STORES`.

        A new store counts from now on among those that are waited for. Raises OVERLOADED when all numbers are
        taken: forget stores that never come back.
        """
        for _ in range(_CONFLICTS_ACCEPTED):
            async with self._database.read() as connection:
                rows = (await connection.execute(select(_stores.node, _stores.instance_id))).all()
            for node, known_id in rows:
                if known_id == instance_id:
                    await self.report(node, stored_sequence)
                    return int(node)
            free = set(range(MAX_STORES)) - {node for node, _ in rows}
            if not free:
                break
            values = {
                "node": min(free),
                "instance_id": instance_id,
                "stored_sequence": stored_sequence,
                "seen_at_us": self._clock.now_us(),
            }
            try:
                async with self._database.write() as connection:
                    await connection.execute(insert(tables.stores).values(values))
            except Conflict:  # Another store starts at the same time.
                continue
            return min(free)
        raise RunstoreError(ErrorReason.OVERLOADED, f"{MAX_STORES} stores share this catalog already")

    async def report(self, node: int, stored_sequence: int) -> None:
        """The store is alive, and everything that it acknowledged up to there can be read."""
        values = {"stored_sequence": stored_sequence, "seen_at_us": self._clock.now_us()}
        async with self._database.write() as connection:
            await connection.execute(update(tables.stores).where(_stores.node == node).values(values))

    async def positions(self) -> Mapping[int, StorePosition]:
        """Every store that has not been forgotten, by its number."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(tables.stores))
            return {row.node: StorePosition(row.stored_sequence, row.seen_at_us) for row in rows}

    async def forget(self, node: int) -> None:
        """The store never comes back: nobody waits for it any more. Raises NOT_FOUND."""
        async with self._database.write() as connection:
            found = await connection.execute(delete(tables.stores).where(_stores.node == node))
        if not found.rowcount:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no store {node}", field="node")
