"""TLS: the certificate that both ports show, renewed without a restart, and the way to a store elsewhere."""

import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from prometheus_client import CollectorRegistry, Gauge

from runstore.runtime.failures import CannotStart
from runstore.runtime.settings import Settings

_MINIMUM: Final = ssl.TLSVersion.TLSv1_2

_RECONNECTING: Final = (
    # After a restart the store is back within seconds; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Despite its name, how long an attempt to connect may take, with TLS and on a busy machine.
    ("grpc.min_reconnect_backoff_ms", 5_000),
)

_Stamp = tuple[tuple[int, int, int], ...]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Certificate:
    """One state of the files: what OpenSSL and gRPC each want of it."""

    context: ssl.SSLContext
    key: bytes
    chain: bytes
    client_ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """The same for gRPC."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.chain)], self.client_ca)


class ServerCertificate:
    """Certificate, key and clients' CA in files that something else renews.

    Asked at every handshake: a `stat` of each file tells whether to read them again. Files that do not fit
    each other, as in the middle of a renewal, leave the last good state in place.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        """Reads the files. Raises CannotStart that names the setting of what cannot be used."""
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._paths = [path for path in (certificate, key, client_ca) if path is not None]
        self._reading = threading.Lock()
        self._complaint = ""
        try:
            self._stamp = self._stamps()
            self._current = self._read()
        except (OSError, ValueError) as error:
            raise CannotStart(
                f"tls_certificate, tls_key, tls_client_ca (RUNSTORE_TLS_…): {_reason(error)}"
            ) from error

    def current(self) -> Certificate:
        """What the files hold now, or held when they were last in order."""
        with self._reading:
            try:
                if (stamp := self._stamps()) != self._stamp:
                    self._current = self._read()
                    # Files that changed meanwhile are read once more at the next handshake.
                    self._stamp, self._complaint = stamp, ""
                    _log.info("certificate renewed", file=str(self._certificate))
            except (OSError, ValueError) as error:
                self._complain(_reason(error))
            return self._current

    def _complain(self, reason: str) -> None:
        if reason != self._complaint:  # Once, and not at every handshake.
            self._complaint = reason
            _log.warning("certificate not renewed", reason=reason, hint="the last good one is used")

    def https_context(self) -> ssl.SSLContext:
        """A context whose every handshake uses the certificate of that moment."""

        def renew(connection: Any, _name: str | None, _first: ssl.SSLContext) -> None:
            connection.context = self.current().context

        context = _context(self._certificate, self._key, self._client_ca)
        context.sni_callback = renew
        return context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Credentials whose every handshake uses the certificate of that moment."""
        used = self._current

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal used
            current = self.current()
            if current is used:
                return None
            used = current
            return current.configuration()

        return grpc.dynamic_ssl_server_credentials(
            used.configuration(),
            fetch,  # type: ignore[arg-type]  # the stubs do not know that None means no change
            self._client_ca is not None,
        )

    def _stamps(self) -> _Stamp:
        # The inode, because a renewal may swap a symbolic link between files of one age.
        stats = [path.stat() for path in self._paths]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def _read(self) -> Certificate:
        return Certificate(
            # Refuses a key that is not the certificate's; gRPC would find out at handshakes.
            context=_context(self._certificate, self._key, self._client_ca),
            key=self._key.read_bytes(),
            chain=self._certificate.read_bytes(),
            client_ca=self._client_ca.read_bytes() if self._client_ca else None,
        )


def server_certificate(settings: Settings) -> ServerCertificate | None:
    """What the ports show; None when they speak plainly. Raises CannotStart."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return ServerCertificate(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)


def watch_certificate(path: Path, registry: CollectorRegistry) -> None:
    """Show when the certificate in a file ends; 0 while the file cannot be read."""
    from cryptography import x509  # A start without TLS does not wait for it.

    def expiry_s() -> float:
        with suppress(OSError, ValueError):
            return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
        return 0.0

    gauge = Gauge(
        "runstore_certificate_expiry_timestamp_seconds",
        "When the certificate of both ports ends; 0 while it cannot be read.",
        registry=registry,
    )
    gauge.set_function(expiry_s)


def warn_of_plain_text(settings: Settings, *names: str) -> None:
    """Says so when keys would cross a network in the clear at the addresses of these settings."""
    if settings.tls_certificate is not None:
        return
    for name in names:
        address = getattr(settings, name)
        if not address.is_loopback:
            _log.warning(
                "keys travel in the clear",
                setting=name,
                address=str(address),
                hint="set RUNSTORE_TLS_CERTIFICATE and RUNSTORE_TLS_KEY, or end TLS in front",
            )


def store_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """How to reach `settings.store_target`: None for plain text. Raises CannotStart for unreadable files."""
    if not settings.store_is_remote or settings.store_ca is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_bytes(settings.store_ca, "store_ca"),
        private_key=_bytes(settings.store_key, "store_key"),
        certificate_chain=_bytes(settings.store_certificate, "store_certificate"),
    )


def store_channel(settings: Settings, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
    """A blocking channel to the store of these settings. Raises CannotStart."""
    credentials = store_credentials(settings)
    options = (*_RECONNECTING, *options)
    if credentials is None:
        return grpc.insecure_channel(settings.store_target, options)
    return grpc.secure_channel(settings.store_target, credentials, options)


def async_store_channel(settings: Settings, options: Sequence[tuple[str, Any]]) -> grpc.aio.Channel:
    """A channel to the store of these settings; connects lazily. Raises CannotStart."""
    credentials = store_credentials(settings)
    options = (*_RECONNECTING, *options)
    if credentials is None:
        return grpc.aio.insecure_channel(settings.store_target, options)
    return grpc.aio.secure_channel(settings.store_target, credentials, options)


def _context(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _MINIMUM
    # Without a password function OpenSSL would ask at the terminal.
    context.load_cert_chain(certificate, key, password=_no_password)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; a key without a password is needed")


def _bytes(path: Path | None, setting: str) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise CannotStart(f"{setting} (RUNSTORE_{setting.upper()}): {_reason(error)}") from error


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):  # An OSError, whose text speaks of OpenSSL's source code.
        return f"not usable: {(error.reason or 'no PEM').lower().replace('_', ' ')}"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error)
