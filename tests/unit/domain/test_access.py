"""The table of access: complete, without leftovers, and the roles as they are documented."""

import pytest
from google.protobuf import descriptor_pool

from runstore.domain.access import Access, has_access
from runstore.domain.access_table import METHODS, ROUTES, method_access, route_access
from runstore.domain.principals import Role
from runstore.rpc.server import SERVICES


def test_every_method_has_an_entry_and_every_entry_a_method() -> None:
    """The methods of the table are those of the services that the store serves, and of gRPC's own."""
    own = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert set(METHODS) == {*SERVICES, *own}
    for name in SERVICES:
        service = descriptor_pool.Default().FindServiceByName(name)
        assert {method.name for method in service.methods} == set(METHODS[name]), name


@pytest.mark.parametrize(
    ("role", "accesses"),
    [
        (None, ""),
        (Role.INGEST_ONLY, "member ingest"),
        (Role.READER, "published member read"),
        (Role.EDITOR, "published member ingest read edit"),
        (Role.ADMIN, "published member ingest read edit admin"),
    ],
)
def test_roles_have_the_access_that_is_documented(role: Role | None, accesses: str) -> None:
    """No role has more; what needs no credential is open to nobody in particular; none is an operator."""
    free = {Access.PUBLIC, Access.TOKEN}
    found = {access for access in Access if has_access(role, access)}
    assert found == {*free, *map(Access, accesses.split())}


def test_operator_reads_no_runs() -> None:
    """The operator's key opens what concerns all tenants, and no tenant."""
    found = {access for access in Access if has_access(None, access, is_operator=True)}
    assert found == {Access.PUBLIC, Access.TOKEN, Access.MEMBER, Access.OPERATOR}


@pytest.mark.parametrize(
    "method", ["/runstore.v1.RunQueryService/NewMethod", "/runstore.v1.NewService/Get", "", "/", "/a"]
)
def test_unknown_method_has_no_access(method: str) -> None:
    """What nobody has thought about is refused, not open."""
    with pytest.raises(LookupError, match="no entry"):
        method_access(method)


def test_unknown_route_has_no_access() -> None:
    """Nor is another method of a known path."""
    with pytest.raises(LookupError, match="no entry"):
        route_access("PUT", "/sessions")


def test_routes_say_their_method() -> None:
    """Every line of the table is `METHOD /path`."""
    for line in ROUTES:
        method, path = line.split(" ")
        assert method in ("*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        assert path.startswith("/")
