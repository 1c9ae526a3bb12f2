"""Kinds of access, and the roles that have each. What needs which is in `access_table`."""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import Principal, Role


class Access(Enum):
    """What a method or route asks of its caller."""

    PUBLIC = "public"
    """Nothing."""
    TOKEN = "token"  # noqa: S105 - the name of an access
    """A token in the request, which is the credential: addresses of files, shares, links for feedback."""
    PUBLISHED = "published"
    """Nothing, for what its owner has made public; for the rest, to read."""
    MEMBER = "member"
    """Any credential that is good."""
    INGEST = "ingest"
    """To write runs and feedback."""
    READ = "read"
    """To read what the tenant has."""
    EDIT = "edit"
    """To change and delete what the tenant has, and to run graphs."""
    ADMIN = "admin"
    """To change the tenant itself."""
    OPERATOR = "operator"
    """To see and do what concerns all tenants: the operator's key."""


_ROLES: Final[Mapping[Access, frozenset[Role]]] = {
    Access.PUBLISHED: frozenset({Role.READER, Role.EDITOR, Role.ADMIN}),
    Access.MEMBER: frozenset(Role),
    Access.INGEST: frozenset({Role.INGEST_ONLY, Role.EDITOR, Role.ADMIN}),
    Access.READ: frozenset({Role.READER, Role.EDITOR, Role.ADMIN}),
    Access.EDIT: frozenset({Role.EDITOR, Role.ADMIN}),
    Access.ADMIN: frozenset({Role.ADMIN}),
}
"""Roles of each access that is a matter of roles."""

WITHOUT_CREDENTIAL: Final = frozenset({Access.PUBLIC, Access.TOKEN})
"""What is served without asking who calls."""


def has_access(role: Role | None, access: Access, *, is_operator: bool = False) -> bool:
    """Whether a credential with this role covers `access`."""
    if access in WITHOUT_CREDENTIAL:
        return True
    if is_operator and access in (Access.OPERATOR, Access.MEMBER):
        return True
    return role is not None and role in _ROLES.get(access, ())


def check_access(principal: Principal, access: Access) -> None:
    """Raises PERMISSION_DENIED unless `principal` has `access`."""
    if has_access(principal.role, access, is_operator=principal.is_operator):
        return
    if access is Access.OPERATOR:
        message = "this needs the operator's key: runstore keys operator"
    elif principal.is_operator:
        message = "the operator's key is no API key: runstore keys create"
    else:
        message = f"this needs the access to {access.value}, which the role {principal.role} does not have"
    raise RunstoreError(ErrorReason.PERMISSION_DENIED, message)
