"""`runstore status` and `runstore dead-letters` as operators use them, beside a server or without one."""

import asyncio
import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.data_folder import copy_prepared
from tests.engine_front.front import EngineFront, engine_front
from tests.ports import free_port
from tests.waiting import until

from runstore.domain.principals import DEFAULT_TENANT_ID
from runstore.domain.runs import RunPatch
from runstore.ingest.flusher import STAGES
from runstore.storage.clickhouse.run_store import open_run_store

from .servers import Server, clean_environment, run_command, serving
from .wire import run_json

SHOWN = {"COLUMNS": "120", "NO_COLOR": "1"}
SILENT = ("nobody answers", "no gateway answers")
REASON = "Cannot parse [bold]UUID[/bold]\nsecond line"


def command(server: Server, *arguments: str, check: bool = True) -> Any:
    """Runs a command beside a server."""
    return run_command(*arguments, environment={**server.environment, **SHOWN}, check=check)


def status(server: Server) -> Any:
    """`runstore status --json` of a healthy server."""

    def whole() -> Any:
        """Nothing while the engine was silent for two seconds, so that its figures are older ones."""
        asked = datetime.now(UTC)
        shown = asked_of_all(server, "--json")
        found = json.loads(shown) if shown else None
        read = found and found["store"]["engine"]["read_time"]
        return found if read and datetime.fromisoformat(read) >= asked else None

    return until(whole, "a status with new figures of the engine")


def status_text(server: Server) -> str:
    """The same for people."""
    return until(lambda: asked_of_all(server), "a status with all gateways")


def asked_of_all(server: Server, *options: str) -> str:
    """What is shown; "" when a gateway is left out because it was silent for a second or two."""
    done = command(server, "status", *options, check=False)
    workers = [
        f"gateway-{number + 1}" for number in range(int(server.environment["RUNSTORE_GATEWAY_WORKERS"]))
    ]
    shown: str = done.stdout
    if any(silent in shown for silent in SILENT) or not all(worker in shown for worker in workers):
        return ""
    assert done.returncode == 0, shown
    return shown


def letters(server: Server) -> Any:
    """`runstore dead-letters list --json`."""
    return json.loads(command(server, "dead-letters", "list", "--json").stdout)


def write(server: Server, project: str, **fields: Any) -> uuid.UUID:
    """A new run that was acknowledged."""
    run_id = uuid.uuid4()
    answer = httpx.post(f"{server.url}/runs", json=run_json(run_id, project, **fields))
    assert answer.status_code == 202, answer.text
    return run_id


@pytest.fixture(scope="module")
def haunted_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, EngineFront]]:
    """A server whose engine has a process of its own, in which letters can be put beside it."""
    folder = tmp_path_factory.mktemp("haunted")
    copy_prepared(folder / "data")
    with (
        engine_front(folder / "data" / "clickhouse") as front,
        serving(folder, clickhouse_dsn=front.dsn) as server,
    ):
        yield server, front
        assert server.defects() == []


@pytest.fixture
def haunted(
    haunted_server: tuple[Server, EngineFront], project: str
) -> Iterator[tuple[Server, list[RunPatch]]]:
    """A server with two dead letters, which it could not store: of a new run, and of a late update of it."""
    server, front = haunted_server
    run_id, start_us = str(uuid.uuid4()), 1_795_000_000_000_000
    old = RunPatch(
        DEFAULT_TENANT_ID,
        run_id,
        sequence=start_us << 12,
        is_create=True,
        project_id=httpx.post(f"{server.url}/sessions", json={"name": f"{project}-kept"}).json()["id"],
        name="from the dead",
        run_type="chain",
        start_time_us=start_us,
        inputs=b'{"question": 1}',
    )
    update = RunPatch(DEFAULT_TENANT_ID, run_id, sequence=(start_us << 12) + 1, outputs=b'{"answer": 2}')

    async def bury() -> None:
        async with open_run_store(front.dsn) as store:
            await store.bury([old], "refused before, for another reason")
            await store.bury([old], REASON)
            await store.bury([update], "no room")

    asyncio.run(bury())
    yield server, [old, update]
    command(server, "dead-letters", "drop", "--all", "--yes")


