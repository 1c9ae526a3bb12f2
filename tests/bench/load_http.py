"""Load over `POST /runs/multipart`, zstd, framed as the SDK frames it, on keep-alive connections.

Bodies are rendered and compressed before the clock starts: compressing is the tracer's work, on the
tracer's machine, and would otherwise take a good part of the cores that are measured.
"""

import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import zstandard
from tests.bench.corpus import RUNS_PER_TRACE
from tests.bench.generator import Form, Generator, TraceStencils, Values, multipart_generator, run_ids_of
from tests.bench.http_client import Connection, post
from tests.bench.server import PROJECT_NAME
from tests.bench.workers import Load, now_us

OPERATIONS_PER_BODY = 100
CONNECTIONS = 16
BOUNDARY = "d8b6aa39f0d24c1f9a7a0d8b6aa3239f"
"""The SDK keeps one per process."""
UPDATE_DELAY_S = 2.0
"""How long a run goes on when its update travels apart: many flushes."""
_LONGEST_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class HttpJob:
    """What to send."""

    port: int
    form: Form
    max_runs: int
    max_s: float
    seed: int
    runs_per_s: float | None = None
    """An open loop at this rate; None sends as fast as possible."""
    connections: int = CONNECTIONS
    traces_per_body: int = OPERATIONS_PER_BODY // (2 * RUNS_PER_TRACE)
    is_small: bool = False
    """Bodies of 1 to 10 runs instead, as tracers with little to say send them."""


@dataclass(slots=True)
class _Body:
    request: bytes
    operations: int
    runs: int
    raw_bytes: int
    sample: str
    update: "_Body | None" = None
    """What to send a while later."""
    due_s: float = 0.0


def prepare(job: HttpJob) -> Callable[[], Load]:
    """Renders and compresses every body; what is returned sends them."""
    generator = multipart_generator(job.seed, PROJECT_NAME, BOUNDARY)
    if job.is_small:
        bodies = _small(job, generator)
    else:
        bodies = _apart(job, generator) if job.form is Form.APART else _together(job, generator)
    return lambda: _send(job, bodies)


def request_of(parts: bytes) -> bytes:
    """A multipart request with these parts, as the SDK sends it."""
    text = parts + f"--{BOUNDARY}--\r\n".encode()
    compressor = zstandard.ZstdCompressor(level=1).compressobj()  # A stream: no size in the frame's header.
    body = compressor.compress(text) + compressor.flush()
    headers = (
        f"Accept: application/json\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Encoding: zstd\r\nX-Pre-Compressed-Size: {len(text)}\r\n"
        f"X-Post-Compressed-Size: {len(body)}\r\n"
    )
    return post("/runs/multipart", body, headers)


# -- bodies ------------------------------------------------------------------------------------------


def _together(job: HttpJob, generator: Generator) -> list[_Body]:
    """Creations and updates in one body."""
    bodies: list[_Body] = []
    runs = 0
    while runs < job.max_runs:
        traces = [generator.trace(now_us()) for _ in range(job.traces_per_body)]
        bodies.append(_body(traces, job.form.value, with_runs=True))
        runs += bodies[-1].runs
    return bodies


def _apart(job: HttpJob, generator: Generator) -> list[_Body]:
    """Creations, each with the body of their updates."""
    bodies: list[_Body] = []
    traces_per_body = OPERATIONS_PER_BODY // RUNS_PER_TRACE
    for _ in range(0, job.max_runs, OPERATIONS_PER_BODY):
        traces = [generator.trace(now_us()) for _ in range(traces_per_body)]
        bodies.append(_body(traces, "creates", with_runs=False))
        bodies[-1].update = _body(traces, "updates", with_runs=True)
    return bodies


def _small(job: HttpJob, generator: Generator) -> list[_Body]:
    """Creations and updates of 1 to 10 runs in one body."""
    sizes = random.Random(job.seed)
    bodies: list[_Body] = []
    runs = 0
    while runs < job.max_runs:
        stencils, values = generator.trace(now_us())
        by_run = list(_by_run(stencils.pair.fill(values)).items())
        while by_run:
            size = min(len(by_run), sizes.randint(1, 10))
            chunk, by_run = by_run[:size], by_run[size:]
            request = request_of(b"".join(parts for _, parts in chunk))
            raw_bytes = stencils.raw_bytes * size // RUNS_PER_TRACE
            bodies.append(_Body(request, 2 * size, size, raw_bytes, chunk[-1][0].decode()))
        runs += RUNS_PER_TRACE
    return bodies


