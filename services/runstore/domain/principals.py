"""Who calls, and in whose workspace: tenants, API keys, and the principal that every call carries."""

from contextvars import ContextVar
from dataclasses import dataclass

DEFAULT_TENANT_ID = "7c5e1f5a-3b0d-4c52-9a55-6d0f2b8e4a10"
"""The tenant of authentication mode `none`, and of keys made without `--tenant`: never changes."""

DEFAULT_TENANT_NAME = "default"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. Every query and every row is bounded by its tenant."""

    tenant_id: str
    """Canonical UUID text; "" for an operator who is in no tenant, and so has no runs."""
    key_id: str | None
    """The API key used; None in authentication mode `none`, and for the operator."""
    is_operator: bool = False
    """Whether the caller may see and do what concerns all tenants."""


ANONYMOUS = Principal("", None)
"""Somebody without credentials, who sees what is public."""

current_tenant_id: ContextVar[str] = ContextVar("current_tenant_id", default="")
"""For whose call something is done, as what is scarce is shared by tenants; "" for the store's own doings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A workspace: the boundary that no read or write crosses."""

    id: str
    name: str
    """Unique in the deployment."""
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is kept of an API key: enough to recognise and revoke it, not to use it."""

    id: str
    tenant_id: str
    name: str
    prefix: str
    """First characters of the secret, for people to tell keys apart."""
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None
    last_used_at_us: int | None
    """To within a minute; None when never used."""
