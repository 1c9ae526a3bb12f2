"""Load over `StreamRuns`: as fast as acknowledgements allow, or at a given rate whatever they do."""

import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
from tests.bench.corpus import RUNS_PER_TRACE
from tests.bench.generator import Form, Generator, TraceStencils, Values, grpc_generator, run_ids_of
from tests.bench.server import CHANNEL_OPTIONS
from tests.bench.workers import Load, now_us

from runstore.v1 import run_ingest_service_pb2 as pb

OPERATIONS_PER_MESSAGE = 200
STREAMS = 4
UPDATE_DELAY_S = 2.0
"""How long a run goes on when its update travels apart: many flushes."""
_UNACKNOWLEDGED = 16
_DAY_US = 86_400_000_000
_METHOD = "/runstore.v1.RunIngestService/StreamRuns"


@dataclass(frozen=True, slots=True)
class GrpcJob:
    """What to send."""

    address: str
    project_ids: tuple[str, ...]
    """Each message goes to the next one."""
    form: Form
    max_runs: int
    max_s: float
    seed: int
    runs_per_s: float | None = None
    """An open loop at this rate; None sends as fast as possible."""
    operations_per_message: int = OPERATIONS_PER_MESSAGE
    history_days: float = 0.0
    """Traces begin evenly over so many days until now, in their order; 0: they begin when they are sent."""


@dataclass(slots=True)
class _Message:
    body: bytes
    due_s: float
    runs: int
    raw_bytes: int
    sample: str


def prepare(job: GrpcJob) -> Callable[[], Load]:
    """Builds the templates; what is returned sends."""
    generator = grpc_generator(job.seed, *job.project_ids)
    return lambda: _send(job, generator)


def _send(job: GrpcJob, generator: Generator) -> Load:
    lock = threading.Lock()
    loads = [Load() for _ in range(STREAMS)]
    budget = itertools.count()
    threads = [
        threading.Thread(target=_stream, args=(job, generator, lock, budget, load, number))
        for number, load in enumerate(loads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _sum(loads)


def _stream(
    job: GrpcJob,
    generator: Generator,
    lock: threading.Lock,
    budget: "itertools.count[int]",
    load: Load,
    number: int,
) -> None:
    """One stream on a connection of its own, with a bounded number of unacknowledged messages."""
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    room = threading.Semaphore(_UNACKNOWLEDGED)
    sent: deque[_Message] = deque()

    def requests() -> Iterator[bytes]:
        for message in _paced(job, _messages(job, generator, lock, budget), number):
            room.acquire()
            if not message.due_s:
                message.due_s = time.monotonic()
            sent.append(message)
            load.first_send_s = load.first_send_s or message.due_s
            yield message.body

    with grpc.insecure_channel(job.address, options=options) as channel:
        method = channel.stream_stream(_METHOD, None, pb.StreamRunsResponse.FromString)
        for reply in method(requests()):
            load.last_ack_s = time.monotonic()
            room.release()
            message = sent.popleft()
            load.latencies_ms.append((load.last_ack_s - message.due_s) * 1e3)
            load.refused += len(reply.errors)
            load.write_tokens = [reply.write_token]
            load.operations += job.operations_per_message
            load.runs += message.runs
            load.raw_bytes += message.raw_bytes
            load.wire_bytes += len(message.body)
            load.samples = [*load.samples[-4:], message.sample] if message.sample else load.samples


def _paced(job: GrpcJob, messages: Iterator[_Message], number: int) -> Iterator[_Message]:
    """Messages when they are due: at random moments of the given rate, kept to whatever the server does."""
    if job.runs_per_s is None:
        yield from messages
        return
    moments = random.Random(f"{job.seed} {number}")
    runs_per_message = job.operations_per_message / (1 if job.form is Form.WHOLE else 2)
    per_s = job.runs_per_s / STREAMS / runs_per_message
    due_s = time.monotonic()
    for message in messages:
        due_s += moments.expovariate(per_s)
        message.due_s = due_s
        time.sleep(max(0.0, due_s - time.monotonic()))
        yield message


def _messages(
    job: GrpcJob, generator: Generator, lock: threading.Lock, budget: "itertools.count[int]"
) -> Iterator[_Message]:
    """Until runs or time are used up. `budget` counts messages of all streams."""
    per_trace = 2 * RUNS_PER_TRACE if job.form is Form.PAIR else RUNS_PER_TRACE
    traces_per_message = max(1, job.operations_per_message // per_trace)
    most = -(-job.max_runs // (traces_per_message * RUNS_PER_TRACE))
    end_s = time.monotonic() + job.max_s
    open_traces: deque[tuple[float, list[tuple[TraceStencils, Values]]]] = deque()
    while True:
        if open_traces and time.monotonic() - open_traces[0][0] >= UPDATE_DELAY_S:
            yield _message(job, open_traces.popleft()[1], "updates")
            continue
        if time.monotonic() >= end_s or (number := next(budget)) >= most:
            break
        start_us = now_us() - int((1 - number / most) * job.history_days * _DAY_US)
        with lock:  # The generator's counters are shared by the streams.
            traces = [generator.trace(start_us, number) for _ in range(traces_per_message)]
        yield _message(job, traces, "creates" if job.form is Form.APART else job.form.value)
        if job.form is Form.APART:
            open_traces.append((time.monotonic(), traces))
    for _, traces in open_traces:  # At once: waiting for the last ones would be idle time in the rate.
        yield _message(job, traces, "updates")


def _message(job: GrpcJob, traces: list[tuple[TraceStencils, Values]], part: str) -> _Message:
    body = b"".join(getattr(stencils, part).fill(values) for stencils, values in traces)
    if part == "creates":  # Counted when the update completes them.
        return _Message(body, 0.0, 0, 0, "")
    raw_bytes = sum(stencils.raw_bytes for stencils, _ in traces)
    return _Message(body, 0.0, len(traces) * RUNS_PER_TRACE, raw_bytes, run_ids_of(traces[-1][1])[-1])


def _sum(loads: list[Load]) -> Load:
    used = [load for load in loads if load.latencies_ms]
    if not used:
        raise RuntimeError("nothing was acknowledged")
    return Load(
        runs=sum(load.runs for load in used),
        operations=sum(load.operations for load in used),
        raw_bytes=sum(load.raw_bytes for load in used),
        wire_bytes=sum(load.wire_bytes for load in used),
        first_send_s=min(load.first_send_s for load in used),
        last_ack_s=max(load.last_ack_s for load in used),
        write_tokens=[token for load in used for token in load.write_tokens],
        latencies_ms=[latency for load in used for latency in load.latencies_ms],
        refused=sum(load.refused for load in used),
        samples=[sample for load in used for sample in load.samples],
    )
