"""Stores of this version start on data of the first one: two at once, while writers send."""

import json
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import clickhouse_connect
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from tests.contract.servers import clean_environment, run_command
from tests.engine_front.front import NO_FAULT, EngineFront, Fault, engine_front
from tests.ports import free_port
from tests.postgres import Postgres
from tests.unit.storage.test_schema_golden import statements_of
from tests.waiting import LONGEST_WAIT_S, until_async

from runstore.catalog import migrations
from runstore.catalog.database import open_database
from runstore.catalog.tables import SCHEMA_VERSION as NEWEST
from runstore.domain.principals import DEFAULT_TENANT_ID
from runstore.storage.clickhouse.columns import Present
from runstore.storage.clickhouse.schema import SCHEMA_VERSION
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as query

from .store_process import Store
from .test_engine_away import Client, client_of

pytestmark = pytest.mark.engine

PROJECT_ID = "11111111-1111-4111-8111-111111111111"
OLD_RUNS = 5_000
OLD_ID = "toUUID(concat('00000000-0000-4000-8000-', leftPad(toString(number), 12, '0')))"
OLD_KEY = (
    f"toUUID('{DEFAULT_TENANT_ID}') AS tenant_id, toUUID('{PROJECT_ID}') AS project_id, "
    "toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + toIntervalSecond(number) AS start_time, "
    f"{OLD_ID} AS run_id, toUInt64(number + 1) AS seq, "
)
"""Runs as a store of the first version has left them."""


def old_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def fill_engine(front: EngineFront) -> None:
    """The tables of the first version, by its own statements, with runs in several parts."""
    client = clickhouse_connect.get_client(dsn=front.dsn.partition(",")[0])
    for statement in statements_of(1):
        client.command(statement)
    client.command(
        "CREATE TABLE schema_migrations (version UInt32, name String, "
        "applied_at DateTime('UTC') DEFAULT now()) ENGINE = ReplacingMergeTree ORDER BY version"
    )
    client.command("INSERT INTO schema_migrations (version, name) VALUES (1, 'first tables')")
    fields = Present.NAME | Present.RUN_TYPE | Present.END_TIME | Present.TAGS | Present.SETTLED
    payloads = Present.INPUTS | Present.OUTPUTS
    for begin in range(0, OLD_RUNS, OLD_RUNS // 5):
        numbers = f"FROM numbers({begin}, {OLD_RUNS // 5})"
        client.command(
            "INSERT INTO run_payloads (tenant_id, project_id, start_time, run_id, seq, present, "
            f"inputs, outputs) SELECT {OLD_KEY} toUInt32({payloads.value}) AS present, "
            f"concat('{{\"q\":\"quokka ', toString(number), '\"}}'), '{{\"a\":1}}' {numbers}"
        )
        client.command(
            "INSERT INTO runs (tenant_id, project_id, start_time, run_id, seq, present, trace_id, "
            f"dotted_order, name, run_type, end_time, tags) SELECT {OLD_KEY} "
            f"toUInt32({fields.value}) AS present, run_id, "
            "concat(formatDateTime(start_time, '%Y%m%dT%H%i%S'), '000000Z', toString(run_id)), "
            "concat('old-', toString(number)), 'chain', start_time + toIntervalSecond(1), "
            f"['old', concat('tag-', toString(number % 7))] {numbers}"
        )
    client.command(
        "INSERT INTO dead_letters (tenant_id, run_id, seq, reason, operation) "
        f"VALUES ('{DEFAULT_TENANT_ID}', '{old_id(1)}', 1, 'an old reason', '')"
    )


async def fill_catalog(url: str) -> None:
    """The tables of the first version, by its migration, with its tenant and a project."""

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    async with open_database(url) as database, database.exclusive() as connection:
        await connection.run_sync(upgrade)
        await connection.execute(
            text("INSERT INTO tenants (id, name, created_at_us) VALUES (:id, 'default', 1)"),
            {"id": DEFAULT_TENANT_ID},
        )
        await connection.execute(
            text(
                "INSERT INTO projects (id, tenant_id, name, extra, start_time_us, created_at_us, "
                "modified_at_us) VALUES (:id, :tenant, 'default', :extra, 1, 1, 1)"
            ),
            {"id": PROJECT_ID, "tenant": DEFAULT_TENANT_ID, "extra": b"{}"},
        )


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineFront]:
    """An engine that a store of the first version has left."""
    with engine_front(tmp_path_factory.mktemp("engine")) as running:
        fill_engine(running)
        yield running


