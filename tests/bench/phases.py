"""The benchmark from beginning to end: what runs after what, and which figure comes of it."""

import json
import time
from dataclasses import replace
from pathlib import Path

from tests.bench import engine_ceiling, load_grpc, load_http, load_sdk, machine, processes
from tests.bench.agents_phase import measure_agents
from tests.bench.engine_ceiling import Ceiling, CeilingJob
from tests.bench.generator import Form, grpc_generator, multipart_generator
from tests.bench.http_client import post
from tests.bench.latency import Probe, percentile
from tests.bench.lists_phase import measure_lists
from tests.bench.load_grpc import GrpcJob
from tests.bench.load_http import HttpJob
from tests.bench.load_sdk import SdkJob
from tests.bench.plan import Plan
from tests.bench.profiling import profiling
from tests.bench.reads_phase import measure_reads
from tests.bench.report import Figure, Report
from tests.bench.server import Server, serving
from tests.bench.workers import Load, Worker, now_us

from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as queries

_GIB = 2**30
_BUDGETS = {
    ("gRPC", Form.PAIR): 40_000,
    ("gRPC", Form.WHOLE): 40_000,
    ("gRPC", Form.APART): 28_000,
    ("HTTP", Form.PAIR): 20_000,
    ("HTTP", Form.APART): 14_000,
}
_FORM_NAMES = {
    Form.PAIR: "create and update in one batch",
    Form.WHOLE: "complete runs",
    Form.APART: "creates and updates apart",
}
_SMALL_CLIENTS = 200
_LOADING_LIMIT_S = 400.0


