"""Load through the real `langsmith` client: a check that what is framed by hand is what it sends, and how
fast one such client is."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from tests.bench import corpus
from tests.bench.corpus import RUNS_PER_TRACE, TraceTemplate
from tests.bench.server import PROJECT_NAME
from tests.bench.workers import Load

_TEMPLATES = 50


@dataclass(frozen=True, slots=True)
class SdkJob:
    """What to send."""

    url: str
    runs: int
    seed: int


def prepare(job: SdkJob) -> Callable[[], Load]:
    """Builds the templates and the client; what is returned sends."""
    from langsmith import Client

    client = Client(api_url=job.url, api_key="any")
    templates = corpus.traces(job.seed, _TEMPLATES)
    return lambda: _send(job, client, templates)


def _send(job: SdkJob, client: Any, templates: list[TraceTemplate]) -> Load:
    load = Load(first_send_s=time.monotonic())
    for number in range(job.runs // RUNS_PER_TRACE):
        template = templates[number % len(templates)]
        runs = _runs(template)
        for kind, index in template.timeline:
            common, creation, update = runs[index]
            if kind == "create":
                client.create_run(**common, **creation)
            else:
                client.update_run(common["id"], **{k: v for k, v in common.items() if k != "id"}, **update)
        load.runs += RUNS_PER_TRACE
        load.operations += 2 * RUNS_PER_TRACE
        load.samples = [str(common["id"]) for common, _, _ in runs[-5:]]
    client.flush()
    load.last_ack_s = time.monotonic()
    return load


def _runs(template: TraceTemplate) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Of each run: what both calls say, what the creation says, what the update says."""
    now = datetime.now(UTC)
    runs: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = []
    for run in template.runs:
        run_id, start = uuid.uuid4(), now + timedelta(microseconds=run.offset_us)
        segment = f"{start:%Y%m%dT%H%M%S%f}Z{run_id}"
        parent = None if run.parent is None else runs[run.parent][0]
        common = {
            "id": run_id,
            "trace_id": run_id if parent is None else parent["trace_id"],
            "dotted_order": segment if parent is None else f"{parent['dotted_order']}.{segment}",
            "parent_run_id": None if parent is None else parent["id"],
            "name": run.name,
            "run_type": run.run_type,
            "start_time": start,
        }
        creation = {
            "inputs": msgspec.json.decode(run.inputs),
            "extra": msgspec.json.decode(run.extra),
            "tags": list(run.tags),
            "project_name": PROJECT_NAME,
        }
        update = {
            "outputs": None if run.outputs is None else msgspec.json.decode(run.outputs),
            "error": run.error,
            "extra": msgspec.json.decode(run.final_extra),
            "end_time": start + timedelta(microseconds=run.duration_us),
            "session_name": PROJECT_NAME,
        }
        runs.append((common, creation, update))
    return runs
