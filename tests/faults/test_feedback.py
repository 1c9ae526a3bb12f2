"""Feedback while store and engine die or are away: what was acknowledged is there, once."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from tests.engine_front.front import NO_FAULT, UNAVAILABLE, EngineFront, engine_front
from tests.waiting import LONGEST_WAIT_S

from runstore.v1 import feedback_service_pb2 as pb
from runstore.v1 import feedback_service_pb2_grpc as pb_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc

from .store_process import Store

pytestmark = pytest.mark.engine

RECORDS_IN_A_CALL = 5
_UPDATES_BEFORE_THE_KILL = 3


class Client:
    """Writes and reads feedback through one store."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._feedback = pb_grpc.FeedbackServiceStub(channel)
        self._ingest = ingest_grpc.RunIngestServiceStub(channel)

    def create(self, run_id: str) -> tuple[set[str], str]:
        """Ids of new records, once they are acknowledged, and the write token."""
        ids = {str(uuid.uuid4()) for _ in range(RECORDS_IN_A_CALL)}
        records = [pb.Feedback(id=each, run_id=run_id, key="k", score=0) for each in ids]
        request = pb.WriteFeedbackRequest(feedback=records)
        answer = self._feedback.WriteFeedback(request, timeout=LONGEST_WAIT_S)
        assert not answer.errors
        return ids, answer.write_token

    def update(self, feedback_id: str) -> None:
        """Give a record the score 1."""
        self._feedback.UpdateFeedback(
            pb.UpdateFeedbackRequest(id=feedback_id, score=1), timeout=LONGEST_WAIT_S
        )

    def is_visible(self, write_token: str, timeout_s: float) -> bool:
        """Whether the write can be read within the time."""
        try:
            self._ingest.WaitVisible(ingest.WaitVisibleRequest(write_token=write_token), timeout=timeout_s)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return False
            raise
        return True

    def scores(self, run_id: str) -> dict[str, float]:
        """Every record on a run, listed page by page, with its score."""
        found: list[pb.Feedback] = []
        condition = pb.FeedbackCondition(run_ids=[run_id])
        while True:
            request = pb.ListFeedbackRequest(condition=condition, offset=len(found), page_size=1_000)
            page = self._feedback.ListFeedback(request, timeout=LONGEST_WAIT_S).feedback
            if not page:
                break
            found += page
        scores = {record.id: record.score for record in found}
        assert len(scores) == len(found)
        return scores


@contextmanager
def client_of(store: Store) -> Iterator[Client]:
    """A client on a connection of its own."""
    with grpc.insecure_channel(store.address, options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        yield Client(channel)


def test_kill_during_a_load(tmp_path: Path) -> None:
    """After a `kill -9` in the middle of creations and updates, all that were acknowledged count, once."""
    store, run_id = Store(tmp_path), str(uuid.uuid4())
    created: set[str] = set()
    updated: set[str] = set()
    with store.running() as process, client_of(store) as client:
        killer = threading.Timer(1.0, process.kill)
        with suppress(grpc.RpcError):
            while True:
                ids, _ = client.create(run_id)
                created |= ids
                feedback_id = next(iter(ids))
                client.update(feedback_id)
                updated.add(feedback_id)
                if len(updated) == _UPDATES_BEFORE_THE_KILL:
                    killer.start()
        process.wait(LONGEST_WAIT_S)
    with store.running(), client_of(store) as client:
        scores = client.scores(run_id)
    assert updated
    assert created <= scores.keys()
    assert {feedback_id for feedback_id in updated if scores[feedback_id] != 1} == set()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineFront]:
    """A server of the engine."""
    with engine_front(tmp_path_factory.mktemp("engine")) as running:
        yield running


def test_engine_goes_away_and_comes_back(front: EngineFront, tmp_path: Path) -> None:
    """Feedback is acknowledged while the engine cannot take it, survives the store, and is stored once."""
    store, run_id = Store(tmp_path, clickhouse_dsn=front.dsn), str(uuid.uuid4())
    with store.running() as process, client_of(store) as client:
        before, token = client.create(run_id)
        assert client.is_visible(token, LONGEST_WAIT_S)
        front.suffer(UNAVAILABLE)
        during, token = client.create(run_id)
        assert not client.is_visible(token, 0.5)
        process.kill()
    front.suffer(NO_FAULT)
    with store.running(), client_of(store) as client:
        assert client.scores(run_id).keys() == before | during
