"""Every setting of runstore, read once from `RUNSTORE_…` variables and the command line, then verified.

Nothing else reads the environment: what a part needs, it is given.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from runstore.domain.networks import Networks, parse_networks
from runstore.domain.rate_limits import RateLimits, TenantLimits
from runstore.domain.retention import RetentionRule
from runstore.runtime.address import Address
from runstore.runtime.failures import BadSettings
from runstore.runtime.otlp_receiver import is_same, parse_headers, receiver_of
from runstore.storage.clickhouse.hosts import hosts_of

_PREFIX = "RUNSTORE_"
_MIB = 1024 * 1024
_GIB = 1024 * _MIB

_POSTGRESQL = ("postgresql://", "postgres://")
# Variables that are no settings: an option's, and those that Kubernetes makes for a service named runstore….
_NO_SETTING = re.compile(r"RUNSTORE_(API_KEY|(\w+_)?(SERVICE_HOST|(SERVICE_)?PORT(_\w+)?))")

# RFC 7518, section 3.2: as many as the hash has.
_MIN_JWT_SECRET_BYTES = 32

# sockaddr_un holds 108 bytes on Linux, 104 on macOS, the final NUL included.
_MAX_SOCKET_PATH_BYTES = 103


class AuthMode(StrEnum):
    """Who may call."""

    NONE = "none"
    """Everybody who can reach the address; hence loopback only."""
    KEYS = "keys"
    """Holders of an API key made by `runstore keys create`."""


def _available_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parse_address(value: object) -> object:
    return Address.parse(value) if isinstance(value, str) else value


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


_Address = Annotated[Address, NoDecode, BeforeValidator(_parse_address), PlainSerializer(str)]
# Empty means none, so that a process can hand "none" on to its children.
_OptionalAddress = Annotated[
    Address | None,
    NoDecode,
    BeforeValidator(lambda value: _parse_address(value) if value else None),
    PlainSerializer(lambda address: "" if address is None else str(address)),
]
_ORIGIN = re.compile(r"\*|https?://[^/?#\s*,]+", re.IGNORECASE)


def _parse_origins(value: object) -> object:
    if not isinstance(value, str):
        return value
    origins = tuple(origin.strip() for origin in value.split(",") if origin.strip())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is neither * nor an origin such as https://app.example.com")
    return origins


_Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_origins), PlainSerializer(",".join)]
_Folder = Annotated[Path, AfterValidator(_absolute)]
_OptionalFile = Annotated[
    Path | None,
    BeforeValidator(lambda value: value or None),
    AfterValidator(lambda path: None if path is None else _absolute(path)),
    PlainSerializer(lambda path: "" if path is None else str(path)),
]
_Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# Accepts plain numbers and "64MiB" alike.
_Bytes = Annotated[ByteSize, Field(gt=0)]


class Settings(BaseSettings):
    """One immutable object, made by `load_settings` and passed on explicitly."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid", validate_default=True)

    data_dir: _Folder = Field(Path("data"), description="Folder that holds everything: log, engine, catalog.")
    http: _Address = Field(
        Address("127.0.0.1", 1984), description="HOST:PORT of the LangSmith-compatible HTTP interface."
    )
    grpc: _Address = Field(
        Address("127.0.0.1", 1985), description="HOST:PORT of the gRPC interface, runstore.v1."
    )
    metrics: _OptionalAddress = Field(
        None,
        description="HOST:PORT at which Prometheus reads all metrics without a key; none when empty.",
    )
    auth: AuthMode = Field(AuthMode.NONE, description="none (loopback only) or keys (API keys).")
    jwt_secret: str = Field(
        "",
        repr=False,
        description="Secret that signs service tokens with HS256; none are accepted when empty.",
    )
    jwt_jwks_file: _OptionalFile = Field(
        None, description="JWKS file with public keys that sign service tokens; none are accepted when empty."
    )
    jwt_audience: str = Field("runstore", min_length=1, description="`aud` that a service token must name.")
    jwt_issuer: str = Field("", description="`iss` that a service token must name; any when empty.")
    jwt_leeway_s: float = Field(
        10.0, ge=0, le=300, description="By how much the clocks of issuers of service tokens may differ."
    )
    failed_attempts_per_minute: int = Field(
        60, ge=1, description="Bad credentials that one address may send to one process; then 429."
    )
    connections_per_address: int = Field(
        1_000,
        ge=0,
        description="HTTP connections that one address, trusted_proxies excepted, may have at once with one "
        "process, where keys are asked for; 0 is no limit.",
    )
    trusted_proxies: str = Field(
        "",
        description="Addresses and networks, separated by commas, of proxies whose X-Forwarded-For and "
        "X-Forwarded-Proto are believed, and of gateways on other machines.",
    )
    tls_certificate: _OptionalFile = Field(
        None,
        description="PEM file with the certificate, and its chain, of both ports; plain text when empty.",
    )
    tls_key: _OptionalFile = Field(None, description="PEM file with the key of tls_certificate.")
    tls_client_ca: _OptionalFile = Field(
        None,
        description="PEM file of authorities; both ports refuse clients without a certificate of theirs.",
    )
    cors_origins: _Origins = Field(
        (),
        description="Origins, with commas between them, whose pages may call the HTTP interface from "
        "browsers; * for any; none when empty.",
    )
    clickhouse_dsn: str = Field(
        "",
        repr=False,  # May hold a password.
        description="http(s)://user:password@host:port/database, of several hosts (a:8443,b:8443) the first "
        "that is there; empty for the embedded engine in data_dir.",
    )
    clickhouse_backup: str = Field(
        "",
        description="Where the server of clickhouse_dsn writes its part of backups: disk:NAME, https://… of "
        "a bucket's folder for which it has credentials, or a folder of its machine.",
    )
    clickhouse_cluster: str = Field(
        "",
        pattern=r"^\w*$",
        description="Name of the ClickHouse cluster that the tables of runs are on; empty for one server.",
    )
    catalog_url: str = Field(
        "",
        repr=False,  # May hold a password.
        description="postgresql://user:password@host/database; empty for SQLite in data_dir.",
    )
    blob_url: str = Field(
        "",
        description="s3://bucket/prefix, gs://bucket/prefix, az://account/container/prefix or a folder, "
        "for large payloads and files; empty for `blobs` in data_dir.",
    )
    blob_endpoint: str = Field(
        "", description="http(s)://… of a service that speaks S3; empty for the provider of blob_url."
    )
    inline_payload_bytes: _Bytes = Field(
        ByteSize(1 * _MIB), description="Largest payload that is kept in its row; larger ones become blobs."
    )
    inline_attachment_bytes: _Bytes = Field(
        ByteSize(64 * 1024), description="Largest file that is kept in its row; larger ones become blobs."
    )
    max_payload_bytes: _Bytes = Field(ByteSize(128 * _MIB), description="Largest payload.")
    max_attachment_bytes: _Bytes = Field(ByteSize(1 * _GIB), description="Largest file.")
    ai_url: str = Field(
        "",
        description="Base of an API that speaks OpenAI's chat completions (https://api.openai.com/v1), for "
        "questions in natural language; none when empty.",
    )
    ai_model: str = Field("", description="Model to ask there.")
    ai_api_key: str = Field("", repr=False, description="Key to send there; none when empty.")
    ai_timeout_s: float = Field(
        30.0,
        gt=0,
        le=50,
        description="Time that the model may take for one question, both attempts together.",
    )
    gateway_workers: int = Field(
        default_factory=lambda: max(1, _available_cpus() - 1),
        ge=1,
        le=256,
        description="Gateway processes that share the HTTP port.",
    )
    store_address: str = Field(
        "",
        description="Where a gateway finds the store: HOST:PORT or unix:PATH; several: IP:PORT,IP:PORT "
        "or dns:///NAME:PORT; empty for the socket in data_dir.",
    )
    store_ca: _OptionalFile = Field(
        None,
        description="PEM file of authorities that sign for the store at HOST:PORT, which is then called over "
        "TLS; plain text when empty.",
    )
    store_certificate: _OptionalFile = Field(
        None, description="PEM file with the certificate to show to such a store; none when empty."
    )
    store_key: _OptionalFile = Field(None, description="PEM file with the key of store_certificate.")
    store_patience_s: float = Field(
        8.0,
        ge=0,
        le=60,
        description="How long a gateway waits for a store that is away, before it answers 503.",
    )
    flush_interval_ms: int = Field(
        200, ge=1, le=60_000, description="Longest wait of an acknowledged run for its insert."
    )
    flush_max_runs: int = Field(20_000, ge=1, description="Operations in one insert, at most.")
    flush_max_bytes: _Bytes = Field(ByteSize(24 * _MIB), description="Bytes of runs in one insert, at most.")
    log_segment_bytes: _Bytes = Field(
        ByteSize(64 * _MIB), description="Size at which a file of the log is full."
    )
    log_max_bytes: _Bytes = Field(
        ByteSize(8 * _GIB),
        description="Bytes in the log while the engine is away; then 429, never loss.",
    )
    queue_max_bytes: _Bytes = Field(
        ByteSize(256 * _MIB),
        description="Operations that wait for their insert while the engine works; then writers are slowed.",
    )
    key_runs_per_s: _Rate = Field(
        0.0,
        description="Operations on runs and feedback, at most, in a second of one API key; 0 is no limit.",
    )
    key_bytes_per_s: _Rate = Field(
        0.0, description="Bytes of runs and feedback, at most, in a second of one API key; 0 is no limit."
    )
    key_queries_per_s: _Rate = Field(
        0.0, description="Calls that read, at most, in a second of one API key; 0 is no limit."
    )
    tenant_runs_per_s: _Rate = Field(
        0.0,
        description="Operations on runs and feedback, at most, in a second of one tenant; 0 is no limit.",
    )
    tenant_bytes_per_s: _Rate = Field(
        0.0, description="Bytes of runs and feedback, at most, in a second of one tenant; 0 is no limit."
    )
    tenant_queries_per_s: _Rate = Field(
        0.0, description="Calls that read, at most, in a second of one tenant; 0 is no limit."
    )
    query_timeout_s: float = Field(
        30.0, gt=0, le=3_600, description="Time that one statement of a query may take in the engine."
    )
    query_memory_bytes: _Bytes = Field(
        ByteSize(1 * _GIB), description="Memory that one statement of a query may take in the engine."
    )
    retention_short_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days that traces of the short tier are kept after their last run started; 0 for ever.",
    )
    retention_long_days: int = Field(
        0, ge=0, le=36_500, description="As above, of the long tier and of kept traces; 0 for ever."
    )
    retention_interval_s: float = Field(
        3_600.0, ge=1, le=86_400, description="Pause between two sweeps that delete what has expired."
    )
    slow_query_s: float = Field(
        1.0, gt=0, le=3_600, description="Time above which a query is logged, by its shape."
    )
    max_body_bytes: _Bytes = Field(ByteSize(2 * _GIB), description="Largest HTTP body as it travels.")
    max_decompressed_bytes: _Bytes = Field(ByteSize(2 * _GIB), description="Largest body once decompressed.")
    body_memory_bytes: _Bytes = Field(
        ByteSize(512 * _MIB),
        description="HTTP bodies in the memory of one gateway; half of it for one that is not multipart.",
    )
    max_decompression_ratio: int = Field(
        1_000, ge=1, description="Decompressed size by compressed size, at most."
    )
    agents: _OptionalFile = Field(
        None, description="langgraph.json whose graphs `runstore serve` runs; none when empty."
    )
    agent_slots: int = Field(10, ge=1, le=1_000, description="Runs of graphs that a worker runs at once.")
    agent_checkpoint_url: str = Field(
        "",
        repr=False,  # May hold a password.
        description="postgresql://user:password@host/database of the graphs' checkpoints; "
        "empty for SQLite in data_dir.",
    )
    agent_run_timeout_s: float = Field(
        86_400.0, gt=0, le=366 * 86_400, description="Time that one attempt of a run of a graph may take."
    )
    agent_tracing: bool = Field(default=True, description="Whether runs of graphs are traced into the store.")
    agent_api_key: str = Field(
        "", repr=False, description="Key with which a worker calls the store; its tenant's runs are run."
    )
    telemetry_url: str = Field(
        "",
        description="http(s)://HOST:PORT of an OTLP receiver (gRPC) for traces of what runstore itself does; "
        "none when empty.",
    )
    telemetry_headers: str = Field(
        "",
        repr=False,  # May hold a key.
        description="NAME=VALUE,NAME=VALUE to send to that receiver, such as its key.",
    )
    telemetry_ca: _OptionalFile = Field(
        None, description="PEM file of authorities that sign for that receiver; the usual ones when empty."
    )
    telemetry_ratio: float = Field(
        0.1, ge=0, le=1, description="Share of the requests that are traced, chosen by the trace's id."
    )
    telemetry_into_itself: bool = Field(
        default=False, description="Whether that receiver may be this runstore: traces among its users' runs."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe message that is logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, JSON otherwise."
    )
    drain_timeout_s: float = Field(
        30.0, gt=0, le=3_600, description="Time to finish what is under way when stopping."
    )

    @model_validator(mode="after")
    def _verify(self) -> Self:
        for name, address in (("http", self.http), ("grpc", self.grpc)):
            if self.auth is AuthMode.NONE and not address.is_loopback:
                raise ValueError(
                    f"{name}: {address} can be reached from other machines, which auth=none does not allow. "
                    f"Use a loopback address, or {_PREFIX}AUTH=keys and `runstore keys create`"
                )
        if self.grpc.port == 0:
            raise ValueError("grpc: port 0 is refused, because nobody could learn which port was chosen")
        self._verify_storage()
        self._verify_credentials()
        self._verify_tls()
        self._verify_telemetry()
        if self.ai_url and not self.ai_url.startswith(("http://", "https://")):
            raise ValueError("ai_url: neither http:// nor https://")
        if self.ai_url and not self.ai_model:
            raise ValueError("ai_model: needed with ai_url")
        for smaller, larger in (
            ("flush_max_bytes", "queue_max_bytes"),
            ("log_segment_bytes", "log_max_bytes"),
            ("max_body_bytes", "max_decompressed_bytes"),
        ):
            if getattr(self, smaller) > getattr(self, larger):
                raise ValueError(f"{smaller}: above {larger} ({getattr(self, larger)} bytes)")
        return self

    def _verify_storage(self) -> None:
        if self.clickhouse_cluster and not self.clickhouse_dsn:
            raise ValueError("clickhouse_cluster: needs clickhouse_dsn")
        if self.clickhouse_dsn:
            try:
                hosts_of(self.clickhouse_dsn)
            except ValueError as error:
                raise ValueError(f"clickhouse_dsn: {error}") from None
        if "," in self.store_address:
            _several_hosts(self.store_address)
        elif self.store_address and not self.store_address.startswith(("unix:", "dns:")):
            try:
                Address.parse(self.store_address)
            except ValueError as error:
                raise ValueError(f"store_address: {error}") from None
        if "://" in self.blob_url and not self.blob_url.startswith(("s3://", "gs://", "az://")):
            raise ValueError("blob_url: neither s3://, gs://, az:// nor a folder")
        if self.agent_checkpoint_url and not self.agent_checkpoint_url.startswith(_POSTGRESQL):
            raise ValueError("agent_checkpoint_url: not postgresql://")

    def _verify_credentials(self) -> None:
        if self.jwt_secret and len(self.jwt_secret.encode()) < _MIN_JWT_SECRET_BYTES:
            raise ValueError(f"jwt_secret: shorter than {_MIN_JWT_SECRET_BYTES} bytes")
        try:
            parse_networks(self.trusted_proxies)
        except ValueError as error:
            raise ValueError(f"trusted_proxies: {error}") from error

    def _verify_tls(self) -> None:
        for setting, needed in (
            ("tls_certificate", "tls_key"),
            ("tls_key", "tls_certificate"),
            ("tls_client_ca", "tls_certificate"),
            ("store_certificate", "store_key"),
            ("store_key", "store_certificate"),
            ("store_certificate", "store_ca"),
        ):
            if getattr(self, setting) and not getattr(self, needed):
                raise ValueError(f"{needed}: needed with {setting}")
        if self.tls_certificate and self.store_is_remote and not self.store_address and not self.store_ca:
            raise ValueError(
                "store_ca: needed with tls_certificate, as the path of data_dir is too long for a socket"
            )

    def _verify_telemetry(self) -> None:
        try:
            parse_headers(self.telemetry_headers)
        except ValueError as error:
            raise ValueError(f"telemetry_headers: {error}") from None
        if not self.telemetry_url:
            return
        try:
            receiver = receiver_of(self.telemetry_url)
        except ValueError as error:
            raise ValueError(f"telemetry_url: {error}") from None
        own = [self.http, self.grpc]
        with suppress(ValueError):
            own += [Address.parse(each) for each in self.store_address.removeprefix("dns:///").split(",")]
        if not self.telemetry_into_itself and any(is_same(receiver, each) for each in own):
            raise ValueError(
                f"telemetry_url: {receiver} is runstore itself, whose traces would be among its users' runs; "
                f"name another receiver, or allow it by {_PREFIX}TELEMETRY_INTO_ITSELF=true"
            )

    @property
    def telemetry_metadata(self) -> tuple[tuple[str, str], ...]:
        """`telemetry_headers`, parsed."""
        return parse_headers(self.telemetry_headers)

    @property
    def trusted_networks(self) -> Networks:
        """`trusted_proxies`, parsed."""
        return parse_networks(self.trusted_proxies)

    @property
    def clickhouse_location(self) -> str:
        """What the storage layer connects to: `chdb:///absolute/path` or the server's URL."""
        return self.clickhouse_dsn or f"chdb://{self.data_dir / 'clickhouse'}"

    @property
    def is_shared(self) -> bool:
        """Whether other stores may be beside this one: engine and catalog are servers."""
        return bool(self.clickhouse_dsn) and self.catalog_url.startswith("postgres")

    @property
    def catalog_location(self) -> str:
        """What `open_catalog` connects to."""
        return self.catalog_url or f"sqlite:///{self.data_dir / 'catalog.sqlite'}"

    @property
    def checkpoint_location(self) -> str:
        """What `open_checkpoints` opens."""
        return self.agent_checkpoint_url or f"sqlite:///{self.data_dir / 'checkpoints.sqlite'}"

    @property
    def log_dir(self) -> Path:
        """Folder of the write-ahead log."""
        return self.data_dir / "log"

    @property
    def block_dir(self) -> Path:
        """Folder of the blocks on their way from the flusher to the engine."""
        return self.data_dir / "blocks"

    @property
    def blob_location(self) -> str:
        """What `open_blob_store` opens."""
        if "://" in self.blob_url:
            return self.blob_url
        return str(_absolute(Path(self.blob_url)) if self.blob_url else self.data_dir / "blobs")

    @property
    def spool_dir(self) -> Path:
        """Folder of uploads that are being checked."""
        return self.data_dir / "uploads"

    @property
    def metrics_dir(self) -> Path | None:
        """Folder of the Unix sockets at which gateways show their metrics to each other and to the store;
        None when their paths would be too long."""
        path = self.data_dir / "metrics"
        longest = path / "gateway-256.sock"
        return path if len(os.fsencode(longest)) <= _MAX_SOCKET_PATH_BYTES else None

    @property
    def workers_dir(self) -> Path | None:
        """Folder of the Unix sockets at which workers say how they are; None when their paths would be too
        long."""
        path = self.data_dir / "workers"
        longest = path / f"{2**32}.sock"
        return path if len(os.fsencode(longest)) <= _MAX_SOCKET_PATH_BYTES else None

    @property
    def store_socket(self) -> Path | None:
        """The Unix socket that the store listens on beside `grpc`; None when its path would be too long."""
        path = self.data_dir / "store.sock"
        return path if len(os.fsencode(path)) <= _MAX_SOCKET_PATH_BYTES else None

    @property
    def store_target(self) -> str:
        """The gRPC target at which a gateway finds the store."""
        if "," in self.store_address:
            return _several_hosts(self.store_address)
        if self.store_address:
            return self.store_address
        return f"unix:{self.store_socket}" if self.store_socket else str(self.grpc.reachable)

    @property
    def rate_limits(self) -> TenantLimits:
        """Limits of tenants that have none of their own."""
        return TenantLimits(
            key=RateLimits(
                runs=self.key_runs_per_s, bytes=self.key_bytes_per_s, queries=self.key_queries_per_s
            ),
            tenant=RateLimits(
                runs=self.tenant_runs_per_s, bytes=self.tenant_bytes_per_s, queries=self.tenant_queries_per_s
            ),
        )

    @property
    def store_is_remote(self) -> bool:
        """Whether the store is reached over TCP, and not through a socket of this machine."""
        return not self.store_target.startswith("unix:")

    @property
    def http_url(self) -> str:
        """The HTTP interface, as programs on this machine call it."""
        return f"{'https' if self.tls_certificate else 'http'}://{self.http.reachable}"

    @property
    def retention(self) -> RetentionRule:
        """What holds for tenants that have no rule of their own."""
        return RetentionRule(short_days=self.retention_short_days, long_days=self.retention_long_days)

    def environment(self) -> dict[str, str]:
        """A process environment from which `load_settings` makes these very settings again."""
        values = self.model_dump(mode="json")
        own = {_variable(name): str(value) for name, value in values.items()}
        # Children are started, never forked to go on: gRPC need not prepare for it, nor warn.
        return {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "false", **own}


