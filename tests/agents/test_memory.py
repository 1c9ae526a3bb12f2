"""What graphs remember across threads, and that everybody else sees the same."""

import uuid
from typing import Any

from langgraph_sdk.client import LangGraphClient


async def test_nodes_share_the_items_of_the_store(client: LangGraphClient) -> None:
    """Put, got, searched, listed and deleted by nodes, async or not; read through the SDK."""
    user = uuid.uuid4().hex
    await client.runs.wait(None, "memory", input={"user": user, "fact": "tall"})
    result: Any = await client.runs.wait(None, "memory", input={"user": user, "fact": "kind"})
    assert result["facts"] == ["kind", "tall"]
    assert result["namespaces"] == [["facts", user]]
    assert (result["first"]["key"], result["first"]["value"]) == ("kind", {"text": "kind"})
    item: Any = await client.store.get_item(["facts", user], key="tall")
    assert item["value"] == {"text": "tall"}
    await client.runs.wait(None, "memory", input={"user": user, "fact": "nothing"})
    assert (await client.store.search_items(["facts", user]))["items"] == []


async def test_what_the_store_refuses_is_an_error_of_the_node(client: LangGraphClient) -> None:
    """In its own words."""
    result: Any = await client.runs.wait(
        None, "memory", input={"user": "a.b", "fact": "x"}, raise_error=False
    )
    assert result["__error__"]["error"] in ("ValueError", "InvalidNamespaceError")
