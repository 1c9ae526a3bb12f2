"""Calls `AdminService` of the running store, for commands: found by the settings, answered or explained."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.settings import AuthMode, Settings
from runstore.runtime.tls import store_channel
from runstore.v1 import admin_service_pb2 as pb
from runstore.v1 import admin_service_pb2_grpc, error_pb2
from runstore.v1 import tenant_service_pb2 as tenant_pb

_TIMEOUT_S = 10.0
# A replay waits until the engine has taken the operations.
_REPLAY_TIMEOUT_S = 600.0
_PAGE_SIZE = 1_000
_MAX_RECEIVE_BYTES = 1024 * 1024 * 1024
_DETAIL_KEY = "runstore-error-bin"


class StoreAway(RunstoreError):
    """The store does not answer."""


class AdminClient:
    """Every method raises StoreAway when nobody answers, and RunstoreError with the store's refusal."""

    def __init__(self, channel: grpc.Channel, target: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self._stub = admin_service_pb2_grpc.AdminServiceStub(channel)
        self._target = target
        self._metadata = metadata

    def status(self) -> pb.GetStatusResponse:
        """How the store is."""
        answer: pb.GetStatusResponse = self._call(self._stub.GetStatus, pb.GetStatusRequest())
        return answer

    def dead_letters(self) -> Iterator[pb.DeadLetter]:
        """Every dead letter, the oldest operation first."""
        token = ""
        while True:
            request = pb.ListDeadLettersRequest(page_size=_PAGE_SIZE, page_token=token)
            page = self._call(self._stub.ListDeadLetters, request)
            yield from page.dead_letters
            token = page.next_page_token
            if not token:
                return

    def dead_letter(self, letter_id: str) -> pb.GetDeadLetterResponse:
        """One dead letter with its operation."""
        request = pb.GetDeadLetterRequest(id=letter_id)
        answer: pb.GetDeadLetterResponse = self._call(self._stub.GetDeadLetter, request)
        return answer

    def replay(self, ids: list[str]) -> list[pb.ReplayResult]:
        """Sends letters on their way again; what became of each."""
        request = pb.ReplayDeadLettersRequest(ids=ids)
        return list(self._call(self._stub.ReplayDeadLetters, request, _REPLAY_TIMEOUT_S).results)

    def drop(self, ids: list[str]) -> list[str]:
        """Removes letters; the ids of those that there were."""
        return list(self._call(self._stub.DropDeadLetters, pb.DropDeadLettersRequest(ids=ids)).ids)

    def tenant_id(self, name: str) -> str:
        """Id of the tenant of that name. Raises NOT_FOUND."""
        for tenant in self._call(self._stub.ListTenants, pb.ListTenantsRequest()).tenants:
            if tenant.name == name:
                return str(tenant.id)
        raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no tenant named {name}")

    def delete_tenant(self, tenant_id: str, name: str) -> pb.TenantDeletion:
        """Shuts a tenant, to be purged by the store; how far that is."""
        request = pb.DeleteTenantRequest(tenant_id=tenant_id, name=name)
        deletion: pb.TenantDeletion = self._call(self._stub.DeleteTenant, request).deletion
        return deletion

    def limits(self, tenant_id: str) -> tenant_pb.TenantLimits:
        """What was set for a tenant."""
        request = pb.GetTenantLimitsRequest(tenant_id=tenant_id)
        limits: tenant_pb.TenantLimits = self._call(self._stub.GetTenantLimits, request).limits
        return limits

    def set_limits(self, tenant_id: str, limits: tenant_pb.TenantLimits) -> None:
        """Replaces what is set for a tenant."""
        request = pb.SetTenantLimitsRequest(tenant_id=tenant_id, limits=limits)
        self._call(self._stub.SetTenantLimits, request)

    def all_limits(self) -> list[pb.LimitedTenant]:
        """The tenants that have limits of their own."""
        return list(self._call(self._stub.ListTenantLimits, pb.ListTenantLimitsRequest()).tenants)

    def create_backup(self, folder: str) -> Iterator[pb.CreateBackupResponse]:
        """Has a backup made; ending the iteration early breaks it off."""
        call: Any = self._stub.CreateBackup(pb.CreateBackupRequest(folder=folder), metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise refusal(error, self._target, _TIMEOUT_S) from error
        finally:
            call.cancel()

    def _call(self, method: Any, request: Any, timeout_s: float = _TIMEOUT_S) -> Any:
        try:
            return method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise refusal(error, self._target, timeout_s) from error


@contextmanager
def admin_client(settings: Settings) -> Iterator[AdminClient]:
    """A client of the store that these settings lead to."""
    options = [("grpc.max_receive_message_length", _MAX_RECEIVE_BYTES)]
    with store_channel(settings, options) as channel:
        yield AdminClient(channel, settings.store_target, _credentials(settings))


def _credentials(settings: Settings) -> tuple[tuple[str, str], ...]:
    """The operator's key, where keys are asked for: from the catalog, which only operators can open."""
    if settings.auth is not AuthMode.KEYS:
        return ()

    from runstore.catalog.catalog import open_catalog

    async def read() -> str:
        async with open_catalog(settings.catalog_location) as catalog:
            return await catalog.operator_key()

    return (("authorization", f"Bearer {asyncio.run(read())}"),)


def refusal(error: Any, target: str, timeout_s: float) -> RunstoreError:
    """What a failed call of the store at `target` means; StoreAway when the store itself has not answered."""
    code, details = error.code(), error.details()
    reason, field = reason_of(error)
    if reason is None and code is grpc.StatusCode.UNAVAILABLE:
        hint = "TLS fails; see RUNSTORE_STORE_CA" if "andshake" in (details or "") else "is it running?"
        return StoreAway(ErrorReason.UNAVAILABLE, f"no store answers at {target}: {hint}")
    if reason is None and code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return StoreAway(
            ErrorReason.DEADLINE_EXCEEDED,
            f"the store at {target} is busy: no answer within {timeout_s:.0f} s",
        )
    return RunstoreError(reason or ErrorReason.INTERNAL, details or code.name, field=field)


def reason_of(error: Any) -> tuple[ErrorReason | None, str]:
    """Why the store has refused a call, and the field at fault; None when it was not the store."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAIL_KEY:
            detail = error_pb2.ErrorDetail.FromString(value)
            name = error_pb2.ErrorReason.Name(detail.reason).removeprefix("ERROR_REASON_")
            return ErrorReason.__members__.get(name, ErrorReason.INTERNAL), detail.field
    return None, ""
