"""Feedback tokens and configurations through the SDKs."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from langsmith import AsyncClient, Client
from langsmith.utils import LangSmithConflictError, LangSmithError, LangSmithNotFoundError

from .servers import Server

pytestmark = pytest.mark.both_catalogs

CONTINUOUS: Any = {"type": "continuous", "min": 0, "max": 1}
CATEGORICAL: Any = {"type": "categorical", "categories": [{"value": 1, "label": "good"}, {"value": 0}]}


@pytest.fixture
def key_name() -> str:
    """A feedback key that no other test uses."""
    return f"key-{uuid.uuid4().hex}"


def given_run(client: Client, project: str) -> uuid.UUID:
    run_id = uuid.uuid4()
    client.create_run("r", {"a": 1}, "tool", id=run_id, project_name=project)
    return run_id


def test_each_use_of_a_token_is_a_record(client: Client, project: str, key_name: str) -> None:
    """`create_presigned_feedback_token` and `create_feedback_from_token`, by id and by url."""
    run_id = given_run(client, project)
    token = client.create_presigned_feedback_token(run_id, key_name)
    assert token.url.rsplit("/", 1)[-1] == str(token.id)
    assert timedelta(hours=2, minutes=59) < token.expires_at.replace(tzinfo=UTC) - datetime.now(UTC)
    client.create_feedback_from_token(token.id, score=1, comment="by id", metadata={"who": "me"})
    client.create_feedback_from_token(token.url, value={"a": "b"}, correction={"right": True})
    records = list(client.list_feedback(run_ids=[run_id]))
    assert len(records) == 2
    second, first = records
    assert (first.key, first.score, first.comment) == (key_name, 1.0, "by id")
    assert first.feedback_source is not None
    assert (first.feedback_source.type, first.feedback_source.metadata) == ("api", {"who": "me"})
    assert (second.value, second.correction) == ({"a": "b"}, {"right": True})


def test_tokens_are_listed_until_they_expire(
    client: Client, server: Server, project: str, key_name: str
) -> None:
    """`create_presigned_feedback_tokens` and `list_presigned_feedback_tokens`; an expired one is no good."""
    run_id = given_run(client, project)
    made = client.create_presigned_feedback_tokens(
        run_id, [key_name, f"{key_name}-2"], expiration=timedelta(days=1)
    )
    assert {token.id for token in client.list_presigned_feedback_tokens(run_id)} == {
        token.id for token in made
    }
    assert list(client.list_presigned_feedback_tokens(uuid.uuid4())) == []
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = client.create_presigned_feedback_token(run_id, key_name, expiration=past)
    assert len(list(client.list_presigned_feedback_tokens(run_id))) == 2
    for token in (expired.id, uuid.uuid4()):
        assert httpx.post(f"{server.url}/feedback/tokens/{token}", json={"score": 1}).status_code == 404


def test_token_judges_one_run_without_a_key(guarded: Server, key: str, project: str, key_name: str) -> None:
    """A link needs no credentials, and serves for nothing but feedback on its run."""
    mine = Client(guarded.url, api_key=key)
    run_id = given_run(mine, project)
    token = mine.create_presigned_feedback_token(run_id, key_name)
    assert httpx.get(token.url, params={"score": 0.5, "comment": "link"}).status_code == 200
    [record] = mine.list_feedback(run_ids=[run_id])
    assert (record.key, record.score, record.comment) == (key_name, 0.5, "link")
    assert httpx.post(token.url, json={"score": "much"}).status_code == 422
    assert httpx.get(f"{guarded.url}/feedback/tokens", params={"run_id": str(run_id)}).status_code == 401
    assert httpx.get(f"{guarded.url}/public/{token.id}/run").status_code == 404
    mine.close()


def test_taken_token_id_is_a_conflict(client: Client, project: str, key_name: str) -> None:
    """The id that a client proposes must be new."""
    run_id = given_run(client, project)
    token_id = uuid.uuid4()
    assert client.create_presigned_feedback_token(run_id, key_name, feedback_id=token_id).id == token_id
    with pytest.raises(LangSmithConflictError):
        client.create_presigned_feedback_token(run_id, key_name, feedback_id=token_id)


def test_token_may_say_what_its_key_means(client: Client, project: str, key_name: str) -> None:
    """`feedback_config` of a token is kept for its key, the first one."""
    run_id = given_run(client, project)
    client.create_presigned_feedback_token(run_id, key_name, feedback_config=CONTINUOUS)
    client.create_presigned_feedback_token(run_id, key_name, feedback_config=CATEGORICAL)
    [config] = client.list_feedback_configs(feedback_key=[key_name])
    assert config.feedback_config["type"] == "continuous"


def test_config_is_created_listed_changed_and_deleted(client: Client, key_name: str) -> None:
    """Each method sees what the one before has done; a deleted key can be used again."""
    made = client.create_feedback_config(key_name, feedback_config=CATEGORICAL, is_lower_score_better=True)
    assert (made.feedback_key, made.is_lower_score_better) == (key_name, True)
    assert made.feedback_config == {
        "type": "categorical",
        "categories": [{"value": 1, "label": "good"}, {"value": 0}],
    }
    again = client.create_feedback_config(key_name, feedback_config=CATEGORICAL, is_lower_score_better=False)
    assert again.modified_at == made.modified_at
    with pytest.raises(LangSmithConflictError):
        client.create_feedback_config(key_name, feedback_config=CONTINUOUS)
    changed = client.update_feedback_config(key_name, is_lower_score_better=False)
    assert (changed.is_lower_score_better, changed.feedback_config) == (False, made.feedback_config)
    changed = client.update_feedback_config(key_name, feedback_config=CONTINUOUS)
    assert changed.feedback_config == {"type": "continuous", "min": 0, "max": 1}
    [listed] = client.list_feedback_configs(feedback_key=[key_name])
    assert listed.feedback_config == changed.feedback_config
    client.delete_feedback_config(key_name)
    assert list(client.list_feedback_configs(feedback_key=[key_name])) == []
    with pytest.raises(LangSmithNotFoundError):
        client.delete_feedback_config(key_name)
    with pytest.raises(LangSmithNotFoundError):
        client.update_feedback_config(key_name, is_lower_score_better=True)
    client.create_feedback_config(key_name, feedback_config=CONTINUOUS)


def test_configs_are_listed_by_part_of_their_key(client: Client, key_name: str) -> None:
    """`name_contains` in any case, by key, with a limit."""
    for suffix in "bac":
        client.create_feedback_config(f"{key_name}-{suffix}", feedback_config=CONTINUOUS)
    found = client.list_feedback_configs(name_contains=key_name.upper())
    assert [config.feedback_key.removeprefix(f"{key_name}-") for config in found] == ["a", "b", "c"]
    assert len(list(client.list_feedback_configs(name_contains=key_name, limit=2))) == 2


def test_configs_of_another_tenant_are_its_own(
    guarded: Server, key: str, foreign_key: str, key_name: str
) -> None:
    """Two tenants give one key two meanings."""
    mine, theirs = Client(guarded.url, api_key=key), Client(guarded.url, api_key=foreign_key)
    mine.create_feedback_config(key_name, feedback_config=CONTINUOUS)
    theirs.create_feedback_config(key_name, feedback_config=CATEGORICAL)
    theirs.delete_feedback_config(key_name)
    assert len(list(mine.list_feedback_configs(feedback_key=[key_name]))) == 1
    mine.close()
    theirs.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/feedback/tokens", {"feedback_key": "k"}, "run_id"),
        ("POST", "/feedback/tokens", {"run_id": "", "feedback_key": ""}, "feedback_key"),
        ("POST", "/feedback/tokens", {"run_id": "", "feedback_key": "k", "expires_in": {}}, "expires_in"),
        ("POST", "/feedback/tokens", [], "tokens"),
        ("GET", "/feedback/tokens", None, "run_id"),
        ("POST", "/feedback/tokens/x", {}, "token"),
        ("POST", "/feedback-configs", {"feedback_key": "k"}, "feedback_config"),
        ("POST", "/feedback-configs", {"feedback_key": "k", "feedback_config": {"type": "x"}}, "type"),
        ("DELETE", "/feedback-configs", None, "feedback_key"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_named(
    server: Server, method: str, path: str, body: Any, field: str
) -> None:
    """422, and the field at fault in the answer."""
    if isinstance(body, dict) and "run_id" in body:
        body = {**body, "run_id": str(uuid.uuid4())}
    answer = httpx.request(method, server.url + path, json=body)
    assert answer.status_code == 422
    assert field in answer.text


async def test_async_client_manages_tokens_and_configs(
    async_client: AsyncClient, project: str, key_name: str
) -> None:
    """Each method of the asynchronous client, once around."""
    run_id = uuid.uuid4()
    await async_client.create_run("r", {"a": 1}, "tool", id=run_id, project_name=project)
    token = await async_client.create_presigned_feedback_token(run_id, key_name)
    await async_client.create_feedback_from_token(token.id, score=1)
    assert [record.key async for record in async_client.list_feedback(run_ids=[run_id])] == [key_name]
    await async_client.create_feedback_config(key_name, feedback_config=CONTINUOUS)
    await async_client.update_feedback_config(key_name, is_lower_score_better=True)
    configs = [config async for config in async_client.list_feedback_configs(feedback_key=[key_name])]
    assert [config.is_lower_score_better for config in configs] == [True]
    await async_client.delete_feedback_config(key_name)
    with pytest.raises(LangSmithError):
        await async_client.delete_feedback_config(key_name)
