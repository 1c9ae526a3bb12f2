"""Starting and stopping the gateway process."""

import socket
import ssl
import threading
from pathlib import Path

import httpx
import pytest
import trustme
from tests.waiting import LONGEST_WAIT_S

from runstore.runtime import accepting
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as queries

from .conftest import BackgroundLoop, FakeStore, RunningGateway
from .wire import RUN_ID, run


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


def test_stop_lets_a_slow_client_have_its_whole_answer(
    loop: BackgroundLoop,
    store: FakeStore,
    store_and_target: tuple[FakeStore, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over TLS, where what is encrypted already waits below what uvicorn sees."""
    monkeypatch.setattr(accepting, "GOODBYE_S", LONGEST_WAIT_S)
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    inputs = b'{"a": "' + b"x" * 20_000_000 + b'"}'
    store.answers["GetRun"] = queries.GetRunResponse(run=run_pb2.Run(id=RUN_ID, inputs=inputs))
    gateway = RunningGateway(
        loop, store_and_target[1], drain_timeout_s=LONGEST_WAIT_S, has_store=False,
        tls_certificate=tmp_path / "pem", tls_key=tmp_path / "key",
    )  # fmt: skip
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=LONGEST_WAIT_S)
    with trusting.wrap_socket(connection, server_hostname="127.0.0.1") as client:
        client.sendall(f"GET /runs/{RUN_ID} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = client.recv(1)
        stopper = threading.Thread(target=gateway.stop)
        stopper.start()
        gateway.wait_until_refusing()
        while part := client.recv(2**20):
            answer += part
    stopper.join(timeout=LONGEST_WAIT_S)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"x" * 20_000_000 in answer
