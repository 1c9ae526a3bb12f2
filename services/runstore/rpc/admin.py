"""Serves `AdminService`."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol, TypeAlias

import grpc
import msgspec

from runstore.catalog.keys import KeyCatalog
from runstore.catalog.tenant_limits import TenantLimitCatalog
from runstore.domain.blob_refs import is_reference, unpack
from runstore.domain.dead_letters import DeadLetter, ReplayOutcome
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.principals import ApiKey, Tenant, TenantDeletion
from runstore.domain.rate_limits import RateLimiter
from runstore.domain.runs import RunPatch
from runstore.ingest.dead_letters import MAX_LETTERS, DeadLetters
from runstore.ingest.sequence import accepted_time_us
from runstore.ingest.validation import uuid_text
from runstore.rpc.call_line import current_call
from runstore.rpc.mapping import optional_time_us, set_time
from runstore.rpc.tenants import effective_limits, limits_message, limits_of, role_message, role_of
from runstore.v1 import admin_service_pb2 as pb
from runstore.v1 import admin_service_pb2_grpc

_DEFAULT_PAGE_SIZE: Final = 100
_OUTCOMES: Final = {
    ReplayOutcome.STORED: pb.REPLAY_OUTCOME_STORED,
    ReplayOutcome.REFUSED: pb.REPLAY_OUTCOME_REFUSED,
    ReplayOutcome.NOT_FOUND: pb.REPLAY_OUTCOME_NOT_FOUND,
}
_PAYLOADS: Final = (
    *("inputs", "outputs", "events", "extra", "manifest"),
    *("value", "correction", "source_metadata"),
)

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class StatusReport(Protocol):
    """Knows how the store is."""

    async def read(self) -> pb.GetStatusResponse:
        """The status, within a few seconds."""
        ...


class Backups(Protocol):
    """Makes backups."""

    def create(self, folder: str) -> AsyncIterator[pb.CreateBackupResponse]:
        """Bring the backup in a folder up to date; the last message has the backup."""
        ...


class Tenants(Protocol):
    """Deletes tenants."""

    async def delete(self, tenant_id: str, name: str) -> TenantDeletion:
        """Return once nothing opens the tenant any more. Raises NOT_FOUND, INVALID_ARGUMENT, INCONSISTENT."""
        ...


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    """Answers operators, and nobody else: the table of access says so."""

    def __init__(
        self,
        dead_letters: DeadLetters,
        keys: KeyCatalog,
        status: StatusReport,
        exposition: Callable[[], bytes],
        backups: Backups,
        tenants: Tenants,
        limits: TenantLimitCatalog,
        limiter: RateLimiter,
    ) -> None:
        """`exposition`: all metrics as text."""
        self._dead_letters = dead_letters
        self._keys = keys
        self._status = status
        self._exposition = exposition
        self._backups = backups
        self._tenants = tenants
        self._limits = limits
        self._limiter = limiter

    async def GetStatus(self, request: pb.GetStatusRequest, context: _Context) -> pb.GetStatusResponse:
        return await self._status.read()

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: _Context) -> pb.GetMetricsResponse:
        return pb.GetMetricsResponse(exposition=self._exposition())

    async def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: _Context
    ) -> pb.ListDeadLettersResponse:
        if request.page_size < 0:
            raise invalid("page_size", "must not be negative")
        size = min(request.page_size or _DEFAULT_PAGE_SIZE, MAX_LETTERS)
        letters = await self._dead_letters.page(request.page_token, size + 1)
        page = letters[:size]
        return pb.ListDeadLettersResponse(
            dead_letters=[_message(letter) for letter in page],
            next_page_token=page[-1].id if len(letters) > size else "",
        )

    async def GetDeadLetter(
        self, request: pb.GetDeadLetterRequest, context: _Context
    ) -> pb.GetDeadLetterResponse:
        letter = await self._dead_letters.get(request.id)
        operation = b"" if letter.patch is None else msgspec.json.encode(_readable(letter.patch))
        return pb.GetDeadLetterResponse(dead_letter=_message(letter), operation=operation)

    async def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: _Context
    ) -> pb.ReplayDeadLettersResponse:
        results = await self._dead_letters.replay(request.ids)
        line = current_call.get()
        line.operations = len(results)
        line.refused = sum(result.outcome is ReplayOutcome.REFUSED for result in results)
        return pb.ReplayDeadLettersResponse(
            results=[
                pb.ReplayResult(id=result.id, outcome=_OUTCOMES[result.outcome], reason=result.reason)
                for result in results
            ]
        )

    async def DropDeadLetters(
        self, request: pb.DropDeadLettersRequest, context: _Context
    ) -> pb.DropDeadLettersResponse:
        dropped = await self._dead_letters.drop(request.ids)
        current_call.get().operations = len(dropped)
        return pb.DropDeadLettersResponse(ids=dropped)

    async def CreateBackup(
        self, request: pb.CreateBackupRequest, context: _Context
    ) -> AsyncIterator[pb.CreateBackupResponse]:
        async for event in self._backups.create(request.folder):
            yield event

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: _Context
    ) -> pb.CreateApiKeyResponse:
        key, secret = await self._keys.create_key(
            request.tenant_id or None,
            request.name,
            optional_time_us(request, "expire_time"),
            role=role_of(request.role),
            organization_id=request.organization_id or None,
        )
        return pb.CreateApiKeyResponse(api_key=_key_message(key), secret=secret)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: _Context) -> pb.ListApiKeysResponse:
        keys = await self._keys.list_keys(request.tenant_id or None)
        return pb.ListApiKeysResponse(api_keys=map(_key_message, keys))

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, context: _Context
    ) -> pb.RevokeApiKeyResponse:
        return pb.RevokeApiKeyResponse(api_key=_key_message(await self._keys.revoke_key(request.id)))

    async def ListTenants(self, request: pb.ListTenantsRequest, context: _Context) -> pb.ListTenantsResponse:
        response = pb.ListTenantsResponse()
        for tenant in await self._keys.list_tenants():
            message = response.tenants.add(id=tenant.id, name=tenant.name)
            set_time(message.create_time, tenant.created_at_us)
        return response

    async def DeleteTenant(
        self, request: pb.DeleteTenantRequest, context: _Context
    ) -> pb.DeleteTenantResponse:
        deletion = await self._tenants.delete(uuid_text("tenant_id", request.tenant_id), request.name)
        return pb.DeleteTenantResponse(deletion=deletion_message(deletion))

    async def GetTenantLimits(
        self, request: pb.GetTenantLimitsRequest, context: _Context
    ) -> pb.GetTenantLimitsResponse:
        tenant = await self._tenant(request.tenant_id)
        return pb.GetTenantLimitsResponse(
            limits=limits_message(await self._limits.of(tenant.id)),
            effective=effective_limits(await self._limiter.limits_of(tenant.id)),
        )

    async def SetTenantLimits(
        self, request: pb.SetTenantLimitsRequest, context: _Context
    ) -> pb.SetTenantLimitsResponse:
        tenant = await self._tenant(request.tenant_id)
        await self._limits.set(tenant.id, limits_of(request.limits))
        self._limiter.forget(tenant.id)
        return pb.SetTenantLimitsResponse(
            effective=effective_limits(await self._limiter.limits_of(tenant.id))
        )

    async def ListTenantLimits(
        self, request: pb.ListTenantLimitsRequest, context: _Context
    ) -> pb.ListTenantLimitsResponse:
        limits = await self._limits.all()
        return pb.ListTenantLimitsResponse(
            tenants=[
                pb.LimitedTenant(
                    tenant_id=tenant.id, name=tenant.name, limits=limits_message(limits[tenant.id])
                )
                for tenant in await self._keys.list_tenants()
                if tenant.id in limits
            ]
        )

    async def _tenant(self, given: str) -> Tenant:
        tenant = await self._keys.find_tenant(uuid_text("tenant_id", given))
        if tenant is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, "there is no such tenant", field="tenant_id")
        return tenant


def deletion_message(deletion: TenantDeletion) -> pb.TenantDeletion:
    """How far a deletion is."""
    message = pb.TenantDeletion(
        tenant_id=deletion.tenant_id,
        name=deletion.name,
        removed_rows=deletion.rows,
        removed_blobs=deletion.blobs,
        waits_for=deletion.waits_for,
    )
    set_time(message.delete_time, deletion.deleted_at_us)
    return message


def _key_message(key: ApiKey) -> pb.ApiKey:
    message = pb.ApiKey(id=key.id, role=role_message(key.role), name=key.name, prefix=key.prefix)
    if key.tenant_id is not None:
        message.tenant_id = key.tenant_id
    elif key.organization_id is not None:
        message.organization_id = key.organization_id
    set_time(message.create_time, key.created_at_us)
    for field, time_us in (
        (message.expire_time, key.expires_at_us),
        (message.revoke_time, key.revoked_at_us),
        (message.last_use_time, key.last_used_at_us),
    ):
        if time_us is not None:
            set_time(field, time_us)
    return message


def _message(letter: DeadLetter) -> pb.DeadLetter:
    message = pb.DeadLetter(
        id=letter.id,
        tenant_id=letter.tenant_id,
        run_id=letter.run_id,
        reason=letter.reason,
        size_bytes=letter.size_bytes,
    )
    set_time(message.accept_time, accepted_time_us(letter.sequence))
    if letter.buried_at_us:
        set_time(message.bury_time, letter.buried_at_us)
    return message


def _readable(patch: RunPatch | FeedbackPatch) -> dict[str, Any]:
    """The operation for people: payloads as JSON, attachments and large payloads without their content."""
    fields: dict[str, Any] = {
        name: value for name in patch.__struct_fields__ if (value := getattr(patch, name)) is not None
    }
    fields.update({name: _payload(fields[name]) for name in _PAYLOADS if name in fields})
    if isinstance(patch, RunPatch) and patch.attachments is not None:
        fields["attachments"] = {
            name: {"mime_type": file.mime_type, "size_bytes": file.size_bytes()}
            for name, file in patch.attachments.items()
        }
    return fields


def _payload(column: bytes) -> object:
    if is_reference(column):
        blob, _ = unpack(column)
        return {"blob": blob.key, "size_bytes": blob.size_bytes}
    # Validated when it was accepted, so it can stand in JSON as it is.
    return msgspec.Raw(column)
