"""Every way a call can fail: one catalogue from reason to gRPC code, HTTP status and public meaning.

Raise `RunstoreError` (or a subclass) anywhere below the transports; only the gRPC interceptor and
the gateway's exception handlers turn it into a status. A message names the field and the
offending value's problem, never a payload, a key or SQL.
"""

from dataclasses import dataclass
from enum import Enum

# Short: the SDKs sleep it and retry three times before they drop a batch.
_RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class _Meaning:
    grpc_code: str  # Name of a grpc.StatusCode; the domain does not import grpc.
    http_status: int
    retryable: bool
    retry_after_s: int = 0


class ErrorReason(Enum):
    """Why a call or one operation was refused; the name travels to clients as it stands here."""

    INVALID_ARGUMENT = _Meaning("INVALID_ARGUMENT", 422, False)
    """A field has a value outside its definition."""
    MALFORMED_BODY = _Meaning("INVALID_ARGUMENT", 400, False)
    """The body is not what its content type says: broken JSON, multipart, compression."""
    INVALID_FILTER = _Meaning("INVALID_ARGUMENT", 400, False)
    """A filter expression does not parse, or compares a field with something it cannot hold."""
    INVALID_CURSOR = _Meaning("INVALID_ARGUMENT", 400, False)
    """A cursor was made by another server, for another query, or was altered."""
    UNAUTHENTICATED = _Meaning("UNAUTHENTICATED", 401, False)
    """No credential, or one that nobody issued."""
    PERMISSION_DENIED = _Meaning("PERMISSION_DENIED", 403, False)
    """A good credential that does not cover the tenant or the action."""
    WORKSPACE_REQUIRED = _Meaning("PERMISSION_DENIED", 403, False)
    """A credential of an organisation, in a call that names none of its tenants."""
    NOT_FOUND = _Meaning("NOT_FOUND", 404, False)
    """No such thing in the caller's tenant."""
    ALREADY_EXISTS = _Meaning("ALREADY_EXISTS", 409, False)
    """A unique name or id is taken."""
    CONFLICT = _Meaning("ABORTED", 409, False)
    """Something that is going on forbids it, such as another run of the thread."""
    INCONSISTENT = _Meaning("FAILED_PRECONDITION", 400, False)
    """Each field is good, but not together or not for the thing it is meant for."""
    FAILED_DEPENDENCY = _Meaning("FAILED_PRECONDITION", 424, False)
    """Code of the user that is needed for an answer failed, such as the factory of a graph."""
    TOO_LARGE = _Meaning("OUT_OF_RANGE", 413, False)
    """A body or a field is above its limit, before or after decompression."""
    QUERY_TOO_LONG = _Meaning("DEADLINE_EXCEEDED", 504, False)
    """A question takes longer than one may."""
    QUERY_TOO_LARGE = _Meaning("RESOURCE_EXHAUSTED", 400, False)
    """A question needs more memory than one may."""
    OVERLOADED = _Meaning("RESOURCE_EXHAUSTED", 429, True, _RETRY_AFTER_S)
    """A bounded queue is full; nothing of the call was accepted."""
    RATE_LIMITED = _Meaning("RESOURCE_EXHAUSTED", 429, True, _RETRY_AFTER_S)
    """The caller has done more than it may in so short a time; nothing of the call was accepted."""
    UNIMPLEMENTED = _Meaning("UNIMPLEMENTED", 501, False)
    """Part of the contract that this deployment does not offer."""
    UNAVAILABLE = _Meaning("UNAVAILABLE", 503, True, _RETRY_AFTER_S)
    """The store or its engine cannot be reached, or is starting or draining."""
    DEADLINE_EXCEEDED = _Meaning("DEADLINE_EXCEEDED", 504, True)
    """The caller's deadline passed first."""
    INTERNAL = _Meaning("INTERNAL", 500, True)
    """A defect of runstore; the log has the details, the caller does not."""

    # Members carry equal meanings (several 4xx are alike); identity must not merge them into aliases.
    def __new__(cls, meaning: _Meaning) -> "ErrorReason":
        member = object.__new__(cls)
        member._value_ = len(cls.__members__)
        return member

    def __init__(self, meaning: _Meaning) -> None:
        self.grpc_code = meaning.grpc_code
        self.http_status = meaning.http_status
        self.retryable = meaning.retryable
        self.retry_after_s = meaning.retry_after_s
        """Seconds that the caller is told to wait before it tries again; 0 when it is not told."""


class RunstoreError(Exception):
    """A refusal that is safe to show to the caller."""

    def __init__(
        self, reason: ErrorReason, message: str, *, field: str = "", retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        """Dotted path of the field at fault, as the caller spells it (`start_time`); "" when none is."""
        self.retry_after_s = reason.retry_after_s if retry_after_s is None else retry_after_s
        """Seconds that the caller is told to wait: those of the reason, unless it is known better."""


def invalid(field: str, message: str) -> RunstoreError:
    """The commonest refusal: `field` has a value that cannot be accepted."""
    return RunstoreError(ErrorReason.INVALID_ARGUMENT, message, field=field)
