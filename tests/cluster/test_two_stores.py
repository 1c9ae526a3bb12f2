"""Two stores and two gateways on one ClickHouse front, one PostgreSQL and one S3: what one has taken the
other shows, and what was acknowledged outlives the store that took it."""

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.contract.servers import clean_environment
from tests.engine_front.front import engine_front
from tests.faults.store_process import Store
from tests.ports import free_port
from tests.postgres import Postgres
from tests.s3 import BUCKET, s3_service
from tests.waiting import LONGEST_WAIT_S, until

from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import project_service_pb2_grpc as projects_grpc
from runstore.v1 import run_deletion_service_pb2 as deletions
from runstore.v1 import run_deletion_service_pb2_grpc as deletions_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest_pb
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as query
from runstore.v1 import run_query_service_pb2_grpc as query_grpc

pytestmark = pytest.mark.engine

START = "2026-11-21T12:00:00Z"
LARGE = "x" * 20_000
VISIBLE = "x-runstore-visible"


@dataclass
class Stores:
    """Two stores, each with a channel of its own."""

    first: Store
    second: Store
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of a service that speaks S3, with a bucket."""
    with s3_service() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def stores(postgres: Postgres, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Both running."""
    folder: Path = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        front = stack.enter_context(engine_front(folder / "engine", hosts=2))
        settings = {
            "clickhouse_dsn": front.dsn,
            "catalog_url": postgres.create_database(),
            "blob_url": f"s3://{BUCKET}",
            "blob_endpoint": s3,
            "inline_payload_bytes": "10000",
            "flush_interval_ms": "200",
        }
        both = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            both.append(Store(folder / name, **settings))
        running = Stores(both[0], both[1])
        for store in both:
            running.processes.append(stack.enter_context(store.running()))
        yield running
        for store in both:
            assert "Traceback" not in store.output, store.output


@contextmanager
def gateway(stores: Stores, folder: Path) -> Iterator[httpx.Client]:
    """A client of a gateway of its own, in front of both stores."""
    port = free_port()
    settings = {
        "RUNSTORE_DATA_DIR": str(folder),
        "RUNSTORE_HTTP": f"127.0.0.1:{port}",
        "RUNSTORE_STORE_ADDRESS": f"{stores.first.address},{stores.second.address}",
        "RUNSTORE_GATEWAY_WORKERS": "1",
    }
    command = [sys.executable, "-m", "runstore.runtime.cli", "gateway"]
    with (
        (folder.parent / f"{folder.name}.txt").open("wb") as output,
        subprocess.Popen(command, env=clean_environment(**settings), stdout=output, stderr=output) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONGEST_WAIT_S) as client,
    ):
        try:

            def answers() -> bool:
                assert process.poll() is None
                try:
                    return client.get("/ok").is_success
                except httpx.TransportError:
                    return False

            until(answers, "a gateway")
            yield client
        finally:
            process.kill()


