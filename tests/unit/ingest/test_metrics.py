"""Metrics of ingest: what is counted when, on a real log and without an engine."""

import asyncio
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from runstore.domain.errors import RunstoreError
from runstore.domain.runs import RunPatch
from runstore.ingest.flusher import STAGES, FlushReport
from runstore.ingest.ingest_runs import IngestRuns
from runstore.ingest.log import Log
from runstore.ingest.metrics import IngestMetrics
from runstore.ingest.sequence import Sequence
from runstore.ingest.visibility import Visibility

TENANT, PROJECT = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
NOW_US = 1_795_000_000_000_000
NO_PROJECTS: Any = None


class StillClock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.us = NOW_US

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1e6


class Store:
    """The ingest of a store process, without its flusher."""

    def __init__(self, folder: Path, *, log_bytes: int = 100_000, waiting_bytes: int = 100_000) -> None:
        self.registry = CollectorRegistry()
        self.metrics = IngestMetrics(self.registry)
        self.clock = StillClock()
        self.log = Log(
            folder,
            segment_bytes=10_000,
            max_bytes=log_bytes,
            on_group=self.metrics.logged,
            on_failure=self.metrics.log_failed,
        )
        self.visibility = Visibility(stored_sequence=0, last_sequence=0, max_waiting_bytes=waiting_bytes)
        self.ingest = IngestRuns(NO_PROJECTS, Sequence(self.clock), self.log, self.visibility, self.metrics)
        self.metrics.watch(self.log, self.visibility, self.clock)
        self.log.start()

    def value(self, name: str, **labels: str) -> float | None:
        """A sample, as a scrape would see it; None when there is none."""
        return self.registry.get_sample_value(f"runstore_{name}", labels)

    async def write(self, count: int = 1, *, size: int = 10) -> int:
        return await self.ingest.write(
            [
                RunPatch(TENANT, str(uuid.uuid4()), project_id=PROJECT, inputs=b"x" * size)
                for _ in range(count)
            ]
        )


async def test_batch_moves_every_stage(tmp_path: Path) -> None:
    """Accepted, durable, waiting with its age, then visible: each figure when its stage is reached."""
    store = Store(tmp_path)
    last = await store.write(3)
    store.clock.us += 2_500_000
    assert store.value("operations_accepted_total") == store.value("operations_durable_total") == 3
    assert store.value("waiting_operations") == 3
    assert store.value("waiting_bytes") == store.visibility.waiting_bytes > 0
    assert store.value("lag_seconds") == pytest.approx(2.5)
    assert store.value("operations_visible_total") == 0
    assert store.value("log_group_bytes_count") == store.value("acknowledge_seconds_count") == 1
    assert (store.value("log_bytes") or 0) > 0
    report = FlushReport(last, 3, runs=2, size_bytes=500, dead_letters=1, parked=1, derive_s=0.25)
    store.metrics.flushed(report)
    await store.visibility.stored(last)
    assert store.value("operations_visible_total") == 3
    assert (
        store.value("waiting_operations") == store.value("waiting_bytes") == store.value("lag_seconds") == 0
    )
    assert store.value("flush_runs_sum") == 2
    assert store.value("flush_stage_seconds_sum", stage="derive") == 0.25
    assert {store.value("flush_stage_seconds_count", stage=stage) for stage in STAGES} == {1}
    assert store.value("dead_letters_buried_total") == store.value("operations_parked_total") == 1
    await store.log.close()


async def test_back_pressure_is_counted_by_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue, a full log and a disk that refuses are told apart; nothing of them counts as durable."""
    queue = Store(tmp_path / "queue", waiting_bytes=1_000)
    await queue.write(size=2_000)
    with pytest.raises(RunstoreError):
        await queue.write()
    assert queue.value("back_pressure_refusals_total", cause="queue_full") == 1
    log = Store(tmp_path / "log", log_bytes=1_000)
    with pytest.raises(RunstoreError):
        await log.write(size=2_000)
    assert log.value("back_pressure_refusals_total", cause="log_full") == 1
    assert log.value("back_pressure_refusals_total", cause="log_unwritable") == 0

    def refuse(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(RunstoreError):
        await log.write()
    assert log.log.last_error == "no space"
    monkeypatch.undo()
    assert log.value("back_pressure_refusals_total", cause="log_unwritable") == 1
    assert log.value("log_write_failures_total") == 1
    assert log.value("operations_durable_total") == 0
    await log.write()
    assert log.log.last_error == ""
    await asyncio.gather(queue.log.close(), log.log.close())


async def test_stream_that_waits_is_counted_once(tmp_path: Path) -> None:
    """With room there is no pause; without, one, as long as it lasted."""
    store = Store(tmp_path, waiting_bytes=1_000)
    await store.ingest.wait_for_room(TENANT)
    assert store.value("stream_pauses_total") == 0
    last = await store.write(size=2_000)
    waiting = asyncio.create_task(store.ingest.wait_for_room(TENANT))
    await asyncio.sleep(0)
    assert not waiting.done()
    await store.visibility.stored(last)
    await waiting
    assert store.value("stream_pauses_total") == 1
    assert (store.value("stream_pause_seconds_total") or 0) > 0
    await store.log.close()


async def test_what_an_earlier_process_left_counts_as_lag(tmp_path: Path) -> None:
    """After a restart the age of what is left to be stored is known before anything new comes."""
    clock = StillClock()
    visibility = Visibility(stored_sequence=1, last_sequence=NOW_US << 12, max_waiting_bytes=1)
    store = Store(tmp_path)
    registry = CollectorRegistry()
    IngestMetrics(registry).watch(store.log, visibility, clock)
    clock.us += 9_000_000
    assert registry.get_sample_value("runstore_lag_seconds") == pytest.approx(9)
    await visibility.stored(NOW_US << 12)
    assert registry.get_sample_value("runstore_lag_seconds") == 0
    await store.log.close()


async def test_exposition_follows_the_conventions(tmp_path: Path) -> None:
    """Prometheus can read it; names carry our prefix and their unit, counters end in _total."""
    store = Store(tmp_path)
    store.metrics.engine_retried()
    store.metrics.flusher_ended()
    families = list(text_string_to_metric_families(generate_latest(store.registry).decode()))
    assert len(families) > 20
    for family in families:
        assert family.name.startswith("runstore_"), family.name
        assert family.documentation.endswith("."), family.name
        names = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert all(name.endswith(("_total", "_created")) for name in names), names
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes", "_runs")), family.name
    await store.log.close()
