"""How long a writer waits until its runs are durable, and how long until it finds them in a list."""

import json
import queue
import time
from collections.abc import Callable

from tests.bench.generator import grpc_generator, multipart_generator, trace_id_of
from tests.bench.http_client import post
from tests.bench.load_http import BOUNDARY, request_of
from tests.bench.server import PROJECT_NAME, Server
from tests.bench.workers import now_us

from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_query_service_pb2 as queries

_PAUSE_S = 0.02
_LONGEST_WAIT_S = 30.0
_HOUR_US = 3_600_000_000
_AHEAD_US = {"gRPC": _HOUR_US, "HTTP": 48 * _HOUR_US}
"""Probes begin later than now, so that they are the newest of the project whatever else is written."""
_SPACING_US = 60_000_000
"""From one probe to the next: longer than a trace, so that the newest root is near the top of a list."""


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Probe:
    """Writes one trace at a time over one protocol, and looks for it over the same."""

    def __init__(self, server: Server, protocol: str, seed: int) -> None:
        """`protocol`: "gRPC" or "HTTP"."""
        self._next_start_us = now_us() + _AHEAD_US[protocol]
        if protocol == "gRPC":
            self._generator = grpc_generator(seed, server.project_id)
            self._encode: Callable[[bytes], bytes] = bytes
            self._write, self._is_listed = _grpc_writer(server), _grpc_lister(server)
        else:
            self._generator = multipart_generator(seed, PROJECT_NAME, BOUNDARY)
            self._encode = request_of
            self._write, self._is_listed = _http_writer(server), _http_lister(server)

    def acknowledgements_ms(self, count: int) -> list[float]:
        """Until a trace of ten runs is durable, with a pause before each."""
        times = []
        for _ in range(count):
            body, _ = self._trace(now_us())
            time.sleep(_PAUSE_S)
            started_s = time.perf_counter()
            self._write(body)
            times.append((time.perf_counter() - started_s) * 1e3)
        return times

    def visibility_ms(self, count: int, *, until_s: float | None = None) -> list[float]:
        """From the acknowledgement of a trace until a list of the project's newest runs holds it."""
        times: list[float] = []
        for _ in range(count):
            if until_s is not None and time.monotonic() > until_s:
                break
            body, trace_id = self._trace(self._next_start_us)
            self._next_start_us += _SPACING_US
            time.sleep(_PAUSE_S)
            self._write(body)
            started_s = time.perf_counter()
            while not self._is_listed(trace_id):
                if time.perf_counter() - started_s > _LONGEST_WAIT_S:
                    raise RuntimeError(f"trace {trace_id} was acknowledged but is not listed")
            times.append((time.perf_counter() - started_s) * 1e3)
        return times

    def _trace(self, start_us: int) -> tuple[bytes, str]:
        stencils, values = self._generator.trace(start_us)
        return self._encode(stencils.pair.fill(values)), trace_id_of(values)


def _grpc_writer(server: Server) -> Callable[[bytes], None]:
    """One stream for all writes, as a tracer holds it open."""
    bodies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    channel = server.channel()
    method = channel.stream_stream(
        "/runstore.v1.RunIngestService/StreamRuns", None, pb.StreamRunsResponse.FromString
    )
    replies = method(iter(bodies.get, b""))

    def write(body: bytes) -> None:
        bodies.put(body)
        reply: pb.StreamRunsResponse = next(iter(replies))
        if reply.errors:
            raise RuntimeError(f"refused: {reply.errors[0]}")

    return write


def _http_writer(server: Server) -> Callable[[bytes], None]:
    connection = server.http()

    def write(request: bytes) -> None:
        status, answer, _ = connection.send(request)
        if status != 202:
            raise RuntimeError(f"refused: {status} {answer.decode(errors='replace')}")

    return write


def _grpc_lister(server: Server) -> Callable[[str], bool]:
    stub = server.query()
    request = queries.ListRunsRequest(project_ids=[server.project_id], page_size=20)
    return lambda trace_id: any(run.id == trace_id for run in stub.ListRuns(request).runs)


def _http_lister(server: Server) -> Callable[[str], bool]:
    connection = server.http()
    question = {"session": [server.project_id], "limit": 20, "select": ["id"]}
    request = post("/runs/query", json.dumps(question).encode())

    def is_listed(trace_id: str) -> bool:
        status, answer, _ = connection.send(request)
        if status != 200:
            raise RuntimeError(f"cannot list: {status} {answer.decode(errors='replace')}")
        return any(run["id"] == trace_id for run in json.loads(answer)["runs"])

    return is_listed
