"""Every public method of the SDK works, or is refused with a reason: what `docs/compatibility.md` says."""

import asyncio
import inspect
import json
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from langsmith import AsyncClient, AsyncLangsmith, Client
from langsmith._exceptions import APIStatusError
from langsmith.schemas import InsightsReport
from langsmith.utils import LangSmithError

from .servers import ROOT, Server
from .surface import datasets_and_feedback, prompts, refusals, resources, runs_and_projects
from .surface.calling import Sdk
from .surface.document import compatibility_page
from .surface.methods import generated, handwritten
from .surface.scenarios import SHOWN, Shown, World

pytestmark = pytest.mark.both_catalogs(slow=True)

PAGE = ROOT / "docs" / "compatibility.md"
REWRITE = os.environ.get("RUNSTORE_REWRITE_GOLDENS") == "1"
# Imported for the scenarios that they register.
MODULES = (datasets_and_feedback, prompts, resources, runs_and_projects)
CLIENTS: dict[str, Callable[[str], Any]] = {
    "Client": lambda url: Client(url, api_key="any"),
    # After ten seconds it would repeat a call, and what it makes be there twice.
    "AsyncClient": lambda url: AsyncClient(url, api_key="any", timeout_ms=(60_000,) * 4),
    "generated": lambda url: AsyncLangsmith(base_url=url, api_key="any"),
}


@pytest.fixture(scope="module")
def world(server: Server) -> Iterator[World]:
    """Written once."""
    client = Client(server.url, api_key="any")
    made = World(server.url, client)
    made.prepare()
    yield made
    client.close()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """The loop that asynchronous clients live in."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def clients(world: World) -> dict[str, Any]:
    """One of each kind: making them takes longer than most scenarios."""
    return {kind: make(world.url) for kind, make in CLIENTS.items()}


@pytest.mark.parametrize(
    ("shown", "kind"),
    [
        pytest.param(shown, kind, id=f"{shown.place}-{kind}")
        for shown in SHOWN
        for kind in shown.clients
    ],
)  # fmt: skip
def test_methods_work(
    world: World, clients: dict[str, Any], runner: asyncio.Runner, shown: Shown, kind: str
) -> None:
    """A scenario holds, and every method that it is said to show has answered in it."""
    answered: set[str] = set()
    closes = {"close", "aclose"} & set(shown.methods)
    client = CLIENTS[kind](world.url) if closes else clients[kind]
    shown.scenario(Sdk(client, runner, answered), world)
    assert set(shown.methods) <= answered


def test_each_scenario_names_methods_that_exist() -> None:
    """A method that a newer SDK has dropped is noticed."""
    known = {"Client": handwritten(Client), "AsyncClient": handwritten(AsyncClient), "generated": generated()}
    for shown in SHOWN:
        for kind in shown.clients:
            assert set(shown.methods) <= set(known[kind]), shown.scenario
    assert set(refusals.HANDWRITTEN) <= set(known["Client"]) - set(known["AsyncClient"])


def arguments_of(world: World) -> dict[str, dict[str, Any]]:
    """What the refused methods of `Client` are called with."""
    project_id, some_id = str(world.project_id), str(uuid.uuid4())
    report = InsightsReport(
        id=some_id, name="r", status="pending", project_id=project_id, host_url=world.url, tenant_id=some_id
    )
    formula = {"feedback_key": "k", "aggregation_type": "sum", "formula_parts": []}
    return {
        "generate_insights": {"chat_histories": [], "openai_api_key": "none"},
        "poll_insights": {"report": report},
        "get_insights_report": {"report": report},
        "list_project_issues": {"project_name": world.project},
        "create_feedback_formula": formula,
        "update_feedback_formula": {"feedback_formula_id": some_id, **formula},
        "get_feedback_formula_by_id": {"feedback_formula_id": some_id},
        "delete_feedback_formula": {"feedback_formula_id": some_id},
        "list_feedback_formulas": {},
    }


@pytest.mark.parametrize("method", refusals.HANDWRITTEN)
def test_refused_methods_say_why(world: World, method: str) -> None:
    """501 with the reason; or the SDK does not send anything at all."""
    refusal = refusals.HANDWRITTEN[method]
    expected = LangSmithError if refusal.is_sent else NotImplementedError  # Raised by the SDK, unsent.
    call = getattr(world.client, method)
    with pytest.raises(expected) as refused:
        list(call(**arguments_of(world)[method]))  # A list is not asked for before it is read.
    if refusal.is_sent:
        assert "501" in str(refused.value)
        assert refusal.why in str(refused.value)


@pytest.mark.parametrize(
    "path", [each for each in generated() if each.partition(".")[0] in refusals.GENERATED]
)
def test_refused_resources_say_why(clients: dict[str, Any], runner: asyncio.Runner, path: str) -> None:
    """501 with the reason, once: the generated client would repeat it otherwise."""
    requests: list[httpx.Request] = []
    client = clients["generated"]
    client._client.event_hooks = {"request": [_noting(requests)]}
    target: Any = client
    for name in path.split("."):
        target = getattr(target, name)
    needed = {
        name: "x"
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.default is parameter.empty
    }
    with pytest.raises(APIStatusError) as refused:
        getattr_path(Sdk(client, runner, set()), path)(**needed)
    assert refused.value.status_code == 501
    assert refusals.GENERATED[path.partition(".")[0]].why in str(refused.value)
    assert len(requests) == 1


def _noting(requests: list[httpx.Request]) -> Callable[[httpx.Request], Any]:
    async def note(request: httpx.Request) -> None:
        requests.append(request)

    return note


def getattr_path(target: Any, path: str) -> Any:
    for name in path.split("."):
        target = getattr(target, name)
    return target


@pytest.mark.parametrize(
    "parameter", [pytest.param(each, id=each.name.split(",")[0]) for each in refusals.PARAMETERS]
)
def test_parameters_are_refused_or_change_nothing(world: World, parameter: refusals.Parameter) -> None:
    """501 for what would change the answer, none for what would not."""
    method, path, sent = parameter.request
    project_id = str(world.project_id)
    given = json.loads(json.dumps(sent).replace("{project}", project_id))
    answer = httpx.request(
        method,
        world.url + path.replace("{project}", project_id),
        headers={"accept": "text/event-stream"} if "ai_search" in sent else {},
        **{"params" if method == "GET" else "json": given},
    )
    assert answer.status_code == parameter.status, answer.text


def test_page_is_up_to_date() -> None:
    """`docs/compatibility.md` says what the scenarios show, of every method of the SDK."""
    page = compatibility_page()
    if REWRITE:
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page
