"""Guessing credentials becomes slow, for the guesser alone."""

import itertools

import pytest
from tests.manual_clock import ManualClock

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.failed_attempts import _MAX_ADDRESSES, FailedAttempts

GUESSES = (f"guess-{number}" for number in itertools.count())


@pytest.fixture
def attempts(clock: ManualClock) -> FailedAttempts:
    return FailedAttempts(clock, per_minute=6)


def fail(attempts: FailedAttempts, address: str, secret: str = "", reason: str = "UNAUTHENTICATED") -> str:
    """How an attempt with a bad credential ends."""
    with pytest.raises(RunstoreError) as refused, attempts.counted(address, secret or next(GUESSES)):
        raise RunstoreError(ErrorReason[reason], "bad")
    return refused.value.reason.name


def succeed(attempts: FailedAttempts, address: str, secret: str) -> None:
    with attempts.counted(address, secret):
        pass


def test_burst_is_answered_then_told_to_wait(attempts: FailedAttempts, clock: ManualClock) -> None:
    """Six guesses are refused as such, the seventh with the seconds to wait; then one is free again."""
    assert [fail(attempts, "192.0.2.1") for _ in range(7)] == ["UNAUTHENTICATED"] * 6 + ["RATE_LIMITED"]
    with pytest.raises(RunstoreError) as refused, attempts.counted("192.0.2.1", next(GUESSES)):
        pytest.fail("the credential was checked")
    assert (refused.value.reason.http_status, refused.value.retry_after_s) == (429, 10)
    clock.advance(refused.value.retry_after_s)
    assert [fail(attempts, "192.0.2.1") for _ in range(2)] == ["UNAUTHENTICATED", "RATE_LIMITED"]
    clock.advance(3_600)
    assert [fail(attempts, "192.0.2.1") for _ in range(7)] == ["UNAUTHENTICATED"] * 6 + ["RATE_LIMITED"]


def test_good_credentials_elsewhere_are_not_locked_out(attempts: FailedAttempts) -> None:
    """Guessing for somebody else's key costs its holder nothing, wherever that is."""
    for _ in range(20):
        fail(attempts, "192.0.2.1", "the key of another")
    succeed(attempts, "192.0.2.2", "the key of another")
    succeed(attempts, "2001:db8::1", "good")


def test_neighbour_that_was_let_in_goes_on(attempts: FailedAttempts) -> None:
    """Behind one address, whoever has a good credential already is not held up by a guesser."""
    succeed(attempts, "192.0.2.1", "good")
    while fail(attempts, "192.0.2.1") != "RATE_LIMITED":
        pass
    succeed(attempts, "192.0.2.1", "good")


@pytest.mark.parametrize("reason", ["PERMISSION_DENIED", "UNAVAILABLE", "WORKSPACE_REQUIRED"])
def test_other_refusals_are_no_guesses(attempts: FailedAttempts, reason: str) -> None:
    """A good credential without the right, and a store that is away, count for nothing."""
    assert {fail(attempts, "192.0.2.1", reason=reason) for _ in range(20)} == {reason}


def test_no_credential_is_no_guess(attempts: FailedAttempts) -> None:
    """Strangers without a credential are told so, as often as they ask."""
    for _ in range(20):
        with pytest.raises(RunstoreError), attempts.counted("192.0.2.1", ""):
            raise RunstoreError(ErrorReason.UNAUTHENTICATED, "none")
    succeed(attempts, "192.0.2.1", "good")


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("testclient", "other", False),
    ],
)
def test_addresses_that_one_host_can_choose_count_as_one(
    attempts: FailedAttempts, first: str, second: str, is_same: bool
) -> None:
    """A network of IPv6 is one guesser, and IPv4 within IPv6 is IPv4."""
    while fail(attempts, first) != "RATE_LIMITED":
        pass
    assert (fail(attempts, second) == "RATE_LIMITED") is is_same


def test_memory_is_bounded(attempts: FailedAttempts) -> None:
    """A guesser with many addresses makes the oldest forgotten."""
    for number in range(_MAX_ADDRESSES + 10):
        fail(attempts, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(attempts._left) == _MAX_ADDRESSES
