"""Metrics of whole servers, read as Prometheus reads them."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.waiting import until

from runstore.gateway.metrics import _PATIENCE_S

from .servers import ROOT, Server
from .wire import run_json


def exposition(url: str, **headers: str) -> str:
    """All metrics, of a scrape that nobody was left out of for answering late."""

    def in_time() -> list[httpx.Response]:
        began = time.monotonic()
        answer = httpx.get(f"{url}/metrics", headers=headers)
        return [answer] if time.monotonic() - began < _PATIENCE_S else []

    [answer] = until(in_time, "all answer a scrape in time")
    assert answer.status_code == 200
    return answer.text


def scrape(url: str, **headers: str) -> dict[str, float]:
    """The sum of each metric over its labels; every series is there once."""
    seen: set[object] = set()
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition(url, **headers)):
        for sample in family.samples:
            series = (sample.name, frozenset(sample.labels.items()))
            assert series not in seen, series
            seen.add(series)
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


def write(server: Server, count: int, **headers: str) -> list[str]:
    """Ids of new runs that were acknowledged."""
    ids = [uuid.uuid4() for _ in range(count)]
    body = {"post": [run_json(run_id, "metrics", inputs={"a": 1}) for run_id in ids]}
    answer = httpx.post(f"{server.url}/runs/batch", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return [str(run_id) for run_id in ids]


def test_metrics_move_when_runs_are_written(server: Server) -> None:
    """From the request to the flush, each stage counts the same runs, whichever worker is asked."""
    before = scrape(server.url)
    write(server, 7)

    visible = "runstore_operations_visible_total"
    until(lambda: scrape(server.url)[visible] >= before[visible] + 7, "the runs are visible")
    after = scrape(server.url)
    for name in ("accepted", "durable"):
        key = f"runstore_operations_{name}_total"
        assert after[key] >= before[key] + 7
    for name in (
        "runstore_http_requests_total",
        "runstore_grpc_calls_total",
        "runstore_log_group_seconds_count",
        "runstore_flush_runs_count",
        "runstore_flush_stage_seconds_sum",
        "runstore_acknowledge_seconds_count",
    ):
        assert after[name] > before.get(name, 0), name
    assert after["runstore_engine_up"] == after["runstore_store_up"] == 1
    assert after["runstore_build_info"] == 1
    assert 0 < after["runstore_disk_free_bytes"] < after["runstore_disk_size_bytes"]
    for process in ("", "runstore_flusher_", "runstore_gateway_"):
        assert after[f"{process}process_resident_memory_bytes"] > 2**20


def test_every_gateway_is_in_every_scrape(server: Server) -> None:
    """Two workers share the port; each scrape names both, and counts never go back from one to the next."""
    last = 0.0
    for _ in range(10):
        text = exposition(server.url)
        for worker in ("gateway-1", "gateway-2"):
            assert f'runstore_gateway_pid{{worker="{worker}"}}' in text
        now = scrape(server.url)["runstore_http_requests_total"]
        assert now > last
        last = now


def test_reading_moves_the_figures_of_engine_catalog_and_caches(server: Server) -> None:
    """One run that is read is a question, a statement for the engine, and a look into a cache."""
    [run_id] = write(server, 1)
    before = scrape(server.url)
    assert httpx.get(f"{server.url}/runs/{run_id}").status_code == 200
    assert httpx.get(f"{server.url}/sessions").status_code == 200
    after = scrape(server.url)
    for name in (
        "runstore_query_seconds_count",
        "runstore_engine_statement_seconds_count",
        "runstore_engine_wait_seconds_count",
        "runstore_catalog_statement_seconds_count",
        "runstore_catalog_wait_seconds_count",
    ):
        assert after[name] > before[name], name
    assert after["runstore_cache_hits_total"] + after["runstore_cache_misses_total"] > 0
    assert after["runstore_cache_entries"] > 0
    assert after["runstore_catalog_lock_timeouts_total"] == 0


def test_names_in_the_metrics_have_a_bound(server: Server) -> None:
    """No run, project or tenant becomes a label."""
    [run_id] = write(server, 1)
    httpx.get(f"{server.url}/runs/{run_id}")
    text = exposition(server.url)
    assert run_id not in text
    assert "metrics}" not in text
    assert "7c5e1f5a-3b0d" not in text


def test_engine_figures_come_by_themselves(server: Server) -> None:
    """Sizes of tables are asked for in the background: a scrape never waits for the engine."""
    until(lambda: "runstore_engine_table_rows" in scrape(server.url), "the engine has answered")
    found = scrape(server.url)
    assert found["runstore_engine_table_parts"] >= 1
    assert found["runstore_dead_letters"] == 0
    assert found["runstore_parked_operations"] >= 0  # Other tests' updates may wait for their creates.
    assert found["runstore_deleted_runs"] >= 0


def test_metrics_need_the_operators_key(guarded: Server, key: str) -> None:
    """With API keys in force, neither strangers nor tenants see what all tenants do; the operator does."""
    assert httpx.get(f"{guarded.url}/metrics").status_code == 401
    refused = httpx.get(f"{guarded.url}/metrics", headers={"x-api-key": key})
    assert (refused.status_code, "runstore_" in refused.text) == (403, False)
    operator_key = guarded.command("keys", "operator").stdout.strip()
    assert "runstore_log_bytes" in scrape(guarded.url, authorization=f"Bearer {operator_key}")


def expressions(document: Any) -> Iterator[str]:
    """Every `expr` in a file of rules or of a dashboard."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in {"expr", "query", "definition"} and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(document, list):
        for value in document:
            yield from expressions(value)


def test_alerts_and_dashboards_show_what_is_served(server: Server) -> None:
    """Each metric that deploy/ asks for is one that a server shows, down to the suffix."""
    until(lambda: "runstore_engine_table_rows" in scrape(server.url), "the engine has answered")
    served: set[str] = set()
    for family in text_string_to_metric_families(exposition(server.url)):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        served |= {family.name + suffix for suffix in suffixes}
    served.add("runstore_certificate_expiry_timestamp_seconds")  # With TLS alone; test_tls.py sees it.
    rules = yaml.safe_load((ROOT / "deploy/prometheus/runstore.rules.yaml").read_text())
    dashboards = [json.loads(path.read_text()) for path in (ROOT / "deploy/grafana").glob("*.json")]
    found = {
        name
        for expression in expressions([rules, *dashboards])
        for name in re.findall(r"(?<![\w:])(?:runstore|process)_\w+(?![\w:])", expression)
    }
    assert len(found) > 20
    assert found - served == set()
