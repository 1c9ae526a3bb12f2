"""Writes the states of examples, each beginning in one version and ending where the next one begins."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import dataset_tables as tables
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.examples import ExampleChange, ExampleFile, merged_metadata

_examples = tables.examples.c
_blobs = tables.example_blobs.c
_combinations = tables.split_combinations.c
_FILES: Final = msgspec.json.Decoder(tuple[ExampleFile, ...])
# A statement may have 32,766 parameters in SQLite and 32,767 in PostgreSQL.
_IDS_AT_ONCE: Final = 1_000


async def current_states(
    connection: AsyncConnection, tenant_id: str, example_ids: Sequence[str]
) -> dict[str, Row[Any]]:
    """The states of the examples in the latest versions of their datasets, by id."""
    found: dict[str, Row[Any]] = {}
    for batch in batches(example_ids):
        query = select(tables.examples).where(
            _examples.tenant_id == tenant_id,
            _examples.id.in_(batch),
            _examples.until_us == tables.FOREVER_US,
        )
        found.update({row.id: row for row in await connection.execute(query)})
    return found


async def end_states(
    connection: AsyncConnection, tenant_id: str, example_ids: Sequence[str], version_us: int
) -> None:
    """The current states of the examples are not in the version, nor in later ones."""
    for batch in batches(example_ids):
        await connection.execute(
            update(tables.examples)
            .where(
                _examples.tenant_id == tenant_id,
                _examples.id.in_(batch),
                _examples.until_us == tables.FOREVER_US,
            )
            .values(until_us=version_us)
        )


async def insert_states(
    connection: AsyncConnection, dataset: Row[Any], version_us: int, changes: Sequence[ExampleChange]
) -> int:
    """The states after `changes` begin in the version; how many more examples there are.

    Raises ALREADY_EXISTS for an example that is to be created, or belongs to another dataset; NOT_FOUND for
    one to be updated.
    """
    old = await current_states(connection, dataset.tenant_id, [change.id for change in changes])
    rows = [
        _state(change, old.get(change.id), dataset, version_us, place)
        for place, change in zip(range(len(changes), 0, -1), changes, strict=True)
    ]
    await end_states(connection, dataset.tenant_id, list(old), version_us)
    if rows:
        await connection.execute(insert(tables.examples), rows)
        await _note_splits(connection, dataset, {row["splits"] for row in rows})
    await _note_blobs(connection, dataset, changes)
    return len(rows) - len(old)


def batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids in parts that a statement can have as parameters."""
    for start in range(0, len(ids), _IDS_AT_ONCE):
        yield ids[start : start + _IDS_AT_ONCE]


def _state(
    change: ExampleChange, old: Row[Any] | None, dataset: Row[Any], version_us: int, place: int
) -> dict[str, Any]:
    if old is not None and old.dataset_id != dataset.id:
        raise RunstoreError(
            ErrorReason.ALREADY_EXISTS, f"the example {change.id} belongs to another dataset", field="id"
        )
    if old is not None and change.is_create and not change.is_upsert:
        raise RunstoreError(
            ErrorReason.ALREADY_EXISTS, f"an example with id {change.id} already exists", field="id"
        )
    if old is None and not change.is_create:
        raise RunstoreError(ErrorReason.NOT_FOUND, f"no example with id {change.id}", field="id")
    if old is None and change.inputs is None:
        raise invalid("inputs", f"the example {change.id} has no inputs")
    metadata, splits = merged_metadata(change.metadata, change.splits, b"{}" if old is None else old.metadata)
    before = _FILES.decode(old.files) if old is not None else ()
    return {
        "tenant_id": dataset.tenant_id,
        "id": change.id,
        "from_us": version_us,
        "until_us": tables.FOREVER_US,
        "place": place,
        "dataset_id": dataset.id,
        "splits": msgspec.json.encode(splits).decode(),
        "source_run_id": change.source_run_id or (old.source_run_id if old is not None else None),
        "created_at_us": old.created_at_us if old is not None else change.created_at_us or version_us,
        "metadata": metadata,
        "files": msgspec.json.encode(change.merged_files(before)),
        "inputs": change.inputs if old is None or change.inputs is not None else old.inputs,
        "outputs": change.outputs if old is None or change.outputs is not None else old.outputs,
    }


async def _note_splits(connection: AsyncConnection, dataset: Row[Any], used: set[str]) -> None:
    """The dataset is locked, so that nobody else notes the same."""
    query = select(_combinations.digest).where(_combinations.dataset_id == dataset.id)
    known = set((await connection.execute(query)).scalars())
    digests = {hashlib.sha256(splits.encode()).digest(): splits for splits in used}
    rows = [
        {"dataset_id": dataset.id, "digest": digest, "splits": splits}
        for digest, splits in digests.items()
        if digest not in known
    ]
    if rows:
        await connection.execute(insert(tables.split_combinations), rows)


async def _note_blobs(
    connection: AsyncConnection, dataset: Row[Any], changes: Sequence[ExampleChange]
) -> None:
    """Blobs that any state of an example refers to are in use until the example is erased."""
    wanted = {(key, change.id) for change in changes for key in change.blob_keys}
    if not wanted:
        return
    known: set[tuple[str, str]] = set()
    for batch in batches(sorted({example_id for _, example_id in wanted})):
        query = select(_blobs.blob_key, _blobs.example_id).where(
            _blobs.tenant_id == dataset.tenant_id, _blobs.example_id.in_(batch)
        )
        known.update((row.blob_key, row.example_id) for row in await connection.execute(query))
    rows = [
        {
            "tenant_id": dataset.tenant_id,
            "blob_key": key,
            "example_id": example_id,
            "dataset_id": dataset.id,
        }
        for key, example_id in sorted(wanted - known)
    ]
    if rows:
        await connection.execute(insert(tables.example_blobs), rows)
