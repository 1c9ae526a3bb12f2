"""Values of tags on projects and datasets, which are put on when these are created."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog.management_tables import resource_tags
from runstore.domain.errors import invalid

MAX_TAGS = 100
"""Most values on one project or dataset."""


def check_tags(tag_value_ids: Sequence[str]) -> None:
    """Raises RunstoreError INVALID_ARGUMENT for too many."""
    if len(tag_value_ids) > MAX_TAGS:
        raise invalid("tag_value_ids", f"more than {MAX_TAGS}")


async def put_tags(
    connection: AsyncConnection, tenant_id: str, resource_id: str, tag_value_ids: Sequence[str]
) -> None:
    """Puts distinct values on something that is new."""
    if tag_value_ids:
        rows = [
            {"tenant_id": tenant_id, "resource_id": resource_id, "tag_value_id": each}
            for each in tag_value_ids
        ]
        await connection.execute(insert(resource_tags), rows)


async def remove_tags(connection: AsyncConnection, tenant_id: str, resource_id: str) -> None:
    """Takes all values off something that goes."""
    tags = resource_tags.c
    await connection.execute(
        delete(resource_tags).where(tags.tenant_id == tenant_id, tags.resource_id == resource_id)
    )


def is_tagged(
    tenant_id: str, resource_id: ColumnElement[Any], tag_value_ids: Sequence[str]
) -> list[ColumnElement[bool]]:
    """Conditions that hold for what has each of the values."""
    tags = resource_tags.c
    return [
        exists().where(
            tags.tenant_id == tenant_id, tags.resource_id == resource_id, tags.tag_value_id == each
        )
        for each in tag_value_ids
    ]