def found(client: Client, filter_: str) -> list[str]:
    """Names of the runs that a filter finds."""
    request = query.ListRunsRequest(
        project_ids=[PROJECT_ID], filter=filter_, fields=[run_pb2.RUN_FIELD_NAME], page_size=100
    )
    return sorted(run.name for run in client.query.ListRuns(request, timeout=LONGEST_WAIT_S).runs)


@pytest.mark.parametrize("catalog", ["postgresql"])
async def test_two_stores_migrate_at_once_while_writers_send(
    front: EngineFront, postgres: Postgres, tmp_path: Path, catalog: str
) -> None:
    """Writes are acknowledged before the migration is through; then old and new runs are read, by old and
    new indexes, and one migration has been made of both."""
    url = postgres.create_database()
    await fill_catalog(url)
    engine = clickhouse_connect.get_client(dsn=front.dsn)
    stores = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        stores.append(Store(tmp_path / name, clickhouse_dsn=front.dsn, catalog_url=url))
    front.suffer(Fault("hang", only="MATERIALIZE INDEX by_tag"))
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda store: stack.enter_context(store.running()), stores))
        clients = [stack.enter_context(client_of(store)) for store in stores]
        written = [client.create(20) for client in clients]
        [(newest,)] = engine.query("SELECT max(version) FROM schema_migrations").result_rows
        assert newest < SCHEMA_VERSION
        for client, (_, token) in zip(clients, written, strict=True):
            client.assert_waiting(token)
        front.suffer(NO_FAULT)
        for client, (ids, token) in zip(clients, written, strict=True):
            client.wait_visible(token)
            client.assert_stored(ids)
        for client in clients:
            assert found(client, 'search("quokka 4242")') == ["old-4242"]
            assert found(client, 'and(has(tags, "tag-3"), eq(name, "old-3"))') == ["old-3"]
            update(client, old_id(7), b'{"a":2}')
            [run] = read(client, old_id(7))
            assert (run.inputs, json.loads(run.outputs)) == (b'{"q":"quokka 7"}', {"a": 2})
        unfinished = "SELECT command FROM system.mutations WHERE NOT is_done"
        await until_async(lambda: not engine.query(unfinished).result_rows, "the mutations are done")
        versions = engine.query("SELECT DISTINCT version FROM schema_migrations ORDER BY version").result_rows
        assert [version for (version,) in versions] == list(range(1, SCHEMA_VERSION + 1))
        assert found(clients[0], 'search("quokka 4242")') == ["old-4242"]
    for store in stores:
        assert "Traceback" not in store.output


@pytest.mark.parametrize("what", ["tables of runs", "catalog"])
def test_rolled_back_store_is_told_what_to_do(front: EngineFront, tmp_path: Path, what: str) -> None:
    """It touches nothing, names both versions, and ends with status 1."""
    environment = clean_environment(
        RUNSTORE_DATA_DIR=str(tmp_path),
        RUNSTORE_CLICKHOUSE_DSN=front.dsn,
        RUNSTORE_GRPC=f"127.0.0.1:{free_port()}",
    )
    engine = clickhouse_connect.get_client(dsn=front.dsn)
    if what == "catalog":
        with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as catalog, catalog:
            catalog.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
            catalog.execute("INSERT INTO alembic_version VALUES ('9999')")
        known, later = NEWEST, "9999"
    else:
        engine.command("INSERT INTO schema_migrations (version, name) VALUES (999, 'later')")
        known, later = str(SCHEMA_VERSION), "999"
    try:
        said = run_command("store", environment=environment, check=False)
    finally:
        engine.command("DELETE FROM schema_migrations WHERE version = 999")
    assert said.returncode == 1
    assert f"{what} ha" in said.stderr
    assert f"schema version {later}, this runstore knows up to {known}: start the version" in said.stderr
    assert "Traceback" not in said.stderr


def update(client: Client, run_id: str, outputs: bytes) -> None:
    """A run is changed; read afterwards by whoever asks the same store."""
    operation = ingest.RunOperation(update=ingest.RunFields(id=run_id, outputs=outputs))
    assert not client.ingest.WriteRuns(ingest.WriteRunsRequest(operations=[operation])).errors


def read(client: Client, run_id: str) -> list[run_pb2.Run]:
    request = query.ListRunsRequest(
        ids=[run_id], fields=[run_pb2.RUN_FIELD_INPUTS, run_pb2.RUN_FIELD_OUTPUTS], page_size=1
    )
    return list(client.query.ListRuns(request, timeout=LONGEST_WAIT_S).runs)
