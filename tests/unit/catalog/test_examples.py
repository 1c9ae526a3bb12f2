"""Examples in a real SQLite catalog: versions under concurrent writers, and blobs that are in use."""

import asyncio
import uuid

import pytest

from runstore.catalog import Catalog
from runstore.domain.datasets import Dataset
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.examples import Example, ExampleChange, ExampleFile, ExampleFilter
from runstore.domain.principals import DEFAULT_TENANT_ID as TENANT


async def new_dataset(catalog: Catalog) -> str:
    """The id of an empty dataset."""
    dataset_id = str(uuid.uuid4())
    await catalog.datasets.create(
        Dataset(id=dataset_id, tenant_id=TENANT, name=dataset_id, created_at_us=1, modified_at_us=1)
    )
    return dataset_id


def created(example_id: str | None = None, inputs: bytes = b"{}") -> ExampleChange:
    return ExampleChange(id=example_id or str(uuid.uuid4()), is_create=True, inputs=inputs)


async def listed(catalog: Catalog, dataset_id: str, version: int | str = "latest") -> list[Example]:
    return await catalog.examples.list(TENANT, ExampleFilter(dataset_id=dataset_id, version=version))


async def test_writers_of_one_moment_make_distinct_versions(catalog: Catalog, other: Catalog) -> None:
    """On a clock that stands still each write has a time of its own, and a version shows what it should."""
    dataset_id = await new_dataset(catalog)
    writes = [
        (catalog, other)[i % 2].examples.write(TENANT, dataset_id, [created(inputs=b'{"i":%d}' % i)])
        for i in range(20)
    ]
    versions = sorted(await asyncio.gather(*writes))
    assert len(set(versions)) == 20
    assert [len(await listed(catalog, dataset_id, version)) for version in versions] == list(range(1, 21))
    assert (await catalog.datasets.get(TENANT, dataset_id)).example_count == 20


async def test_one_of_two_creates_of_an_id_wins(catalog: Catalog, other: Catalog) -> None:
    """Two processes that create one example in two datasets: one does, the other is refused whole."""
    datasets = [await new_dataset(catalog) for _ in range(2)]
    example_id = str(uuid.uuid4())
    results = await asyncio.gather(
        catalog.examples.write(TENANT, datasets[0], [created(), created(example_id)]),
        other.examples.write(TENANT, datasets[1], [created(), created(example_id)]),
        return_exceptions=True,
    )
    [refusal] = [result for result in results if isinstance(result, RunstoreError)]
    assert refusal.reason is ErrorReason.ALREADY_EXISTS
    assert sorted([len(await listed(catalog, each)) for each in datasets]) == [0, 2]


async def test_blobs_are_in_use_until_the_last_example_is_erased(catalog: Catalog) -> None:
    """A file that two examples share outlives one of them, updates and soft deletions."""
    dataset_id, key = await new_dataset(catalog), f"{TENANT}/aa/key"
    file = ExampleFile("f", "x/y", key, 1)
    first, second = created(), created()
    for change in (first, second):
        change.files, change.blob_keys = (file,), (key,)
    await catalog.examples.write(TENANT, dataset_id, [first, second])
    await catalog.examples.delete(TENANT, [first.id])
    assert await catalog.datasets.blobs_in_use(TENANT, [key, "unknown"]) == {key}
    assert await catalog.examples.erase(TENANT, [first.id]) == ([first.id], [])
    assert await catalog.examples.erase(TENANT, [second.id, first.id]) == ([second.id], [key])
    assert await catalog.datasets.blobs_in_use(TENANT, [key]) == set()


async def test_a_deleted_dataset_leaves_nothing(catalog: Catalog) -> None:
    """Ids of its examples are free again, and its blobs are handed out to be removed."""
    dataset_id, key = await new_dataset(catalog), f"{TENANT}/aa/key"
    change = created()
    change.files, change.blob_keys = (ExampleFile("f", "x/y", key, 1),), (key,)
    version = await catalog.examples.write(TENANT, dataset_id, [change])
    await catalog.dataset_versions.tag(TENANT, dataset_id, version, "prod")
    await catalog.dataset_shares.share(TENANT, dataset_id, projects=False)
    await catalog.example_search.enable(TENANT, dataset_id)
    assert await catalog.datasets.delete(TENANT, dataset_id) == [key]
    with pytest.raises(RunstoreError):
        await catalog.dataset_versions.get(TENANT, dataset_id, "prod")
    again = await new_dataset(catalog)
    await catalog.examples.write(TENANT, again, [created(change.id)])
    assert [example.id for example in await listed(catalog, again)] == [change.id]
