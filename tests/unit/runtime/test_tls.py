"""Certificates: renewed files are taken up, broken ones are not, clients without one are refused."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs
from tests.waiting import LONGEST_WAIT_S

from runstore.runtime.failures import CannotStart
from runstore.runtime.settings import Settings, load_settings
from runstore.runtime.tls import ServerCertificate, server_certificate, store_channel, warn_of_plain_text


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def write(certificate: trustme.LeafCert, folder: Path, name: str = "server") -> tuple[Path, Path]:
    """The files of a certificate: itself and its key."""
    folder.mkdir(exist_ok=True)
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.cert_chain_pems[0].write_to_path(paths[0])
    certificate.private_key_pem.write_to_path(paths[1])
    return paths


@asynccontextmanager
async def https_server(context: ssl.SSLContext) -> AsyncIterator[int]:
    """Says hello to whoever finishes a handshake: its port."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def greeted(port: int, context: ssl.SSLContext) -> str:
    """The serial number of the certificate of a server that says hello. Raises OSError when it does not.

    With TLS 1.3 a client has connected before it is refused.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        certificate = writer.get_extra_info("peercert")
        if await reader.read() != b"hello":
            raise ConnectionError
        return str(certificate["serialNumber"])
    finally:
        writer.close()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_https_takes_up_renewed_files(authority: trustme.CA, tmp_path: Path) -> None:
    """The next handshake shows the new certificate; one that fits no key is not shown."""
    paths = write(authority.issue_cert("127.0.0.1"), tmp_path)
    certificate = ServerCertificate(*paths, client_ca=None)
    async with https_server(certificate.https_context()) as port:
        first = await greeted(port, trusting(authority))
        renewed = authority.issue_cert("127.0.0.1")
        renewed.cert_chain_pems[0].write_to_path(paths[0])  # Its key comes later.
        assert await greeted(port, trusting(authority)) == first
        renewed.private_key_pem.write_to_path(paths[1])
        assert await greeted(port, trusting(authority)) != first
        paths[1].unlink()
        assert await greeted(port, trusting(authority)) != first


async def test_https_asks_for_certificates_of_the_authority(authority: trustme.CA, tmp_path: Path) -> None:
    """Without one, or with that of another authority, there is no connection."""
    paths = write(authority.issue_cert("127.0.0.1"), tmp_path)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = ServerCertificate(*paths, client_ca=tmp_path / "ca.pem")
    async with https_server(certificate.https_context()) as port:
        known = trusting(authority)
        authority.issue_cert("client").configure_cert(known)
        assert await greeted(port, known)
        stranger = trusting(authority)
        trustme.CA().issue_cert("client").configure_cert(stranger)
        for context in (trusting(authority), stranger):
            with pytest.raises(OSError):
                await greeted(port, context)


async def test_https_takes_up_another_authority_of_clients(authority: trustme.CA, tmp_path: Path) -> None:
    """Whom the file names no longer is refused from then on."""
    paths = write(authority.issue_cert("127.0.0.1"), tmp_path)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = ServerCertificate(*paths, client_ca=tmp_path / "ca.pem")
    other = trustme.CA()
    known, unknown = trusting(authority), trusting(authority)
    authority.issue_cert("client").configure_cert(known)
    other.issue_cert("client").configure_cert(unknown)
    async with https_server(certificate.https_context()) as port:
        await greeted(port, known)
        other.cert_pem.write_to_path(tmp_path / "ca.pem")
        assert await greeted(port, unknown)
        with pytest.raises(OSError):
            await greeted(port, known)


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # has no types
    async def Check(self, request: object, context: object) -> health_pb2.HealthCheckResponse:  # noqa: N802 - gRPC's name
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture
def remote(authority: trustme.CA, tmp_path: Path) -> Settings:
    """Settings of a client of the store below, with a certificate of its own."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate, key = write(authority.issue_cert("gateway"), tmp_path, "client")
    return load_settings(
        data_dir=tmp_path, store_ca=tmp_path / "ca.pem", store_certificate=certificate, store_key=key
    )


