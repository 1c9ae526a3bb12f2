"""Items of agents in the catalog."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.manual_clock import ManualClock

from runstore.catalog import Catalog
from runstore.domain.agent_items import ItemQuery, NamespaceQuery
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID as TENANT


async def put(catalog: Catalog, namespace: str, key: str, ttl: float | None = None, **value: Any) -> None:
    """Puts an item under a path with dots."""
    await catalog.agent_items.put(TENANT, tuple(namespace.split(".")), key, msgspec.json.encode(value), ttl)


async def keys(catalog: Catalog, query: ItemQuery) -> list[str]:
    return [item.key for item in await catalog.agent_items.search(TENANT, query)]


async def test_put_get_replace_delete(catalog: Catalog, clock: ManualClock) -> None:
    """Putting again replaces the value and keeps the time of creation; deleting twice is no harm."""
    items = catalog.agent_items
    assert await items.get(TENANT, ("a",), "k", refreshes_ttl=True) is None
    await put(catalog, "a", "k", n=1)
    clock.advance(5)
    await put(catalog, "a", "k", n=2)
    item = await items.get(TENANT, ("a",), "k", refreshes_ttl=True)
    assert item is not None
    assert item.value == b'{"n":2}'
    assert item.updated_at_us - item.created_at_us == 5_000_000
    await items.delete(TENANT, ("a",), "k")
    await items.delete(TENANT, ("a",), "k")
    assert await items.get(TENANT, ("a",), "k", refreshes_ttl=True) is None


async def test_tenants_see_their_own(catalog: Catalog) -> None:
    """The same path and key hold another item in another tenant."""
    other = (await catalog.keys.create_tenant("other")).id
    await put(catalog, "a", "k", n=1)
    items = catalog.agent_items
    assert await items.get(other, ("a",), "k", refreshes_ttl=True) is None
    assert await items.search(other, ItemQuery()) == []
    assert await items.namespaces(other, NamespaceQuery()) == []
    await items.put(other, ("a",), "k", b"{}", None)
    assert len(await items.search(TENANT, ItemQuery())) == 1


async def test_search_is_by_labels_not_by_letters(catalog: Catalog, clock: ManualClock) -> None:
    """A prefix is whole labels: `a` finds `a` and `a.b`, not `ab`, `a-b` or `a/b`; the last changed first."""
    for namespace in ("a", "a.b", "a.b.c", "ab", "a-b", "a/b", "é"):
        clock.advance(1)
        await put(catalog, namespace, namespace)
    assert await keys(catalog, ItemQuery(namespace_prefix=("a",))) == ["a.b.c", "a.b", "a"]
    assert await keys(catalog, ItemQuery(namespace_prefix=("a", "b"))) == ["a.b.c", "a.b"]
    assert await keys(catalog, ItemQuery(namespace_prefix=("é",))) == ["é"]
    assert len(await keys(catalog, ItemQuery())) == 7
    assert await keys(catalog, ItemQuery(offset=2, limit=2)) == ["a-b", "ab"]
    assert await keys(catalog, ItemQuery(offset=7)) == []


async def test_filtered_search_pages(catalog: Catalog, clock: ManualClock) -> None:
    """Pages of a filtered search hold each match once, in order."""
    for number in range(20):
        clock.advance(1)
        await put(catalog, "a", f"{number:02}", even=number % 2 == 0, n=number)
    condition = {"even": True, "n": {"$gt": 3}}
    pages = [
        await keys(catalog, ItemQuery(filter=condition, offset=start, limit=3)) for start in (0, 3, 6, 9)
    ]
    assert pages == [["18", "16", "14"], ["12", "10", "08"], ["06", "04"], []]


async def test_time_to_live(catalog: Catalog, clock: ManualClock) -> None:
    """Reading and finding renew it, unless told; afterwards the item is nowhere, and a new one is new."""
    items = catalog.agent_items
    await put(catalog, "a", "k", 1.0, n=1)
    for _ in range(3):
        clock.advance(50)
        assert await items.get(TENANT, ("a",), "k", refreshes_ttl=True) is not None
    clock.advance(50)
    assert await keys(catalog, ItemQuery()) == ["k"]
    clock.advance(50)
    assert await items.get(TENANT, ("a",), "k", refreshes_ttl=False) is not None
    clock.advance(10)
    assert await items.get(TENANT, ("a",), "k", refreshes_ttl=True) is None
    assert await keys(catalog, ItemQuery()) == []
    assert await items.namespaces(TENANT, NamespaceQuery()) == []
    await put(catalog, "a", "k", n=2)
    item = await items.get(TENANT, ("a",), "k", refreshes_ttl=True)
    assert item is not None
    assert item.created_at_us == clock.now_us()
    assert await items.forget_expired() == 0


async def test_expired_items_are_removed(catalog: Catalog, clock: ManualClock) -> None:
    """The sweep removes what has outlived its time, and nothing else."""
    await put(catalog, "a", "short", 1.0)
    await put(catalog, "a", "long", 3.0)
    await put(catalog, "a", "ever")
    clock.advance(61)
    assert await catalog.agent_items.forget_expired() == 1
    assert sorted(await keys(catalog, ItemQuery())) == ["ever", "long"]


async def test_namespaces(catalog: Catalog) -> None:
    """Each once, in the order of labels, by both ends, cut to a depth, in pages."""
    for namespace in ("b", "a.x", "a.x.y", "a.z", "a-1"):
        await put(catalog, namespace, "1")
        await put(catalog, namespace, "2")
    items = catalog.agent_items
    everything = [("a", "x"), ("a", "x", "y"), ("a", "z"), ("a-1",), ("b",)]
    assert await items.namespaces(TENANT, NamespaceQuery()) == everything
    assert await items.namespaces(TENANT, NamespaceQuery(offset=1, limit=2)) == everything[1:3]
    assert await items.namespaces(TENANT, NamespaceQuery(prefix=("a",), max_depth=1)) == [("a",)]
    assert await items.namespaces(TENANT, NamespaceQuery(prefix=("*", "x"))) == everything[:2]
    assert await items.namespaces(TENANT, NamespaceQuery(suffix=("y",))) == [("a", "x", "y")]


async def test_concurrent_puts_all_succeed(catalog: Catalog, other: Catalog) -> None:
    """Two processes that create the same item at the same time both succeed; one value stays."""
    await asyncio.gather(*(put(each, "a", "k", n=n) for n in range(10) for each in (catalog, other)))
    assert await keys(catalog, ItemQuery()) == ["k"]


@pytest.mark.parametrize("value", [b"", b"[]", b"null", b"{", b'{"a":1}x', b"\xff"])
async def test_values_that_are_no_objects(catalog: Catalog, value: bytes) -> None:
    """Only JSON objects are kept."""
    with pytest.raises(RunstoreError) as refusal:
        await catalog.agent_items.put(TENANT, ("a",), "k", value, None)
    assert refusal.value.field == "value"


async def test_values_have_a_limit(catalog: Catalog) -> None:
    """One byte above 16 MiB is too large."""
    value = b'{"a":"' + b"x" * (16 * 1024 * 1024 - 7) + b'"}'
    with pytest.raises(RunstoreError) as refusal:
        await catalog.agent_items.put(TENANT, ("a",), "k", value, None)
    assert refusal.value.reason is ErrorReason.TOO_LARGE
