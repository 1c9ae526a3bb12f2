"""Fills a catalog with more than anybody will list: straight into its tables, by the hundred thousand."""

import asyncio
import dataclasses
import hashlib
import json
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Table, insert

from runstore.catalog import dataset_tables, open_catalog, tables
from runstore.catalog.database import Database, open_database
from runstore.domain.datasets import Dataset
from runstore.domain.principals import DEFAULT_TENANT_ID as TENANT
from runstore.domain.projects import Project

UPLOAD = 1_000
"""Examples of one write, which makes one version."""

_ROWS_A_STATEMENT = 2_000
_WORDS = (
    "answers",
    "billing",
    "chat",
    "docs",
    "eval",
    "faq",
    "gold",
    "help",
    "intent",
    "judge",
    "kb",
    "legal",
)
_SPLITS = ("train", "test", "base")


@dataclass(frozen=True, slots=True)
class Filled:
    """What can be asked for."""

    dataset_id: str
    """Holds the examples."""
    example_ids: list[str]
    dataset_names: list[str]
    versions: list[str]
    """ISO times of versions of the dataset, oldest first."""


def fill(url: str, rows: int, seed: int) -> Filled:
    """As many projects, datasets, prompts, and examples of one of the datasets, in a catalog of its own."""
    return asyncio.run(_fill(url, rows, seed))


async def _fill(url: str, rows: int, seed: int) -> Filled:
    async with open_catalog(url) as catalog:
        await catalog.tenant_handles.of(TENANT)
    chance = random.Random(seed)
    now_us = time.time_ns() // 1_000
    began_us = now_us - rows * 1_000_000
    async with open_database(url) as database:
        names = [f"{' '.join(chance.choices(_WORDS, k=3))} {number:06d}" for number in range(rows)]
        datasets = list(_datasets(names, began_us, chance))
        await _insert(database, dataset_tables.datasets, iter(datasets))
        dataset_id: str = datasets[rows // 2]["id"]
        await _insert(database, tables.projects, _projects(names, began_us, chance, datasets))
        await _insert(database, tables.prompts, _prompts(names, began_us, chance))
        examples = list(_examples(dataset_id, rows, began_us, chance))
        await _insert(database, dataset_tables.examples, iter(examples))
        versions = sorted({row["from_us"] for row in examples})
        version_rows = ({"dataset_id": dataset_id, "as_of_us": at_us} for at_us in versions)
        await _insert(database, dataset_tables.dataset_versions, version_rows)
        await _insert(database, dataset_tables.split_combinations, _combinations(dataset_id))
        async with database.write() as connection:
            changed = {"version_us": versions[-1], "example_count": rows}
            own = dataset_tables.datasets.c.id == dataset_id
            await connection.execute(dataset_tables.datasets.update().where(own).values(changed))
    times = [time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_us // 1_000_000)) for at_us in versions]
    return Filled(dataset_id, [row["id"] for row in examples], names, [f"{at}.000001Z" for at in times])


async def _insert(database: Database, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    async with database.write() as connection:
        while some := list(islice(rows, _ROWS_A_STATEMENT)):
            await connection.execute(insert(table), some)


def _id(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


def _datasets(names: list[str], began_us: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    for number, name in enumerate(names):
        at_us = began_us + number * 1_000_000
        metadata = json.dumps({"team": chance.choice(_WORDS), "number": number, "runtime": {"sdk": "x"}})
        row = dataclasses.asdict(
            Dataset(
                id=_id(chance), tenant_id=TENANT, name=name, description=f"About {name}",
                metadata=metadata.encode(), created_at_us=at_us, modified_at_us=at_us,
            )
        )  # fmt: skip
        yield {key: row[key] for key in row if key in dataset_tables.datasets.c}


def _projects(
    names: list[str], began_us: int, chance: random.Random, datasets: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    for number, name in enumerate(names):
        at_us = began_us + number * 1_000_000
        extra = json.dumps({"metadata": {"model": chance.choice(_WORDS), "number": number}})
        yield dataclasses.asdict(
            Project(
                id=_id(chance), tenant_id=TENANT, name=name, extra=extra.encode(), start_time_us=at_us,
                created_at_us=at_us, modified_at_us=at_us,
                reference_dataset_id=chance.choice(datasets)["id"] if number % 2 else None,
            )
        )  # fmt: skip


def _prompts(names: list[str], began_us: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    counts = ("num_likes", "num_downloads", "num_views", "num_commits")
    for number, name in enumerate(names):
        at_us = began_us + number * 1_000_000
        yield {
            "id": _id(chance), "tenant_id": TENANT, "handle": name.replace(" ", "-"), "kind": "prompt",
            "description": f"About {name}", "readme": " ".join(chance.choices(_WORDS, k=40)),
            "tags": json.dumps([chance.choice(_WORDS)]), "is_public": not number % 10,
            "is_archived": not number % 20, "created_at_us": at_us, "updated_at_us": at_us,
            **{count: chance.randrange(1_000) for count in counts},
        }  # fmt: skip


def _examples(dataset_id: str, rows: int, began_us: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    for number in range(rows):
        at_us = began_us + number // UPLOAD * 10_000_000
        split = chance.choice(_SPLITS)
        question = " ".join(chance.choices(_WORDS, k=40))
        yield {
            "tenant_id": TENANT, "id": _id(chance), "dataset_id": dataset_id,
            "from_us": at_us, "until_us": dataset_tables.FOREVER_US, "place": UPLOAD - number % UPLOAD,
            "splits": json.dumps([split]), "created_at_us": at_us, "files": b"[]",
            "metadata": json.dumps({"dataset_split": [split], "number": number}).encode(),
            "inputs": json.dumps({"question": question}).encode(),
            "outputs": json.dumps({"answer": question[::-1]}).encode(),
        }  # fmt: skip


def _combinations(dataset_id: str) -> Iterator[dict[str, Any]]:
    for split in _SPLITS:
        splits = json.dumps([split])
        digest = hashlib.sha256(splits.encode()).digest()
        yield {"dataset_id": dataset_id, "digest": digest, "splits": splits}