def test_status_fits_on_a_screen(server: Server, project: str) -> None:
    """All processes, what they do, and where everything is; healthy means status 0."""
    write(server, project)
    shown = status_text(server)
    lines = shown.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 120
    assert lines[0].endswith("healthy")
    for text in (server.url, server.grpc, "gateway-1", "gateway-2", "flusher", "embedded, available"):
        assert text in shown, text
    assert re.search(r"^dead letters +0 *$", shown, re.MULTILINE)
    sizes = r"[\d.]+ \w+ +[\d.]+ \w+ +[\d.]+"
    assert re.search(rf"^all +[\d,]+ +[\d,]+ +{sizes} *$", shown, re.MULTILINE)


def test_status_is_plain_for_programs(server: Server, project: str) -> None:
    """Numbers are numbers, times are text; what was written is counted, and ends up visible."""
    before = status(server)["store"]["ingest"]["durable_operations"]
    write(server, project)
    until(lambda: status(server)["store"]["ingest"]["waiting_operations"] == 0, "the run is visible")
    shown = status(server)
    assert (shown["healthy"], shown["problems"], shown["http"]["answers"]) == (True, [], True)
    store = shown["store"]
    assert store["ingest"]["durable_operations"] >= before + 1
    assert store["ingest"]["lag"] == 0
    assert store["ingest"]["log_max_bytes"] == 8 * 2**30
    assert store["last_flush"]["operations"] >= 1
    assert set(store["last_flush"]["stage_seconds"]) == set(STAGES)
    names = [process["name"] for process in store["processes"]]
    assert names == ["store", "flusher", "gateway-1", "gateway-2"]
    assert all(process["resident_bytes"] > 2**20 for process in store["processes"])
    [runs] = [table for table in store["engine"]["tables"] if table["name"] == "runs"]
    assert runs["rows"] >= 1
    assert runs["disk_bytes"] > 0


def test_status_works_with_keys(guarded: Server, key: str) -> None:
    """Whoever can open the catalog is the operator: no key has to be given."""
    assert status(guarded)["store"]["auth"] == "keys"


def test_status_of_a_store_that_is_away(tmp_path: Path) -> None:
    """It says so, with what can be known without it, and ends with status 1."""
    environment = clean_environment(
        RUNSTORE_DATA_DIR=str(tmp_path / "data"),
        RUNSTORE_HTTP=f"127.0.0.1:{free_port()}",
        RUNSTORE_GRPC=f"127.0.0.1:{free_port()}",
        **SHOWN,
    )
    done = run_command("status", environment=environment, check=False)
    assert done.returncode == 1
    assert "not healthy" in done.stdout
    assert "no store answers at" in done.stdout
    assert "nobody answers" in done.stdout
    shown = json.loads(run_command("status", "--json", environment=environment, check=False).stdout)
    assert (shown["healthy"], shown["store"]) == (False, None)
    for arguments in (("dead-letters", "list"), ("dead-letters", "replay", "--all")):
        done = run_command(*arguments, environment=environment, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"runstore: no store answers at .*: is it running\?\n", done.stderr)


def test_nothing_to_bury_is_said(server: Server) -> None:
    """Without dead letters every command says so, and does nothing."""
    assert command(server, "dead-letters", "list").stdout == "There are no dead letters.\n"
    assert letters(server) == []
    for arguments in (("replay", "--all"), ("drop", "--all")):
        assert command(server, "dead-letters", *arguments).stdout == "There are no dead letters.\n"
    missing = command(server, "dead-letters", "show", f"{1:016x}-{1:08x}", check=False)
    assert missing.returncode == 1
    assert "there is no dead letter 0000000000000001-00000001" in missing.stderr
    replayed = command(server, "dead-letters", "replay", f"{1:016x}-{1:08x}", check=False)
    assert (replayed.returncode, "Not found: 0000" in replayed.stderr) == (1, True)


@pytest.mark.parametrize("verb", ["replay", "drop"])
def test_letters_are_chosen_one_way(server: Server, verb: str) -> None:
    """Neither ids nor --all, both, or something that is no id: one line that says what to do."""
    for arguments in ((), ("--all", "x")):
        done = command(server, "dead-letters", verb, *arguments, check=False)
        assert (done.returncode, "--all" in done.stderr) == (2, True)
    done = command(server, "dead-letters", verb, "x", *(["--yes"] if verb == "drop" else []), check=False)
    assert done.returncode == 1
    assert "'x' is not the id of a dead letter" in done.stderr


