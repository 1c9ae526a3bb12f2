"""Metrics of gateways: counted per worker, gathered by whichever is asked, never unbounded."""

import asyncio
import os
import socket
from pathlib import Path

import httpx
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families
from tests.waiting import LONGEST_WAIT_S

from runstore.domain.errors import ErrorReason
from runstore.gateway import call_log, metrics
from runstore.gateway.metrics import GatewayCollector, GatewayMetrics

from .conftest import FakeStore, Refuse, line_of

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series(text: str) -> Series:
    """Every sample of an exposition; each must be there once."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def requests(found: Series, **labels: str) -> float:
    """The sum of answered calls with these labels."""
    return sum(
        value
        for (name, own), value in found.items()
        if name == "runstore_http_requests_total" and labels.items() <= dict(own).items()
    )


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that answer are waited for, however busy the machine is."""
    monkeypatch.setattr(metrics, "_PATIENCE_S", LONGEST_WAIT_S)


async def test_scrape_shows_every_worker(patience: None, tmp_path: Path) -> None:
    """Whichever worker is asked, the figures of all are there, each under its worker's name."""
    first, second = (GatewayMetrics(f"gateway-{number}", tmp_path / "metrics") for number in (1, 2))
    async with first.shown(), second.shown():
        first.answered("GET", "/ok", 200, 0.01, received=0, sent=5)
        for _ in range(3):
            second.answered("GET", "/ok", 200, 0.01, received=0, sent=5)
        for asked in (first, second):
            found = series((await asked.exposition()).decode())
            assert requests(found, worker="gateway-1", route="/ok", status="200") == 1
            assert requests(found, worker="gateway-2", route="/ok", status="200") == 3


async def test_worker_that_is_gone_or_stuck_is_left_out(
    patience: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket of a worker that died refuses, that of one that hangs says nothing: others are shown."""
    ask = metrics._ask

    def ask_impatiently(path: Path) -> bytes:
        if path.stem == "gateway-3":
            monkeypatch.setattr(metrics, "_PATIENCE_S", 0.1)
        return ask(path)

    monkeypatch.setattr(metrics, "_ask", ask_impatiently)
    alive = GatewayMetrics("gateway-1", tmp_path)
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as stuck:
        dead.bind(str(tmp_path / "gateway-2.sock"))
        stuck.bind(str(tmp_path / "gateway-3.sock"))
        stuck.listen()
        async with alive.shown():
            alive.answered("GET", "/ok", 200, 0.01, received=0, sent=5)
            found = series((await alive.exposition()).decode())
    assert requests(found, worker="gateway-1") == 1
    assert {dict(labels).get("worker") for _, labels in found} == {"gateway-1"}


async def test_workers_are_known_by_their_process(patience: None, tmp_path: Path) -> None:
    """The store learns the process numbers of the gateways; without gateways there are none."""
    collector = GatewayCollector(tmp_path / "metrics")
    assert collector.pids() == []
    async with GatewayMetrics("gateway-1", tmp_path / "metrics").shown():
        assert await asyncio.to_thread(collector.pids) == [("gateway-1", os.getpid())]


async def test_strange_methods_share_a_series(tmp_path: Path) -> None:
    """What clients make up does not become a label."""
    metrics = GatewayMetrics("gateway", None)
    for method in ("BREW", "WHEN"):
        metrics.answered(method, "unmatched", 405, 0.01, received=0, sent=0)
    found = series((await metrics.exposition()).decode())
    assert requests(found, method="other") == 2
    assert not any("BREW" in dict(labels).values() for _, labels in found)


def test_metrics_are_those_of_store_and_gateway(http: httpx.Client, store: FakeStore) -> None:
    """One answer that Prometheus can read, and the calls before it are in it, by template and status."""
    store.metrics = b"# TYPE runstore_dead_letters gauge\nrunstore_dead_letters 7.0\n"
    before = series(http.get("/metrics").text)
    http.get("/runs/11111111-1111-4111-8111-111111111111")
    http.get("/no/such/path")
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    after = series(answer.text)
    assert after["runstore_dead_letters", frozenset()] == 7
    assert after["runstore_store_up", frozenset()] == 1
    for labels in ({"route": "/runs/{run_id}", "status": "404"}, {"route": "unmatched", "status": "404"}):
        assert requests(after, **labels) == requests(before, **labels) + 1
    assert not any("1111" in value for _, labels in after for value in dict(labels).values())


def test_metrics_of_the_gateway_survive_the_store(http: httpx.Client, store: FakeStore) -> None:
    """While the store is away the gateway shows what it has, and that the store is away."""
    store.metrics = Refuse(ErrorReason.UNAVAILABLE, "", has_detail=False)
    found = series(http.get("/metrics").text)
    assert found["runstore_store_up", frozenset()] == 0
    assert requests(found) > 0


@pytest.mark.parametrize(("reason", "status"), [("UNAUTHENTICATED", 401), ("PERMISSION_DENIED", 403)])
def test_who_may_not_see_the_stores_metrics_sees_none(
    http: httpx.Client, store: FakeStore, reason: str, status: int
) -> None:
    """The store decides by the caller's credential, which it gets as it came."""
    store.metrics = Refuse(ErrorReason[reason], "no")
    answer = http.get("/metrics", headers={"authorization": "Bearer rsk_x"})
    assert (answer.status_code, "runstore_http" in answer.text) == (status, False)
    assert store.metadata["authorization"] == "Bearer rsk_x"


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [("trace-7", True), ("x" * 129, False), ("a\tb", False), ("", False)],
    ids=["short", "long", "control character", "empty"],
)
def test_request_id_joins_the_lines_of_a_call(
    http: httpx.Client, store: FakeStore, given: str, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One id is in the answer, in the gateway's line and in the metadata that the store logs."""
    monkeypatch.setattr(call_log, "_SLOW_S", LONGEST_WAIT_S)  # A call that is slow has another level.
    with structlog.testing.capture_logs() as logs:
        answer = http.get("/sessions", headers={"x-request-id": given})
        line = line_of(answer, logs)
    request_id = answer.headers["x-request-id"]
    assert (request_id == given) is is_kept
    assert request_id
    assert store.metadata["x-request-id"] == request_id
    assert line["log_level"] == "debug"


def test_what_operators_should_know_is_not_hidden(http: httpx.Client, store: FakeStore) -> None:
    """Refusals are at info, a store that is away is a warning."""
    levels = {}
    for reason in (ErrorReason.OVERLOADED, ErrorReason.UNAVAILABLE):
        store.answers["ListProjects"] = Refuse(reason, "later")
        with structlog.testing.capture_logs() as logs:
            levels[reason] = line_of(http.get("/sessions"), logs)["log_level"]
    assert levels == {ErrorReason.OVERLOADED: "info", ErrorReason.UNAVAILABLE: "warning"}
