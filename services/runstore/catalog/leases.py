"""Leases: what only one of several stores may do at a time."""

from sqlalchemy import delete, insert, or_, update

from runstore.catalog.database import Conflict, Database
from runstore.catalog.retention_tables import leases
from runstore.runtime.clock import Clock


class LeaseCatalog:
    """The leases of one holder. Every method may raise RunstoreError UNAVAILABLE."""

    def __init__(self, database: Database, clock: Clock, holder: str) -> None:
        """`holder`: the id of a store, which has what it had when it was killed."""
        self._database = database
        self._clock = clock
        self._holder = holder

    async def take(self, name: str, seconds: float) -> bool:
        """Whether the lease is this holder's for so long from now; also when it was before."""
        now_us = self._clock.now_us()
        until_us = now_us + round(seconds * 1_000_000)
        is_free = or_(leases.c.holder == self._holder, leases.c.until_us <= now_us)
        taking = update(leases).where(leases.c.name == name, is_free)
        async with self._database.write() as connection:
            values = {"holder": self._holder, "until_us": until_us}
            if (await connection.execute(taking.values(**values))).rowcount:
                return True
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(leases).values(name=name, **values))
        except Conflict:  # Somebody has it.
            return False
        return True

    async def give_back(self, name: str) -> None:
        """Let somebody else have the lease."""
        async with self._database.write() as connection:
            await connection.execute(
                delete(leases).where(leases.c.name == name, leases.c.holder == self._holder)
            )
