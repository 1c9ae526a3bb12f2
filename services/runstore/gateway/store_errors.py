"""Errors of calls to the store as `RunstoreError`."""

from collections.abc import Iterable
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.v1 import error_pb2

_ERROR_DETAIL_KEY: Final = "runstore-error-bin"
_STATUS_KEY: Final = "grpc-status-details-bin"

# For errors that come from gRPC itself or from a proxy, without our detail. Their texts hold
# addresses and internals, so the caller gets these instead.
_BARE_CODES: Final = {
    grpc.StatusCode.UNAVAILABLE: (ErrorReason.UNAVAILABLE, "The store cannot be reached."),
    grpc.StatusCode.CANCELLED: (ErrorReason.UNAVAILABLE, "The store is stopping."),
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        ErrorReason.DEADLINE_EXCEEDED,
        "The store did not answer in time.",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (ErrorReason.OVERLOADED, "The store is overloaded."),
    grpc.StatusCode.UNIMPLEMENTED: (ErrorReason.UNIMPLEMENTED, "The store does not offer this."),
    grpc.StatusCode.UNAUTHENTICATED: (ErrorReason.UNAUTHENTICATED, "Invalid credentials."),
    grpc.StatusCode.PERMISSION_DENIED: (ErrorReason.PERMISSION_DENIED, "Not allowed."),
    grpc.StatusCode.NOT_FOUND: (ErrorReason.NOT_FOUND, "Not found."),
}

_log = structlog.get_logger(__name__)


def store_is_away(error: BaseException) -> bool:
    """The connection failed; a store that answers UNAVAILABLE by itself says why in the detail."""
    return (
        isinstance(error, grpc.aio.AioRpcError)
        and error.code() is grpc.StatusCode.UNAVAILABLE
        and error_detail(error.trailing_metadata()) is None
    )


def unreachable() -> RunstoreError:
    """The error of a store that no connection can be made to."""
    return RunstoreError(*_BARE_CODES[grpc.StatusCode.UNAVAILABLE])


def refusal(error: grpc.aio.AioRpcError) -> RunstoreError:
    """The store's own error as it raised it; for one of gRPC or a proxy, a text without its internals."""
    detail = error_detail(error.trailing_metadata())
    if detail is None:
        if "larger than max" in (error.details() or ""):  # gRPC's own limit of a message
            return RunstoreError(ErrorReason.TOO_LARGE, "Too large for one message to or from the store.")
        bare = _BARE_CODES.get(error.code())
        if bare is None:
            _log.error("store_failed", code=error.code().name, details=error.details())
            return RunstoreError(ErrorReason.INTERNAL, "")
        return RunstoreError(*bare)
    name = error_pb2.ErrorReason.Name(detail.reason).removeprefix("ERROR_REASON_")
    reason = ErrorReason.__members__.get(name, ErrorReason.INTERNAL)
    return RunstoreError(
        reason,
        error.details() or "",
        field=detail.field,
        retry_after_s=_retry_after_s(error.trailing_metadata()),
    )


def _retry_after_s(metadata: Iterable[Any] | None) -> int | None:
    """Seconds that the caller is told to wait; None when it is told nothing."""
    for key, value in metadata or ():
        if key == _STATUS_KEY and isinstance(value, bytes):
            for detail in Status.FromString(value).details:
                retry = RetryInfo()
                if detail.Unpack(retry):
                    return int(retry.retry_delay.seconds)
    return None


def error_detail(metadata: Iterable[Any] | None) -> error_pb2.ErrorDetail | None:
    """What the store said about an error; None when the error is not the store's."""
    for key, value in metadata or ():
        if key == _ERROR_DETAIL_KEY and isinstance(value, bytes):
            try:
                return error_pb2.ErrorDetail.FromString(value)
            except DecodeError:
                return None
    return None