@pytest.fixture(scope="module")
def gateways(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[httpx.Client]]:
    """Clients of two of them."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(gateway(stores, tmp_path_factory.mktemp(f"gateway{number}")))
            for number in range(2)
        ]


@dataclass(frozen=True)
class Client:
    """Calls one store."""

    ingest: ingest_grpc.RunIngestServiceStub
    query: query_grpc.RunQueryServiceStub
    deletions: deletions_grpc.RunDeletionServiceStub
    projects: projects_grpc.ProjectServiceStub

    def write(self, *operations: "ingest_pb.RunOperation") -> str:
        """The token of an acknowledged write."""
        answer = self.ingest.WriteRuns(
            ingest_pb.WriteRunsRequest(operations=operations), timeout=LONGEST_WAIT_S
        )
        assert not answer.errors
        return str(answer.write_token)

    def find(self, *run_ids: str, token: str = "") -> dict[str, run_pb2.Run]:
        """Runs by id."""
        request = query.ListRunsRequest(
            ids=run_ids,
            page_size=1_000,
            fields=[run_pb2.RUN_FIELD_ID, run_pb2.RUN_FIELD_NAME, run_pb2.RUN_FIELD_OUTPUTS],
        )
        metadata = ((VISIBLE, token),) if token else ()
        found = self.query.ListRuns(request, timeout=LONGEST_WAIT_S, metadata=metadata).runs
        assert len({run.id for run in found}) == len(found)
        return {run.id: run for run in found}


@pytest.fixture(scope="module")
def clients(stores: Stores) -> Iterator[list[Client]]:
    """One of each store."""
    with ExitStack() as stack:
        made = []
        for store in (stores.first, stores.second):
            options = [("grpc.max_reconnect_backoff_ms", 200)]
            channel = stack.enter_context(grpc.insecure_channel(store.address, options=options))
            made.append(
                Client(
                    ingest_grpc.RunIngestServiceStub(channel),
                    query_grpc.RunQueryServiceStub(channel),
                    deletions_grpc.RunDeletionServiceStub(channel),
                    projects_grpc.ProjectServiceStub(channel),
                )
            )
        yield made


def creation(run_id: str, project: str = "two stores") -> ingest_pb.RunOperation:
    """Of a run that has begun."""
    start = Timestamp()
    start.FromJsonString(START)
    fields: dict[str, Any] = {"id": run_id, "name": "n", "run_type": run_pb2.RUN_TYPE_TOOL}
    return ingest_pb.RunOperation(
        create=ingest_pb.RunFields(**fields, start_time=start, project_name=project, inputs=b"{}")
    )


def update(run_id: str, outputs: bytes) -> ingest_pb.RunOperation:
    """By its id alone."""
    return ingest_pb.RunOperation(update=ingest_pb.RunFields(id=run_id, outputs=outputs))


def new_id() -> str:
    return str(uuid.uuid4())


def test_token_of_a_write_shows_it_at_the_other_store(clients: list[Client]) -> None:
    """At once, in both directions."""
    for writer, reader in (clients, clients[::-1]):
        for _ in range(3):
            run_id = new_id()
            token = writer.write(creation(run_id))
            assert run_id in reader.find(run_id, token=token)


def test_token_travels_over_http(gateways: list[httpx.Client]) -> None:
    """In a header of the answer to a write, and of the request that is to see it; other texts are refused."""
    run_ids = [new_id() for _ in range(4)]
    for run_id in run_ids:
        body = {"id": run_id, "name": "n", "run_type": "tool", "start_time": START}
        written = gateways[0].post("/runs", json=body)
        assert written.status_code == 202
        read = gateways[1].get(f"/runs/{run_id}", headers={VISIBLE: written.headers[VISIBLE]})
        assert read.status_code == 200, read.text
    assert gateways[1].get(f"/runs/{run_ids[0]}", headers={VISIBLE: "x"}).status_code == 422


def test_update_at_one_store_of_a_run_in_the_log_of_the_other(clients: list[Client]) -> None:
    """In either order: what waits for a run is stored when the run comes, wherever that is."""
    first, second = clients
    early, late = [new_id() for _ in range(5)], [new_id() for _ in range(5)]
    tokens = [
        second.write(*(update(run_id, b'{"early":1}') for run_id in early)),
        first.write(*(creation(run_id) for run_id in (*early, *late))),
        second.write(*(update(run_id, b'{"late":1}') for run_id in late)),
    ]
    for reader in clients:
        until(
            lambda: (
                sum(
                    bool(run.outputs)
                    for run in reader.find(*early, *late, token=",".join(tokens)).values()  # noqa: B023
                )
                == 10
            ),
            "updates of runs of the other store",
        )


def test_deletion_holds_for_what_the_other_store_has(clients: list[Client]) -> None:
    """A trace that is in its log, and a run that it remembers."""
    first, second = clients
    root, other = new_id(), new_id()
    second.write(creation(root), creation(other))
    first.deletions.DeleteTraces(deletions.DeleteTracesRequest(trace_ids=[root]), timeout=LONGEST_WAIT_S)
    assert set(second.find(root, other)) == {other}
    assert set(first.find(root, other)) == {other}
    token = second.write(update(root, b"{}"))
    assert not first.find(root, token=token)
    token = first.write(creation(root))
    assert root in second.find(root, token=token)


def test_deleted_project_takes_nothing_at_the_other_store(clients: list[Client]) -> None:
    """Who writes to its name after the deletion writes to another project, whatever that store remembers."""
    first, second = clients
    before, after = new_id(), new_id()
    token = second.write(creation(before, "doomed"))
    [project] = first.projects.ListProjects(projects.ListProjectsRequest(name="doomed")).projects
    assert before in first.find(before, token=token)
    first.projects.DeleteProject(projects.DeleteProjectRequest(id=project.id), timeout=LONGEST_WAIT_S)
    token = second.write(creation(after, "doomed"))
    assert set(first.find(before, after, token=token)) == {after}


def test_each_store_has_a_number_of_its_own(clients: list[Client]) -> None:
    """Which its sequence numbers carry, and so the tokens of its writes."""
    assert [int(client.write(creation(new_id()))) % 256 for client in clients] == [0, 1]


class Load:
    """Creates and ends runs through gateways, and knows what was acknowledged."""

    def __init__(self, gateways: list[httpx.Client]) -> None:
        self._gateways = gateways
        self.ended: list[str] = []
        self.refused: list[str] = []
        self._stop = threading.Event()

    def work(self, number: int) -> None:
        """One sender, whose updates go to the other gateway than its creations."""
        create, end = self._gateways[number % 2], self._gateways[(number + 1) % 2]
        while not self._stop.is_set():
            run_id = new_id()
            body = {"id": run_id, "name": run_id, "run_type": "tool", "start_time": START}
            created = create.post("/runs", json={**body, "session_name": "load", "inputs": {"large": LARGE}})
            ended = end.patch(f"/runs/{run_id}", json={"outputs": {"of": run_id}, "end_time": START})
            if created.status_code == ended.status_code == 202:
                self.ended.append(run_id)
            else:
                self.refused += [created.text, ended.text]

    def stop(self) -> None:
        self._stop.set()


@pytest.mark.parametrize("load_s", [1.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_store_is_killed_under_load(
    stores: Stores, gateways: list[httpx.Client], clients: list[Client], load_s: float
) -> None:
    """No write is refused: the gateways go on at the other store. What was acknowledged is all there, whole
    and once, when the store is back with its log; what was stored before can be read all along."""
    load = Load(gateways)
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        process = stores.processes[0]
        if process.poll() is not None:  # An earlier case has killed it.
            process = stack.enter_context(stores.first.running())
        working = [pool.submit(load.work, number) for number in range(4)]
        until(lambda: len(load.ended) >= 20, "a load")
        before = list(load.ended)
        until(lambda: len(whole(clients[0], before)) == len(before), "runs to be stored")
        process.kill()
        killed_at = time.monotonic()
        while time.monotonic() < killed_at + load_s:
            assert len(whole(clients[1], before)) == len(before)
        load.stop()
        for each in working:
            each.result()
    assert not load.refused
    assert len(load.ended) > len(before)
    with stores.first.running():
        for client in clients:
            until(lambda: len(whole(client, load.ended)) == len(load.ended), "all that was acknowledged")  # noqa: B023
        large = gateways[0].get(f"/runs/{load.ended[-1]}").json()
        assert large["inputs"] == {"large": LARGE}


def whole(client: Client, run_ids: list[str]) -> list[str]:
    """Those of the runs that are there with all that was said of them."""
    found: dict[str, run_pb2.Run] = {}
    for start in range(0, len(run_ids), 500):
        found |= client.find(*run_ids[start : start + 500])
    outputs = {run_id: b'{"of":"%s"}' % run_id.encode() for run_id in run_ids}
    return [run.id for run in found.values() if run.name == run.id and run.outputs == outputs[run.id]]
