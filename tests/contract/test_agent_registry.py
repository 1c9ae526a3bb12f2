"""Registered agents, the addresses that tracers name instead of a project, and what these stand for."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import langsmith
import pytest
from langsmith import Client, traceable
from langsmith._exceptions import NotFoundError
from langsmith.utils import LangSmithError

from .servers import Server

pytestmark = pytest.mark.both_catalogs(slow=True)

UNKNOWN = uuid.UUID(int=7, version=4)


@pytest.fixture
def agent_id() -> str:
    """An id that no other test uses."""
    return f"a-{uuid.uuid4().hex}"


def project_of(client: Client, agent_id: str, environment: Any) -> str:
    """The project that an address stands for."""
    resolved = client._get_langsmith_api_sync().sessions.resolve(
        kind="AGENT", id=agent_id, environment=environment
    )
    return resolved.session_id


def test_traces_reach_the_project_of_their_address(client: Client, agent_id: str) -> None:
    """Traced, posted and judged by address; the project is the registered agent's."""
    staging = langsmith.agent_address(agent_id, "staging")

    @traceable(client=client, address=staging)
    def answer(question: str) -> str:
        return f"{question}!"

    with langsmith.tracing_context(enabled=True):
        answer("why")
    client.create_run("direct", {}, "tool", address=staging)
    client.flush()
    project_id = project_of(client, agent_id, "STAGING")
    runs = list(client.list_runs(project_id=project_id))
    assert {run.name for run in runs} == {"answer", "direct"}
    client.create_feedback(key="k", score=1, address=staging, run_id=runs[0].id)
    client.flush()
    [judged] = client.list_feedback(run_ids=[runs[0].id])
    assert str(judged.session_id) == project_id
    made = client.agents.create(id=agent_id)
    places = {each.environment: each.tracer_session_id for each in made.environments}
    assert places["STAGING"] == project_id
    assert project_id in client.get_run_url(run=runs[0], address=staging)
    client.agents.delete(agent_id)
    with pytest.raises(NotFoundError):
        project_of(client, agent_id, "STAGING")
    assert list(client.list_runs(run_ids=[runs[0].id])) == []


def test_deletions_of_one_agent_at_one_moment(client: Client, agent_id: str) -> None:
    """Each is told that it is gone, and so are its projects."""
    made = client.agents.create(id=agent_id)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(client.agents.delete, [agent_id] * 4))
    with pytest.raises(NotFoundError):
        client.agents.retrieve(agent_id)
    assert not any(client.has_project(each.tracer_session_name) for each in made.environments)


def test_feedback_does_not_make_the_project_of_its_address(client: Client, agent_id: str) -> None:
    """Other than a run, feedback on an address that nobody has traced under is refused."""
    address = "lrn:agents/{}/environments/local"
    body = {"run_id": str(uuid.uuid4()), "key": "k", "address": address.format(agent_id)}
    answer = httpx.post(f"{client.api_url}/feedback", json=body)
    assert (answer.status_code, "no project" in answer.text) == (422, True)


def test_other_addresses_are_resolved(client: Client, server: Server) -> None:
    """An experiment is its project; evaluators share one; what is neither is not found."""
    sessions = client._get_langsmith_api_sync().sessions
    experiment = client.create_project(f"e-{uuid.uuid4().hex}", reference_dataset_id=uuid.uuid4())
    plain = client.create_project(f"p-{uuid.uuid4().hex}")
    evaluators = client.create_project("evaluators", upsert=True)
    assert sessions.resolve(kind="EXPERIMENT", id=str(experiment.id)).session_id == str(experiment.id)
    assert sessions.resolve(kind="EVALUATOR").session_id == str(evaluators.id)
    for missing in (str(plain.id), str(uuid.uuid4())):
        with pytest.raises(NotFoundError):
            sessions.resolve(kind="EXPERIMENT", id=missing)
    lower = {"kind": "experiment", "id": str(experiment.id)}
    answer = httpx.get(f"{server.url}/api/v1/sessions/resolutions", params=lower)
    assert answer.json() == {"session_id": str(experiment.id)}


