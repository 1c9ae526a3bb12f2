"""The tables as on a cluster, `Distributed` in front of local ones: some of the other tests, against them.

The cluster has one shard, the engine itself. All tests: TESTS_ENGINE=cluster pytest tests/conformance
"""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.engine_front.front import engine_front

from runstore.storage.clickhouse.columns import sql_time
from runstore.storage.clickhouse.list_sql import Statement
from runstore.storage.clickhouse.run_store import ClickHouseRunStore, open_run_store
from runstore.storage.clickhouse.schema import WrongTopology

from .test_blobs import test_project_has_the_blobs_of_its_rows_alone  # noqa: F401 - is run here, too
from .test_deletions import test_operations_from_before_never_come_back, test_whole_traces  # noqa: F401 - likewise
from .test_operations import (  # noqa: F401 - likewise
    T0_US,
    sender,
    test_child_before_its_parents,
    test_many_bare_updates_at_once,
    test_update_before_create,
    test_update_from_another_project_moves_the_run,
)

_GOLDEN = Path(__file__).parents[1] / "golden" / "schema" / "cluster.sql"


@pytest.fixture(scope="module")
def cluster_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the cluster is, in a process of its own."""
    with engine_front(tmp_path_factory.mktemp("cluster"), is_cluster=True) as front:
        yield front.dsn


@pytest.fixture(scope="module")
def run_store(cluster_dsn: str) -> Iterator[ClickHouseRunStore]:
    """Takes the place of the session's, here."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        yield runner.run(stack.enter_async_context(open_run_store(cluster_dsn, cluster="one")))
        runner.run(stack.aclose())


async def _rows(run_store: ClickHouseRunStore, query: str, **parameters: str) -> list[tuple[str, str]]:
    found = await run_store._rows(Statement(query, dict(parameters)))
    return [(row[0], row[-1]) for row in found]


async def test_rows_are_in_local_tables(run_store: ClickHouseRunStore) -> None:
    """Those in front have none of their own."""
    text = "SELECT name, engine FROM system.tables WHERE database = currentDatabase() AND name NOT LIKE '.%'"
    tables = dict(await _rows(run_store, text))
    fronts = {name for name, engine in tables.items() if engine == "Distributed"}
    assert {"runs", "run_payloads", "run_keys", "feedback", "schema_migrations"} <= fronts
    others = {name for name in tables if name not in fronts and not name.endswith("_feed")}
    assert others == {f"{name}_local" for name in fronts}


async def test_tables_of_a_cluster_parse(run_store: ClickHouseRunStore) -> None:
    """Every statement of the golden file, though nothing but a real cluster can execute it as it stands."""
    statements = [line[:-1] for line in _GOLDEN.read_text().splitlines() if line.endswith(";")]
    assert len(statements) > 30
    for statement in statements:
        [(formatted, _)] = await _rows(run_store, "SELECT formatQuery({text:String})", text=statement)
        assert "ON CLUSTER runs" in formatted


async def test_tables_of_a_cluster_are_not_taken_for_those_of_one_server(
    run_store: ClickHouseRunStore, cluster_dsn: str
) -> None:
    """A setting that was forgotten ends the start, with a sentence."""
    assert (await run_store.figures()).version
    with pytest.raises(WrongTopology, match="RUNSTORE_CLICKHOUSE_CLUSTER"):
        async with open_run_store(cluster_dsn):
            pass


@pytest.mark.parametrize("count", [3, 20_000])
async def test_parameters_of_any_length(run_store: ClickHouseRunStore, count: int) -> None:
    """A server takes 128 KiB for one: longer lists arrive all the same, and say what they are; so do
    short ones of long texts."""
    odd = ["\\", "\\n", "'", "\n\t", "{ids:Array(UUID)}", "é" * 100_000]
    texts = [*odd, *(f"é{number}" for number in range(count))]
    ids = [str(uuid.UUID(int=number)) for number in range(count)]
    at = sql_time(T0_US + 1)
    keys = [(each, at, "") for each in ids]
    sql = (
        "SELECT toString(length({ids:Array(UUID)})), toString({ids:Array(UUID)}[-1]), "
        "arrayStringConcat({texts:Array(String)}, '|'), toString(tuple({last:UUID}, "
        "{at:DateTime64(6, 'UTC')}, '') IN "
        "{keys:Array(Tuple(UUID, DateTime64(6, 'UTC'), String))})"
    )
    parameters = {"ids": ids, "texts": texts, "keys": keys, "last": ids[-1], "at": at}
    [row] = await run_store._rows(Statement(sql, parameters))
    assert tuple(row) == (str(count), ids[-1], "|".join(texts), "1")