def _several_hosts(addresses: str) -> str:
    """The gRPC target of stores at these IP addresses. Raises ValueError."""
    hosts = [Address.parse(address.strip()) for address in addresses.split(",")]
    try:
        versions = {ip_address(host.host).version for host in hosts}
    except ValueError:
        raise ValueError("store_address: for several stores by name use dns:///NAME:PORT") from None
    if len(versions) > 1:
        raise ValueError("store_address: IPv4 or IPv6, not both")
    return f"ipv{versions.pop()}:{','.join(str(host) for host in hosts)}"


def extend_environment(variables: Mapping[str, str]) -> None:
    """Sets variables for code that this process is about to import; those that are set already stay."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def unknown_variables() -> dict[str, str]:
    """Variables that look like settings and are none, each with the one that may be meant, or ""."""
    known = {_variable(name) for name in Settings.model_fields}
    unknown = {
        name for name in os.environ if name.upper().startswith(_PREFIX) and not _NO_SETTING.fullmatch(name)
    }
    return {
        name: next(iter(get_close_matches(name.upper(), known, n=1, cutoff=0.8)), "")
        for name in sorted(unknown)
        if name.upper() not in known
    }


def load_settings(**options: object) -> Settings:
    """Settings from the environment; `options` that are not None take precedence.

    Raises BadSettings, one line for each setting at fault.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise BadSettings("\n".join(_problem(detail) for detail in error.errors())) from error


def _problem(detail: Any) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    if detail["loc"]:
        name = str(detail["loc"][0])
    else:  # From `_verify`, whose messages begin with the setting.
        name, _, message = message.partition(": ")
    return f"{name} ({_variable(name)}): {message}"


def _variable(name: str) -> str:
    return _PREFIX + name.upper()