@pytest.mark.parametrize("order", ["created_at", "name"])
@pytest.mark.parametrize("page_size", [1, 2, 100])
def test_agents_are_listed_in_order_once_each(
    client: Client, agent_id: str, order: Any, page_size: int
) -> None:
    """Pages neither overlap nor leave gaps, in both directions; whoever has the whole name comes first."""
    ids = [f"{agent_id}-{letter}" for letter in "cab"]
    names = {each: f"{agent_id} {number}" for each, number in zip(ids, (2, 3, 1), strict=True)}
    for each in ids:
        client.agents.create(id=each, name=names[each], source_type="FLEET", production_only=True)

    def listed(**conditions: Any) -> list[str]:
        return [agent.id for agent in client.agents.list(page_size=page_size, **conditions)]

    ascending = ids if order == "created_at" else sorted(ids, key=names.__getitem__)
    asked: dict[str, Any] = {"name": agent_id.upper(), "sort_by": order}
    assert listed(**asked, sort_order="asc") == ascending
    assert listed(**asked, sort_order="desc") == ascending[::-1]
    client.agents.update(ids[0], name=agent_id)
    client.agents.update(ids[1], name=f"{agent_id} 0")
    assert listed(**asked)[0] == ids[0]
    assert listed(id=ids[1:], name=f"{agent_id} 0") == [ids[1]]
    assert listed(name=agent_id, source_type="EXTERNAL") == []
    for each in ids:
        client.agents.delete(each)


def test_deletion_between_pages_loses_no_agent(client: Client, agent_id: str) -> None:
    """A walk goes on behind an agent that is gone."""
    ids = [f"{agent_id}-{n}" for n in range(3)]
    for each in ids:
        client.agents.create(id=each, source_type="FLEET", production_only=True)
    first = client.agents.list(name=agent_id, page_size=1)
    client.agents.delete(ids[2])
    assert [agent.id for agent in first] == ids[::-1]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "", {"id": "Upper"}, 422, "id"),
        ("POST", "", {"id": "ends-"}, 422, "id"),
        ("POST", "", {"id": "a" * 64}, 422, "id"),
        ("POST", "", {}, 422, "id"),
        ("POST", "", {"id": "a", "production_only": True}, 422, "production_only"),
        ("POST", "", {"id": "a", "source_type": "X"}, 422, "source_type"),
        ("GET", "?limit=5", None, 422, "limit"),
        ("GET", "?cursor=x", None, 400, "cursor"),
        ("GET", "?cursor=WzEsMiwzXQ==", None, 400, "cursor"),
        ("GET", "?page_size=0", None, 422, "page_size"),
        ("GET", "?sort_by=last_run_start_time", None, 501, "sorted by their runs"),
        ("GET", "/nobody", None, 404, "nobody"),
        ("PATCH", "/nobody", {"name": "n"}, 404, "nobody"),
        ("PATCH", "/{agent}", {"id": "other"}, 422, "id"),
        ("PATCH", "/{agent}", {"name": ""}, 422, "name"),
        ("PATCH", "/{agent}", {"source_type": "LSD"}, 422, "source_type"),
        ("PATCH", "/{agent}", {"owner_id": "o" * 65}, 422, "owner_id"),
        ("GET", "/../sessions/resolutions?kind=AGENT&id=a", None, 422, "environment"),
        ("GET", "/../sessions/resolutions?kind=AGENT&environment=LOCAL", None, 422, "id"),
        ("GET", "/../sessions/resolutions?kind=AGENT&id=A&environment=LOCAL", None, 422, "id"),
        ("GET", "/../sessions/resolutions?kind=EXPERIMENT&id=x", None, 422, "id"),
        ("GET", "/../sessions/resolutions?kind=x", None, 422, "kind"),
        ("POST", "/../runs", {"id": str(UNKNOWN), "name": "r", "run_type": "tool",
                              "address": "lrn:agents/a/environments/moon"}, 422, "address"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_named(
    server: Server, client: Client, agent_id: str, method: str, path: str, body: Any, status: int, field: str
) -> None:
    """The status of the contract, and the field at fault in the answer."""
    if "{agent}" in path:
        client.agents.create(id=agent_id, source_type="FLEET", production_only=True)
    url = (f"{server.url}/agents" + path.format(agent=agent_id)).replace("/agents/..", "")
    answer = httpx.request(method, url, json=body)
    assert answer.status_code == status, answer.text
    assert field in answer.text


def test_tenants_do_not_meet(guarded: Server, key: str, foreign_key: str, agent_id: str) -> None:
    """Two tenants register one id; neither reads, changes, resolves or deletes the other's."""
    mine, theirs = (Client(guarded.url, api_key=each) for each in (key, foreign_key))
    mine.agents.create(id=agent_id, name="mine")
    with pytest.raises(NotFoundError):
        theirs.agents.retrieve(agent_id)
    with pytest.raises(NotFoundError):
        theirs.agents.update(agent_id, name="theirs")
    with pytest.raises(NotFoundError):
        project_of(theirs, agent_id, "LOCAL")
    theirs.agents.delete(agent_id)
    theirs.agents.create(id=agent_id, name="theirs")
    assert mine.agents.retrieve(agent_id).name == "mine"
    assert project_of(mine, agent_id, "LOCAL") != project_of(theirs, agent_id, "LOCAL")
    with pytest.raises(LangSmithError):
        Client(guarded.url, api_key="nobody's").list_runs(project_name="x").__next__()


# --- evaluators ---------------------------------------------------------------------------------------

CODE = {"type": "code", "name": "n", "code_evaluator": {"code": "pass"}}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "", {**CODE, "name": ""}, 422, "name"),
        ("POST", "", {**CODE, "type": "decision_model"}, 422, "type"),
        ("POST", "", {**CODE, "code_evaluator": {"language": "python"}}, 422, "code_evaluator.code"),
        ("POST", "", {**CODE, "type": "llm"}, 422, "llm_evaluator"),
        ("POST", "", {"type": "llm", "name": "n", "llm_evaluator": {}}, 422, "prompt_repo_handle"),
        ("POST", "", {**CODE, "llm_evaluator": {"prompt_repo_handle": "p"}}, 422, "only one"),
        ("POST", "", {**CODE, "code_evaluator": {"code": "x" * (1024 * 1024)}}, 422, "definition"),
        ("PATCH", "/{evaluator}", {"llm_evaluator": {"prompt_repo_handle": "p"}}, 422, "definition"),
        ("PATCH", f"/{UNKNOWN}", {"name": "n"}, 404, "id"),
        ("GET", "/x", None, 422, "evaluator_id"),
        ("GET", "?limit=0", None, 422, "limit"),
        ("GET", "?sort_by=color", None, 422, "sort_by"),
        ("GET", "/spend?group_by=evaluator", None, 422, "period_start"),
        ("GET", "/spend?period_start=2026-01-05", None, 422, "exactly one"),
        ("DELETE", "", None, 422, "evaluator_ids"),
        ("DELETE", f"/{UNKNOWN}", None, 404, "id"),
    ],
)  # fmt: skip
def test_bad_evaluators_are_refused_and_named(
    server: Server, method: str, path: str, body: Any, status: int, field: str
) -> None:
    """The status of the contract, and the field at fault in the answer."""
    url = f"{server.url}/v1/platform/evaluators"
    made = httpx.post(url, json=CODE).json()["evaluator"]
    answer = httpx.request(method, url + path.format(evaluator=made["id"]), json=body)
    assert answer.status_code == status, answer.text
    assert field in answer.text


