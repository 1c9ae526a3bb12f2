"""Datasets in the catalog."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Row, Select, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import dataset_tables as tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.keyed_pages import rows_of_page
from runstore.catalog.projects import contains
from runstore.catalog.resource_tags import check_tags, is_tagged, put_tags, remove_tags
from runstore.catalog.tables import projects
from runstore.catalog.text_search import has_part
from runstore.catalog.texts import check_description, check_name, json_object
from runstore.domain.datasets import MAX_DATASET_PAGE, Dataset, DatasetFilter, DatasetPatch
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.clock import Clock

_datasets = tables.datasets.c
_ERASABLE: Final = ("inputs_schema", "outputs_schema", "transformations")
_COMPUTED: Final = ("experiment_count", "last_experiment_us")
_OWN_TABLES: Final = (
    tables.dataset_shares,
    tables.dataset_indexes,
    tables.comparative_experiments,
    tables.example_blobs,
    tables.split_combinations,
    tables.examples,
    tables.dataset_tags,
    tables.dataset_versions,
)


class DatasetCatalog:
    """Reads and writes datasets, always inside one tenant.

    Ids are canonical UUID text; one that is not simply names no dataset. Every method may raise
    RunstoreError UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, dataset: Dataset, *, tag_value_ids: Sequence[str] = ()) -> Dataset:
        """Stores `dataset` as given and returns it.

        `tag_value_ids`: distinct ids of the values of tags that it gets.

        Raises ALREADY_EXISTS when the name or the id is taken, INVALID_ARGUMENT for texts and JSON that
        cannot be stored.
        """
        check_name("name", dataset.name)
        check_description("description", dataset.description)
        json_object("metadata", dataset.metadata)
        check_tags(tag_value_ids)
        values = {key: value for key, value in dataclasses.asdict(dataset).items() if key not in _COMPUTED}
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(tables.datasets).values(values))
                await put_tags(connection, dataset.tenant_id, dataset.id, tag_value_ids)
        except Conflict as error:
            query = select(_datasets.id).where(
                _datasets.tenant_id == dataset.tenant_id, _datasets.name == dataset.name
            )
            async with self._database.read() as connection:
                named = (await connection.execute(query)).one_or_none()
            if named is not None:
                raise _name_taken(dataset.name) from error
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS, f"a dataset with id {dataset.id} already exists", field="id"
            ) from error
        return dataset

    async def get(self, tenant_id: str, dataset_id: str) -> Dataset:
        """Raises NOT_FOUND when the tenant has no such dataset."""
        async with self._database.read() as connection:
            found = await _found(connection, select(tables.datasets).where(_is(tenant_id, dataset_id)))
        if not found:
            raise no_dataset(dataset_id)
        return found[0]

    async def update(self, tenant_id: str, dataset_id: str, patch: DatasetPatch) -> Dataset:
        """Applies the fields that `patch` sets and returns the result.

        Raises NOT_FOUND; ALREADY_EXISTS when the new name is taken; INVALID_ARGUMENT like `create`.
        """
        if patch.name is not None:
            check_name("name", patch.name)
        check_description("description", patch.description)
        if patch.metadata is not None:
            json_object("metadata", patch.metadata)
        changes = {key: value for key, value in dataclasses.asdict(patch).items() if value is not None}
        changes.update({key: None for key in _ERASABLE if changes.get(key) == b"null"})
        statement = (
            update(tables.datasets)
            .where(_is(tenant_id, dataset_id))
            .values(**changes, modified_at_us=self._clock.now_us())
        )
        try:
            async with self._database.write() as connection:
                await connection.execute(statement)
                query = select(tables.datasets).where(_is(tenant_id, dataset_id))
                found = await _found(connection, query)
        except Conflict as error:
            raise _name_taken(patch.name or "") from error
        if not found:
            raise no_dataset(dataset_id)
        return found[0]

    async def delete(self, tenant_id: str, dataset_id: str) -> list[str]:
        """Removes the dataset with everything in it.

        Returns the keys of blobs that nothing refers to now, which are the caller's to remove.
        Raises NOT_FOUND.
        """
        blobs = tables.example_blobs.c
        async with self._database.write() as connection:
            # The lock keeps writers of examples out until the dataset is gone.
            await lock_dataset(connection, tenant_id, dataset_id)
            query = select(blobs.blob_key).where(blobs.dataset_id == dataset_id).distinct()
            keys = list((await connection.execute(query)).scalars())
            for table in _OWN_TABLES:
                await connection.execute(delete(table).where(table.c.dataset_id == dataset_id))
            await remove_tags(connection, tenant_id, dataset_id)
            await connection.execute(delete(tables.datasets).where(_is(tenant_id, dataset_id)))
            return await unused_blobs(connection, tenant_id, keys)

    async def names(self, tenant_id: str, dataset_ids: set[str]) -> dict[str, str]:
        """The names of those of the datasets that exist, by id."""
        query = select(_datasets.id, _datasets.name)
        query = query.where(_datasets.tenant_id == tenant_id, _datasets.id.in_(dataset_ids))
        async with self._database.read() as connection:
            return {row.id: row.name for row in await connection.execute(query)}

    async def blobs_in_use(self, tenant_id: str, keys: Collection[str], /) -> set[str]:
        """Those of the keys that an example refers to."""
        async with self._database.read() as connection:
            return set(keys).difference(await unused_blobs(connection, tenant_id, sorted(keys)))

    async def list(self, tenant_id: str, condition: DatasetFilter) -> list[Dataset]:
        """The page `offset`, `limit` of the datasets that meet `condition`; [] beyond the end.

        Raises INVALID_ARGUMENT for metadata that is no JSON object.
        """
        query = _listing(tenant_id, condition)
        limit = min(condition.limit, MAX_DATASET_PAGE)
        async with self._database.read() as connection:
            if condition.metadata is None:
                everything = select(tables.datasets)
                rows = await rows_of_page(
                    connection, query, everything, _datasets.id, condition.offset, limit
                )
                return await _with_experiments(connection, tenant_id, rows)
            wanted = json_object("metadata", condition.metadata)
            page: list[Row[Any]] = []
            offset = condition.offset
            async with connection.stream(query) as rows:
                async for row in rows:
                    if len(page) == limit:
                        break
                    if not contains(json_object("metadata", row.metadata), wanted):
                        continue
                    if offset:
                        offset -= 1
                    else:
                        page.append(row)
            return await _with_experiments(connection, tenant_id, page)