async def checked(settings: Settings) -> int:
    """How the store of these settings says that it is. Raises grpc.RpcError."""

    def call() -> int:
        with store_channel(settings, ()) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=LONGEST_WAIT_S).status)

    return await asyncio.to_thread(call)


async def test_grpc_takes_up_renewed_files(authority: trustme.CA, remote: Settings, tmp_path: Path) -> None:
    """Clients need a certificate, and the authority that signs for the server now."""
    paths = write(authority.issue_cert("127.0.0.1"), tmp_path)
    certificate = ServerCertificate(*paths, client_ca=tmp_path / "ca.pem")
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    port = server.add_secure_port("127.0.0.1:0", certificate.grpc_credentials())
    await server.start()
    try:
        remote = remote.model_copy(update={"store_address": f"127.0.0.1:{port}"})
        assert await checked(remote) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError):
            await checked(remote.model_copy(update={"store_certificate": None, "store_key": None}))
        other = trustme.CA()
        other.cert_pem.write_to_path(tmp_path / "other.pem")
        moved = remote.model_copy(update={"store_ca": tmp_path / "other.pem"})
        with pytest.raises(grpc.RpcError):
            await checked(moved)
        write(other.issue_cert("127.0.0.1"), tmp_path)
        assert await checked(moved) == health_pb2.HealthCheckResponse.SERVING
    finally:
        await server.stop(None)


def test_files_that_cannot_be_used(authority: trustme.CA, tmp_path: Path) -> None:
    """Missing files, keys of other certificates and files without PEM are named, at the start."""
    certificate, key = write(authority.issue_cert("a"), tmp_path, "a")
    _, other_key = write(authority.issue_cert("b"), tmp_path, "b")
    (tmp_path / "text").write_text("no PEM")
    for files, reason in (
        ((tmp_path / "none", key, None), "No such file"),
        ((certificate, other_key, None), "key values mismatch"),
        ((tmp_path / "text", key, None), "not usable"),
        ((certificate, key, tmp_path / "text"), "not usable"),
    ):
        with pytest.raises(CannotStart, match=reason):
            ServerCertificate(*files)


def test_certificates_are_optional(tmp_path: Path) -> None:
    """Ports speak plainly unless told otherwise, and a socket of this machine always does."""
    settings = load_settings(data_dir=tmp_path, store_ca=tmp_path / "not read")
    assert server_certificate(settings) is None
    with store_channel(settings, ()) as channel:
        assert channel is not None


def test_keys_in_the_clear_are_warned_of(tmp_path: Path) -> None:
    """One line for each address that others reach without TLS."""
    settings = load_settings(data_dir=tmp_path, auth="keys", http="0.0.0.0:1984")
    with capture_logs() as lines:
        warn_of_plain_text(settings, "http", "grpc")
    assert [line["setting"] for line in lines] == ["http"]
    (tmp_path / "a").touch()
    safe = settings.model_copy(update={"tls_certificate": tmp_path / "a", "tls_key": tmp_path / "a"})
    with capture_logs() as lines:
        warn_of_plain_text(safe, "http", "grpc")
    assert lines == []


@asynccontextmanager
async def reluctant(port: int, hesitation_s: float) -> AsyncIterator[int]:
    """The port of somebody who takes connections at once, and that much later passes them on to `port`."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(2**16):
            writer.write(part)
        writer.close()

    async def hesitate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(hesitation_s)
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            await asyncio.gather(pass_on(reader, behind_writer), pass_on(behind_reader, writer))

    async with await asyncio.start_server(hesitate, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_store_may_be_slow_to_say_hello(tmp_path: Path) -> None:
    """As it is when it is busy or far away, with TLS above all: the first call waits for it."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with reluctant(port, 1.5) as slow_port:
            settings = load_settings(data_dir=tmp_path, store_address=f"127.0.0.1:{slow_port}")
            assert await checked(settings) == health_pb2.HealthCheckResponse.SERVING
    finally:
        await server.stop(None)
