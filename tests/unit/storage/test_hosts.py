"""How hosts are named, and which one is asked."""

import pytest

from runstore.storage.clickhouse.hosts import Host, Hosts, hosts_of

A, B, C = (Host(f"http://{name}:8123") for name in "abc")


class Clock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("setting", "dsns"),
    [
        ("chdb:///data/a,b", ["chdb:///data/a,b"]),
        ("http://a", ["http://a"]),
        (
            "https://user:p%2Cw@a:9443,[::1]:8443/runs?verify=false",
            ["https://user:p%2Cw@a:9443/runs?verify=false", "https://user:p%2Cw@[::1]:8443/runs?verify=false"],
        ),
        ("http://x:1@a/db,https://y:2@b/db?ca_cert=%2Fca.pem", ["http://x:1@a/db", "https://y:2@b/db?ca_cert=%2Fca.pem"]),
    ],
)  # fmt: skip
def test_setting_names_hosts(setting: str, dsns: list[str]) -> None:
    """Hosts share the rest of their DSN; DSNs of their own share nothing."""
    assert [host.dsn for host in hosts_of(setting)] == dsns


def test_settings_of_the_engine_are_apart() -> None:
    """The driver gets its own options only, and TLS by the scheme, whatever the port."""
    [host] = hosts_of("https://me:secret@a:9440/db?ch_insert_quorum=2&connect_timeout=3")
    assert host.settings == {"insert_quorum": "2"}
    assert host.dsn == "https://me:secret@a:9440/db?connect_timeout=3"
    assert host.options == {"interface": "https"}
    assert host.name == "a:9440"
    assert "secret" not in repr(host)


@pytest.mark.parametrize(
    "setting",
    ["ftp://me:secret@a", "http://", "http://me:secret@a,", "http://me:secret@a:0", "http://me:a:secret"],
)
def test_malformed_setting_is_refused_without_its_password(setting: str) -> None:
    """The text goes to a terminal or a log."""
    with pytest.raises(ValueError, match=r"missing|neither") as refused:
        hosts_of(setting)
    assert "secret" not in str(refused.value)


def test_first_healthy_host_is_preferred() -> None:
    """A host that failed comes last, and first again once it has answered after its pause."""
    clock = Clock()
    hosts = Hosts([A, B, C], clock)
    assert hosts.failed(A)
    assert not hosts.failed(A)
    assert hosts.in_order() == [B, C, A]
    clock.now_s += 31
    assert hosts.in_order() == [A, B, C]
    assert hosts.in_order() == [B, C, A], "one caller tries it, the others do not wait for that"
    hosts.answered(A)
    assert hosts.in_order() == [A, B, C]


def test_every_host_is_tried_when_all_failed() -> None:
    """Nothing is better than trying."""
    hosts = Hosts([A, B], Clock())
    for host in (B, A):
        hosts.failed(host)
    assert hosts.in_order() == [A, B]
