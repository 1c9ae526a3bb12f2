"""Starting and stopping the gateway process."""

import socket
import threading

import httpx
from tests.waiting import LONGEST_WAIT_S

from runstore.v1 import run_ingest_service_pb2 as ingest

from .conftest import BackgroundLoop, FakeStore, RunningGateway
from .wire import run


def test_stop_finishes_what_is_under_way(
    loop: BackgroundLoop, store: FakeStore, store_and_target: tuple[FakeStore, str]
) -> None:
    """A call that the store is still working on is answered; new connections are refused."""
    gateway = RunningGateway(loop, store_and_target[1], drain_timeout_s=LONGEST_WAIT_S)
    arrived, release = threading.Event(), threading.Event()

    async def slow(request: object) -> ingest.WriteRunsResponse:
        arrived.set()
        await loop.wait_for(release)
        return ingest.WriteRunsResponse()

    store.answers["WriteRuns"] = slow
    answers: list[int] = []
    caller = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{gateway.url}/runs", json=run(), timeout=20).status_code)
    )
    caller.start()
    assert arrived.wait(timeout=LONGEST_WAIT_S)
    stopper = threading.Thread(target=gateway.stop)
    stopper.start()
    gateway.wait_until_refusing()
    assert answers == []
    release.set()
    caller.join(timeout=LONGEST_WAIT_S)
    stopper.join(timeout=LONGEST_WAIT_S)
    assert answers == [202]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", gateway.port)) != 0
