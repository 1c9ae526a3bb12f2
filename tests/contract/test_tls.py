"""Both ports over mutual TLS: SDKs and gRPC clients with a certificate are served, others are not."""

import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
import requests
import trustme
from langsmith import Client
from tests.contract.servers import COMMAND, Server, run_command, serving
from tests.ports import free_port
from tests.waiting import LONGEST_WAIT_S, until

from runstore.v1 import project_service_pb2, project_service_pb2_grpc

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ca.pem`, and `server` and `client` with the ending `.pem` and `.key`."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, certificate in (
        ("server", authority.issue_cert("127.0.0.1")),
        ("client", authority.issue_cert("client")),
    ):
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


@pytest.fixture(scope="module")
def server(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        tmp_path_factory.mktemp("server"),
        tls_certificate=str(files / "server.pem"),
        tls_key=str(files / "server.key"),
        tls_client_ca=str(files / "ca.pem"),
        store_ca=str(files / "ca.pem"),
        store_certificate=str(files / "client.pem"),
        store_key=str(files / "client.key"),
    ) as server:
        yield server
        assert server.defects() == []


def session(files: Path) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # A bundle named there would win over this one.
    session.verify = str(files / "ca.pem")
    session.cert = (str(files / "client.pem"), str(files / "client.key"))
    return session


def test_the_sdk_traces_over_https(server: Server, files: Path) -> None:
    """What the SDK sends with its certificate is there when it asks."""
    client = Client(api_url=server.url, api_key="any", session=session(files))
    run_id = uuid4()
    client.create_run("over TLS", {"a": 1}, "chain", id=run_id, project_name="tls", outputs={"b": 2})
    client.flush()
    assert until(lambda: list(client.list_runs(project_name="tls")), "the run is listed")[0].id == run_id
    client.cleanup()


def test_https_refuses_clients_without_a_certificate(server: Server, files: Path) -> None:
    """Neither a handshake with TLS and no certificate, nor plain HTTP leads to an answer."""
    host, port = server.url.removeprefix("https://").split(":")
    connection = HTTPSConnection(host, int(port), context=ssl.create_default_context(cafile=files / "ca.pem"))
    connection.connect()  # With TLS 1.3 the client learns only later that it is refused.
    connection.request("GET", "/ok")
    with pytest.raises(OSError):
        connection.getresponse()
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url.replace("https", "http") + "/ok", timeout=LONGEST_WAIT_S)


def test_grpc_over_tls(server: Server, files: Path) -> None:
    """A client with a certificate is answered; without one, or in plain text, it is not."""
    trust = (files / "ca.pem").read_bytes()
    own = (files / "client.key").read_bytes(), (files / "client.pem").read_bytes()
    request = project_service_pb2.ListProjectsRequest()
    with grpc.secure_channel(server.grpc, grpc.ssl_channel_credentials(trust, *own)) as channel:
        project_service_pb2_grpc.ProjectServiceStub(channel).ListProjects(request, timeout=LONGEST_WAIT_S)
    for stranger in (
        grpc.secure_channel(server.grpc, grpc.ssl_channel_credentials(trust)),
        grpc.insecure_channel(server.grpc),
    ):
        with stranger as channel, pytest.raises(grpc.RpcError) as refusal:
            project_service_pb2_grpc.ProjectServiceStub(channel).ListProjects(request, timeout=LONGEST_WAIT_S)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


def test_parts_on_another_machine_call_the_store_over_tls(
    server: Server, files: Path, tmp_path: Path
) -> None:
    """A gateway that runs apart, with its metrics, and a command that is given the store's address.

    An idle client does not hold up the gateway's end.
    """
    idle = session(files)
    port, metrics_port = free_port(), free_port()
    gateway = subprocess.Popen(
        [*COMMAND, "gateway", "--store", server.grpc, "--http", f"127.0.0.1:{port}"],
        env={**server.environment, "RUNSTORE_METRICS": f"127.0.0.1:{metrics_port}"},
        stderr=subprocess.DEVNULL,
    )
    try:

        def answered() -> bool:
            try:
                address = f"https://127.0.0.1:{port}/sessions"
                return idle.get(address, timeout=LONGEST_WAIT_S).status_code == 200
            except requests.ConnectionError:
                return False

        def shown() -> str:
            return requests.get(f"http://127.0.0.1:{metrics_port}/metrics", timeout=LONGEST_WAIT_S).text

        until(answered, "the gateway answers")
        call = 'runstore_http_requests_total{method="GET",route="/sessions",status="200"}'
        until(lambda: call in shown(), "the call is counted, after its answer and by another thread")
        assert (
            float(shown().split("\nrunstore_certificate_expiry_timestamp_seconds ")[1].split()[0])
            > time.time()
        )
    finally:
        gateway.terminate()
        gateway.wait(timeout=25)  # TLS gives up on it after 30.
    idle.close()
    exported = server.command("export", "--store", server.grpc, "-o", str(tmp_path / "runs.jsonl"))
    assert "Exported 1 run." in exported.stderr


def test_status_finds_a_server_that_asks_for_certificates(server: Server) -> None:
    """The command has none to show, and yet sees that the gateway is there."""

    def status() -> Any:
        """Nothing while the gateway does not answer within two seconds."""
        done = run_command("status", "--json", environment=server.environment, check=False)
        shown = json.loads(done.stdout)
        return shown if shown["http"]["answers"] else None

    shown = until(status, "the gateway is seen")
    assert shown["healthy"], shown["problems"]
