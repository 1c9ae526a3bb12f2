"""Examples in the catalog: every write makes a version of its dataset, which stays readable."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Row, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import dataset_tables as tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.dataset_versions import resolve, visible
from runstore.catalog.datasets import lock_dataset, unused_blobs
from runstore.catalog.example_pages import in_use, read_page, split_combinations
from runstore.catalog.example_sources import ExampleSources
from runstore.catalog.example_states import batches, current_states, end_states, insert_states
from runstore.domain.datasets import LATEST_TAG, VersionName
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.examples import Example, ExampleChange, ExampleFile, ExampleFilter
from runstore.runtime.clock import Clock

_examples = tables.examples.c
_blobs = tables.example_blobs.c
_FILES: Final = msgspec.json.Decoder(tuple[ExampleFile, ...])
_SPLITS: Final = msgspec.json.Decoder(tuple[str, ...])


class ExampleCatalog:
    """Reads and writes examples, always inside one tenant.

    Every method may raise RunstoreError UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock, sources: ExampleSources) -> None:
        """`sources` is told of examples that are made of runs."""
        self._database = database
        self._clock = clock
        self._sources = sources

    async def write(self, tenant_id: str, dataset_id: str, changes: Sequence[ExampleChange]) -> int:
        """Makes all changes, or none, and returns their version, in microseconds since the epoch.

        Raises NOT_FOUND for the dataset or an example to be updated, ALREADY_EXISTS for one to be created or
        of another dataset, INVALID_ARGUMENT for one that is changed twice.
        """
        if len({change.id for change in changes}) < len(changes):
            raise invalid("id", "the same example twice")
        try:
            async with self._database.write() as connection:
                dataset = await lock_dataset(connection, tenant_id, dataset_id)
                return await self._apply(connection, dataset, changes)
        except Conflict as error:
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS, "an example of one of these ids already exists", field="id"
            ) from error
        finally:
            if any(change.source_run_id is not None for change in changes):
                self._sources.forget(tenant_id)

    async def move(
        self, tenant_id: str, dataset_id: str, split: str, example_ids: Sequence[str], *, remove: bool
    ) -> list[str]:
        """Puts examples into a split or takes them out of it; the ids of those that this changed.

        Raises NOT_FOUND for the dataset or an example.
        """
        async with self._database.write() as connection:
            dataset = await lock_dataset(connection, tenant_id, dataset_id)
            old = await current_states(connection, tenant_id, example_ids)
            changes = []
            for example_id in dict.fromkeys(example_ids):
                row = old.get(example_id)
                if row is None or row.dataset_id != dataset_id:
                    raise no_example(example_id)
                splits = _SPLITS.decode(row.splits)
                if (split in splits) == remove:
                    moved = tuple(name for name in splits if name != split) if remove else (*splits, split)
                    changes.append(ExampleChange(id=example_id, is_create=False, splits=moved))
            if changes:
                await self._apply(connection, dataset, changes)
        return [change.id for change in changes]

    async def delete(
        self, tenant_id: str, example_ids: Sequence[str], *, dataset_id: str | None = None
    ) -> None:
        """Ends the examples, all or none; older versions keep them. Raises NOT_FOUND."""
        async with self._database.write() as connection:
            datasets = await _lock_datasets(connection, tenant_id, example_ids, dataset_id)
            current = await current_states(connection, tenant_id, example_ids)
            for example_id in example_ids:
                if example_id not in current or current[example_id].dataset_id not in datasets:
                    raise no_example(example_id)
            for key, dataset in datasets.items():
                ended = [row.id for row in current.values() if row.dataset_id == key]
                if ended:
                    version_us = self._next_version(dataset)
                    await end_states(connection, tenant_id, ended, version_us)
                    await _add_version(connection, dataset, version_us, -len(ended))

    async def erase(
        self, tenant_id: str, example_ids: Sequence[str], *, dataset_id: str | None = None
    ) -> tuple[list[str], list[str]]:
        """Removes the examples from every version.

        Returns the ids of those that were there, and the keys of blobs that nothing refers to now, which are
        the caller's to remove.
        """
        ids: list[str] = []
        keys: list[str] = []
        async with self._database.write() as connection:
            datasets = await _lock_datasets(connection, tenant_id, example_ids, dataset_id)
            for key, dataset in datasets.items():
                current = await current_states(connection, tenant_id, example_ids)
                ended = [row.id for row in current.values() if row.dataset_id == key]
                for batch in batches(example_ids):
                    states = (_examples.dataset_id == key, _examples.id.in_(batch))
                    found = await connection.execute(select(_examples.id).where(*states).distinct())
                    ids.extend(found.scalars())
                    await connection.execute(delete(tables.examples).where(*states))
                    noted = (_blobs.dataset_id == key, _blobs.example_id.in_(batch))
                    blobs = await connection.execute(select(_blobs.blob_key).where(*noted).distinct())
                    keys.extend(blobs.scalars())
                    await connection.execute(delete(tables.example_blobs).where(*noted))
                await _add_version(connection, dataset, self._next_version(dataset), -len(ended))
            unused = await unused_blobs(connection, tenant_id, list(dict.fromkeys(keys)))
        return list(dict.fromkeys(ids)), unused

    async def splits(self, tenant_id: str, dataset_id: str, version: VersionName) -> list[str]:
        """The names of all splits, sorted. Raises NOT_FOUND for the dataset or the tag."""
        async with self._database.read() as connection:
            at_us = await resolve(connection, tenant_id, dataset_id, version)
            combinations = await split_combinations(connection, dataset_id, in_use(dataset_id, at_us))
        return sorted({name for names in combinations.values() for name in names})

    async def get(
        self, tenant_id: str, example_id: str, version: VersionName, dataset_id: str | None = None
    ) -> Example:
        """Raises NOT_FOUND when the version has no such example."""
        query = select(tables.examples).where(_examples.tenant_id == tenant_id, _examples.id == example_id)
        if dataset_id is not None:
            query = query.where(_examples.dataset_id == dataset_id)
        async with self._database.read() as connection:
            if dataset_id is None and isinstance(version, str) and version != LATEST_TAG:
                # A tag means nothing without its dataset.
                state = (await connection.execute(query.limit(1))).one_or_none()
                if state is None:
                    raise no_example(example_id)
                dataset_id = state.dataset_id
            at_us = await _time(connection, tenant_id, dataset_id, version)
            row = (await connection.execute(query.where(visible(at_us)))).one_or_none()
        if row is None:
            raise no_example(example_id)
        return _example(row)

    async def list(self, tenant_id: str, condition: ExampleFilter) -> list[Example]:
        """The page `offset`, `limit` of the examples that meet `condition`; [] beyond the end.

        Raises NOT_FOUND for the dataset or the tag, INVALID_ARGUMENT without dataset and ids.
        """
        if condition.dataset_id is None and not condition.ids:
            raise invalid("dataset", "name a dataset or the ids of examples")
        async with self._database.read() as connection:
            at_us = await _time(connection, tenant_id, condition.dataset_id, condition.version)
            rows = await read_page(connection, tenant_id, condition, at_us)
        return [_example(row) for row in rows]

    async def _apply(
        self, connection: AsyncConnection, dataset: Row[Any], changes: Sequence[ExampleChange]
    ) -> int:
        """Makes a version of the locked dataset."""
        version_us = self._next_version(dataset)
        added = await insert_states(connection, dataset, version_us, changes)
        await _add_version(connection, dataset, version_us, added)
        return version_us

    def _next_version(self, dataset: Row[Any]) -> int:
        return max(self._clock.now_us(), (dataset.version_us or 0) + 1)