def test_letters_are_listed_shown_and_dropped(haunted: tuple[Server, list[RunPatch]]) -> None:
    """When, which run and why are on one line, the operation is as it was sent; a drop is final."""
    server, [old, _] = haunted
    listed = command(server, "dead-letters", "list").stdout.splitlines()
    assert len(listed) == 3
    assert old.run_id in listed[1]
    assert listed[1].rstrip().endswith("Cannot parse [bold]UUID[/bold]")
    assert "2026-11-18" in listed[1]
    first, second = letters(server)
    assert [first["reason"], second["reason"]] == [REASON, "no room"]
    assert first["tenant_id"] == DEFAULT_TENANT_ID
    accepted = Timestamp()
    accepted.FromJsonString(first["accept_time"])
    assert accepted.ToMicroseconds() == old.sequence >> 12
    shown = command(server, "dead-letters", "show", first["id"]).stdout
    assert REASON in shown
    assert '"question": 1' in shown
    operation = json.loads(command(server, "dead-letters", "show", first["id"], "--json").stdout)["operation"]
    assert (operation["name"], operation["inputs"]) == ("from the dead", {"question": 1})
    assert "There are more" in command(server, "dead-letters", "list", "--limit", "1").stdout
    assert status(server)["store"]["dead_letters"] == 2
    until(lambda: "dead-letters list" in status_text(server), "new figures of the engine")

    refused = command(server, "dead-letters", "drop", first["id"], check=False)
    assert (refused.returncode, len(letters(server))) == (1, 2)
    dropped = command(server, "dead-letters", "drop", first["id"], "--yes")
    assert dropped.stdout == "Dropped 1 dead letter.\n"
    assert [letter["id"] for letter in letters(server)] == [second["id"]]
    gone = command(server, "dead-letters", "drop", first["id"], "--yes", check=False)
    assert (gone.returncode, gone.stdout) == (1, "Dropped 0 dead letters.\n")


def test_replay_stores_what_was_refused(haunted: tuple[Server, list[RunPatch]]) -> None:
    """The run is there, whole, at once; the letters are gone; a second replay finds nothing."""
    server, [old, _] = haunted
    assert httpx.get(f"{server.url}/runs/{old.run_id}").status_code == 404
    assert command(server, "dead-letters", "replay", "--all").stdout == "Stored 2 of 2 dead letters.\n"
    run = httpx.get(f"{server.url}/runs/{old.run_id}").json()
    assert (run["name"], run["inputs"], run["outputs"]) == ("from the dead", {"question": 1}, {"answer": 2})
    assert letters(server) == []
    none = re.compile(r"^dead letters +0 *$", re.MULTILINE)
    until(lambda: none.search(status_text(server)), "new figures of the engine")


def test_replayed_operation_does_not_win_over_newer_ones(
    haunted: tuple[Server, list[RunPatch]], project: str
) -> None:
    """It keeps its place in the order: what was written since stays, what it alone says is added."""
    server, [old, _] = haunted
    newer = run_json(uuid.UUID(old.run_id), project, outputs={"answer": "newer"})
    newer.pop("inputs", None)
    assert httpx.post(f"{server.url}/runs", json=newer).status_code == 202
    before = httpx.get(f"{server.url}/runs/{old.run_id}").json()
    command(server, "dead-letters", "replay", "--all")
    after = httpx.get(f"{server.url}/runs/{old.run_id}").json()
    assert after["inputs"] == {"question": 1}
    kept = ("name", "outputs", "start_time", "session_id", "run_type")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    found = httpx.post(f"{server.url}/runs/query", json={"id": [old.run_id]}).json()["runs"]
    assert [run["id"] for run in found] == [old.run_id]


def test_letter_of_a_deleted_project_is_kept(haunted: tuple[Server, list[RunPatch]]) -> None:
    """What cannot be stored is refused again, with the reason, and stays; the others are stored."""
    server, [old, _] = haunted
    assert httpx.delete(f"{server.url}/sessions/{old.project_id}").status_code in (200, 202, 204)
    done = command(server, "dead-letters", "replay", "--all", check=False)
    assert (done.returncode, done.stdout) == (1, "Stored 1 of 2 dead letters.\n")
    assert f"there is no project {old.project_id}" in done.stderr
    assert [letter["run_id"] for letter in letters(server)] == [old.run_id]
