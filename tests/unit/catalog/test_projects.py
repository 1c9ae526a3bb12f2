"""Projects: made once under concurrency, bounded by tenant, listed as the contract says."""

import asyncio
import dataclasses
from typing import Any

import pytest

from runstore.catalog import Catalog
from runstore.catalog.projects import contains
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID
from runstore.domain.projects import Project, ProjectFilter, ProjectPatch

TENANT = DEFAULT_TENANT_ID
DATASET = "00000000-0000-0000-0000-00000000da7a"


async def given_project(catalog: Catalog, name: str, **fields: Any) -> Project:
    return await catalog.projects.create(dataclasses.replace(catalog.projects.new(TENANT, name), **fields))


async def names(catalog: Catalog, condition: ProjectFilter, tenant_id: str = TENANT) -> list[str]:
    return [project.name for project in await catalog.projects.list(tenant_id, condition)]


async def test_fresh_catalog_has_the_default_project(catalog: Catalog) -> None:
    """A server that nobody wrote to lists exactly the project `default`."""
    assert await names(catalog, ProjectFilter()) == ["default"]


async def test_new_tenant_has_its_own_default_project(catalog: Catalog) -> None:
    """Each tenant starts with a `default` project that is not the other tenant's."""
    tenant = await catalog.keys.create_tenant("research")
    theirs = await catalog.projects.resolve(tenant.id, "default")
    ours = await catalog.projects.resolve(TENANT, "default")
    assert theirs.tenant_id == tenant.id
    assert theirs.id != ours.id


async def test_concurrent_resolves_of_one_name_get_one_project(catalog: Catalog, other: Catalog) -> None:
    """Two processes that see a new name at the same time agree on its project."""
    resolved = await asyncio.gather(
        *(each.projects.resolve(TENANT, "fresh") for _ in range(10) for each in (catalog, other))
    )
    assert len({project.id for project in resolved}) == 1
    assert await names(catalog, ProjectFilter(name="fresh")) == ["fresh"]


async def test_resolved_name_is_cached_until_it_changes(catalog: Catalog) -> None:
    """`cached_id` knows a name after its resolution, and no longer after a rename or deletion."""
    assert catalog.projects.cached_id(TENANT, "p") is None
    project = await catalog.projects.resolve(TENANT, "p")
    assert catalog.projects.cached_id(TENANT, "p") == project.id
    await catalog.projects.update(TENANT, project.id, ProjectPatch(name="q"))
    assert catalog.projects.cached_id(TENANT, "p") is None
    assert (await catalog.projects.resolve(TENANT, "q")).id == project.id
    await catalog.projects.delete(TENANT, project.id)
    assert catalog.projects.cached_id(TENANT, "q") is None
    assert not await catalog.projects.exists(TENANT, project.id)


async def test_deletion_by_another_process_is_seen_within_the_time_to_live(
    catalog: Catalog, other: Catalog, clock
) -> None:
    """A cached name outlives its project for ten seconds at most."""
    project = await catalog.projects.resolve(TENANT, "p")
    assert await catalog.projects.exists(TENANT, project.id)
    await other.projects.delete(TENANT, project.id)
    clock.advance(10)
    assert catalog.projects.cached_id(TENANT, "p") is None
    assert not await catalog.projects.exists(TENANT, project.id)


async def test_taken_name_is_a_conflict_without_upsert(catalog: Catalog) -> None:
    """Creating a second project of one name fails, unless the caller wants the existing one."""
    first = await given_project(catalog, "p")
    with pytest.raises(RunstoreError) as refused:
        await given_project(catalog, "p")
    assert refused.value.reason is ErrorReason.ALREADY_EXISTS
    assert refused.value.field == "name"
    assert await catalog.projects.create(catalog.projects.new(TENANT, "p"), upsert=True) == first


async def test_same_name_in_two_tenants_is_no_conflict(catalog: Catalog) -> None:
    """Names are unique within a tenant only."""
    tenant = await catalog.keys.create_tenant("research")
    await given_project(catalog, "p")
    theirs = await catalog.projects.create(catalog.projects.new(tenant.id, "p"))
    assert await names(catalog, ProjectFilter(name="p"), tenant.id) == ["p"]
    assert theirs.tenant_id == tenant.id


async def test_taken_id_is_a_conflict_even_with_upsert(catalog: Catalog) -> None:
    """A client may propose an id, but not one of another project."""
    first = await given_project(catalog, "p")
    with pytest.raises(RunstoreError) as refused:
        await catalog.projects.create(
            dataclasses.replace(catalog.projects.new(TENANT, "q"), id=first.id), upsert=True
        )
    assert refused.value.reason is ErrorReason.ALREADY_EXISTS
    assert refused.value.field == "id"


async def test_project_of_an_unknown_tenant_is_refused(catalog: Catalog) -> None:
    """Nothing is stored for a tenant that does not exist."""
    with pytest.raises(RunstoreError) as refused:
        await catalog.projects.resolve("00000000-0000-0000-0000-000000000001", "p")
    assert refused.value.reason is ErrorReason.NOT_FOUND


async def test_stored_project_reads_back_unchanged(catalog: Catalog) -> None:
    """Every field survives, `extra` byte for byte."""
    project = await given_project(
        catalog,
        "p",
        description="über",
        extra=b'{ "metadata": {"n": 1.0} }',
        reference_dataset_id=DATASET,
        end_time_us=5,
    )
    assert await catalog.projects.get(TENANT, project.id) == project


