"""Assistants in the catalog: default ones, versions, mirror images of config and context, lists."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from tests.manual_clock import ManualClock

from runstore.catalog import Catalog
from runstore.domain.assistants import (
    Assistant,
    AssistantFilter,
    AssistantOrder,
    AssistantPatch,
    Graph,
    default_assistant_id,
)
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID as TENANT

STEPS = "01d10e59-d4b4-51ec-8e94-9b2716b34de8"


@pytest.fixture(autouse=True)
async def graphs(catalog: Catalog) -> None:
    await catalog.assistants.register(
        TENANT, [Graph("steps", "steps"), Graph("intr", "Asks", "Asks people.")]
    )


def patch(**given: Any) -> AssistantPatch:
    """A patch whose objects are encoded."""
    encoded: dict[str, Any] = {
        k: msgspec.json.encode(v) if isinstance(v, dict) else v for k, v in given.items()
    }
    return AssistantPatch(**encoded)


def shown(assistant: Assistant) -> tuple[Any, ...]:
    return (json.loads(assistant.config), json.loads(assistant.context), assistant.version)


async def names(catalog: Catalog, **condition: Any) -> list[str]:
    found, total = await catalog.assistants.search(TENANT, AssistantFilter(**condition))
    assert total == await catalog.assistants.count(TENANT, AssistantFilter(**condition))
    return [assistant.name for assistant in found]


async def refused(call: Any) -> tuple[ErrorReason, str]:
    with pytest.raises(RunstoreError) as refusal:
        await call
    return refusal.value.reason, refusal.value.field


async def test_every_graph_has_a_default_assistant(catalog: Catalog) -> None:
    """Its id is the contract's; it is found by the id and by the graph's name."""
    steps = await catalog.assistants.resolve(TENANT, "steps")
    assert (steps.assistant_id, steps.name, steps.version) == (STEPS, "steps", 1)
    assert json.loads(steps.metadata) == {"created_by": "system"}
    assert await catalog.assistants.resolve(TENANT, STEPS.upper()) == steps
    assert (await catalog.assistants.resolve(TENANT, "intr")).description == "Asks people."
    assert default_assistant_id("intr") == "df4c18b6-4f92-57a5-94c9-1b1a06f2588b"


async def test_names_that_stand_for_nothing(catalog: Catalog) -> None:
    """An unknown id is not found; what is neither id nor graph cannot be asked for."""
    assistants = catalog.assistants
    assert (await refused(assistants.resolve(TENANT, STEPS[:-1] + "9")))[0] is ErrorReason.NOT_FOUND
    for name in ("nothing", "", "x" * 10_000):
        assert (await refused(assistants.resolve(TENANT, name)))[0] is ErrorReason.INVALID_ARGUMENT


async def test_registering_again(catalog: Catalog, other: Catalog) -> None:
    """New names hold until somebody has changed the assistant; workers may register at the same time."""
    again = [Graph("steps", "Steps!"), Graph("third", "third")]
    await asyncio.gather(*(each.assistants.register(TENANT, again) for each in (catalog, other) * 3))
    assert (await catalog.assistants.get(TENANT, STEPS)).name == "Steps!"
    assert sorted(await names(catalog)) == ["Asks", "Steps!", "third"]
    await catalog.assistants.update(TENANT, STEPS, patch(name="mine"))
    await catalog.assistants.register(TENANT, [Graph("steps", "theirs")])
    assert (await catalog.assistants.get(TENANT, STEPS)).name == "mine"


async def test_a_deleted_default_assistant_comes_back(catalog: Catalog) -> None:
    """Once its graph is registered again; until then nothing can be made of the graph."""
    await catalog.assistants.delete(TENANT, STEPS)
    assert (await refused(catalog.assistants.delete(TENANT, STEPS)))[0] is ErrorReason.NOT_FOUND
    assert await refused(catalog.assistants.create(TENANT, None, patch(graph_id="steps"))) == (
        ErrorReason.NOT_FOUND,
        "graph_id",
    )
    await catalog.assistants.register(TENANT, [Graph("steps", "steps")])
    assert (await catalog.assistants.get(TENANT, STEPS)).version == 1


async def test_tenants_have_their_own(catalog: Catalog) -> None:
    """The same default id is another assistant in another tenant, whose graphs are its workers'."""
    other = (await catalog.keys.create_tenant("other")).id
    assert (await refused(catalog.assistants.get(other, STEPS)))[0] is ErrorReason.NOT_FOUND
    await catalog.assistants.register(other, [Graph("steps", "theirs")])
    assert (await catalog.assistants.get(other, STEPS)).name == "theirs"
    assert (await catalog.assistants.get(TENANT, STEPS)).name == "steps"


async def test_config_and_context_are_mirror_images(catalog: Catalog) -> None:
    """Whichever is given becomes both; both at once are inconsistent."""
    create, update = catalog.assistants.create, catalog.assistants.update
    by_config = await create(
        TENANT, None, patch(graph_id="steps", config={"configurable": {"a": 1}, "tags": []})
    )
    assert shown(by_config) == ({"configurable": {"a": 1}, "tags": []}, {"a": 1}, 1)
    by_context = await create(TENANT, None, patch(graph_id="steps", context={"b": 2}))
    assert shown(by_context) == ({"configurable": {"b": 2}}, {"b": 2}, 1)
    both = patch(graph_id="steps", context={"b": 2}, config={"configurable": {"a": 1}})
    assert await refused(create(TENANT, None, both)) == (ErrorReason.INCONSISTENT, "context")
    assistant_id = by_config.assistant_id
    changed = await update(TENANT, assistant_id, patch(context={"c": 3}))
    assert shown(changed) == ({"configurable": {"c": 3}, "tags": []}, {"c": 3}, 2)
    changed = await update(TENANT, assistant_id, patch(config={"recursion_limit": 5}))
    assert shown(changed) == ({"recursion_limit": 5}, {}, 3)


