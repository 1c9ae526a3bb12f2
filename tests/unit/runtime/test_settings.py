"""Settings: read once, verified, mistakes named so that a person can mend them."""

import os
import re
from pathlib import Path

import pytest

from runstore.runtime.address import Address
from runstore.runtime.failures import BadSettings
from runstore.runtime.settings import AuthMode, Settings, load_settings, unknown_variables


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path: Path) -> None:
    """The settings of whoever runs the tests do not count."""
    for variable in [name for name in os.environ if name.startswith("RUNSTORE_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


def test_defaults_are_usable(tmp_path: Path) -> None:
    """Without any setting, everything is on loopback and under ./data."""
    settings = load_settings()
    assert settings.data_dir == tmp_path / "data"
    assert (str(settings.http), str(settings.grpc)) == ("127.0.0.1:1984", "127.0.0.1:1985")
    assert settings.auth is AuthMode.NONE
    assert settings.catalog_location == f"sqlite:///{tmp_path}/data/catalog.sqlite"
    assert settings.clickhouse_location == f"chdb://{tmp_path}/data/clickhouse"
    assert settings.store_target == f"unix:{tmp_path}/data/store.sock"
    assert settings.gateway_workers >= 1


def test_option_beats_variable_beats_default(monkeypatch) -> None:
    """The command line wins over the environment; an option that was not given does not count."""
    monkeypatch.setenv("RUNSTORE_HTTP", "127.0.0.1:1")
    monkeypatch.setenv("RUNSTORE_GRPC", "127.0.0.1:2")
    settings = load_settings(http="127.0.0.1:3", grpc=None)
    assert (settings.http.port, settings.grpc.port) == (3, 2)


def test_child_process_gets_the_same_settings(monkeypatch) -> None:
    """The environment made for children gives exactly the parent's settings, options included."""
    monkeypatch.setenv("RUNSTORE_FLUSH_MAX_BYTES", "1MiB")
    settings = load_settings(http="[::1]:1", data_dir="elsewhere")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings
    assert settings.flush_max_bytes == 1024 * 1024


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"http": "0.0.0.0:1984"}, r"http \(RUNSTORE_HTTP\): .*auth=none.*RUNSTORE_AUTH=keys"),
        ({"grpc": "[::]:1985"}, r"grpc \(RUNSTORE_GRPC\): .*auth=none"),
        ({"http": "example.com:80"}, r"http \(RUNSTORE_HTTP\): .*auth=none"),
        ({"telemetry_url": "collector:4317"}, r"telemetry_url \(RUNSTORE_TELEMETRY_URL\): not http"),
        ({"telemetry_url": "http://collector/v1/traces"}, r"telemetry_url .*: not http"),
        ({"telemetry_url": "http://localhost:1984"}, r"localhost:1984 is runstore itself.*INTO_ITSELF=true"),
        ({"telemetry_url": "http://[::1]:1985"}, r"telemetry_url .*\[::1\]:1985 is runstore itself"),
        (
            {"telemetry_url": "https://stores:1985", "store_address": "dns:///stores:1985"},
            r"stores:1985 is runstore itself",
        ),
        ({"telemetry_ratio": "1.5"}, r"telemetry_ratio \(RUNSTORE_TELEMETRY_RATIO\)"),
        ({"telemetry_headers": "X-Key=a"}, r"telemetry_headers .*: not name=value"),
        ({"http": "1984"}, r"http \(RUNSTORE_HTTP\): '1984' is not HOST:PORT"),
        ({"http": "::1:1984"}, r"needs brackets: \[::1\]:1984"),
        ({"http": "h:70000"}, r"'70000' is not a port"),
        ({"http": "[h]:1"}, r"'h' is not an IPv6 address"),
        ({"grpc": "127.0.0.1:0"}, r"grpc \(RUNSTORE_GRPC\): port 0"),
        (
            {"cors_origins": "https://a.example,example.com"},
            r"cors_origins \(RUNSTORE_CORS_ORIGINS\): 'example.com'",
        ),
        ({"tls_certificate": "a.pem"}, r"tls_key \(RUNSTORE_TLS_KEY\): needed with tls_certificate"),
        ({"tls_client_ca": "a.pem"}, r"tls_certificate \(RUNSTORE_TLS_CERTIFICATE\): needed"),
        ({"store_address": "store:"}, r"store_address \(RUNSTORE_STORE_ADDRESS\): '' is not a port"),
        ({"blob_url": "ftp://host"}, r"blob_url \(RUNSTORE_BLOB_URL\): neither s3://"),
        ({"agent_checkpoint_url": "mysql://a:b@h/d"}, r"agent_checkpoint_url .*: not postgresql://$"),
        ({"auth": "basic"}, r"auth \(RUNSTORE_AUTH\): .*'none' or 'keys'"),
        ({"flush_interval_ms": 0}, r"flush_interval_ms \(RUNSTORE_FLUSH_INTERVAL_MS\)"),
        ({"flush_max_bytes": 0}, r"flush_max_bytes \(RUNSTORE_FLUSH_MAX_BYTES\)"),
        ({"flush_max_bytes": "1GiB"}, r"flush_max_bytes .*above queue_max_bytes"),
        ({"gateway_workers": "many"}, r"gateway_workers \(RUNSTORE_GATEWAY_WORKERS\)"),
    ],
)
def test_bad_setting_is_named_with_its_variable(options: dict[str, object], message: str) -> None:
    """A mistake says which setting, which variable and what would be right."""
    with pytest.raises(BadSettings, match=message):
        load_settings(**options)