def test_evaluators_keep_what_a_change_leaves_out(server: Server) -> None:
    """Keys of the definition change one by one, and null is a value; the other kind stays null."""
    url = f"{server.url}/v1/platform/evaluators"
    prompt = {"prompt_repo_handle": "judge", "commit_hash_or_tag": "latest", "variable_mapping": {"a": "b"}}
    body = {"type": "llm", "name": f"n-{uuid.uuid4().hex}", "llm_evaluator": prompt}
    made = httpx.post(url, json=body).json()["evaluator"]
    changes = {"llm_evaluator": {"commit_hash_or_tag": "prod", "variable_mapping": None}}
    httpx.patch(f"{url}/{made['id']}", json=changes).raise_for_status()
    read = httpx.get(f"{url}/{made['id']}").json()
    assert read["llm_evaluator"] == {
        "evaluator_id": made["id"], "prompt_repo_handle": "judge", "commit_hash_or_tag": "prod",
        "variable_mapping": None,
    }  # fmt: skip
    assert (read["code_evaluator"], read["name"]) == (None, body["name"])
    asked: list[tuple[dict[str, str], int]] = [
        ({"type": "llm"}, 1),
        ({"type": "code"}, 0),
        ({"feedback_key": "k"}, 0),
    ]
    for query, count in asked:
        found = httpx.get(url, params={"name_contains": str(body["name"]), **query}).json()
        assert (len(found["evaluators"]), found["total"]) == (count, count)


def test_evaluators_of_another_tenant_are_not_found(guarded: Server, key: str, foreign_key: str) -> None:
    """Read, changed, listed and deleted by their own tenant alone."""
    url = f"{guarded.url}/v1/platform/evaluators"
    mine, theirs = ({"x-api-key": each} for each in (key, foreign_key))
    made = httpx.post(url, json=CODE, headers=mine).json()["evaluator"]
    own = f"{url}/{made['id']}"
    assert httpx.get(own, headers=theirs).status_code == 404
    assert httpx.patch(own, json={"name": "x"}, headers=theirs).status_code == 404
    assert httpx.delete(own, headers=theirs).status_code == 404
    assert httpx.delete(url, params={"evaluator_ids": made["id"]}, headers=theirs).json()["succeeded"] == []
    assert httpx.get(url, headers=theirs).json()["total"] == 0
    assert httpx.get(own, headers=mine).json()["name"] == "n"
    for path in ("", "/spend?period_start=2026-01-05&group_by=evaluator"):
        assert httpx.get(url + path).status_code == 401
