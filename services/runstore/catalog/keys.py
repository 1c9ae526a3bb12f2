"""Organisations, tenants and their API keys: made by an operator, recognised on every call."""

import base64
import hashlib
import re
import secrets
import uuid
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.projects import ProjectCatalog
from runstore.catalog.texts import check_name
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.expiring import ExpiringMap
from runstore.domain.principals import ApiKey, Grant, Organization, Role, Tenant
from runstore.runtime.clock import Clock

_SECRET = re.compile(r"rsk_[A-Za-z0-9_-]{43}")
_SECRET_BYTES = 32
_PREFIX_CHARACTERS = 8

_MAX_CACHED_KEYS = 10_000
_MAX_CACHED_TENANTS = 10_000
# A key revoked by another process (`runstore keys revoke`) stops working within this time.
_CACHE_TTL_S = 3.0
_LAST_USED_RESOLUTION_US = 60_000_000

_keys = tables.api_keys.c
_tenants = tables.tenants.c
# All of a key but its hash.
_PUBLIC_COLUMNS = [column for column in _keys if column.name != "hash"]


@dataclass(frozen=True, slots=True)
class _Recognised:
    grant: Grant
    expires_at_us: int | None


class KeyCatalog:
    """Issues, recognises and revokes API keys. Only the SHA-256 of a secret is stored.

    Every method may raise RunstoreError UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, projects: ProjectCatalog, clock: Clock) -> None:
        self._database = database
        self._projects = projects
        self._clock = clock
        self._recognised: ExpiringMap[bytes, _Recognised] = ExpiringMap(
            clock, max_entries=_MAX_CACHED_KEYS, ttl_s=_CACHE_TTL_S, name="keys"
        )
        self._tenants: ExpiringMap[str, Tenant] = ExpiringMap(
            clock, max_entries=_MAX_CACHED_TENANTS, ttl_s=_CACHE_TTL_S, name="tenants"
        )

    async def authenticate(self, secret: str) -> Grant | None:
        """What `secret` opens; None when nobody was given it, or it was revoked or has expired.

        A revocation takes effect within three seconds. The look-up is by hash, so how long it takes
        tells nothing about how much of a guess was right.
        """
        if _SECRET.fullmatch(secret) is None:
            return None
        digest = _digest(secret)
        recognised = self._recognised.get(digest)
        if recognised is None:
            recognised = await self._recognise(digest)
        if recognised is None or _past(recognised.expires_at_us, self._clock.now_us()):
            return None
        return recognised.grant

    async def _recognise(self, digest: bytes) -> _Recognised | None:
        ticket = self._recognised.ticket()
        query = select(*_PUBLIC_COLUMNS).where(
            _keys.hash == digest, _keys.revoked_at_us.is_(None), ~is_deleted(_keys.tenant_id)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        key = _key(row)
        grant = Grant(
            key_id=key.id, role=key.role, tenant_id=key.tenant_id, organization_id=key.organization_id
        )
        recognised = _Recognised(grant, key.expires_at_us)
        self._recognised.put(digest, recognised, ticket)
        await self._note_use(key)
        return recognised

    async def _note_use(self, key: ApiKey) -> None:
        now_us = self._clock.now_us()
        since_us = now_us - _LAST_USED_RESOLUTION_US
        if key.last_used_at_us is not None and key.last_used_at_us >= since_us:
            return
        unnoted = or_(_keys.last_used_at_us.is_(None), _keys.last_used_at_us < since_us)
        statement = update(tables.api_keys).where(_keys.id == key.id, unnoted).values(last_used_at_us=now_us)
        try:
            async with self._database.write() as connection:
                await connection.execute(statement)
        except RunstoreError as error:
            # The note is for people; a good key must work while the database refuses to write.
            if error.reason is not ErrorReason.UNAVAILABLE:
                raise

    async def create_key(
        self,
        tenant_id: str | None,
        name: str,
        expires_at_us: int | None = None,
        *,
        role: Role = Role.EDITOR,
        organization_id: str | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its secret (`rsk_` and 43 URL-safe characters), which cannot be had again.

        It opens the tenant, or else each tenant of the organisation. Raises NOT_FOUND without such a one,
        INVALID_ARGUMENT for a name that cannot be stored and unless one of the two is given.
        """
        check_name("name", name)
        if (tenant_id is None) == (organization_id is None):
            raise invalid("tenant_id", "a key opens either a tenant or an organisation")
        secret = "rsk_" + base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).rstrip(b"=").decode()
        key = ApiKey(
            id=str(uuid.uuid4()),
            tenant_id=tenant_id,
            organization_id=organization_id,
            role=role,
            name=name,
            prefix=secret[:_PREFIX_CHARACTERS],
            created_at_us=self._clock.now_us(),
            expires_at_us=expires_at_us,
            revoked_at_us=None,
            last_used_at_us=None,
        )
        values = {column.name: getattr(key, column.name) for column in _PUBLIC_COLUMNS}
        try:
            async with self._database.write() as connection:
                if tenant_id is not None and await self._is_deleted(connection, tenant_id):
                    raise Conflict
                await connection.execute(insert(tables.api_keys).values(**values, hash=_digest(secret)))
        except Conflict as error:
            field = "organization_id" if tenant_id is None else "tenant_id"
            raise RunstoreError(ErrorReason.NOT_FOUND, "there is none of that id", field=field) from error
        return key, secret

    async def _is_deleted(self, connection: AsyncConnection, tenant_id: str) -> bool:
        query = select(_tenants.id).where(_tenants.id == tenant_id, is_deleted(_tenants.id))
        return (await connection.execute(query)).one_or_none() is not None

    async def list_keys(self, tenant_id: str | None = None) -> list[ApiKey]:
        """Every key, revoked and expired ones too, oldest first; of one tenant when it is given."""
        query = select(*_PUBLIC_COLUMNS).order_by(_keys.created_at_us, _keys.id)
        if tenant_id is not None:
            query = query.where(_keys.tenant_id == tenant_id)
        async with self._database.read() as connection:
            return [_key(row) for row in await connection.execute(query)]

    async def revoke_key(self, key_id: str) -> ApiKey:
        """Makes the key useless from now on; revoking it again changes nothing. Raises NOT_FOUND."""
        statement = (
            update(tables.api_keys)
            .where(_keys.id == key_id, _keys.revoked_at_us.is_(None))
            .values(revoked_at_us=self._clock.now_us())
        )
        async with self._database.write() as connection:
            await connection.execute(statement)
            row = (await connection.execute(select(*_PUBLIC_COLUMNS).where(_keys.id == key_id))).one_or_none()
        self._recognised.forget_all()
        if row is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"no key with id {key_id}", field="id")
        return _key(row)

    async def create_tenant(self, name: str, *, tenant_id: str | None = None) -> Tenant:
        """A new tenant with its `default` project. Raises ALREADY_EXISTS for a taken name or id."""
        check_name("name", name)
        tenant = Tenant(id=tenant_id or str(uuid.uuid4()), name=name, created_at_us=self._clock.now_us())
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(tables.tenants).values(asdict(tenant)))
        except Conflict as error:
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS, f"a tenant named {name!r} already exists", field="name"
            ) from error
        await self._projects.ensure_default(tenant.id)
        return tenant

    async def list_tenants(self) -> list[Tenant]:
        """Every tenant that is not deleted, by name."""
        query = select(tables.tenants).where(~is_deleted(_tenants.id)).order_by(_tenants.name)
        async with self._database.read() as connection:
            return [Tenant(**row._mapping) for row in await connection.execute(query)]

    async def find_tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant, as it was at most three seconds ago; None when there is none, or none any more."""
        found = self._tenants.get(tenant_id)
        if found is None:
            ticket = self._tenants.ticket()
            query = select(tables.tenants).where(_tenants.id == tenant_id, ~is_deleted(_tenants.id))
            async with self._database.read() as connection:
                row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            found = Tenant(**row._mapping)
            self._tenants.put(tenant_id, found, ticket)
        return found

    async def move_tenant(self, tenant_id: str, organization_id: str | None) -> Tenant:
        """Puts a tenant into an organisation, or into none; keys of organisations follow within seconds.

        Raises NOT_FOUND when there is no such tenant or organisation.
        """
        statement = (
            update(tables.tenants)
            .where(_tenants.id == tenant_id, ~is_deleted(_tenants.id))
            .values(organization_id=organization_id)
        )
        try:
            async with self._database.write() as connection:
                await connection.execute(statement)
        except Conflict as error:
            raise RunstoreError(
                ErrorReason.NOT_FOUND, "no such organisation", field="organization_id"
            ) from error
        self._tenants.forget_all()
        moved = await self.find_tenant(tenant_id)
        if moved is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, "no such tenant", field="tenant_id")
        return moved

    def forget_all(self) -> None:
        """What this process remembers of keys and tenants may not hold any more."""
        self._recognised.forget_all()
        self._tenants.forget_all()

    async def create_organization(self, name: str) -> Organization:
        """A new organisation, without tenants. Raises ALREADY_EXISTS for a taken name."""
        check_name("name", name)
        made = Organization(id=str(uuid.uuid4()), name=name, created_at_us=self._clock.now_us())
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(tables.organizations).values(asdict(made)))
        except Conflict as error:
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS, f"an organisation named {name!r} already exists", field="name"
            ) from error
        return made

    async def list_organizations(self) -> list[Organization]:
        """Every organisation, by name."""
        query = select(tables.organizations).order_by(tables.organizations.c.name)
        async with self._database.read() as connection:
            return [Organization(**row._mapping) for row in await connection.execute(query)]


def is_deleted(tenant_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether the tenant is deleted, and only not removed yet."""
    return exists().where(tables.tenant_deletions.c.tenant_id == tenant_id)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _past(time_us: int | None, now_us: int) -> bool:
    return time_us is not None and time_us <= now_us


def _key(row: Row[Any]) -> ApiKey:
    values = dict(row._mapping)
    return ApiKey(**{**values, "role": Role(values["role"])})
