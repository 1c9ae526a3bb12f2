"""Who calls, and in whose workspace: tenants, API keys, and the principal that every call carries."""

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

DEFAULT_TENANT_ID = "7c5e1f5a-3b0d-4c52-9a55-6d0f2b8e4a10"
"""The tenant of authentication mode `none`, and of keys made without `--tenant`: never changes."""

DEFAULT_TENANT_NAME = "default"


class Role(StrEnum):
    """What the holder of a credential may do in its tenant; `domain.access` says what each covers."""

    INGEST_ONLY = "ingest-only"
    """Writes runs and feedback, and reads nothing: for tracers."""
    READER = "reader"
    """Reads everything, and changes nothing."""
    EDITOR = "editor"
    """Reads and writes everything but the tenant's own settings."""
    ADMIN = "admin"
    """All of that, and the tenant's settings."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. Every query and every row is bounded by its tenant."""

    tenant_id: str
    """Canonical UUID text; "" for an operator who is in no tenant, and so has no runs."""
    key_id: str | None
    """The API key used, or a UUID made of a service token's subject; None in authentication mode `none`, and
    for the operator."""
    is_operator: bool = False
    """Whether the caller may see and do what concerns all tenants."""
    role: Role | None = None
    """None for the operator and for nobody, who may do nothing in a tenant."""


ANONYMOUS = Principal("", None)
"""Somebody without credentials, who sees what is public."""

current_tenant_id: ContextVar[str] = ContextVar("current_tenant_id", default="")
"""For whose call something is done, as what is scarce is shared by tenants; "" for the store's own doings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a good credential opens: one tenant, or each tenant of an organisation."""

    key_id: str
    """As in `Principal`."""
    role: Role
    tenant_id: str | None
    """None when it opens an organisation; the call then names the tenant."""
    organization_id: str | None
    """The organisation; None when it opens one tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A workspace: the boundary that no read or write crosses."""

    id: str
    name: str
    """Unique in the deployment."""
    created_at_us: int
    organization_id: str | None = None
    """The organisation that the tenant belongs to, if any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantDeletion:
    """A tenant that nobody can open any more, and of which not everything is removed yet."""

    tenant_id: str
    name: str
    """That it had; another tenant may have it now."""
    deleted_at_us: int
    rows: int = 0
    """Removed so far, of catalog and database; a run has one for each flush that it came in."""
    blobs: int = 0
    """Removed so far."""
    waits_for: str = ""
    """Why the purge is not over; "" before it has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """Tenants that one key may open."""

    id: str
    name: str
    """Unique in the deployment."""
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is kept of an API key: enough to recognise and revoke it, not to use it."""

    id: str
    tenant_id: str | None
    """None for a key of an organisation."""
    organization_id: str | None
    """The organisation of whose tenants it opens each; None for a key of one tenant."""
    role: Role
    name: str
    prefix: str
    """First characters of the secret, for people to tell keys apart."""
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None
    last_used_at_us: int | None
    """To within a minute; None when never used."""
