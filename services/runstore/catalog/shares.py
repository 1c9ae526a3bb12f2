"""Shares of runs and threads in the catalog."""

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, and_, delete, insert, select

from runstore.catalog import tables
from runstore.catalog.database import Conflict, Database
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.expiring import ExpiringMap
from runstore.domain.shares import Share, ShareSubject
from runstore.runtime.clock import Clock

_MAX_TENANTS = 10_000
# What another store shares (several stores on one PostgreSQL) shows in lists of runs within this time.
_CACHE_TTL_S = 3.0

_shares = tables.run_shares.c


class ShareCatalog:
    """Reads and writes shares. Every method may raise RunstoreError UNAVAILABLE."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._shares_nothing: ExpiringMap[str, bool] = ExpiringMap(
            clock, max_entries=_MAX_TENANTS, ttl_s=_CACHE_TTL_S, name="tenants_without_shares"
        )

    async def share(self, tenant_id: str, subject: ShareSubject, token: str | None = None) -> str:
        """The token of `subject`: the one it has, or else the one proposed, or else a new one.

        Raises ALREADY_EXISTS when the proposed token stands for something else.
        """
        if (found := await self.token(tenant_id, subject)) is not None:
            return found
        row = {
            "token": token or str(uuid.uuid4()),
            "tenant_id": tenant_id,
            "subject": _key(subject),
            "run_id": subject.run_id,
            "trace_id": subject.trace_id,
            "project_id": subject.project_id,
            "thread_id": subject.thread_id,
            "created_at_us": self._clock.now_us(),
        }
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(tables.run_shares).values(row))
        except Conflict as error:
            if (found := await self.token(tenant_id, subject)) is not None:  # Shared at the same time.
                return found
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS, "this share token is in use", field="share_token"
            ) from error
        finally:
            self._shares_nothing.forget(tenant_id)
        return str(row["token"])

    async def token(self, tenant_id: str, subject: ShareSubject) -> str | None:
        """The token of `subject`; None when it is not shared."""
        async with self._database.read() as connection:
            query = select(_shares.token).where(_is(tenant_id, subject))
            found = (await connection.execute(query)).scalar_one_or_none()
        return None if found is None else str(found)

    async def unshare(self, tenant_id: str, subject: ShareSubject) -> None:
        """The token is good for nothing from now on."""
        async with self._database.write() as connection:
            await connection.execute(delete(tables.run_shares).where(_is(tenant_id, subject)))

    async def find(self, token: str) -> Share:
        """What a token covers; always as it is in the database. Raises NOT_FOUND."""
        async with self._database.read() as connection:
            query = select(tables.run_shares).where(_shares.token == token)
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, "nothing is shared so", field="share_token")
        return _share(row)

    async def tokens_of(self, tenant_id: str, run_ids: Sequence[str]) -> dict[str, str]:
        """The tokens of those of the runs that are shared. Costs nothing in a tenant that shares nothing."""
        if not run_ids or self._shares_nothing.get(tenant_id):
            return {}
        ticket = self._shares_nothing.ticket()
        async with self._database.read() as connection:
            any_share = select(_shares.token).where(_shares.tenant_id == tenant_id).limit(1)
            if (await connection.execute(any_share)).one_or_none() is None:
                self._shares_nothing.put(tenant_id, value=True, ticket=ticket)
                return {}
            query = select(_shares.subject, _shares.token).where(
                _shares.tenant_id == tenant_id, _shares.subject.in_(run_ids)
            )
            return {row.subject: row.token for row in await connection.execute(query)}

    async def runs_of(self, tenant_id: str, tokens: Sequence[str] | None, most: int) -> list[str]:
        """At most so many of the runs that are shared by the tokens; by any for None."""
        query = select(_shares.run_id).where(_shares.tenant_id == tenant_id, _shares.run_id.is_not(None))
        if tokens is not None:
            query = query.where(_shares.token.in_(tokens))
        async with self._database.read() as connection:
            return [row.run_id for row in await connection.execute(query.limit(most))]


def _key(subject: ShareSubject) -> str:
    if subject.run_id is not None:
        return subject.run_id
    return hashlib.sha256(f"{subject.project_id}/{subject.thread_id}".encode()).hexdigest()


def _is(tenant_id: str, subject: ShareSubject) -> Any:
    return and_(_shares.tenant_id == tenant_id, _shares.subject == _key(subject))


def _share(row: Row[Any]) -> Share:
    subject = ShareSubject(
        run_id=row.run_id, project_id=row.project_id, trace_id=row.trace_id, thread_id=row.thread_id
    )
    return Share(token=row.token, tenant_id=row.tenant_id, subject=subject)
