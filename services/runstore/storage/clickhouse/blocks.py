"""Builds what an insert takes: partial rows as Arrow IPC streams in files, one for each table."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from runstore.domain.prices import Price
from runstore.domain.runs import RunRow
from runstore.storage.clickhouse.columns import (
    ANY_PAYLOAD,
    KEY,
    PAYLOAD_COLUMNS,
    RUN_COLUMNS,
    Column,
    Rows,
)
from runstore.storage.run_store import Block, BlockRefused, StoreUnavailable

_PRICES = pa.map_(pa.string(), pa.decimal128(38, 18))


class BlockBuilder:
    """Writes blocks as files for the engine to read; one process and thread uses a folder."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made when missing, and emptied: what is left in it is of an earlier process."""
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.arrow"):
            left.unlink()
        self._folder = folder
        self._number = itertools.count(1)
        self._stored_prices: set[str] = set()

    def build(self, rows: Sequence[RunRow]) -> Block:
        """The rows as a block.

        Raises BlockRefused when a column cannot hold a value, StoreUnavailable when a file cannot be written.
        """
        try:
            tables = {
                "model_prices": self._prices(rows),
                "run_attachments": _attachments(rows),
                **_partial_rows(rows),
            }
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise BlockRefused(str(error)) from error
        number = next(self._number)
        paths = {
            table: str(self._folder / f"{number}-{table}.arrow") for table, batch in tables.items() if batch
        }
        block = Block(tuple(paths.items()), tuple(self._new_prices(rows)))
        try:
            for table, path in block.files:
                _write(path, tables[table])
        except OSError as error:
            self.discard(block)
            raise StoreUnavailable(f"a block cannot be written: {error}") from error
        return block

    def stored(self, block: Block) -> None:
        """Forget a block that the engine has."""
        self._stored_prices.update(block.price_model_ids)
        self.discard(block)

    def discard(self, block: Block) -> None:
        """Forget a block that will not be inserted."""
        for _, path in block.files:
            Path(path).unlink(missing_ok=True)

    def _new_prices(self, rows: Sequence[RunRow]) -> Mapping[str, Price]:
        """Prices that the engine may not have yet: those of runs are kept, because later ones do not apply
        to them."""
        return {
            price.price_model_id: price
            for row in rows
            if (price := row.facts.price) is not None and price.price_model_id not in self._stored_prices
        }

    def _prices(self, rows: Sequence[RunRow]) -> pa.RecordBatch | None:
        prices = list(self._new_prices(rows).values())
        if not prices:
            return None
        return pa.record_batch(
            [
                pa.array([price.price_model_id for price in prices]),
                pa.array([list(price.prompt.items()) for price in prices], type=_PRICES),
                pa.array([list(price.completion.items()) for price in prices], type=_PRICES),
            ],
            names=["price_model_id", "prompt_prices", "completion_prices"],
        )


def _partial_rows(rows: Sequence[RunRow]) -> dict[str, pa.RecordBatch]:
    """The tables of payloads and of runs. The latter comes last, so that no run is listed before its
    payloads are there; rows without a payload are left out of the former."""
    apart = Rows(rows)
    runs = _batch(RUN_COLUMNS, [_array(column, apart) for column in RUN_COLUMNS])
    heavy = [row for row, bits in zip(rows, apart.present, strict=True) if bits & ANY_PAYLOAD]
    if len(heavy) == len(rows):
        arrays = runs.columns[: len(KEY)]
    else:
        apart = Rows(heavy)
        arrays = [_array(column, apart) for column in KEY]
    arrays += [_array(column, apart) for column in PAYLOAD_COLUMNS[len(KEY) :]]
    return {"run_payloads": _batch(PAYLOAD_COLUMNS, arrays), "runs": runs}


def _batch(columns: Sequence[Column], arrays: Sequence[pa.Array]) -> pa.RecordBatch:
    return pa.record_batch(arrays, names=[column.name for column in columns])


def _array(column: Column, rows: Rows) -> pa.Array:
    values = column.values(rows)
    if pa.types.is_map(column.arrow_type):
        return _maps(values, column.arrow_type)
    return pa.array(values, type=column.arrow_type)


def _maps(maps: Sequence[Iterable[tuple[str, Any]]], arrow_type: pa.MapType) -> pa.Array:
    """An array of maps, made of all keys and all values: a fifth of the time of map after map."""
    sizes = [len(items) for items in maps]  # type: ignore[arg-type]  # views of dicts and lists have one
    items = list(itertools.chain.from_iterable(maps))
    return pa.MapArray.from_arrays(
        pa.array(list(itertools.accumulate(sizes, initial=0)), type=pa.int32()),
        pa.array([key for key, _ in items], type=arrow_type.key_type),
        pa.array([value for _, value in items], type=arrow_type.item_type),
    )


def _attachments(rows: Sequence[RunRow]) -> pa.RecordBatch | None:
    found = [
        (row, name, file)
        for row in rows
        if row.patch.attachments
        for name, file in row.patch.attachments.items()
    ]
    if not found:
        return None
    keys = Rows([row for row, _, _ in found])
    columns = {column.name: _array(column, keys) for column in KEY if column.name != "present"}
    columns |= {
        "name": pa.array([name for _, name, _ in found], type=pa.string()),
        "mime_type": pa.array([file.mime_type for _, _, file in found], type=pa.string()),
        "content": pa.array([file.content for _, _, file in found], type=pa.binary()),
        "blob_key": pa.array([file.blob.key if file.blob else "" for _, _, file in found], type=pa.string()),
        "size_bytes": pa.array([file.size_bytes() for _, _, file in found], type=pa.uint64()),
    }
    return pa.record_batch(list(columns.values()), names=list(columns))


def _write(path: str, batch: pa.RecordBatch) -> None:
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
