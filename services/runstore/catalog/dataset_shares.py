"""Shared datasets: a token for each, which reads it without a credential until it is revoked."""

import uuid
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from runstore.catalog import dataset_tables as tables
from runstore.catalog.database import Database
from runstore.catalog.datasets import lock_dataset
from runstore.domain.errors import ErrorReason, RunstoreError

_shares = tables.dataset_shares.c


@dataclass(frozen=True, slots=True)
class DatasetShare:
    """What a token opens."""

    tenant_id: str
    dataset_id: str
    share_projects: bool
    """Whether the experiments on the dataset are shared with it."""


class DatasetShareCatalog:
    """Makes, finds and revokes tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def share(self, tenant_id: str, dataset_id: str, *, projects: bool) -> str:
        """The dataset's token, the same each time. Raises NOT_FOUND."""
        async with self._database.write() as connection:
            await lock_dataset(connection, tenant_id, dataset_id)
            query = select(_shares.token).where(_shares.dataset_id == dataset_id)
            token: str | None = (await connection.execute(query)).scalar_one_or_none()
            if token is not None:
                again = update(tables.dataset_shares).where(_shares.dataset_id == dataset_id)
                await connection.execute(again.values(share_projects=projects))
                return token
            made = str(uuid.uuid4())
            values = {
                "dataset_id": dataset_id,
                "tenant_id": tenant_id,
                "token": made,
                "share_projects": projects,
            }
            await connection.execute(insert(tables.dataset_shares).values(values))
        return made

    async def token(self, tenant_id: str, dataset_id: str) -> str | None:
        """The dataset's token; None when it is not shared."""
        query = select(_shares.token)
        query = query.where(_shares.tenant_id == tenant_id, _shares.dataset_id == dataset_id)
        async with self._database.read() as connection:
            token: str | None = (await connection.execute(query)).scalar_one_or_none()
        return token

    async def revoke(self, tenant_id: str, dataset_id: str) -> None:
        """The token opens nothing any more; without effect when there is none."""
        async with self._database.write() as connection:
            await connection.execute(
                delete(tables.dataset_shares).where(
                    _shares.tenant_id == tenant_id, _shares.dataset_id == dataset_id
                )
            )

    async def find(self, token: str) -> DatasetShare:
        """What the token opens. Raises NOT_FOUND."""
        query = select(tables.dataset_shares).where(_shares.token == token)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, "nothing is shared by this token", field="share_token")
        return DatasetShare(row.tenant_id, row.dataset_id, row.share_projects)
