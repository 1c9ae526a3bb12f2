"""Who may do what: each route and method with each kind of credential, from the table of access itself."""

import base64
import http.client as http_client
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest

from runstore.domain.access import WITHOUT_CREDENTIAL, Access, has_access
from runstore.domain.access_table import METHODS, ROUTES
from runstore.domain.principals import Role
from runstore.v1 import admin_service_pb2 as admin
from runstore.v1 import admin_service_pb2_grpc, tenant_service_pb2, tenant_service_pb2_grpc

from .servers import Server
from .signing import service_token

ROLES = {
    Role.INGEST_ONLY: tenant_service_pb2.ROLE_INGEST_ONLY,
    Role.READER: tenant_service_pb2.ROLE_READER,
    Role.EDITOR: tenant_service_pb2.ROLE_EDITOR,
    Role.ADMIN: tenant_service_pb2.ROLE_ADMIN,
}
# Stand for services of gRPC itself, which no table of ours describes.
GRPC_OWN = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")


@dataclass(frozen=True)
class Credentials:
    """Of every kind; secrets, and headers that are made of them."""

    tenant_id: str
    other_tenant_id: str
    operator: str
    roles: dict[Role, str]
    expired: str
    revoked: str
    organization: str

    @property
    def bad(self) -> dict[str, dict[str, str]]:
        """Headers that nobody is let in with."""
        unsigned = ".".join(
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
            for part in ({"alg": "none"}, {"sub": "x", "aud": "runstore", "tenant_id": self.tenant_id})
        )
        return {
            "garbage": {"x-api-key": "garbage"},
            "a key of nobody": {"x-api-key": "rsk_" + "x" * 43},
            "an expired key": {"x-api-key": self.expired},
            "a revoked key": {"authorization": f"Bearer {self.revoked}"},
            "an expired token": {"x-service-key": self.token(expires_in_s=-60)},
            "an unsigned token": {"x-service-key": f"{unsigned}."},
            "a token of no tenant": {"x-service-key": service_token(tenant_id=str(uuid4()))},
            "a session of elsewhere": {"cookie": f"runstore_session={self.token(aud='elsewhere')}"},
        }

    @property
    def misplaced(self) -> dict[str, dict[str, str]]:
        """Headers with a good credential, for somewhere else."""
        key = self.roles[Role.ADMIN]
        return {
            "another tenant": {"x-api-key": key, "x-tenant-id": self.other_tenant_id},
            "another organisation": {"x-api-key": key, "x-organization-id": str(uuid4())},
            "another tenant, by token": {"x-service-key": self.token(), "x-tenant-id": self.other_tenant_id},
            "a tenant of no organisation": {
                "x-api-key": self.organization,
                "x-tenant-id": self.other_tenant_id,
            },
        }

    def token(self, **claims: Any) -> str:
        return service_token(**{"tenant_id": self.tenant_id, **claims})


@pytest.fixture(scope="module")
def credentials(guarded: Server, key: str, foreign_key: str) -> Iterator[Credentials]:
    operator = guarded.command("keys", "operator").stdout.strip()
    guarded.command("tenants", "move", "research", "--organization", "acme")
    made = guarded.command("keys", "create", "--name", "all", "--organization", "acme")
    with grpc.insecure_channel(guarded.grpc) as channel:
        admins = admin_service_pb2_grpc.AdminServiceStub(channel)
        tenants = tenant_service_pb2_grpc.TenantServiceStub(channel)
        as_operator = (("authorization", f"Bearer {operator}"),)

        def tenant_of(secret: str) -> str:
            caller = tenants.GetCaller(
                tenant_service_pb2.GetCallerRequest(), metadata=(("x-api-key", secret),)
            )
            return caller.tenant_id

        def create(role: Role, **fields: Any) -> admin.CreateApiKeyResponse:
            request = admin.CreateApiKeyRequest(
                tenant_id=tenant_of(key), role=ROLES[role], name=role.value, **fields
            )
            return admins.CreateApiKey(request, metadata=as_operator)

        revoked, expired = create(Role.ADMIN), admin.CreateApiKeyRequest()
        admins.RevokeApiKey(admin.RevokeApiKeyRequest(id=revoked.api_key.id), metadata=as_operator)
        expired.expire_time.FromSeconds(int(time.time()) - 1)
        yield Credentials(
            tenant_id=tenant_of(key),
            other_tenant_id=tenant_of(foreign_key),
            operator=operator,
            roles={role: create(role).secret for role in Role},
            expired=create(Role.ADMIN, expire_time=expired.expire_time).secret,
            revoked=revoked.secret,
            organization=made.stdout.strip(),
        )


