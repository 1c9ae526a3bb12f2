"""Backups of a store whose engine is a server and its catalog PostgreSQL; backups that are broken off."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import pytest
from tests.contract.servers import COMMAND, run_command
from tests.engine_front.front import NO_FAULT, EngineFront, Fault, engine_front
from tests.postgres import Postgres
from tests.s3 import BUCKET, s3_service
from tests.waiting import LONGEST_WAIT_S, until

from .store_process import Store
from .test_engine_away import Client, client_of

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the server writes its part."""
    if request.param == "folder":
        yield str(tmp_path / "of-the-server")
        return
    with s3_service() as endpoint:
        yield f"{endpoint}/{BUCKET}/backups"


@pytest.fixture
def fronts(place: str, tmp_path: Path) -> Iterator[tuple[EngineFront, EngineFront]]:
    """Two servers, which have access to the place: one with the store's tables, and an empty one."""
    with engine_front(tmp_path / "engine") as first, engine_front(tmp_path / "other") as second:
        yield first, second


@pytest.fixture
def store(fronts: tuple[EngineFront, EngineFront], place: str, postgres: Postgres, tmp_path: Path) -> Store:
    """A store on the first one."""
    (tmp_path / "store").mkdir()
    return Store(
        tmp_path / "store",
        clickhouse_dsn=fronts[0].dsn,
        catalog_url=postgres.create_database(),
        clickhouse_backup=place,
    )


@pytest.fixture
def written(store: Store) -> Iterator[tuple[Client, list[str]]]:
    """A client of the running store, and runs that it has acknowledged."""
    with store.running(), client_of(store) as client:
        yield client, client.create(50)[0]


def test_server_and_postgresql_come_back(
    store: Store,
    place: str,
    written: tuple[Client, list[str]],
    fronts: tuple[EngineFront, EngineFront],
    postgres: Postgres,
    tmp_path: Path,
) -> None:
    """Into another server and another database, also after a restore that the server has broken off."""
    made = json.loads(
        run_command("backup", str(tmp_path / "backup"), "--json", environment=store.environment).stdout
    )
    assert made["engine_location"] == f"{place}/runstore-{made['id']}"
    other = fronts[1]
    (tmp_path / "restored").mkdir()
    restored = Store(tmp_path / "restored", clickhouse_dsn=other.dsn, catalog_url=postgres.create_database())
    restore = ("restore", str(tmp_path / "backup"))
    other.suffer(Fault("error", code=241, only="RESTORE DATABASE"))
    refused = run_command(*restore, environment=restored.environment, check=False)
    assert refused.returncode == 1
    assert "runstore: the restore was broken off" in refused.stderr
    assert "Traceback" not in refused.stderr
    cannot_start = run_command("store", environment=restored.environment, check=False)
    assert cannot_start.returncode == 1
    assert "repeat `runstore restore`" in cannot_start.stderr
    other.suffer(NO_FAULT)
    engine = clickhouse_connect.get_client(dsn=other.dsn)
    engine.command("CREATE TABLE runs (half Int64) ENGINE = MergeTree ORDER BY half")
    run_command(*restore, environment=restored.environment)
    with restored.running(), client_of(restored) as client:
        client.assert_stored(written[1])
        ids, token = client.create(3)
        client.wait_visible(token)
        client.assert_stored([*written[1], *ids])
    again = run_command(*restore, environment=restored.environment, check=False)
    assert again.returncode == 1
    assert "is not empty" in again.stderr


@pytest.mark.parametrize("place", ["folder"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_backup_that_is_broken_off_is_repeated(
    store: Store,
    written: tuple[Client, list[str]],
    fronts: tuple[EngineFront, EngineFront],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    """Whoever asked for it goes away: the folder holds what it held before, and writes go on."""
    folder = tmp_path / "backup"
    backup = ("backup", str(folder))
    first = json.loads(run_command(*backup, "--json", environment=store.environment).stdout)
    fronts[0].suffer(Fault("hang", only="FROM system.backups"))
    command = [*COMMAND, *backup]
    with subprocess.Popen(command, env=dict(store.environment), stderr=subprocess.PIPE) as asking:
        until(
            lambda: len([path for path in folder.iterdir() if path.name.startswith("2")]) == 2, "it has begun"
        )
        asking.send_signal(number)
        assert asking.wait(LONGEST_WAIT_S) != 0
    fronts[0].suffer(NO_FAULT)
    until(lambda: [path.name for path in folder.glob("2*")] == [first["id"]], "the remains are gone")
    ids, token = written[0].create(5)
    written[0].wait_visible(token)
    written[0].assert_stored([*written[1], *ids])
    checked = run_command("restore", str(folder), "--check", environment=store.environment)
    assert first["id"] in checked.stdout
    second = json.loads(run_command(*backup, "--json", environment=store.environment).stdout)
    assert second["id"] > first["id"]
