"""Measures questions on a store that holds a month of many projects, while more is written."""

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from tests.bench import engine_reads, history, load_grpc, processes
from tests.bench.engine_reads import EngineFacts, ReadsJob
from tests.bench.generator import Form
from tests.bench.latency import percentile
from tests.bench.load_grpc import GrpcJob
from tests.bench.plan import Plan
from tests.bench.reads import Question, Reader, questions
from tests.bench.report import Figure, Report
from tests.bench.server import Server, serving
from tests.bench.workers import Load, Worker

from runstore.v1 import run_ingest_service_pb2 as ingest

_GIB = 2**30
_WRITES_PER_S = 2_000
_LONGEST_LOADING_S = 3_600.0
_LONGEST_ASKING_S = 1_800.0


@dataclass(frozen=True, slots=True)
class _Filled:
    """What a folder holds; written beside its data, so that it can be asked again."""

    runs: int
    raw_bytes: int
    """Of all runs as JSON."""
    landmarks: history.Landmarks


def measure_reads(plan: Plan, data_dir: Path, report: Report) -> None:
    """Fills the store in a folder, unless that has been done before, asks it under writes, starts it again,
    and asks the engine alone."""
    note_file = data_dir / "bench.json"
    with serving(data_dir) as server:
        if not note_file.exists():
            note_file.write_bytes(msgspec.json.encode(_fill(plan, server, report)))
        filled = msgspec.json.decode(note_file.read_bytes(), type=_Filled)
        plan = replace(plan, runs=filled.runs)
        asked = questions(filled.landmarks)
        _ask(plan, server, filled.landmarks.project_ids, asked, report)
    print("\nrunstore serve on the full folder")
    with serving(data_dir) as server:
        note = f"{plan.runs:,} runs stored"
        report.add(Figure("Start", "on a full folder", server.started_after_s, "s", at_most=3.0, note=note))
    _compare_with_engine(plan, data_dir, asked, filled, report)


def _fill(plan: Plan, server: Server, report: Report) -> _Filled:
    print(f"\nLoading {plan.runs:,} runs of {history.DAYS:.0f} days into {history.PROJECTS} projects")
    project_ids = history.create_projects(server)
    landmarks = history.write_landmarks(server, project_ids, plan.seed)
    job = history.history_job(server.grpc_address, project_ids, plan.runs, _LONGEST_LOADING_S, plan.seed + 1)
    worker: Worker[GrpcJob, Load] = Worker(load_grpc.prepare, job)
    load = worker.run()
    for token in load.write_tokens:
        server.ingest().WaitVisible(ingest.WaitVisibleRequest(write_token=token), timeout=_LONGEST_LOADING_S)
    report.add(Figure("Reads", "loading, durable", load.runs / load.seconds, "runs/s"))
    if load.runs < plan.runs:
        report.warn(f"only {load.runs:,} of {plan.runs:,} runs were loaded in time")
    return _Filled(load.runs, load.raw_bytes, landmarks)


def _ask(
    plan: Plan, server: Server, project_ids: tuple[str, ...], asked: list[Question], report: Report
) -> None:
    print(f"\nReads of {plan.runs:,} runs over gRPC, {_WRITES_PER_S:,} runs/s written meanwhile")
    section = f"Reads at {plan.runs:,} runs"
    # Every message goes to another project, as if each had a tracer of its own.
    job = GrpcJob(
        server.grpc_address,
        project_ids,
        Form.PAIR,
        int(_WRITES_PER_S * _LONGEST_ASKING_S),
        _LONGEST_ASKING_S,
        plan.seed + 2,
        _WRITES_PER_S,
    )
    writer: Worker[GrpcJob, Load] = Worker(load_grpc.prepare, job)
    writer.start()
    with server.channel() as channel, processes.watching_memory(server.parts) as memory:
        reader = Reader(channel)
        for question in asked:
            times = reader.times_ms(question, plan.read_calls)
            note = f"{len(times):,} samples, slowest {max(times):,.0f} ms"
            for name, share, budget in (("P50", 0.5, question.p50_ms), ("P99", 0.99, question.p99_ms)):
                value = percentile(times, share)
                report.add(
                    Figure(section, f"{question.name}, {name}", value, "ms", at_most=budget, note=note)
                )
    writer.stop()
    report.add(Figure(section, "memory meanwhile, PSS", memory[0].pss_bytes / _GIB, "GiB", at_most=2.0))


def _compare_with_engine(
    plan: Plan, data_dir: Path, asked: list[Question], filled: _Filled, report: Report
) -> None:
    """The engine's own times for what was asked, written beside the figures already there."""
    print("\nEngine alone, on the same folder")
    job = ReadsJob(data_dir / "clickhouse", asked, plan.read_calls)
    worker: Worker[ReadsJob, EngineFacts] = Worker(engine_reads.prepare, job)
    facts = worker.run()
    engine = {
        f"{question}, {name}": percentile(times, share)
        for question, times in facts.times_ms.items()
        for name, share in (("P50", 0.5), ("P99", 0.99))
    }
    report.figures[:] = [
        replace(figure, engine=engine[figure.name]) if figure.name in engine else figure
        for figure in report.figures
    ]
    ratio = facts.stored_bytes / (facts.runs * filled.raw_bytes / filled.runs)
    note = f"{facts.stored_bytes / 2**20:,.0f} MiB, {facts.runs:,} runs in {facts.rows:,} rows"
    report.add(Figure("Disk", "stored bytes by bytes of JSON", ratio, "", at_most=0.35, note=note))
    files = sum(file.stat().st_size for file in data_dir.rglob("*") if file.is_file())
    note = "parts that merges have replaced, log and catalog included"
    report.add(Figure("Disk", "all files", files / 2**20, "MiB", note=note))
