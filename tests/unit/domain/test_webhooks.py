"""Which webhooks are called."""

import ipaddress
from typing import Any

import pytest

from runstore.domain.errors import RunstoreError
from runstore.domain.webhooks import WebhookPolicy, webhook_policy

DEFAULT = WebhookPolicy()


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "http://example.com:8080/hook?x=1#f",
        "http://user:secret@example.com/",
        "http://10.0.0.7/hook",
        "http://192.168.1.4:9000",
        "http://[2001:db8:1::5]/",
        "https://EXAMPLE.com./",
        "http://" + "a" * 60 + ".example.com/" + "b" * 60_000,
    ],
)
def test_public_and_private_hosts_are_called(url: str) -> None:
    """Anything but this machine may be called by default, private networks included."""
    DEFAULT.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/relative",
        "example.com/hook",
        "ftp://example.com/",
        "file:/etc/passwd",
        "http://",
        "http:///path",
        "http://:80/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://exa mple.com/",
        "http://example.com\\@localhost/",
        "http://example.com/\n",
        "http://example.com/\0",
        "http://[::1",
        "http://localhost/",
        "http://LOCALHOST.:80/",
        "http://api.localhost/",
        "http://127.0.0.1/",
        "http://127.8.9.1:1984/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[2002:7f00:1::]/",
        "http://[64:ff9b::7f00:1]/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/",
        "http://[fe80::1%25eth0]/",
        "http://[fd00:ec2::254]/",
        "http://100.100.100.200/",
        "http://metadata.google.internal/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://example.com/" + "a" * 65_536,
    ],
)
def test_other_targets_are_refused(url: str) -> None:
    """No URL, no host, another scheme, this machine under any of its names, or what tells of the machine."""
    with pytest.raises(RunstoreError) as refusal:
        DEFAULT.check_url(url)
    assert refusal.value.field == "webhook"
    assert refusal.value.reason.http_status == 422


def test_addresses_that_names_lead_to_are_checked() -> None:
    """A name that leads to this machine is refused once it is looked up."""
    for address in ("127.0.0.1", "::1", "169.254.169.254", "::ffff:127.0.0.1"):
        with pytest.raises(RunstoreError):
            DEFAULT.check_address(ipaddress.ip_address(address))
    DEFAULT.check_address(ipaddress.ip_address("10.1.2.3"))
    with pytest.raises(RunstoreError):
        WebhookPolicy(refuses_private=True).check_address(ipaddress.ip_address("10.1.2.3"))
    open_policy = WebhookPolicy(refuses_loopback=False)
    open_policy.check_address(ipaddress.ip_address("127.0.0.1"))
    open_policy.check_url("http://localhost:9/x")
    with pytest.raises(RunstoreError):
        open_policy.check_address(ipaddress.ip_address("169.254.169.254"))


def test_policy_is_read_from_langgraph_json() -> None:
    """Every key of `webhooks` has its effect; headers take variables of the prefix."""
    policy = webhook_policy(
        {
            "webhooks": {
                "env_prefix": "HOOK_",
                "headers": {"Authorization": "Bearer ${{ env.HOOK_TOKEN }}", "X-Plain": "1"},
                "allowed_fields": ["run_id", "status"],
                "url": {
                    "allowed_domains": ["example.com", "*.Example.org"],
                    "allowed_ports": [443, 8443],
                    "max_url_length": 100,
                    "disable_private_ips": True,
                },
            }
        },
        {"HOOK_TOKEN": "s3cret"},
    )
    assert policy.headers == {"Authorization": "Bearer s3cret", "X-Plain": "1"}
    assert "s3cret" not in repr(policy)
    assert policy.visible({"run_id": 1, "values": 2}) == {"run_id": 1}
    assert (policy.requires_https, policy.refuses_loopback, policy.refuses_private) == (True, True, True)
    for good in ("https://example.com/", "https://a.example.org:8443/"):
        policy.check_url(good)
    for bad in (
        "http://example.com/",
        "https://evil-example.com/",
        "https://example.org/",
        "https://example.com:444/",
        "https://example.com/" + "a" * 100,
    ):
        with pytest.raises(RunstoreError):
            policy.check_url(bad)


def test_nothing_configured_is_the_default() -> None:
    """Without a block for URLs, http is good; with one, https is meant unless told."""
    assert webhook_policy({}, {}) == DEFAULT
    assert not webhook_policy({"webhooks": {"headers": {}}}, {}).requires_https
    assert webhook_policy({"webhooks": {"url": {"disable_loopback": False}}}, {}).requires_https
    loose = webhook_policy({"webhooks": {"url": {"require_https": False, "disable_loopback": False}}}, {})
    loose.check_url("http://127.0.0.1:9/")


def test_webhooks_can_be_disabled() -> None:
    """`http.disable_webhooks` refuses every URL."""
    policy = webhook_policy({"http": {"disable_webhooks": True}}, {})
    with pytest.raises(RunstoreError):
        policy.check_url("https://example.com/")


@pytest.mark.parametrize(
    ("field", "document"),
    [
        ("webhooks", {"webhooks": []}),
        ("webhooks.url", {"webhooks": {"url": "x"}}),
        ("webhooks.url.allowed_ports", {"webhooks": {"url": {"allowed_ports": ["443"]}}}),
        ("webhooks.url.max_url_length", {"webhooks": {"url": {"max_url_length": 0}}}),
        ("webhooks.url.allowed_domains", {"webhooks": {"url": {"allowed_domains": "example.com"}}}),
        ("webhooks.require_https", {"webhooks": {"url": {"require_https": "yes"}}}),
        ("webhooks.headers", {"webhooks": {"headers": {"A": "${{ env.HOME }}"}}}),
        ("webhooks.headers", {"webhooks": {"headers": {"A": "${{ env.LG_WEBHOOK_UNSET }}"}}}),
        ("webhooks.headers", {"webhooks": {"headers": {"A B": "x"}}}),
        ("webhooks.headers", {"webhooks": {"headers": {"A": "x\r\nB: y"}}}),
        ("webhooks.env_prefix", {"webhooks": {"env_prefix": 1, "headers": {"A": "x"}}}),
    ],
)
def test_what_is_not_understood_is_refused(field: str, document: dict[str, Any]) -> None:
    """A policy with a mistake stops the start, the key named."""
    with pytest.raises(RunstoreError) as refusal:
        webhook_policy(document, {"HOME": "/"})
    assert refusal.value.field == field
