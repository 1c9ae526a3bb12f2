"""What a process remembers of one tenant, it does not take for another's."""

import uuid

import pytest

from runstore.catalog import Catalog
from runstore.domain.datasets import Dataset
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.examples import ExampleChange, ExampleFilter
from runstore.domain.shares import ShareSubject


@pytest.fixture
def url(copied_url: str) -> str:
    """Memories are the same on any database."""
    return copied_url


@pytest.fixture
async def tenants(catalog: Catalog) -> list[str]:
    return [(await catalog.keys.create_tenant(name)).id for name in ("one", "two")]


async def test_projects_of_one_name(catalog: Catalog, tenants: list[str]) -> None:
    """By name and by id."""
    one, two = tenants
    mine = await catalog.projects.resolve(one, "same")
    assert await catalog.projects.exists(one, mine.id)
    assert catalog.projects.cached_id(one, "same") == mine.id
    assert catalog.projects.cached_id(two, "same") is None
    assert not catalog.projects.is_cached(two, mine.id)
    assert not await catalog.projects.exists(two, mine.id)
    theirs = await catalog.projects.resolve(two, "same")
    assert theirs.id != mine.id
    assert [catalog.projects.cached_id(each, "same") for each in tenants] == [mine.id, theirs.id]


async def test_who_shares_nothing(catalog: Catalog, tenants: list[str]) -> None:
    """That one tenant shares nothing, and has no examples of runs, says nothing of another."""
    one, two = tenants
    run_id, project_id = str(uuid.uuid4()), str(uuid.uuid4())
    subject = ShareSubject(project_id=project_id, run_id=run_id, trace_id=run_id)
    token = await catalog.shares.share(two, subject)
    dataset_id = await dataset(catalog, two)
    example = ExampleChange(id=str(uuid.uuid4()), is_create=True, inputs=b"{}", source_run_id=run_id)
    await catalog.examples.write(two, dataset_id, [example])
    for _ in range(2):
        assert await catalog.shares.tokens_of(one, [run_id]) == {}
        assert await catalog.shares.tokens_of(two, [run_id]) == {run_id: token}
        assert await catalog.example_sources.runs_in_datasets(one, [run_id]) == set()
        assert await catalog.example_sources.runs_in_datasets(two, [run_id]) == {run_id}


async def dataset(catalog: Catalog, tenant_id: str, dataset_id: str = "") -> str:
    """The id of a new dataset."""
    dataset_id = dataset_id or str(uuid.uuid4())
    made = Dataset(id=dataset_id, tenant_id=tenant_id, name="d", created_at_us=1, modified_at_us=1)
    await catalog.datasets.create(made)
    return dataset_id


async def test_index_of_a_dataset_whose_id_had_another(catalog: Catalog, tenants: list[str]) -> None:
    """The index that is remembered of the dataset that is gone is not searched for its successor."""
    one, two = tenants
    dataset_id = await dataset(catalog, one)

    async def index(tenant_id: str, words: bytes) -> int:
        await catalog.example_search.enable(tenant_id, dataset_id)
        written = ExampleChange(id=str(uuid.uuid4()), is_create=True, inputs=b'{"q":"%b"}' % words)
        await catalog.examples.write(tenant_id, dataset_id, [written])
        return await catalog.example_search.sync(tenant_id, dataset_id)

    assert await index(one, b"alpha") == 1
    with pytest.raises(RunstoreError) as refused:
        await catalog.example_search.sync(two, dataset_id)
    assert refused.value.reason is ErrorReason.NOT_FOUND
    await catalog.datasets.delete(one, dataset_id)
    await dataset(catalog, two, dataset_id)
    assert await index(two, b"beta") == 1
    search = catalog.example_search.search
    condition = ExampleFilter(dataset_id=dataset_id)
    assert await search(two, b'{"q":"alpha"}', 5, condition) == []
    assert len(await search(two, b'{"q":"beta"}', 5, condition)) == 1
