"""Comparisons of experiments in the catalog."""

import dataclasses
from typing import Final

import msgspec
from sqlalchemy import delete, insert, select

from runstore.catalog import dataset_tables as tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.datasets import lock_dataset
from runstore.catalog.tables import projects
from runstore.catalog.text_search import has_part
from runstore.catalog.texts import check_description, check_name
from runstore.domain.comparative_experiments import ComparativeExperiment, ComparativeFilter
from runstore.domain.errors import ErrorReason, RunstoreError

_comparisons = tables.comparative_experiments.c
_IDS: Final = msgspec.json.Decoder(tuple[str, ...])


class ComparativeExperimentCatalog:
    """Reads and writes comparisons, always inside one tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, comparison: ComparativeExperiment) -> None:
        """Stores the comparison as given.

        Raises ALREADY_EXISTS when the id is taken; NOT_FOUND for the dataset, or for an experiment that is no
        project on it; INVALID_ARGUMENT for texts that cannot be stored.
        """
        check_name("name", comparison.name)
        check_description("description", comparison.description)
        values = dataclasses.asdict(comparison)
        values["experiment_ids"] = msgspec.json.encode(comparison.experiment_ids)
        known = select(projects.c.id).where(
            projects.c.tenant_id == comparison.tenant_id,
            projects.c.reference_dataset_id == comparison.dataset_id,
            projects.c.id.in_(comparison.experiment_ids),
        )
        try:
            async with self._database.write() as connection:
                await lock_dataset(connection, comparison.tenant_id, comparison.dataset_id)
                found = set((await connection.execute(known)).scalars())
                for experiment_id in comparison.experiment_ids:
                    if experiment_id not in found:
                        message = f"no experiment on the dataset with id {experiment_id}"
                        raise RunstoreError(ErrorReason.NOT_FOUND, message, field="experiment_ids")
                await connection.execute(insert(tables.comparative_experiments).values(values))
        except Conflict as error:
            message = f"a comparative experiment with id {comparison.id} already exists"
            raise RunstoreError(ErrorReason.ALREADY_EXISTS, message, field="id") from error

    async def delete(self, tenant_id: str, comparison_id: str) -> None:
        """Raises NOT_FOUND when the tenant has no such comparison."""
        statement = delete(tables.comparative_experiments).where(
            _comparisons.tenant_id == tenant_id, _comparisons.id == comparison_id
        )
        async with self._database.write() as connection:
            deleted = (await connection.execute(statement)).rowcount
        if not deleted:
            message = f"no comparative experiment with id {comparison_id}"
            raise RunstoreError(ErrorReason.NOT_FOUND, message, field="id")

    async def list(self, tenant_id: str, condition: ComparativeFilter) -> list[ComparativeExperiment]:
        """The page of the comparisons that meet `condition`, the last created first; [] beyond the end."""
        query = select(tables.comparative_experiments).where(
            _comparisons.tenant_id == tenant_id, _comparisons.dataset_id == condition.dataset_id
        )
        if condition.ids:
            query = query.where(_comparisons.id.in_(condition.ids))
        if condition.name is not None:
            query = query.where(_comparisons.name == condition.name)
        if condition.name_contains is not None:
            query = query.where(has_part(_comparisons.name, condition.name_contains))
        query = query.order_by(_comparisons.created_at_us.desc(), _comparisons.id.desc())
        async with self._database.read() as connection:
            rows = await connection.execute(query.offset(condition.offset).limit(condition.limit))
            return [
                ComparativeExperiment(**{**row._mapping, "experiment_ids": _IDS.decode(row.experiment_ids)})
                for row in rows
            ]