class Benchmark:
    """One benchmark in one working folder."""

    def __init__(
        self,
        plan: Plan,
        sections: set[str],
        work_dir: Path,
        report: Report,
        profiles: Path | None,
        filled: Path | None,
    ) -> None:
        """`profiles`: where recordings go; None records nothing. `filled`: the folder whose store is asked;
        None fills one."""
        self._plan = plan
        self._sections = sections
        self._work_dir = work_dir
        self._report = report
        self._profiles = profiles
        self._reads_folder = filled or work_dir / "reads"
        self._seed = plan.seed
        self._ceiling: Ceiling | None = None
        self._loads: list[Load] = []
        self._rates: dict[str, float] = {}
        self._memory: list[processes.Memory] = []

    def run(self) -> None:
        """Every chosen section, in the order that lets later ones use what earlier ones stored."""
        if machine.is_busy():
            self._report.warn("others are using this machine; figures are too low and too slow")
        if "generator" in self._sections:
            self._measure_generator()
        if "engine" in self._sections:
            self._measure_engine()
        if self._sections & {"grpc", "http", "sdk", "acknowledge", "visible"}:
            self._measure_server()
        if "reads" in self._sections:
            measure_reads(self._plan, self._reads_folder, self._report)
        if "lists" in self._sections:
            measure_lists(self._plan, self._work_dir, self._report)
        if "agents" in self._sections:
            measure_agents(self._plan, self._work_dir, self._report)

    def _next_seed(self) -> int:
        self._seed += 1
        return self._seed

    def _title(self, text: str) -> None:
        print(f"\n{text}", flush=True)

    # -- without a server ----------------------------------------------------------------------------

    def _measure_generator(self) -> None:
        self._title("Generator")
        grpc_traces = grpc_generator(self._seed, "0190c8a0-1111-7000-8000-000000000001")
        http_traces = multipart_generator(self._seed, "bench", load_http.BOUNDARY)
        bytes_per_run = sum(s.raw_bytes for s in grpc_traces.stencils) / len(grpc_traces.stencils) / 10
        self._report.add(Figure("Generator", "JSON of a run", bytes_per_run, "B"))
        for protocol, traces in (("gRPC", grpc_traces), ("multipart, before zstd", http_traces)):
            started_s, count = time.perf_counter(), 1_000
            for _ in range(count):
                stencils, values = traces.trace(now_us())
                stencils.pair.fill(values)
            rate = count * 10 / (time.perf_counter() - started_s)
            self._report.add(Figure("Generator", f"{protocol}, one core, no network", rate, "runs/s"))

    def _measure_engine(self) -> None:
        self._title("Engine alone (building blocks first)")
        job = CeilingJob(
            self._work_dir / "ceiling", self._plan.engine_rows, self._plan.rows_per_block, self._seed
        )
        worker: Worker[CeilingJob, Ceiling] = Worker(engine_ceiling.prepare, job)
        ceiling = self._ceiling = worker.run()
        for name, value in (
            ("inserts from files", ceiling.from_file),
            ("inserts through the client library", ceiling.from_memory),
            ("two connections at once, from files", ceiling.two_connections),
        ):
            self._report.add(Figure("Engine alone", name, value, "runs/s"))
        note = "derived facts and Arrow, one core of the builder"
        self._report.add(
            Figure("Engine alone", "building the blocks", ceiling.build_us_per_row, "µs/run", note=note)
        )

    # -- with a server -------------------------------------------------------------------------------

    def _measure_server(self) -> None:
        data_dir = self._work_dir / "data"
        self._title("runstore serve on an empty folder")
        with serving(data_dir) as server:
            note = "until HTTP and gRPC answer, processes included"
            self._report.add(
                Figure("Start", "on an empty folder", server.started_after_s, "s", at_most=3.0, note=note)
            )
            self._measure_ingest(server)
            self._measure_latencies(server)

    def _measure_ingest(self, server: Server) -> None:
        if "grpc" in self._sections:
            self._title("Ingest over gRPC")
            for form in (Form.PAIR, Form.WHOLE, Form.APART):
                self._grpc_throughput(server, form)
        if "http" in self._sections:
            self._title("Ingest over multipart + zstd (rendering bodies first)")
            for form in (Form.PAIR, Form.APART):
                self._http_throughput(server, form)
        if "sdk" in self._sections:
            self._title("Ingest through the langsmith client")
            job = SdkJob(f"http://127.0.0.1:{server.http_port}", self._plan.sdk_runs, self._next_seed())
            worker: Worker[SdkJob, Load] = Worker(load_sdk.prepare, job)
            self._throughput(server, worker, "Ingest, langsmith SDK", "one client", None)
        if self._memory:
            for name, value, budget in (
                ("RSS of all processes", max(m.rss_bytes for m in self._memory), None),
                ("PSS of all processes", max(m.pss_bytes for m in self._memory), 1.5),
            ):
                self._report.add(Figure("Memory at full ingest", name, value / _GIB, "GiB", at_most=budget))

    def _grpc_throughput(self, server: Server, form: Form) -> None:
        job = GrpcJob(
            server.grpc_address,
            (server.project_id,),
            form,
            self._plan.throughput_runs,
            self._plan.throughput_s,
            self._next_seed(),
        )
        worker: Worker[GrpcJob, Load] = Worker(load_grpc.prepare, job)
        with profiling(server, self._profiles, f"grpc-{form.value}"):
            self._throughput(
                server, worker, "Ingest, gRPC StreamRuns", _FORM_NAMES[form], _BUDGETS["gRPC", form]
            )
        if form is Form.PAIR:
            self._rates["gRPC"] = self._queryable_rate("Ingest, gRPC StreamRuns", form)

    def _http_throughput(self, server: Server, form: Form) -> None:
        most = min(self._plan.throughput_runs, int(2 * _BUDGETS["HTTP", form] * self._plan.throughput_s))
        job = HttpJob(server.http_port, form, most, self._plan.throughput_s, self._next_seed())
        worker: Worker[HttpJob, Load] = Worker(load_http.prepare, job)
        with profiling(server, self._profiles, f"http-{form.value}"):
            self._throughput(
                server, worker, "Ingest, multipart + zstd", _FORM_NAMES[form], _BUDGETS["HTTP", form]
            )
        if form is Form.PAIR:
            self._rates["HTTP"] = self._queryable_rate("Ingest, multipart + zstd", form)

    def _queryable_rate(self, section: str, form: Form) -> float:
        rate = self._report.value(f"{section} / {_FORM_NAMES[form]}, queryable")
        assert rate is not None
        return rate

    def _throughput(
        self,
        server: Server,
        worker: "Worker[GrpcJob, Load] | Worker[HttpJob, Load] | Worker[SdkJob, Load]",
        section: str,
        name: str,
        budget: float | None,
    ) -> None:
        """As fast as acknowledgements allow: durable, then queryable, and what it cost whom."""
        cpu_before = processes.cpu_seconds(server.parts)
        with processes.watching_memory(server.parts) as memory:
            load = worker.run()
            _wait_until_visible(server, load)
            visible_s = time.monotonic()
        self._memory += memory
        cpu_after = processes.cpu_seconds(server.parts)
        self._loads.append(load)
        _check_stored(server, load.samples)
        if load.refused:
            self._report.warn(f"{section}, {name}: {load.refused} operations were refused")
        seconds = visible_s - load.first_send_s
        engine = self._ceiling.best if self._ceiling is not None and budget is not None else None
        waited = f", told to wait {load.told_to_wait} times" if load.told_to_wait else ""
        note = f"{load.runs:,} runs in {seconds:.1f} s{waited}"
        add = self._report.add
        add(Figure(section, f"{name}, durable", load.runs / load.seconds, "runs/s", note=note))
        add(
            Figure(
                section, f"{name}, queryable", load.runs / seconds, "runs/s", at_least=budget, engine=engine
            )
        )
        if engine is not None:
            ratio = load.runs / seconds / engine
            add(Figure(section, f"{name}, share of the engine's rate", ratio, "", at_least=0.6))
        cpu = {part: cpu_after[part] - cpu_before.get(part, 0.0) for part in cpu_after} | {
            "generator": load.cpu_s
        }
        for part in ("store", "flusher", "gateway", "generator"):
            share = f"{100 * cpu[part] / seconds:.0f} % of a core"
            add(
                Figure(
                    section, f"{name}, CPU of the {part}", cpu[part] / load.runs * 1e6, "µs/run", note=share
                )
            )

    # -- latencies -----------------------------------------------------------------------------------

    def _measure_latencies(self, server: Server) -> None:
        if not self._sections & {"acknowledge", "visible"}:
            return
        self._title("Latency (half load is half of the queryable rate just measured)")
        if "gRPC" not in self._rates:
            self._grpc_throughput(server, Form.PAIR)
        if "HTTP" not in self._rates:
            self._http_throughput(server, Form.PAIR)
        for protocol in ("gRPC", "HTTP"):
            probe = Probe(server, protocol, self._next_seed())
            if "acknowledge" in self._sections:
                times = probe.acknowledgements_ms(self._plan.idle_samples)
                self._add_latency("Durable acknowledgement", f"{protocol}, idle, 10 runs", times, 3, 25)
            if "visible" in self._sections:
                times = probe.visibility_ms(self._plan.idle_samples)
                self._add_latency("Acknowledged → listed", f"{protocol}, idle", times, 50, 1_000)
            self._at_half_load(server, protocol, probe)
        if "acknowledge" in self._sections:
            self._small_batches(server)

    def _at_half_load(self, server: Server, protocol: str, probe: Probe) -> None:
        """Open loop: each request has its moment, and waiting for a late server counts.

        Once without readers for the acknowledgements, once with one that looks for what it wrote.
        """
        rate = self._rates[protocol] / 2
        if "acknowledge" in self._sections:
            worker = self._paced_worker(server, protocol, rate)
            load = worker.run()
            self._loads.append(load)
            note = f"{load.runs / load.seconds:,.0f} runs/s offered"
            self._add_latency(
                "Durable acknowledgement", f"{protocol}, half load", load.latencies_ms, 3, 25, note
            )
        if "visible" in self._sections:
            worker = self._paced_worker(server, protocol, rate)
            worker.start()
            until_s = time.monotonic() + 0.9 * self._plan.latency_s
            listed = probe.visibility_ms(1_000_000, until_s=until_s)
            load = worker.result()
            self._loads.append(load)
            note = f"{load.runs / load.seconds:,.0f} runs/s offered"
            self._add_latency("Acknowledged → listed", f"{protocol}, half load", listed, 250, 1_000, note)

    def _paced_worker(
        self, server: Server, protocol: str, runs_per_s: float
    ) -> "Worker[GrpcJob, Load] | Worker[HttpJob, Load]":
        most, seconds = int(runs_per_s * self._plan.latency_s) + 1, self._plan.latency_s
        if protocol == "gRPC":
            address, project = server.grpc_address, server.project_id
            job = GrpcJob(address, (project,), Form.PAIR, most, seconds, self._next_seed(), runs_per_s)
            return Worker(load_grpc.prepare, job)
        return Worker(
            load_http.prepare,
            HttpJob(server.http_port, Form.PAIR, most, seconds, self._next_seed(), runs_per_s),
        )

    def _small_batches(self, server: Server) -> None:
        """Many tracers with little to say: 1 to 10 runs a request from 200 connections."""
        base = HttpJob(
            server.http_port,
            Form.PAIR,
            self._plan.throughput_runs // 4,
            self._plan.latency_s / 2,
            self._next_seed(),
            connections=_SMALL_CLIENTS,
            is_small=True,
        )
        most: Worker[HttpJob, Load] = Worker(load_http.prepare, base)
        load = most.run()
        self._loads.append(load)
        rate = load.runs / load.seconds
        section, name = "Durable acknowledgement", f"HTTP, {_SMALL_CLIENTS} clients, 1 to 10 runs"
        self._report.add(Figure(section, f"{name}: most", rate, "runs/s"))
        paced = replace(
            base,
            seed=self._next_seed(),
            runs_per_s=rate / 2,
            max_s=self._plan.latency_s,
            max_runs=int(rate / 2 * self._plan.latency_s) + 1,
        )
        half: Worker[HttpJob, Load] = Worker(load_http.prepare, paced)
        load = half.run()
        self._loads.append(load)
        offered = f"{load.runs / load.seconds:,.0f} runs/s offered"
        self._add_latency(section, f"{name}, half load", load.latencies_ms, 3, 25, offered)

    def _add_latency(
        self,
        section: str,
        name: str,
        times_ms: list[float],
        p50: float | None,
        p99: float | None,
        note: str = "",
    ) -> None:
        note = ", ".join(filter(None, [note, f"{len(times_ms):,} samples, slowest {max(times_ms):,.0f} ms"]))
        self._report.add(Figure(section, f"{name}, P50", percentile(times_ms, 0.5), "ms", at_most=p50))
        self._report.add(
            Figure(section, f"{name}, P99", percentile(times_ms, 0.99), "ms", at_most=p99, note=note)
        )


# -- asking the server -------------------------------------------------------------------------------


def _wait_until_visible(server: Server, load: Load) -> None:
    """By the tokens of the acknowledgements; where there are none, by a list, which sees every write."""
    stub = server.ingest()
    for token in load.write_tokens:
        stub.WaitVisible(ingest.WaitVisibleRequest(write_token=token), timeout=_LOADING_LIMIT_S)
    if not load.write_tokens:
        question = {"session": [server.project_id], "limit": 1, "select": ["id"]}
        status, answer, _ = server.http().send(post("/runs/query", json.dumps(question).encode()))
        if status != 200:
            raise RuntimeError(f"cannot list: {status} {answer.decode(errors='replace')}")


def _check_stored(server: Server, run_ids: list[str]) -> None:
    """Fast and wrong would be worth nothing: the last runs must be there, complete."""
    stub = server.query()
    fields = [run_pb2.RUN_FIELD_END_TIME, run_pb2.RUN_FIELD_NAME]
    for run_id in run_ids:
        run = stub.GetRun(queries.GetRunRequest(id=run_id, fields=fields)).run
        if not run.name or not run.HasField("end_time"):
            raise RuntimeError(f"run {run_id} was acknowledged but is not complete: {run}")
