"""The engine is a server that goes away in every way a server can: writes are acknowledged all the
while, and stored once when it is back."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.engine_front.front import (
    HANG,
    LOSE_ANSWERS,
    MEMORY_LIMIT,
    NO_FAULT,
    REFUSE,
    TOO_MANY_PARTS,
    UNAVAILABLE,
    EngineFront,
    Fault,
    engine_front,
    slow,
)
from tests.waiting import LONGEST_WAIT_S

from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as query
from runstore.v1 import run_query_service_pb2_grpc as query_grpc

from .store_process import Store

pytestmark = pytest.mark.engine

AWAY_S = 0.5
START = Timestamp(seconds=1_795_000_000)
FIELDS = [
    run_pb2.RUN_FIELD_ID,
    run_pb2.RUN_FIELD_NAME,
    run_pb2.RUN_FIELD_INPUTS,
    run_pb2.RUN_FIELD_ATTACHMENTS,
]


@dataclass(frozen=True)
class Client:
    """Writes and reads through one store."""

    ingest: ingest_grpc.RunIngestServiceStub
    query: query_grpc.RunQueryServiceStub

    def create(self, count: int) -> tuple[list[str], str]:
        """Ids of new runs with an attachment each, once they are acknowledged, and the write token."""
        ids = [str(uuid.uuid4()) for _ in range(count)]
        answer = self.ingest.WriteRuns(
            ingest.WriteRunsRequest(
                operations=[
                    ingest.RunOperation(
                        create=ingest.RunFields(
                            id=run_id,
                            name=run_id,
                            run_type=run_pb2.RUN_TYPE_TOOL,
                            start_time=START,
                            inputs=b'{"of": "%s"}' % run_id.encode(),
                            attachments=[
                                ingest.AttachmentContent(name="a", mime_type="x/y", content=b"file")
                            ],
                        )
                    )
                    for run_id in ids
                ]
            ),
            timeout=LONGEST_WAIT_S,
        )
        assert not answer.errors
        return ids, answer.write_token

    def wait_visible(self, write_token: str, timeout_s: float = LONGEST_WAIT_S) -> None:
        """Returns once the write can be read; raises DEADLINE_EXCEEDED."""
        self.ingest.WaitVisible(ingest.WaitVisibleRequest(write_token=write_token), timeout=timeout_s)

    def assert_waiting(self, write_token: str) -> None:
        """The write cannot be read, and the reader is made to wait rather than told so."""
        with pytest.raises(grpc.RpcError) as failed:
            self.wait_visible(write_token, AWAY_S)
        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    def assert_stored(self, ids: list[str]) -> None:
        """Each run is there once and whole."""
        request = query.ListRunsRequest(ids=ids, fields=FIELDS, page_size=1_000)
        found = self.query.ListRuns(request, timeout=LONGEST_WAIT_S).runs
        assert sorted(run.id for run in found) == sorted(ids)
        for run in found:
            assert run.name == run.id
            assert run.inputs == b'{"of": "%s"}' % run.id.encode()
            assert run.attachments["a"].size_bytes == len(b"file")


@contextmanager
def client_of(store: Store) -> Iterator[Client]:
    """A client on a connection of its own."""
    with grpc.insecure_channel(store.address, options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        yield Client(ingest_grpc.RunIngestServiceStub(channel), query_grpc.RunQueryServiceStub(channel))


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineFront]:
    """A server of the engine, with two hosts."""
    with engine_front(tmp_path_factory.mktemp("engine"), hosts=2) as running:
        yield running


@pytest.fixture(scope="module")
def client(front: EngineFront, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a store process that uses the server."""
    store = Store(tmp_path_factory.mktemp("store"), clickhouse_dsn=front.dsn)
    with store.running(), client_of(store) as connected:
        yield connected


FAULTS = {
    "refuses": REFUSE,
    "hangs": HANG,
    "answers 503": UNAVAILABLE,
    "has too many parts": TOO_MANY_PARTS,
    "has no memory": MEMORY_LIMIT,
    "loses its answers": LOSE_ANSWERS,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_engine_goes_away_and_comes_back(front: EngineFront, client: Client, fault: Fault) -> None:
    """Writes are acknowledged while the engine cannot take them, and stored exactly once afterwards."""
    before, _ = client.create(3)
    front.suffer(fault)
    during, token = client.create(20)
    client.assert_waiting(token)
    more, token = client.create(20)
    front.suffer(NO_FAULT)
    client.wait_visible(token)
    client.assert_stored(before + during + more)


@pytest.mark.parametrize("fault", [REFUSE, UNAVAILABLE, LOSE_ANSWERS], ids=["dies", "answers 503", "loses"])
def test_one_host_is_lost_under_load(front: EngineFront, client: Client, fault: Fault) -> None:
    """What is under way goes on at the other host: no write waits, no read fails, and nothing is there twice.
    Thereafter the other one may be lost just as well."""
    for host in (0, 1):
        ids: list[str] = []
        with ThreadPoolExecutor() as pool:
            reads = [pool.submit(client.assert_stored, client.create(5)[0]) for _ in range(4)]
            front.suffer(fault, host)
            for _ in range(5):
                created, token = client.create(5)
                ids += created
                client.wait_visible(token)
            for read in reads:
                read.result()
        client.assert_stored(ids)
        front.suffer(NO_FAULT, host)


def test_engine_is_killed(front: EngineFront, client: Client) -> None:
    """The engine's process dies and starts again: what was acknowledged before and meanwhile is stored."""
    before, _ = client.create(20)
    front.kill()
    during, token = client.create(20)
    client.assert_waiting(token)
    front.start()
    client.wait_visible(token)
    client.assert_stored(before + during)


def test_slow_engine(front: EngineFront, client: Client) -> None:
    """An engine that takes its time delays reads, never acknowledgements, and loses nothing."""
    front.suffer(slow(0.1))
    ids, token = client.create(20)
    client.wait_visible(token)
    client.assert_stored(ids)
    front.suffer(NO_FAULT)


def test_store_is_killed_and_started_while_the_engine_is_away(front: EngineFront, tmp_path: Path) -> None:
    """What only the log has survives the store. The next one, whose engine is not there, acknowledges writes,
    refuses reads for now, and stores everything once the engine comes."""
    store = Store(tmp_path, clickhouse_dsn=front.dsn)
    with store.running() as process, client_of(store) as client:
        front.suffer(REFUSE)
        before, token = client.create(20)
        client.assert_waiting(token)
        process.kill()
    with store.running(), client_of(store) as client:
        ids, token = client.create(20)
        client.assert_waiting(token)
        front.suffer(NO_FAULT)
        client.wait_visible(token)
        client.assert_stored(before + ids)
    assert "Traceback" not in store.output