def _by_run(parts: bytes) -> dict[bytes, bytes]:
    """The parts of a body, those of one run together."""
    delimiter = f"--{BOUNDARY}\r\n".encode()
    by_run: dict[bytes, bytes] = {}
    for part in parts.split(delimiter)[1:]:
        run_id = part.split(b'"', 2)[1].split(b".")[1]
        by_run[run_id] = by_run.get(run_id, b"") + delimiter + part
    return by_run


def _body(traces: list[tuple[TraceStencils, Values]], part: str, *, with_runs: bool) -> _Body:
    request = request_of(b"".join(getattr(stencils, part).fill(values) for stencils, values in traces))
    runs = len(traces) * RUNS_PER_TRACE
    operations = 2 * runs if part == Form.PAIR.value else runs
    if not with_runs:
        return _Body(request, operations, 0, 0, "")
    raw_bytes = sum(stencils.raw_bytes for stencils, _ in traces)
    return _Body(request, operations, runs, raw_bytes, run_ids_of(traces[-1][1])[-1])


# -- sending -----------------------------------------------------------------------------------------


def _send(job: HttpJob, bodies: list[_Body]) -> Load:
    waiting: queue.SimpleQueue[_Body | None] = queue.SimpleQueue()
    loads = [Load() for _ in range(job.connections)]
    senders = [threading.Thread(target=_connection, args=(job, waiting, load)) for load in loads]
    for sender in senders:
        sender.start()
    end_s = time.monotonic() + job.max_s
    if job.runs_per_s is None:
        _fill(waiting, bodies, end_s)
    else:
        _pace(job, waiting, bodies, end_s)
    for _ in senders:
        waiting.put(None)
    for sender in senders:
        sender.join()
    return _sum(loads)


def _fill(waiting: "queue.SimpleQueue[_Body | None]", bodies: list[_Body], end_s: float) -> None:
    """As many bodies as are taken until `end_s`, updates when due, and then what is left of them."""
    updates: deque[tuple[float, _Body]] = deque()

    def put(body: _Body) -> None:
        while waiting.qsize() > 2 * CONNECTIONS:
            time.sleep(0.001)
        waiting.put(body)

    for body in bodies:
        while updates and time.monotonic() - updates[0][0] >= UPDATE_DELAY_S:
            put(updates.popleft()[1])
        if time.monotonic() >= end_s:
            break
        put(body)
        if body.update is not None:
            updates.append((time.monotonic(), body.update))
    for _, update in updates:
        put(update)


def _pace(
    job: HttpJob, waiting: "queue.SimpleQueue[_Body | None]", bodies: list[_Body], end_s: float
) -> None:
    """Bodies at random moments of the given rate; waiting for a free connection counts."""
    assert job.runs_per_s is not None
    moments = random.Random(job.seed)
    per_s = job.runs_per_s * len(bodies) / sum(body.runs for body in bodies)
    due_s = time.monotonic()
    for body in bodies:
        due_s += moments.expovariate(per_s)
        if due_s >= end_s:
            return
        body.due_s = due_s
        time.sleep(max(0.0, due_s - time.monotonic()))
        waiting.put(body)


def _connection(job: HttpJob, waiting: "queue.SimpleQueue[_Body | None]", load: Load) -> None:
    connection = Connection(job.port)
    while (body := waiting.get()) is not None:
        body.due_s = body.due_s or time.monotonic()
        load.first_send_s = load.first_send_s or body.due_s
        status, _, retry_after_s = connection.send(body.request)
        while status == 429:
            load.told_to_wait += 1
            time.sleep(min(retry_after_s or 0.1, _LONGEST_WAIT_S))
            status, _, retry_after_s = connection.send(body.request)
        load.last_ack_s = time.monotonic()
        load.latencies_ms.append((load.last_ack_s - body.due_s) * 1e3)
        load.operations += body.operations
        load.wire_bytes += len(body.request)
        if status != 202:
            load.refused += body.operations
            continue
        load.runs += body.runs
        load.raw_bytes += body.raw_bytes
        load.samples = [*load.samples[-1:], body.sample] if body.sample else load.samples
    connection.close()


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
        latencies_ms=[latency for load in used for latency in load.latencies_ms],
        refused=sum(load.refused for load in used),
        told_to_wait=sum(load.told_to_wait for load in used),
        samples=[sample for load in used for sample in load.samples],
    )