async def lock_dataset(connection: AsyncConnection, tenant_id: str, dataset_id: str) -> Row[Any]:
    """The dataset's row, which no other transaction changes until this one ends. Raises NOT_FOUND."""
    query = select(tables.datasets).where(_is(tenant_id, dataset_id)).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise no_dataset(dataset_id)
    return row


async def unused_blobs(connection: AsyncConnection, tenant_id: str, keys: list[str]) -> list[str]:
    """Those of the keys that no example refers to."""
    blobs = tables.example_blobs.c
    used: set[str] = set()
    for start in range(0, len(keys), MAX_DATASET_PAGE):
        batch = keys[start : start + MAX_DATASET_PAGE]
        query = select(blobs.blob_key).where(blobs.tenant_id == tenant_id, blobs.blob_key.in_(batch))
        used.update((await connection.execute(query)).scalars())
    return [key for key in keys if key not in used]


def no_dataset(dataset_id: str) -> RunstoreError:
    """The refusal of an id that names no dataset."""
    return RunstoreError(ErrorReason.NOT_FOUND, f"no dataset with id {dataset_id}", field="dataset_id")


def _is(tenant_id: str, dataset_id: str) -> Any:
    return and_(_datasets.tenant_id == tenant_id, _datasets.id == dataset_id)


def _listing(tenant_id: str, condition: DatasetFilter) -> Select[Any]:
    query = select(tables.datasets).where(_datasets.tenant_id == tenant_id)
    if condition.ids:
        query = query.where(_datasets.id.in_(condition.ids))
    if condition.data_types:
        query = query.where(_datasets.data_type.in_(condition.data_types))
    if condition.name is not None:
        query = query.where(_datasets.name == condition.name)
    if condition.name_contains is not None:
        query = query.where(has_part(_datasets.name, condition.name_contains))
    query = query.where(*is_tagged(tenant_id, _datasets.id, condition.tag_value_ids))
    keys: list[Any] = [_datasets.created_at_us, _datasets.id]
    if condition.by_last_experiment:
        began = _experiments(tenant_id).subquery()
        query = query.outerjoin(began, began.c.dataset_id == _datasets.id)
        # Databases disagree on the place of NULL.
        keys.insert(0, func.coalesce(began.c.last_us, -(2**63)))
    return query.order_by(*(key.desc() if condition.descending else key for key in keys))


def _experiments(tenant_id: str) -> Select[Any]:
    reference = projects.c.reference_dataset_id
    return (
        select(
            reference.label("dataset_id"),
            func.count().label("number"),
            func.max(projects.c.start_time_us).label("last_us"),
        )
        .where(projects.c.tenant_id == tenant_id, reference.is_not(None))
        .group_by(reference)
    )


async def _found(connection: AsyncConnection, query: Select[Any]) -> list[Dataset]:
    rows = list(await connection.execute(query))
    return await _with_experiments(connection, rows[0].tenant_id, rows) if rows else []


async def _with_experiments(
    connection: AsyncConnection, tenant_id: str, rows: list[Row[Any]]
) -> list[Dataset]:
    ids = [row.id for row in rows]
    query = _experiments(tenant_id).where(projects.c.reference_dataset_id.in_(ids))
    experiments = {row.dataset_id: row for row in await connection.execute(query)}
    return [_dataset(row, experiments.get(row.id)) for row in rows]


def _dataset(row: Row[Any], experiments: Row[Any] | None) -> Dataset:
    if experiments is None:
        return Dataset(**row._mapping)
    return Dataset(
        **row._mapping, experiment_count=experiments.number, last_experiment_us=experiments.last_us
    )


def _name_taken(name: str) -> RunstoreError:
    return RunstoreError(ErrorReason.ALREADY_EXISTS, f"a dataset named {name!r} already exists", field="name")
