"""The guard of the gateway: whom it asks the store about, how often, and what it does not let in."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from starlette.requests import Request
from tests.manual_clock import ManualClock

from runstore.domain.access_table import ROUTES
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.failed_attempts import FailedAttempts
from runstore.gateway.app import create_app
from runstore.gateway.bodies import BodyLimits
from runstore.gateway.guard import Guard
from runstore.gateway.guarded_routes import GuardedRouter, check_guarded
from runstore.gateway.metrics import GatewayMetrics
from runstore.v1 import tenant_service_pb2 as pb

TENANT = "11111111-1111-4111-8111-111111111111"
LIMITS = BodyLimits(*[1024 * 1024] * 6)
ROLES = {"reader": pb.ROLE_READER, "editor": pb.ROLE_EDITOR, "ingest": pb.ROLE_INGEST_ONLY}


@dataclass
class Store:
    """Knows a key for each role; what else it is asked is a defect."""

    questions: list[dict[str, str]] = field(default_factory=list)
    tenants: Any = None
    away: bool = False
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.tenants = self
        self.GetCaller = "GetCaller"
        self.may_answer.set()

    def __getattr__(self, name: str) -> Any:
        return None

    async def ask(self, method: object, request: Any, credentials: Any) -> pb.GetCallerResponse:
        assert method == "GetCaller"
        self.questions.append(dict(credentials))
        self.asked.set()
        await self.may_answer.wait()
        if self.away:
            raise RunstoreError(ErrorReason.UNAVAILABLE, "away")
        key = dict(credentials)["x-api-key"]
        if key not in ROLES:
            raise RunstoreError(ErrorReason.UNAUTHENTICATED, "unknown")
        return pb.GetCallerResponse(tenant_id=TENANT, key_id=key, role=ROLES[key])


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def app(store: Store, clock: ManualClock) -> Any:
    guard = Guard(store, clock, FailedAttempts(clock, per_minute=3))  # type: ignore[arg-type]
    return create_app(store, LIMITS, lambda: 0, GatewayMetrics("gateway", None), guard=guard)  # type: ignore[arg-type]


Client = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def client(app: Any) -> AsyncIterator[Client]:
    opened = []

    def open_client(address: str = "192.0.2.1") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, client=(address, 5))
        opened.append(httpx.AsyncClient(transport=transport, base_url="http://gateway"))
        return opened[-1]

    yield open_client
    for each in opened:
        await each.aclose()


async def test_store_is_asked_once_in_three_seconds(store: Store, client: Client, clock: ManualClock) -> None:
    """For each credential, tenant and organisation that a call names; not for each call."""
    http = client()
    for _ in range(3):
        assert (await http.get("/runs/rules", headers={"x-api-key": "reader"})).status_code == 501
    assert len(store.questions) == 1
    await http.get("/runs/rules", headers={"x-api-key": "reader", "x-tenant-id": TENANT})
    await http.get("/runs/rules", headers={"x-api-key": "editor"})
    assert len(store.questions) == 3
    clock.advance(3)
    await http.get("/runs/rules", headers={"x-api-key": "reader"})
    assert len(store.questions) == 4


async def test_calls_that_wait_for_the_same_answer_ask_once(store: Store, client: Client) -> None:
    """A thousand connections whose credential is forgotten at once are one question, also when one leaves."""
    store.may_answer.clear()
    http = client()
    calls = [asyncio.create_task(http.get("/runs/rules", headers={"x-api-key": "reader"})) for _ in range(10)]
    await store.asked.wait()
    calls[0].cancel()
    store.may_answer.set()
    assert {(await call).status_code for call in calls[1:]} == {501}
    assert len(store.questions) == 1


async def test_bad_credential_is_never_remembered(store: Store, client: Client) -> None:
    """A key that is made a moment later works at once."""
    http = client()
    assert (await http.get("/runs/rules", headers={"x-api-key": "new"})).status_code == 401
    ROLES["new"] = pb.ROLE_READER
    try:
        assert (await http.get("/runs/rules", headers={"x-api-key": "new"})).status_code == 501
    finally:
        del ROLES["new"]


async def test_guesser_has_to_wait_and_nobody_else(store: Store, client: Client, clock: ManualClock) -> None:
    """429 with the seconds after a burst, without asking the store; others and known callers go on."""
    http = client()
    assert (await http.get("/runs/rules", headers={"x-api-key": "reader"})).status_code == 501
    answers = [await http.get("/runs/rules", headers={"x-api-key": f"guess {n}"}) for n in range(5)]
    assert [answer.status_code for answer in answers] == [401] * 3 + [429] * 2
    assert answers[-1].headers["retry-after"] == "20"
    assert len(store.questions) == 4
    clock.advance(5)
    assert (await http.get("/runs/rules", headers={"x-api-key": "reader"})).status_code == 501
    assert (await http.get("/runs/rules", headers={"x-api-key": "editor"})).status_code == 429
    elsewhere = client("192.0.2.2")
    assert (await elsewhere.get("/runs/rules", headers={"x-api-key": "editor"})).status_code == 501


async def test_store_that_is_away_is_no_bad_credential(store: Store, client: Client) -> None:
    """503, and no attempt is counted."""
    store.away = True
    http = client()
    for _ in range(5):
        assert (await http.get("/sessions", headers={"x-api-key": "reader"})).status_code == 503
    store.away = False
    assert (await http.get("/runs/rules", headers={"x-api-key": "reader"})).status_code == 501


async def test_role_is_checked_before_the_request_is_read(client: Client) -> None:
    """403 for a reader that writes, whatever it writes; 422 only for who may."""
    http = client()
    bad: Any = {"content": b"{", "headers": {"x-api-key": "reader"}}
    assert (await http.patch("/sessions/no-id", **bad)).status_code == 403
    assert (await http.post("/runs/batch", **bad)).status_code == 403
    bad["headers"] = {"x-api-key": "editor"}
    assert (await http.patch("/sessions/no-id", **bad)).status_code == 422


def own_routes(app: Any) -> FastAPI:
    """The application below its middleware."""
    while not isinstance(app, FastAPI):
        app = app._app
    return app


def test_every_route_has_an_entry_and_every_entry_a_route(app: Any) -> None:
    """The table has no route that is not served, so none that nobody looks at any more."""
    served = set()
    for route in iter_route_contexts(own_routes(app).routes):
        for method in route.methods or ("*",):
            line = f"{method} {route.path}"
            served.add(line if line in ROUTES else f"* {route.path}")
    assert served == set(ROUTES)


def test_route_without_an_entry_cannot_be_made() -> None:
    """So a new route that nobody has thought about ends the build, not in production."""
    router = GuardedRouter()

    async def answer() -> None: ...

    with pytest.raises(LookupError, match="POST /new has no entry"):
        router.post("/new")(answer)
    with pytest.raises(LookupError, match="PUT /sessions has no entry"):
        router.put("/sessions")(answer)


@pytest.mark.parametrize("path", ["/new", "/sessions"])
def test_route_that_is_not_guarded_ends_the_start(app: Any, path: str) -> None:
    """A plain router would let everybody in, however its route is called."""
    router = APIRouter()

    @router.get(path)
    async def answer(request: Request) -> None: ...

    plain = FastAPI(openapi_url=None)
    check_guarded(plain)
    plain.include_router(router)
    with pytest.raises(LookupError, match=r"no entry|not guarded"):
        check_guarded(plain)
