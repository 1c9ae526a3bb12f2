"""Searches of indexed datasets."""

import asyncio
from collections import OrderedDict
from dataclasses import replace
from typing import Final

from sqlalchemy import and_, insert, not_, select

from runstore.catalog import dataset_tables as tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.dataset_versions import visible
from runstore.catalog.datasets import DatasetCatalog, lock_dataset
from runstore.catalog.example_index import ExampleIndex
from runstore.catalog.examples import ExampleCatalog
from runstore.domain.datasets import MAX_DATASET_PAGE
from runstore.domain.errors import invalid
from runstore.domain.examples import Example, ExampleFilter

_examples = tables.examples.c
_indexes = tables.dataset_indexes.c
# Indexes are in memory; the one that was not used for the longest time goes first, and is made again.
_KEPT_INDEXES: Final = 16


class ExampleSearch:
    """Keeps the indexes. Every method raises NOT_FOUND when the tenant has no such dataset."""

    def __init__(self, database: Database, datasets: DatasetCatalog, examples: ExampleCatalog) -> None:
        self._database = database
        self._datasets = datasets
        self._examples = examples
        # By tenant and dataset: another tenant may give a dataset the id of one that is gone.
        self._kept: OrderedDict[tuple[str, str], tuple[ExampleIndex, asyncio.Lock]] = OrderedDict()

    async def enable(self, tenant_id: str, dataset_id: str) -> None:
        """The dataset can be searched from now on, also after a restart."""
        try:
            async with self._database.write() as connection:
                await lock_dataset(connection, tenant_id, dataset_id)
                await connection.execute(insert(tables.dataset_indexes).values(dataset_id=dataset_id))
        except Conflict:  # It could before.
            return

    async def sync(self, tenant_id: str, dataset_id: str) -> int:
        """Brings the index up to date; how many examples it holds. Raises INVALID_ARGUMENT as `search`."""
        index, lock = await self._index(tenant_id, dataset_id)
        async with lock:
            await self._update(index, tenant_id, dataset_id)
            return len(index)

    async def search(
        self, tenant_id: str, inputs: bytes, limit: int, condition: ExampleFilter
    ) -> list[Example]:
        """The examples of `condition`'s dataset that share words with `inputs`, the best match first.

        Raises INVALID_ARGUMENT for a dataset that is not indexed.
        """
        assert condition.dataset_id is not None  # noqa: S101 - the caller's
        index, lock = await self._index(tenant_id, condition.dataset_id)
        window = min(limit, MAX_DATASET_PAGE)
        async with lock:
            await self._update(index, tenant_id, condition.dataset_id)
            while True:
                ids = await asyncio.to_thread(index.search, inputs, window)
                wanted = replace(condition, ids=tuple(ids), offset=0, limit=MAX_DATASET_PAGE)
                found = await self._examples.list(tenant_id, wanted) if ids else []
                if len(found) >= limit or len(ids) < window or window >= MAX_DATASET_PAGE:
                    break
                window = min(window * 4, MAX_DATASET_PAGE)
        by_id = {example.id: example for example in found}
        return [by_id[example_id] for example_id in ids if example_id in by_id][:limit]

    async def _index(self, tenant_id: str, dataset_id: str) -> tuple[ExampleIndex, asyncio.Lock]:
        await self._datasets.get(tenant_id, dataset_id)
        query = select(_indexes.dataset_id).where(_indexes.dataset_id == dataset_id)
        async with self._database.read() as connection:
            if (await connection.execute(query)).one_or_none() is None:
                raise invalid("dataset_id", "the dataset is not indexed: call index_dataset first")
        key = (tenant_id, dataset_id)
        kept = self._kept.setdefault(key, (ExampleIndex(), asyncio.Lock()))
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT_INDEXES:
            self._kept.popitem(last=False)
        return kept

    async def _update(self, index: ExampleIndex, tenant_id: str, dataset_id: str) -> None:
        """Applies what was written since the version that the index holds."""
        version_us = (await self._datasets.get(tenant_id, dataset_id)).version_us
        if version_us is None or version_us == index.version_us:
            return
        now = visible(version_us)
        own = _examples.dataset_id == dataset_id
        async with self._database.read() as connection:
            if index.version_us is None:
                gone, begun = [], now
            else:
                before = visible(index.version_us)
                ended = select(_examples.id).where(own, and_(before, not_(now)))
                gone, begun = list((await connection.execute(ended)).scalars()), and_(now, not_(before))
            rows = await connection.execute(select(_examples.id, _examples.inputs).where(own, begun))
            written = [(row.id, row.inputs) for row in rows]
        await asyncio.to_thread(index.apply, gone, written, version_us)