def no_example(example_id: str) -> RunstoreError:
    """The refusal of an id that names no example."""
    return RunstoreError(ErrorReason.NOT_FOUND, f"no example with id {example_id}", field="id")


async def _lock_datasets(
    connection: AsyncConnection, tenant_id: str, example_ids: Sequence[str], dataset_id: str | None
) -> dict[str, Row[Any]]:
    """The datasets that have or had the examples, locked; of these `dataset_id` alone when given."""
    found: set[str] = set()
    for batch in batches(example_ids):
        query = select(_examples.dataset_id).distinct()
        query = query.where(_examples.tenant_id == tenant_id, _examples.id.in_(batch))
        found.update((await connection.execute(query)).scalars())
    if dataset_id is not None:
        found &= {dataset_id}
    # Always in the same order, so that no two transactions wait for each other.
    return {key: await lock_dataset(connection, tenant_id, key) for key in sorted(found)}


async def _add_version(connection: AsyncConnection, dataset: Row[Any], version_us: int, added: int) -> None:
    values = {"dataset_id": dataset.id, "as_of_us": version_us}
    await connection.execute(tables.dataset_versions.insert().values(values))
    await connection.execute(
        update(tables.datasets)
        .where(tables.datasets.c.id == dataset.id)
        .values(
            version_us=version_us,
            modified_at_us=version_us,
            example_count=tables.datasets.c.example_count + added,
        )
    )


async def _time(
    connection: AsyncConnection, tenant_id: str, dataset_id: str | None, version: VersionName
) -> int | None:
    """The time that a version stands for; None for the latest."""
    if dataset_id is not None:
        return await resolve(connection, tenant_id, dataset_id, version)
    if isinstance(version, int):
        return version
    if version != LATEST_TAG:
        raise invalid("as_of", "a tag needs its dataset")
    return None


def _example(row: Row[Any]) -> Example:
    return Example(
        id=row.id,
        dataset_id=row.dataset_id,
        inputs=row.inputs,
        outputs=row.outputs,
        metadata=row.metadata,
        files=_FILES.decode(row.files),
        source_run_id=row.source_run_id,
        created_at_us=row.created_at_us,
        modified_at_us=row.from_us,
    )
