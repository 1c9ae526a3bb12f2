"""Versions of datasets: their names, and what differs between them."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, delete, func, insert, not_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import dataset_tables as tables
from runstore.catalog.database import Database
from runstore.catalog.datasets import lock_dataset, no_dataset
from runstore.catalog.text_search import has_part
from runstore.catalog.texts import check_name
from runstore.domain.datasets import LATEST_TAG, DatasetDiff, DatasetVersion, VersionName
from runstore.domain.errors import ErrorReason, RunstoreError, invalid

_examples = tables.examples.c
_versions = tables.dataset_versions.c
_tags = tables.dataset_tags.c


class DatasetVersionCatalog:
    """Reads and names versions. Every method raises NOT_FOUND when the tenant has no such dataset."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: str, dataset_id: str, version: VersionName) -> DatasetVersion:
        """Raises NOT_FOUND when no version is that early, or has that tag."""
        async with self._database.read() as connection:
            return await _version(connection, tenant_id, dataset_id, version)

    async def tag(self, tenant_id: str, dataset_id: str, version: VersionName, tag: str) -> DatasetVersion:
        """Gives the version the tag, which another version loses.

        Raises as `get`, INVALID_ARGUMENT for `latest` and for a tag that cannot be stored.
        """
        check_name("tag", tag)
        if tag == LATEST_TAG:
            raise invalid("tag", f"{LATEST_TAG} is always the newest version")
        async with self._database.write() as connection:
            await lock_dataset(connection, tenant_id, dataset_id)
            found = await _version(connection, tenant_id, dataset_id, version)
            await connection.execute(
                delete(tables.dataset_tags).where(_tags.dataset_id == dataset_id, _tags.tag == tag)
            )
            values = {"dataset_id": dataset_id, "tag": tag, "as_of_us": found.as_of_us}
            await connection.execute(insert(tables.dataset_tags).values(values))
            return await _version(connection, tenant_id, dataset_id, found.as_of_us)

    async def diff(
        self, tenant_id: str, dataset_id: str, before: VersionName, after: VersionName
    ) -> DatasetDiff:
        """The examples that differ; versions may be in either order."""
        async with self._database.read() as connection:
            old = visible(await resolve(connection, tenant_id, dataset_id, before))
            new = visible(await resolve(connection, tenant_id, dataset_id, after))

            async def ids(condition: ColumnElement[bool]) -> set[str]:
                query = select(_examples.id).where(_examples.dataset_id == dataset_id, condition)
                return set((await connection.execute(query)).scalars())

            ended, begun = await ids(and_(old, not_(new))), await ids(and_(new, not_(old)))
        return DatasetDiff(
            modified=tuple(sorted(ended & begun)),
            added=tuple(sorted(begun - ended)),
            removed=tuple(sorted(ended - begun)),
        )

    async def list(
        self, tenant_id: str, dataset_id: str, *, search: str | None, offset: int, limit: int
    ) -> list[DatasetVersion]:
        """Versions, the newest first; with `search`, those with a tag that contains it in any case."""
        query = select(_versions.as_of_us).where(_versions.dataset_id == dataset_id)
        async with self._database.read() as connection:
            latest_us = await _latest(connection, tenant_id, dataset_id)
            if search is not None:
                tagged = select(_tags.as_of_us).where(
                    _tags.dataset_id == dataset_id, has_part(_tags.tag, search)
                )
                is_latest = _versions.as_of_us == (latest_us if search.lower() in LATEST_TAG else None)
                query = query.where(_versions.as_of_us.in_(tagged) | is_latest)
            query = query.order_by(_versions.as_of_us.desc()).offset(offset).limit(limit)
            times = list((await connection.execute(query)).scalars())
            return await _tagged(connection, dataset_id, times, latest_us)


def visible(at_us: int | None) -> ColumnElement[bool]:
    """Whether a state of an example is in the version; None is the latest."""
    if at_us is None:
        return _examples.until_us == tables.FOREVER_US
    return and_(_examples.from_us <= at_us, _examples.until_us > at_us)


async def resolve(
    connection: AsyncConnection, tenant_id: str, dataset_id: str, version: VersionName
) -> int | None:
    """The time that a version stands for; None for the latest. Raises NOT_FOUND for dataset and tag."""
    await _latest(connection, tenant_id, dataset_id)
    if isinstance(version, int):
        return version
    if version == LATEST_TAG:
        return None
    query = select(_tags.as_of_us).where(_tags.dataset_id == dataset_id, _tags.tag == version)
    at_us = (await connection.execute(query)).scalar_one_or_none()
    if at_us is None:
        raise RunstoreError(ErrorReason.NOT_FOUND, f"no version with the tag {version!r}", field="as_of")
    return int(at_us)


async def _latest(connection: AsyncConnection, tenant_id: str, dataset_id: str) -> int | None:
    dataset = tables.datasets.c
    query = select(dataset.version_us).where(dataset.tenant_id == tenant_id, dataset.id == dataset_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise no_dataset(dataset_id)
    latest_us: int | None = row.version_us
    return latest_us


async def _version(
    connection: AsyncConnection, tenant_id: str, dataset_id: str, version: VersionName
) -> DatasetVersion:
    at_us = await resolve(connection, tenant_id, dataset_id, version)
    query = select(func.max(_versions.as_of_us)).where(_versions.dataset_id == dataset_id)
    if at_us is not None:
        query = query.where(_versions.as_of_us <= at_us)
    found = (await connection.execute(query)).scalar_one()
    if found is None:
        raise RunstoreError(ErrorReason.NOT_FOUND, "the dataset has no version that early", field="as_of")
    latest_us = await _latest(connection, tenant_id, dataset_id)
    [tagged] = await _tagged(connection, dataset_id, [int(found)], latest_us)
    return tagged


async def _tagged(
    connection: AsyncConnection, dataset_id: str, times_us: Sequence[int], latest_us: int | None
) -> list[DatasetVersion]:
    query = select(_tags.as_of_us, _tags.tag).where(
        _tags.dataset_id == dataset_id, _tags.as_of_us.in_(times_us)
    )
    tags: dict[int, list[str]] = {time_us: [] for time_us in times_us}
    for row in await connection.execute(query):
        tags[row.as_of_us].append(row.tag)
    if latest_us in tags:
        tags[latest_us].append(LATEST_TAG)
    return [DatasetVersion(time_us, tuple(sorted(tags[time_us]))) for time_us in times_us]
