"""Fills a store with a month of traces of many projects, and with the few that questions look for.

The landmarks lie in the first project: traces of 50 runs all over the month, some of which hold words that
occur nowhere else, and one trace of 25,000 runs.
"""

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
from tests.bench import corpus
from tests.bench.corpus import RunTemplate
from tests.bench.generator import Form
from tests.bench.load_grpc import GrpcJob
from tests.bench.server import Server
from tests.bench.workers import now_us

from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import project_service_pb2_grpc as projects_grpc
from runstore.v1 import run_ingest_service_pb2 as pb
from runstore.v1 import run_pb2

PROJECTS = 20
DAYS = 30.0
RARE_WORD = "xylotheque"
SECOND_RARE_WORD = "quokkas"
"""In every second of the runs that have the first."""
TRACE_RUNS = 50
LONG_TRACE_RUNS = 25_000

_TRACES = 200
_RARE_EVERY = 10
_OPERATIONS_PER_REQUEST = 200
_DAY_US = 86_400_000_000


@dataclass(slots=True)
class Landmarks:
    """What questions look for."""

    project_ids: tuple[str, ...]
    """The landmarks are in the first one."""
    trace_ids: list[str] = field(default_factory=list)
    """Traces of `TRACE_RUNS` runs."""
    long_trace_id: str = ""
    run_ids: list[str] = field(default_factory=list)
    rare_runs: int = 0
    """Runs that hold `RARE_WORD`."""


def history_job(address: str, project_ids: tuple[str, ...], runs: int, max_s: float, seed: int) -> GrpcJob:
    """The traces between which the landmarks lie."""
    return GrpcJob(address, project_ids, Form.WHOLE, runs, max_s, seed, history_days=DAYS)


def create_projects(server: Server) -> tuple[str, ...]:
    """Ids of the projects."""
    stub = projects_grpc.ProjectServiceStub(server.channel())
    requests = [projects.CreateProjectRequest(name=f"bench-{n}", upsert=True) for n in range(PROJECTS)]
    return tuple(stub.CreateProject(request).project.id for request in requests)


def write_landmarks(server: Server, project_ids: tuple[str, ...], seed: int) -> Landmarks:
    """All of them, acknowledged and visible."""
    landmarks = Landmarks(project_ids)
    stub = server.ingest()
    token = ""
    for reply in stub.StreamRuns(_requests(landmarks, seed)):
        if reply.errors:
            raise RuntimeError(f"refused: {reply.errors[0]}")
        token = reply.write_token
    stub.WaitVisible(pb.WaitVisibleRequest(write_token=token), timeout=120)
    return landmarks


def _requests(landmarks: Landmarks, seed: int) -> Iterator[pb.StreamRunsRequest]:
    operations: list[pb.RunOperation] = []
    for operation in _operations(landmarks, seed):
        operations.append(operation)
        if len(operations) == _OPERATIONS_PER_REQUEST:
            yield pb.StreamRunsRequest(operations=operations)
            operations = []
    yield pb.StreamRunsRequest(operations=operations)


def _operations(landmarks: Landmarks, seed: int) -> Iterator[pb.RunOperation]:
    templates = [run for trace in corpus.traces(seed, 25) for run in trace.runs]
    chance = random.Random(seed)
    begin_us = now_us() - int(DAYS * _DAY_US)
    for number in range(_TRACES):
        words = ""
        if number % _RARE_EVERY == 0:
            landmarks.rare_runs += 1
            words = RARE_WORD if number % (2 * _RARE_EVERY) else f"{SECOND_RARE_WORD} and {RARE_WORD}"
        start_us = begin_us + int(number / _TRACES * DAYS * _DAY_US)
        operations = _trace(landmarks.project_ids[0], start_us, templates, TRACE_RUNS, words, chance)
        landmarks.trace_ids.append(operations[0].create.id)
        landmarks.run_ids.append(operations[-1].create.id)
        yield from operations
    middle_us = begin_us + int(DAYS / 2 * _DAY_US)
    operations = _trace(landmarks.project_ids[0], middle_us, templates, LONG_TRACE_RUNS, "", chance)
    landmarks.long_trace_id = operations[0].create.id
    yield from operations


def _trace(
    project_id: str,
    start_us: int,
    templates: list[RunTemplate],
    runs: int,
    words: str,
    chance: random.Random,
) -> list[pb.RunOperation]:
    """A root and its children; the words are in the inputs of the last child."""
    operations: list[pb.RunOperation] = []
    root: pb.RunFields | None = None
    for number in range(runs):
        template = templates[0] if root is None else chance.choice(templates)
        began_us = start_us + 1_000 * number
        run_id = _uuid7(began_us, chance)
        fields = pb.RunFields(id=run_id, project_id=project_id, name=template.name)
        fields.run_type = run_pb2.RunType.Value(f"RUN_TYPE_{template.run_type.upper()}")
        fields.start_time.FromMicroseconds(began_us)
        fields.end_time.FromMicroseconds(began_us + template.duration_us)
        segment = f"{fields.start_time.ToDatetime():%Y%m%dT%H%M%S%fZ}{run_id}"
        if root is None:
            fields.trace_id, fields.dotted_order = run_id, segment
            root = fields
        else:
            fields.trace_id, fields.parent_run_id = root.id, root.id
            fields.dotted_order = f"{root.dotted_order}.{segment}"
        fields.inputs = template.inputs
        if words and number == runs - 1:
            fields.inputs = msgspec.json.encode({"text": f"about {words}"})
        fields.outputs = template.outputs or b"{}"
        fields.extra = template.final_extra
        fields.tags.values.extend(template.tags)
        operations.append(pb.RunOperation(create=fields))
    return operations


def _uuid7(time_us: int, chance: random.Random) -> str:
    bits = time_us // 1_000 << 80 | 7 << 76 | chance.getrandbits(12) << 64 | 2 << 62 | chance.getrandbits(62)
    return str(uuid.UUID(int=bits))