@pytest.mark.parametrize("call", ["get", "update", "delete"])
async def test_project_of_another_tenant_is_not_found(catalog: Catalog, call: str) -> None:
    """Knowing an id of another tenant gives neither its content nor power over it."""
    tenant = await catalog.keys.create_tenant("research")
    project = await given_project(catalog, "p")
    arguments = [ProjectPatch(name="stolen")] if call == "update" else []
    with pytest.raises(RunstoreError) as refused:
        await getattr(catalog.projects, call)(tenant.id, project.id, *arguments)
    assert refused.value.reason is ErrorReason.NOT_FOUND
    assert await catalog.projects.get(TENANT, project.id) == project
    assert not await catalog.projects.exists(tenant.id, project.id)


async def test_patch_changes_what_it_sets_and_keeps_the_rest(catalog: Catalog, clock) -> None:
    """None keeps a field; `extra` is replaced as a whole; the modification time moves."""
    project = await given_project(catalog, "p", description="d", extra=b'{"a":1,"metadata":{}}')
    clock.advance(1)
    changed = await catalog.projects.update(TENANT, project.id, ProjectPatch(extra=b'{"b":2}', end_time_us=9))
    expected = dataclasses.replace(
        project, extra=b'{"b":2}', end_time_us=9, modified_at_us=project.modified_at_us + 1_000_000
    )
    assert changed == expected
    assert await catalog.projects.get(TENANT, project.id) == expected


async def test_rename_to_a_taken_name_is_a_conflict(catalog: Catalog) -> None:
    """A rename never merges two projects."""
    await given_project(catalog, "p")
    project = await given_project(catalog, "q")
    with pytest.raises(RunstoreError) as refused:
        await catalog.projects.update(TENANT, project.id, ProjectPatch(name="p"))
    assert refused.value.reason is ErrorReason.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 513}, "name"),
        ({"name": "nul\0"}, "name"),
        ({"name": "half \ud83d"}, "name"),
        ({"description": "nul\0"}, "description"),
        ({"extra": b"[]"}, "extra"),
        ({"extra": b"{"}, "extra"),
        ({"extra": b"\xff"}, "extra"),
    ],
)
async def test_unstorable_values_are_refused_by_name(catalog: Catalog, fields, field: str) -> None:
    """A create or an update with a value that no database could keep names the field."""
    project = await given_project(catalog, "p")
    with pytest.raises(RunstoreError) as refused:
        await given_project(catalog, **{"name": "q", **fields})
    assert (refused.value.reason, refused.value.field) == (ErrorReason.INVALID_ARGUMENT, field)
    with pytest.raises(RunstoreError) as refused:
        await catalog.projects.update(TENANT, project.id, ProjectPatch(**fields))
    assert (refused.value.reason, refused.value.field) == (ErrorReason.INVALID_ARGUMENT, field)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (ProjectFilter(name="alpha"), ["alpha"]),
        (ProjectFilter(name="ALPHA"), []),
        (ProjectFilter(name_contains="PH"), ["alpha"]),
        (ProjectFilter(name_contains="%"), ["100%_a"]),
        (ProjectFilter(name_contains="%a"), []),
        (ProjectFilter(reference_dataset_ids=(DATASET,)), ["beta"]),
        (ProjectFilter(reference_free=False), ["beta"]),
        (ProjectFilter(reference_free=True), ["100%_a", "alpha", "default"]),
        (ProjectFilter(descending=False), ["default", "alpha", "beta", "100%_a"]),
        (ProjectFilter(offset=1, limit=2), ["beta", "alpha"]),
        (ProjectFilter(offset=9), []),
        (ProjectFilter(limit=0), []),
        (ProjectFilter(ids=("not-a-uuid",)), []),
        (ProjectFilter(name="half \udc00"), None),
        (ProjectFilter(metadata='{"team":"a"}'), ["beta", "alpha"]),
        (ProjectFilter(metadata='{"team":"a"}', offset=1, limit=1), ["alpha"]),
        (ProjectFilter(metadata='{"team":"a","tags":["y"]}'), ["alpha"]),
        (ProjectFilter(metadata="{}", name="alpha"), ["alpha"]),
        (ProjectFilter(metadata="[]"), None),
        (ProjectFilter(metadata="{"), None),
        (ProjectFilter(offset=-1), None),
        (ProjectFilter(limit=-1), None),
    ],
)
async def test_list_applies_every_condition(
    catalog: Catalog, clock, condition: ProjectFilter, expected: list[str] | None
) -> None:
    """Newest first; name parts ignore case and know no wildcards; None stands for a refusal."""
    clock.advance(1)
    await given_project(catalog, "alpha", extra=b'{"metadata":{"team":"a","tags":["x","y"]}}')
    clock.advance(1)
    await given_project(catalog, "beta", extra=b'{"metadata":{"team":"a"}}', reference_dataset_id=DATASET)
    clock.advance(1)
    await given_project(catalog, "100%_a")
    if expected is None:
        with pytest.raises(RunstoreError) as refused:
            await names(catalog, condition)
        assert refused.value.reason is ErrorReason.INVALID_ARGUMENT
    else:
        assert await names(catalog, condition) == expected


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, True),
        ({"a": [1, 2, {"b": 3, "c": 4}]}, {"a": [{"b": 3}, 1]}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": None}, {"b": None}, False),
        (None, {}, False),
        ({"a": "xy"}, {"a": "x"}, False),
    ],
)
def test_containment_is_that_of_jsonb(value: object, wanted: object, expected: bool) -> None:
    """Objects contain by key, arrays by element, scalars by equality of JSON values."""
    assert contains(value, wanted) is expected
