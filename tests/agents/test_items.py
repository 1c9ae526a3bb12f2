"""What agents remember across threads, through the published SDK (contract agents, section 1.4)."""

import json
import uuid

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import UnprocessableEntityError
from tests.contract.servers import Server


@pytest.fixture
def root() -> str:
    """A label that no other test uses."""
    return f"test-{uuid.uuid4()}"


async def test_items(client: LangGraphClient, root: str) -> None:
    """Put, read, replaced, deleted; what is not there reads as null."""
    store = client.store
    assert await store.get_item([root], "k") is None
    await store.put_item([root, "a"], "k", {"n": 1, "deep": {"x": [1, None, "é"]}})
    first = await store.get_item([root, "a"], "k")
    assert first["namespace"] == [root, "a"]
    assert (first["key"], first["value"]) == ("k", {"n": 1, "deep": {"x": [1, None, "é"]}})
    await store.put_item([root, "a"], "k", {"n": 2})
    second = await store.get_item([root, "a"], "k")
    assert (second["value"], second["created_at"]) == ({"n": 2}, first["created_at"])
    assert second["updated_at"] > first["updated_at"]
    await store.delete_item([root, "a"], "k")
    await store.delete_item([root, "a"], "k")
    assert await store.get_item([root, "a"], "k") is None


async def test_search(client: LangGraphClient, root: str) -> None:
    """By namespace and filter, in pages, the last changed first; a query alone ranks nothing."""
    for number in range(5):
        await client.store.put_item(
            [root, "ab"[number % 2]], f"k{number}", {"n": number, "even": number % 2 == 0}
        )
    found = await client.store.search_items([root], filter={"n": {"$gte": 1}}, limit=2, offset=1)
    assert [(item["key"], item["score"]) for item in found["items"]] == [("k3", None), ("k2", None)]
    found = await client.store.search_items([root, "a"], filter={"even": True}, query="four")
    assert [item["key"] for item in found["items"]] == ["k4", "k2", "k0"]


async def test_namespaces(client: LangGraphClient, root: str) -> None:
    """By both ends, cut to a depth, in pages."""
    for path in (["a", "x"], ["a", "y"], ["b", "x", "z"]):
        await client.store.put_item([root, *path], "k", {})
    listed = await client.store.list_namespaces(prefix=[root], max_depth=2)
    assert listed["namespaces"] == [[root, "a"], [root, "b"]]
    listed = await client.store.list_namespaces(prefix=[root, "*"], suffix=["x"])
    assert listed["namespaces"] == [[root, "a", "x"]]
    listed = await client.store.list_namespaces(prefix=[root], limit=1, offset=1)
    assert listed["namespaces"] == [[root, "a", "y"]]


async def test_time_to_live(client: LangGraphClient, root: str) -> None:
    """An item lives for its minutes."""
    await client.store.put_item([root], "k", {}, ttl=1)
    assert (await client.store.get_item([root], "k", refresh_ttl=False))["value"] == {}
    with pytest.raises(UnprocessableEntityError):
        await client.store.put_item([root], "k", {}, ttl=0)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/store/items", '{"namespace":[],"key":"k","value":{}}'),
        ("PUT", "/store/items", '{"namespace":["a.b"],"key":"k","value":{}}'),
        ("PUT", "/store/items", '{"namespace":["a",""],"key":"k","value":{}}'),
        ("PUT", "/store/items", '{"namespace":["langgraph"],"key":"k","value":{}}'),
        ("PUT", "/store/items", '{"namespace":["a"],"key":"","value":{}}'),
        ("PUT", "/store/items", '{"namespace":["a"],"key":"k","value":[]}'),
        ("PUT", "/store/items", '{"namespace":["a"],"key":"k","value":null}'),
        ("PUT", "/store/items", '{"namespace":["a"],"key":"k"}'),
        ("PUT", "/store/items", '{"namespace":["a"],"key":"k","value":{},"index":true}'),
        ("PUT", "/store/items", '{"namespace":"a","key":"k","value":{}}'),
        ("PUT", "/store/items", '{"namespace":["a\\u0000"],"key":"k","value":{}}'),
        ("PUT", "/store/items", "{"),
        ("DELETE", "/store/items", '{"namespace":["a"]}'),
        ("POST", "/store/items/search", '{"namespace_prefix":["a"],"limit":0}'),
        ("POST", "/store/items/search", '{"namespace_prefix":["a"],"offset":-1}'),
        ("POST", "/store/items/search", '{"filter":{"a":{"$regex":"x"}}}'),
        ("POST", "/store/items/search", '{"filter":[]}'),
        ("POST", "/store/namespaces", '{"max_depth":0}'),
        ("GET", "/store/items?namespace=a", ""),
        ("GET", "/store/items?namespace=a..b&key=k", ""),
    ],
)
async def test_refusals(server: Server, method: str, path: str, body: str) -> None:
    """422 with one sentence."""
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.request(method, path, content=body)
    assert answer.status_code == 422
    assert list(answer.json()) == ["detail"]
    assert isinstance(answer.json()["detail"], str)


async def test_half_of_a_surrogate_pair(server: Server, client: LangGraphClient, root: str) -> None:
    """JavaScript writes such escapes for a cut emoji: what is kept has a replacement for it."""
    body = {"namespace": [root], "key": "k", "value": {"a": "\ud83d"}}
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.put("/store/items", content=json.dumps(body))
    assert answer.status_code == 204
    assert (await client.store.get_item([root], "k"))["value"] == {"a": "\ufffd"}
