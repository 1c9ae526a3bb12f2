"""Threads shared by tenants: bounds, turns, and calls that were cancelled or fail."""

import threading
from collections.abc import Iterator

import pytest

from runstore.storage.clickhouse.fair_threads import FairThreads

WAIT_S = 20


@pytest.fixture
def threads() -> Iterator[FairThreads]:
    threads = FairThreads(4, name="test")
    yield threads
    threads.shutdown()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What slow calls wait for; open at the end of a test, so that it ends."""
    gate = threading.Event()
    yield gate
    gate.set()


def test_a_slow_tenant_leaves_a_thread(threads: FairThreads, gate: threading.Event) -> None:
    """A hundred calls of one tenant that do not end hold up none of another."""
    slow = [threads.submit("slow", gate.wait) for _ in range(100)]
    for number in range(50):
        assert threads.submit("quick", lambda number=number: number).result(WAIT_S) == number  # type: ignore[misc]
    gate.set()
    assert all(future.result(WAIT_S) for future in slow)


def test_threads_go_round(gate: threading.Event) -> None:
    """A tenant that comes later with one call is served before the hundredth of the first."""
    threads = FairThreads(1, name="test")
    order: list[str] = []
    threads.submit("first", gate.wait)
    calls = [threads.submit("first", lambda: order.append("first")) for _ in range(100)]
    calls += [threads.submit(name, lambda name=name: order.append(name)) for name in ("second", "third")]  # type: ignore[misc]
    gate.set()
    for call in calls:
        call.result(WAIT_S)
    threads.shutdown()
    assert order[:4] == ["first", "second", "third", "first"]


def test_cancelled_calls_never_begin(threads: FairThreads, gate: threading.Event) -> None:
    """They cost the tenants behind them nothing."""
    for _ in range(3):
        threads.submit("a", gate.wait)
    began = threading.Event()
    waiting = threads.submit("a", began.set)
    assert waiting.cancel()
    gate.set()
    assert threads.submit("a", lambda: "after").result(WAIT_S) == "after"
    assert not began.is_set()


def test_errors_are_the_callers(threads: FairThreads) -> None:
    """A call that fails gives its thread back."""
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            threads.submit("a", lambda: 1 / 0).result(WAIT_S)


def test_shutdown_cancels_what_waits(gate: threading.Event) -> None:
    """What has begun is waited for."""
    threads = FairThreads(1, name="test")
    begun = threads.submit("a", gate.wait)
    waiting = threads.submit("a", gate.wait)
    waiting.add_done_callback(lambda _: gate.set())
    threads.shutdown()
    assert waiting.cancelled()
    assert begun.result(0)