async def test_versions(catalog: Catalog, clock: ManualClock) -> None:
    """Each update is a version; an earlier one may be used again, and the next number is still a new one."""
    assistants = catalog.assistants
    made = await assistants.create(TENANT, None, patch(graph_id="steps", metadata={"a": 1, "b": 1}))
    assert made.name == "Untitled"
    clock.advance(1)
    second = await assistants.update(TENANT, made.assistant_id, patch(metadata={"b": 2}, name="two"))
    assert json.loads(second.metadata) == {"a": 1, "b": 2}
    assert second.created_at_us == made.created_at_us < second.updated_at_us
    first = await assistants.set_latest(TENANT, made.assistant_id, 1)
    assert (first.version, first.name, json.loads(first.metadata)) == (1, "Untitled", {"a": 1, "b": 1})
    assert await assistants.get(TENANT, made.assistant_id) == first
    third = await assistants.update(TENANT, made.assistant_id, patch(graph_id="intr"))
    assert (third.version, third.graph_id, third.name) == (3, "intr", "Untitled")
    versions = await assistants.versions(TENANT, made.assistant_id, None, 0, 10)
    assert [(version.version, version.name) for version in versions] == [
        (3, "Untitled"),
        (2, "two"),
        (1, "Untitled"),
    ]
    versions = await assistants.versions(TENANT, made.assistant_id, {"b": 1}, 1, 10)
    assert [version.version for version in versions] == [1]
    for missing in (0, 4):
        assert (await refused(assistants.set_latest(TENANT, made.assistant_id, missing)))[
            0
        ] is ErrorReason.NOT_FOUND


async def test_concurrent_updates_each_make_a_version(catalog: Catalog, other: Catalog) -> None:
    """No update is lost and no number given twice, also between processes."""
    made = await catalog.assistants.create(TENANT, None, patch(graph_id="steps"))
    await asyncio.gather(
        *(
            each.assistants.update(TENANT, made.assistant_id, patch(metadata={f"k{n}": n}))
            for n, each in enumerate((catalog, other) * 5)
        )
    )
    now = await catalog.assistants.get(TENANT, made.assistant_id)
    assert now.version == 11
    assert json.loads(now.metadata) == {f"k{n}": n for n in range(10)}


async def test_ids_are_taken_once(catalog: Catalog, other: Catalog) -> None:
    """Of several creates of one id one succeeds; who asks for it gets what is there instead."""
    given = patch(graph_id="steps", name="first")
    made = await catalog.assistants.create(TENANT, "0" * 8 + STEPS[8:], given)
    call = other.assistants.create(TENANT, made.assistant_id, patch(graph_id="steps", name="second"))
    assert await refused(call) == (ErrorReason.ALREADY_EXISTS, "assistant_id")
    existing = await other.assistants.create(
        TENANT, made.assistant_id, patch(graph_id="steps", name="second"), return_existing=True
    )
    assert existing == made


async def test_search(catalog: Catalog, clock: ManualClock) -> None:
    """All conditions hold together; any order, in pages, with the number on all of them."""
    for number in range(4):
        clock.advance(1)
        metadata = {"n": number, "even": number % 2 == 0, "deep": {"x": [number]}}
        given = patch(graph_id="intr" if number < 2 else "steps", name=f"Bot {number}%", metadata=metadata)
        await catalog.assistants.create(TENANT, None, given)
    assert (await names(catalog))[:4] == ["Bot 3%", "Bot 2%", "Bot 1%", "Bot 0%"]
    by_name = {"order": AssistantOrder.NAME, "ascending": True, "name_contains": "bot"}
    assert await names(catalog, **by_name, offset=1, limit=2) == ["Bot 1%", "Bot 2%"]
    assert await names(catalog, **by_name, graph_id="intr") == ["Bot 0%", "Bot 1%"]
    assert await names(catalog, **by_name, metadata={"even": True}) == ["Bot 0%", "Bot 2%"]
    assert await names(catalog, **by_name, metadata={"even": True}, offset=1, limit=1) == ["Bot 2%"]
    assert await names(catalog, metadata={"deep": {"x": [3]}}) == ["Bot 3%"]
    assert await names(catalog, name_contains="%", graph_id="nothing") == []
    for order in AssistantOrder:
        assert sorted(await names(catalog, order=order)) == sorted(await names(catalog))


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("metadata", {"metadata": b"[]"}),
        ("config", {"config": b"null"}),
        ("config.configurable", {"config": b'{"configurable":1}'}),
        ("context", {"context": b"1"}),
        ("name", {"name": ""}),
        ("name", {"name": "x" * 513}),
        ("description", {"description": "x\0"}),
    ],
)
async def test_what_cannot_be_stored(catalog: Catalog, field: str, given: dict[str, Any]) -> None:
    """The field at fault is named, at creation and at an update."""
    for call in (
        catalog.assistants.create(TENANT, None, AssistantPatch(graph_id="steps", **given)),
        catalog.assistants.update(TENANT, STEPS, AssistantPatch(**given)),
    ):
        assert await refused(call) == (ErrorReason.INVALID_ARGUMENT, field)