def test_variables_that_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip is told with what may be meant; what Kubernetes sets for services of these names is none."""
    links = ("RUNSTORE_STORE_SERVICE_HOST", "RUNSTORE_PORT", "RUNSTORE_STORE_PORT_1985_TCP_ADDR")
    names = ("RUNSTORE_AUHT", "RUNSTORE_X", "RUNSTORE_AUTH", "runstore_http", "RUNSTORE_API_KEY", "HOME")
    for name in (*names, *links):
        monkeypatch.setenv(name, "1")
    assert unknown_variables() == {"RUNSTORE_AUHT": "RUNSTORE_AUTH", "RUNSTORE_X": ""}


def test_every_mistake_is_reported_at_once() -> None:
    """Two bad settings give two lines, not one after the other."""
    with pytest.raises(BadSettings) as refused:
        load_settings(auth="basic", http="x")
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize("address", ["0.0.0.0:1984", "[::]:1984", "10.0.0.1:1984"])
def test_keys_allow_any_address(address: str) -> None:
    """With API keys the server may be reachable by others."""
    settings = load_settings(auth="keys", http=address, grpc=address)
    assert str(settings.http) == address


def test_passwords_are_not_shown() -> None:
    """The text of the settings, as a log may print it, holds no database password."""
    settings = load_settings(clickhouse_dsn="https://u:hunter1@h", catalog_url="postgresql://u:hunter2@h/d")
    assert "hunter" not in repr(settings)


def test_long_data_dir_falls_back_to_tcp(tmp_path: Path) -> None:
    """A socket path that the kernel would refuse is not used."""
    settings = load_settings(data_dir=tmp_path / ("x" * 100), grpc="127.0.0.1:7")
    assert settings.store_socket is None
    assert settings.store_target == "127.0.0.1:7"


def test_every_setting_is_described() -> None:
    """Each setting says what it means, in the code and in docs/settings.md, which lists no others."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
    table = (Path(__file__).parents[3] / "docs" / "settings.md").read_text()
    listed = re.findall(r"^\| `RUNSTORE_(\w+)` \|", table, re.MULTILINE)
    assert [name.lower() for name in listed] == list(Settings.model_fields)


@pytest.mark.parametrize(
    ("text", "loopback", "reachable"),
    [
        ("127.0.0.1:1", True, "127.0.0.1:1"),
        ("127.8.8.8:1", True, "127.8.8.8:1"),
        ("localhost:1", True, "localhost:1"),
        ("[::1]:1", True, "[::1]:1"),
        ("0.0.0.0:1", False, "127.0.0.1:1"),
        ("[::]:1", False, "[::1]:1"),
        ("store.internal:1", False, "store.internal:1"),
    ],
)
def test_address_knows_who_can_reach_it(text: str, loopback: bool, reachable: str) -> None:
    """Only addresses of this machine alone are loopback; a wildcard is reached through loopback."""
    address = Address.parse(text)
    assert str(address) == text
    assert address.is_loopback is loopback
    assert str(address.reachable) == reachable


def test_telemetry_may_go_elsewhere_or_where_it_is_allowed() -> None:
    """A port like ours on another machine is not ours; ours is allowed when asked for by name."""
    assert load_settings(telemetry_url="http://collector:1984").telemetry_url
    own = load_settings(telemetry_url="http://127.0.0.1:1985", telemetry_into_itself=True)
    assert own.telemetry_into_itself
    headers = load_settings(telemetry_headers="x-key=a b=,authorization=Bearer c").telemetry_metadata
    assert headers == (("x-key", "a b="), ("authorization", "Bearer c"))
