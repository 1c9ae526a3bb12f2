"""Who calls: credentials in call metadata, as the public contract names them, to a principal."""

import hmac
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Protocol

from runstore.domain.credentials import credential
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID, Grant, Principal, Role, Tenant
from runstore.rpc.service_tokens import ServiceTokens

current_principal: ContextVar[Principal] = ContextVar("current_principal")
"""Set by the interceptor for the duration of a call."""


class Authenticator(Protocol):
    """Recognises callers."""

    async def principal(self, metadata: Mapping[str, str], /) -> Principal:
        """The caller. Raises UNAUTHENTICATED, PERMISSION_DENIED, WORKSPACE_REQUIRED."""
        ...


class Keys(Protocol):
    """What authentication needs of the catalog."""

    async def authenticate(self, secret: str) -> Grant | None:
        """What the key opens, or None for a key that nobody issued."""
        ...

    async def find_tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant, or None."""
        ...


class NoAuthentication:
    """Everybody is the operator and an admin of the default tenant, whatever credentials they send."""

    async def principal(self, metadata: Mapping[str, str], /) -> Principal:
        return Principal(DEFAULT_TENANT_ID, None, is_operator=True, role=Role.ADMIN)


class KeyAuthentication:
    """Callers carry an API key, a service token, or the operator's key."""

    def __init__(self, keys: Keys, operator_key: str, tokens: ServiceTokens | None = None) -> None:
        """`tokens`: None where no service token is accepted."""
        self._keys = keys
        self._operator_key = operator_key.encode()
        self._tokens = tokens

    async def principal(self, metadata: Mapping[str, str], /) -> Principal:
        secret = credential(metadata)
        if not secret:
            raise RunstoreError(
                ErrorReason.UNAUTHENTICATED, "a credential is needed, such as an API key: x-api-key"
            )
        if hmac.compare_digest(secret.encode(), self._operator_key):
            return Principal("", None, is_operator=True)
        grant = await self._grant(secret)
        if grant is None:
            raise RunstoreError(ErrorReason.UNAUTHENTICATED, "the credential is unknown, expired or revoked")
        return Principal(await self._tenant_id(grant, metadata), grant.key_id, role=grant.role)

    async def _grant(self, secret: str) -> Grant | None:
        grant = await self._keys.authenticate(secret)
        if grant is None and self._tokens is not None:
            grant = self._tokens.grant(secret)
            # Its issuer does not know which tenants there are.
            if (
                grant is not None
                and grant.tenant_id
                and await self._keys.find_tenant(grant.tenant_id) is None
            ):
                return None
        return grant

    async def _tenant_id(self, grant: Grant, metadata: Mapping[str, str]) -> str:
        """The tenant that the call is about: the credential's own, or the one that it names."""
        named = metadata.get("x-tenant-id", "").lower()
        organization_id = metadata.get("x-organization-id", "").lower()
        if grant.tenant_id is not None and named not in ("", grant.tenant_id):
            raise _not_of("tenant", "x-tenant-id")
        if grant.organization_id is not None and organization_id not in ("", grant.organization_id):
            raise _not_of("organisation", "x-organization-id")
        tenant_id = grant.tenant_id or named
        if not tenant_id:
            raise RunstoreError(
                ErrorReason.WORKSPACE_REQUIRED,
                "the credential opens an organisation: name one of its tenants",
                field="x-tenant-id",
            )
        needed = grant.organization_id or organization_id
        if needed:
            tenant = await self._keys.find_tenant(tenant_id)
            if tenant is None or tenant.organization_id != needed:
                raise _not_of("tenant", "x-tenant-id")
        return tenant_id


def _not_of(what: str, field: str) -> RunstoreError:
    return RunstoreError(
        ErrorReason.PERMISSION_DENIED, f"the credential does not belong to this {what}", field=field
    )
