"""Handles: what tenants are called in the addresses of their prompts."""

import re

from sqlalchemy import delete, insert, select

from runstore.catalog import tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.keys import is_deleted
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.principals import Tenant
from runstore.domain.prompts import is_handle

_MAX_CHARACTERS = 64
_handles = tables.tenant_handles.c
_tenants = tables.tenants.c


class TenantHandles:
    """Gives every tenant a handle when it is first asked for. May raise UNAVAILABLE."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tenant(self, tenant_id: str) -> Tenant:
        """The tenant itself. Raises NOT_FOUND."""
        async with self._database.read() as connection:
            query = select(tables.tenants).where(_tenants.id == tenant_id, ~is_deleted(_tenants.id))
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, "no such tenant", field="tenant_id")
        return Tenant(**row._mapping)

    async def of(self, tenant_id: str) -> str:
        """The tenant's handle; made of its name the first time. Raises NOT_FOUND."""
        if (found := await self._find(tenant_id)) is not None:
            return found
        wanted = _handle_of((await self.tenant(tenant_id)).name)
        for handle in (wanted, f"{wanted[:55]}-{tenant_id[:8]}", f"t-{tenant_id}"):
            try:
                async with self._database.write() as connection:
                    row = {"handle": handle, "tenant_id": tenant_id}
                    await connection.execute(insert(tables.tenant_handles).values(row))
            except Conflict:  # Of another tenant, or another process has just given one to this.
                if (found := await self._find(tenant_id)) is not None:
                    return found
                continue
            return handle
        raise RunstoreError(ErrorReason.ALREADY_EXISTS, "choose a handle: POST /settings/handle")

    async def set(self, tenant_id: str, handle: str) -> None:
        """Gives the tenant another handle. Raises ALREADY_EXISTS, and INVALID_ARGUMENT for what is none."""
        if not is_handle(handle) or len(handle) > _MAX_CHARACTERS:
            raise invalid("tenant_handle", "lower-case letters, digits, - and _, a letter first, at most 64")
        try:
            async with self._database.write() as connection:
                await connection.execute(delete(tables.tenant_handles).where(_handles.tenant_id == tenant_id))
                row = {"handle": handle, "tenant_id": tenant_id}
                await connection.execute(insert(tables.tenant_handles).values(row))
        except Conflict as error:
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS, f"the handle {handle} is taken", field="tenant_handle"
            ) from error

    async def _find(self, tenant_id: str) -> str | None:
        async with self._database.read() as connection:
            query = select(_handles.handle).where(_handles.tenant_id == tenant_id)
            found = (await connection.execute(query)).scalar_one_or_none()
        return None if found is None else str(found)


def _handle_of(name: str) -> str:
    handle = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_MAX_CHARACTERS]
    return handle if is_handle(handle) else f"t-{handle}"[:_MAX_CHARACTERS].rstrip("-")