def routes(filling: str = "") -> Iterator[tuple[str, str, Access]]:
    """Method, path and access of each route of the table; ids of nothing are in the path unless given."""
    for line, access in ROUTES.items():
        method, path = line.split()
        if path.startswith("/static"):
            continue
        filled = re.sub(r"{[^}]*}", lambda _: filling or str(uuid4()), path)
        for each in ("GET", "POST", "PATCH", "PUT", "DELETE") if method == "*" else (method,):
            yield each, filled, access


@pytest.fixture(scope="module")
def http(guarded: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, timeout=60) as client:
        yield client


class Wire:
    """A connection without what a client of people does around it: thousands of requests go over it."""

    def __init__(self, host: str) -> None:
        self._connection = http_client.HTTPConnection(host, timeout=60)

    def request(
        self, method: str, path: str, headers: dict[str, str], body: bytes = b""
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def wire(guarded: Server) -> Iterator[Wire]:
    wire = Wire(guarded.url.removeprefix("http://"))
    yield wire
    wire.close()


Kinds = Mapping[str, Mapping[str, str]]
"""Headers by what they are."""

# Each route and method meets each kind, or one of them in turn: what refuses them knows no routes.
each_kind = pytest.mark.parametrize(
    "at_once", [1, pytest.param(None, marks=pytest.mark.slow)], ids=["one kind", "each kind"]
)


def in_turn(kinds: Kinds, number: int, at_once: int | None) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The kinds that the route or method of this number meets."""
    names = list(kinds)
    for step in range(min(at_once or len(names), len(names))):
        name = names[(number + step) % len(names)]
        yield name, kinds[name]


def violations(
    wire: Wire,
    kinds: Kinds,
    status: int,
    *,
    free: frozenset[Access] = WITHOUT_CREDENTIAL,
    at_once: int | None = None,
) -> list[str]:
    """Routes that refuse a call with `status` where they should not, or do not where they should.

    Path and body are broken, so that a route that looked at them first would say so.
    """
    found = []
    for number, (method, path, access) in enumerate(routes("no-id")):
        for name, headers in in_turn(kinds, number, at_once):
            sent = {**headers, "content-type": "application/json"}
            answered, _ = wire.request(method, path, sent, b'{"broken')
            if (answered == status) is (access in free) or answered == 500:
                found.append(f"{method} {path} with {name}: {answered}")
    return found


def test_no_route_answers_without_a_credential(wire: Wire) -> None:
    """401 before anything else is looked at, but for what is public or carries its own token."""
    assert violations(wire, {"nothing": {}}, 401, free=WITHOUT_CREDENTIAL | {Access.PUBLISHED}) == []


@each_kind
def test_no_route_answers_a_bad_credential(wire: Wire, credentials: Credentials, at_once: int | None) -> None:
    """Garbage, expired, revoked, unsigned: 401 everywhere, also where strangers may read."""
    assert violations(wire, credentials.bad, 401, at_once=at_once) == []


@each_kind
def test_no_route_answers_a_credential_of_elsewhere(
    wire: Wire, credentials: Credentials, at_once: int | None
) -> None:
    """A good credential with the name of another tenant or organisation: 403 everywhere."""
    assert violations(wire, credentials.misplaced, 403, at_once=at_once) == []


def test_key_of_an_organisation_names_its_tenant(
    http: httpx.Client, wire: Wire, credentials: Credentials
) -> None:
    """The SDK's own text for it, whatever dialect a route speaks; with the tenant it is let in."""
    headers = {"x-api-key": credentials.organization}
    for method, path, access in routes():
        if access not in WITHOUT_CREDENTIAL:
            answer = wire.request(method, path, headers)
            assert answer == (403, b'{"error":"org_scoped_key_requires_workspace"}'), path
    named = {**headers, "x-tenant-id": credentials.tenant_id}
    assert http.get("/settings", headers=named).json()["id"] == credentials.tenant_id


@pytest.mark.parametrize("role", [*Role, None])
def test_routes_do_what_a_role_may(wire: Wire, credentials: Credentials, role: Role | None) -> None:
    """Each role gets 403 from just those routes that the table closes to it; None is the operator."""
    secret = credentials.operator if role is None else credentials.roles[role]
    found = []
    for method, path, access in routes():
        status, _ = wire.request(method, path, {"authorization": f"Bearer {secret}"})
        may = has_access(role, access, is_operator=role is None)
        expected = status not in (401, 403) if may else status == 403
        if not expected or status == 500:
            found.append(f"{method} {path}: {status}")
    assert found == []


def methods() -> Iterator[tuple[str, Access]]:
    for service, table in METHODS.items():
        if service not in GRPC_OWN:
            yield from ((f"/{service}/{method}", access) for method, access in table.items())


@pytest.fixture(scope="module")
def channel(guarded: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(guarded.grpc) as channel:
        yield channel


def status_of(channel: grpc.Channel, method: str, headers: Mapping[str, str]) -> str:
    """How a call with one empty message ends; on the wire, one message is a stream of one."""
    begin: Any = channel.stream_stream(method, None, None)
    call = begin(iter([b""]), metadata=tuple(headers.items()), timeout=20)
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def violating_methods(
    channel: grpc.Channel, kinds: Kinds, code: str, free: frozenset[Access], at_once: int | None = None
) -> list[str]:
    """Methods that end a call with `code` where they should not, or do not where they should."""
    found = []
    for number, (method, access) in enumerate(methods()):
        for name, headers in in_turn(kinds, number, at_once):
            status = status_of(channel, method, headers)
            if (status == code) is (access in free):
                found.append(f"{method} with {name}: {status}")
    return found


def test_no_method_answers_without_a_credential(channel: grpc.Channel) -> None:
    """As the routes."""
    free = WITHOUT_CREDENTIAL | {Access.PUBLISHED}
    assert violating_methods(channel, {"nothing": {}}, "UNAUTHENTICATED", free) == []


@each_kind
def test_no_method_answers_a_stranger(
    channel: grpc.Channel, credentials: Credentials, at_once: int | None
) -> None:
    """As the routes, for what nobody has issued and for what is meant for elsewhere."""
    free = WITHOUT_CREDENTIAL
    assert violating_methods(channel, credentials.bad, "UNAUTHENTICATED", free, at_once) == []
    assert violating_methods(channel, credentials.misplaced, "PERMISSION_DENIED", free, at_once) == []


@pytest.mark.parametrize("role", [*Role, None])
def test_methods_do_what_a_role_may(
    channel: grpc.Channel, credentials: Credentials, role: Role | None
) -> None:
    """Each role is refused by just those methods that the table closes to it; None is the operator."""
    secret = credentials.operator if role is None else credentials.roles[role]
    found = []
    for method, access in methods():
        status = status_of(channel, method, {"x-api-key": secret})
        may = has_access(role, access, is_operator=role is None)
        if (status == "PERMISSION_DENIED") is may or status in ("UNAUTHENTICATED", "INTERNAL", "UNKNOWN"):
            found.append(f"{method}: {status}")
    assert found == []


@pytest.mark.parametrize("algorithm", ["EdDSA", "HS256"])
@pytest.mark.parametrize("place", ["x-service-key", "authorization", "cookie", "x-api-key"])
def test_token_is_taken_from_each_header(
    http: httpx.Client, credentials: Credentials, algorithm: str, place: str
) -> None:
    """A service token, by the JWKS file or by the secret, opens its tenant with its role."""
    token = credentials.token(algorithm=algorithm, role="reader")
    value = {"authorization": f"Bearer {token}", "cookie": f"runstore_session={token}"}.get(place, token)
    assert http.get("/settings", headers={place: value}).json()["id"] == credentials.tenant_id
    assert http.post("/sessions", headers={place: value}, json={"name": "n"}).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://elsewhere.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_session_does_not_act_for_other_sites(
    http: httpx.Client, credentials: Credentials, headers: dict[str, str], status: int
) -> None:
    """A page of somebody else's cannot have a browser change what its user may change (CSRF)."""
    session = {"cookie": f"runstore_session={credentials.token()}", **headers}
    body = {"query": "any"}
    assert http.post("/runs/query/validate", headers=session, json=body).status_code != 401
    answer = http.post("/sessions", headers=session, json={"name": str(uuid4())})
    assert answer.status_code == status


def test_no_secret_is_logged(guarded: Server, http: httpx.Client, credentials: Credentials) -> None:
    """Not a part of a key, token or cookie is in any log line, whether it was good or bad, at any level."""
    token = credentials.token()
    for headers in (
        {"cookie": f"runstore_session={token}"},
        {"x-service-key": token},
        *credentials.bad.values(),
    ):
        http.get("/sessions", headers=headers)
    secrets = [*credentials.roles.values(), credentials.expired, credentials.revoked, credentials.operator]
    secrets += [
        credentials.organization,
        *(value for bad in credentials.bad.values() for value in bad.values()),
    ]
    tails = {secret.rpartition(" ")[2][-20:] for secret in (*secrets, token)} - {"garbage"}
    text = (guarded.folder / "log").read_text() + guarded.output
    assert '"event": "http_call"' in text
    assert [tail for tail in tails if tail in text] == []
    assert "a secret that only tests have" not in text
