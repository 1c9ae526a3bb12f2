"""The typed contract over the public gRPC port, with the generated stubs."""

import gzip
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from queue import Queue
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import blob_service_pb2_grpc as blobs_grpc
from runstore.v1 import error_pb2
from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import project_service_pb2_grpc as projects_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_pb2 as pb
from runstore.v1 import run_query_service_pb2 as queries
from runstore.v1 import run_query_service_pb2_grpc as queries_grpc

from .servers import Server
from .wire import dotted_order

STARTED = datetime(2026, 4, 5, 6, 7, 8, 123456, tzinfo=UTC)
ALL_FIELDS = [number for number in pb.RunField.values() if number]


@dataclass(frozen=True)
class Stubs:
    """The services on one channel."""

    channel: grpc.Channel

    @property
    def ingest(self) -> ingest_grpc.RunIngestServiceStub:
        return ingest_grpc.RunIngestServiceStub(self.channel)

    @property
    def queries(self) -> queries_grpc.RunQueryServiceStub:
        return queries_grpc.RunQueryServiceStub(self.channel)

    @property
    def blobs(self) -> blobs_grpc.BlobServiceStub:
        return blobs_grpc.BlobServiceStub(self.channel)

    @property
    def projects(self) -> projects_grpc.ProjectServiceStub:
        return projects_grpc.ProjectServiceStub(self.channel)


@pytest.fixture
def stubs(server: Server) -> Iterator[Stubs]:
    """Of the server without authentication."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield Stubs(channel)


@pytest.fixture
def guarded_stubs(guarded: Server) -> Iterator[Stubs]:
    """Of the server that wants keys."""
    with grpc.insecure_channel(guarded.grpc) as channel:
        yield Stubs(channel)


def timestamp(moment: datetime) -> Timestamp:
    """The protobuf form."""
    made = Timestamp()
    made.FromDatetime(moment)
    return made


def run_fields(run_id: uuid.UUID, project: str, **fields: Any) -> ingest.RunFields:
    """A chain that started at STARTED; `fields` win."""
    return ingest.RunFields(
        **{
            "id": str(run_id),
            "project_name": project,
            "name": "sent",
            "run_type": pb.RUN_TYPE_CHAIN,
            "start_time": timestamp(STARTED),
            **fields,
        }
    )


def create(run_id: uuid.UUID, project: str, **fields: Any) -> ingest.RunOperation:
    """An operation that creates that run."""
    return ingest.RunOperation(create=run_fields(run_id, project, **fields))


def update(run_id: uuid.UUID, **fields: Any) -> ingest.RunOperation:
    """An operation that updates a run."""
    return ingest.RunOperation(update=ingest.RunFields(id=str(run_id), **fields))


def project_id_of(stubs: Stubs, name: str) -> str:
    """The id of the project of that name."""
    [found] = stubs.projects.ListProjects(projects.ListProjectsRequest(name=name)).projects
    return found.id


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, error_pb2.ErrorDetail]:
    """The status and the detail that a call is refused with; its text shows nothing of the inside."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    assert "Traceback" not in error.details()
    assert ".py" not in error.details()
    metadata = dict(error.trailing_metadata())
    return error.code(), error_pb2.ErrorDetail.FromString(metadata["runstore-error-bin"])


# --- writes -------------------------------------------------------------------------------------------


def test_stream_acknowledges_batches_in_order(stubs: Stubs, project: str) -> None:
    """Twenty batches on one stream: a reply each, in order, with growing write tokens; all are stored."""
    ids = [uuid.uuid4() for _ in range(200)]

    def batches() -> Iterator[ingest.StreamRunsRequest]:
        for number in range(20):
            operations = [create(run_id, project) for run_id in ids[number * 10 : number * 10 + 10]]
            yield ingest.StreamRunsRequest(batch_id=f"batch-{number}", operations=operations)

    replies = list(stubs.ingest.StreamRuns(batches()))
    assert [reply.batch_id for reply in replies] == [f"batch-{number}" for number in range(20)]
    assert all(not reply.errors for reply in replies)
    tokens = [int(reply.write_token) for reply in replies]
    assert tokens == sorted(tokens)
    stubs.ingest.WaitVisible(ingest.WaitVisibleRequest(write_token=replies[-1].write_token))
    request = queries.ListRunsRequest(project_ids=[project_id_of(stubs, project)], page_size=1_000)
    assert {run.id for run in stubs.queries.ListRuns(request).runs} == set(map(str, ids))


def test_reply_comes_while_the_stream_stays_open(stubs: Stubs, project: str) -> None:
    """A batch is acknowledged before the next one is sent, and read at once."""
    sending: Queue[ingest.StreamRunsRequest | None] = Queue()
    replies = iter(stubs.ingest.StreamRuns(iter(sending.get, None)))
    for number in range(3):
        run_id = uuid.uuid4()
        sending.put(ingest.StreamRunsRequest(batch_id=str(number), operations=[create(run_id, project)]))
        assert next(replies).batch_id == str(number)
        assert stubs.queries.GetRun(queries.GetRunRequest(id=str(run_id))).run.id == str(run_id)
    sending.put(None)
    assert list(replies) == []


def test_errors_name_the_operation_and_the_field(stubs: Stubs, project: str) -> None:
    """Bad operations are reported by index with reason, field and id; the good ones are stored."""
    good, late = uuid.uuid4(), uuid.uuid4()
    operations = [
        create(good, project),
        create(uuid.uuid4(), project, name=""),
        ingest.RunOperation(create=ingest.RunFields(id="no-uuid", name="n", run_type=pb.RUN_TYPE_LLM)),
        create(uuid.uuid4(), project, inputs=b"{broken"),
        ingest.RunOperation(),
        create(uuid.uuid4(), project, dotted_order=dotted_order(uuid.uuid4())),
        create(uuid.uuid4(), project, run_type=99),
        update(uuid.uuid4(), project_id=str(uuid.uuid4())),
        create(late, project),
    ]
    expected = {
        1: "name",
        2: "id",
        3: "inputs",
        4: "operation",
        5: "dotted_order",
        6: "run_type",
        7: "project_id",
    }
    unary = stubs.ingest.WriteRuns(ingest.WriteRunsRequest(operations=operations))
    [streamed] = stubs.ingest.StreamRuns(
        iter([ingest.StreamRunsRequest(batch_id="b", operations=operations)])
    )
    for reply in (unary, streamed):
        assert {error.index: error.field for error in reply.errors} == expected
        assert all(error.reason == error_pb2.ERROR_REASON_INVALID_ARGUMENT for error in reply.errors)
        assert all(error.message for error in reply.errors)
    assert {error.index: error.run_id for error in unary.errors}[2] == "no-uuid"
    request = queries.ListRunsRequest(project_ids=[project_id_of(stubs, project)])
    assert {run.id for run in stubs.queries.ListRuns(request).runs} == {str(good), str(late)}


def test_every_field_is_read_back(stubs: Stubs, project: str) -> None:
    """What a create and an update say comes back, derived fields included, payload bytes untouched."""
    run_id, example = uuid.uuid4(), uuid.uuid4()
    inputs = b'{ "spaced" :  1.10, "big": 12345678901234567890123 }'
    operations = [
        create(
            run_id,
            project,
            run_type=pb.RUN_TYPE_LLM,
            inputs=inputs,
            extra=b'{"metadata": {"thread_id": "t", "ls_user_id": "ann"}}',
            manifest=b'{"lc": 1}',
            tags=ingest.TagList(values=["a", "b"]),
            reference_example_id=str(example),
            attachments=[ingest.AttachmentContent(name="f", mime_type="text/plain", content=b"file")],
        ),
        update(
            run_id,
            outputs=json.dumps(
                {"usage_metadata": {"input_tokens": 2, "output_tokens": 3, "total_tokens": 5}}
            ).encode(),
            end_time=timestamp(STARTED + timedelta(seconds=2)),
            events=json.dumps([{"name": "new_token", "time": STARTED.isoformat()}]).encode(),
        ),
    ]
    assert not stubs.ingest.WriteRuns(ingest.WriteRunsRequest(operations=operations)).errors
    run = stubs.queries.GetRun(queries.GetRunRequest(id=str(run_id), fields=ALL_FIELDS)).run
    assert (run.name, run.run_type, run.status) == ("sent", pb.RUN_TYPE_LLM, pb.RUN_STATUS_SUCCESS)
    assert (run.inputs, run.manifest) == (inputs, b'{"lc": 1}')
    assert (run.start_time, run.latency_seconds) == (timestamp(STARTED), 2.0)
    assert run.first_token_time == timestamp(STARTED)
    assert (run.trace_id, run.is_root, list(run.parent_run_ids)) == (str(run_id), True, [])
    assert run.dotted_order == dotted_order(run_id, at=STARTED)
    assert (run.thread_id, run.ls_user_id, list(run.tags)) == ("t", "ann", ["a", "b"])
    assert (run.prompt_tokens, run.completion_tokens, run.total_tokens) == (2, 3, 5)
    assert run.reference_example_id == str(example)
    file = run.attachments["f"]
    assert (file.mime_type, file.size_bytes) == ("text/plain", 4)
    header, *chunks = stubs.blobs.ReadBlob(blobs.ReadBlobRequest(read_token=file.read_token))
    assert (header.header.mime_type, header.header.size_bytes) == ("text/plain", 4)
    assert b"".join(chunk.chunk for chunk in chunks) == b"file"


def test_unselected_fields_are_absent(stubs: Stubs, project: str) -> None:
    """`id` alone without a selection; else what was selected, and no more."""
    run_id = uuid.uuid4()
    stubs.ingest.WriteRuns(ingest.WriteRunsRequest(operations=[create(run_id, project, inputs=b"{}")]))
    bare = stubs.queries.GetRun(queries.GetRunRequest(id=str(run_id))).run
    assert [field.name for field, _ in bare.ListFields()] == ["id"]
    named = stubs.queries.GetRun(queries.GetRunRequest(id=str(run_id), fields=[pb.RUN_FIELD_NAME])).run
    assert {field.name for field, _ in named.ListFields()} <= {"id", "name"}
    assert named.name == "sent"


def test_large_message_is_stored_whole(stubs: Stubs, project: str) -> None:
    """A payload of 20 MiB goes in and comes out over the public port."""
    run_id = uuid.uuid4()
    inputs = b'{"x": "' + b"y" * (20 * 1024 * 1024) + b'"}'
    stubs.ingest.WriteRuns(ingest.WriteRunsRequest(operations=[create(run_id, project, inputs=inputs)]))
    request = queries.GetRunRequest(id=str(run_id), fields=[pb.RUN_FIELD_INPUTS])
    run = stubs.queries.GetRun(request).run
    assert not run.HasField("inputs")
    large = run.large_payloads["inputs"]
    assert large.size_bytes == len(inputs)
    read = stubs.blobs.ReadBlob(blobs.ReadBlobRequest(read_token=large.read_token))
    assert b"".join(message.chunk for message in read) == inputs


def test_wait_visible_takes_tokens_of_writes(stubs: Stubs, project: str) -> None:
    """A write's token, or none for everything; anything else is refused."""
    reply = stubs.ingest.WriteRuns(ingest.WriteRunsRequest(operations=[create(uuid.uuid4(), project)]))
    for token in (reply.write_token, ""):
        assert stubs.ingest.WaitVisible(ingest.WaitVisibleRequest(write_token=token), timeout=30) is not None
    for token in ("nonsense", "-1", "9" * 5_000):
        request = ingest.WaitVisibleRequest(write_token=token)
        code, detail = refusal(lambda request=request: stubs.ingest.WaitVisible(request, timeout=30))  # type: ignore[misc]
        assert (code, detail.field) == (grpc.StatusCode.INVALID_ARGUMENT, "write_token")


# --- reads --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tree:
    """A root with a good and a bad child, and a lone root that runs still."""

    project_id: str
    ids: dict[str, uuid.UUID]
    example: uuid.UUID


@pytest.fixture(scope="module")
def tree(server: Server) -> Tree:
    """Written once; the tests only read it."""
    ids = {name: uuid.uuid4() for name in ("root", "good", "bad", "lone")}
    example = uuid.uuid4()
    project = f"grpc-{uuid.uuid4().hex}"
    end = timestamp(STARTED + timedelta(seconds=9))

    def child(name: str, seconds: int) -> dict[str, Any]:
        at = STARTED + timedelta(seconds=seconds)
        order = f"{dotted_order(ids['root'], at=STARTED)}.{dotted_order(ids[name], at=at)}"
        return {"name": name, "dotted_order": order, "start_time": timestamp(at), "end_time": end}

    operations = [
        create(ids["root"], project, name="root", end_time=end, extra=b'{"metadata": {"env": "prod"}}'),
        create(ids["good"], project, **child("good", 1), run_type=pb.RUN_TYPE_LLM),
        create(ids["bad"], project, **child("bad", 2), run_type=pb.RUN_TYPE_TOOL, error="broke"),
        create(
            ids["lone"],
            project,
            name="lone",
            start_time=timestamp(STARTED + timedelta(seconds=3)),
            reference_example_id=str(example),
        ),
    ]
    with grpc.insecure_channel(server.grpc) as channel:
        stubs = Stubs(channel)
        assert not stubs.ingest.WriteRuns(ingest.WriteRunsRequest(operations=operations)).errors
        return Tree(project_id_of(stubs, project), ids, example)


ALL = ["lone", "bad", "good", "root"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({}, ALL),
        ({"ids": ["root", "lone"]}, ["lone", "root"]),
        ({"trace_id": "root"}, ["bad", "good", "root"]),
        ({"parent_run_id": "root"}, ["bad", "good"]),
        ({"reference_example_ids": ["example"]}, ["lone"]),
        ({"run_type": pb.RUN_TYPE_LLM}, ["good"]),
        ({"is_root": True}, ["lone", "root"]),
        ({"is_root": False}, ["bad", "good"]),
        ({"has_error": True}, ["bad"]),
        ({"has_error": False}, ["lone", "good", "root"]),
        ({"min_start_time": STARTED + timedelta(seconds=2)}, ["lone", "bad"]),
        ({"max_start_time": STARTED + timedelta(seconds=1)}, ["good", "root"]),
        ({"filter": 'and(eq(metadata_key, "env"), eq(metadata_value, "prod"))'}, ["root"]),
        ({"filter": 'eq(run_type, "llm")', "trace_filter": 'eq(name, "root")'}, ["good"]),
        ({"tree_filter": 'eq(status, "error")'}, ["bad", "good", "root"]),
        ({"tree_filter": 'and(eq(name, "good"), eq(status, "error"))'}, []),
        ({"sort_order": pb.SORT_ORDER_ASC}, ALL[::-1]),
        ({"sort_order": pb.SORT_ORDER_DESC}, ALL),
        ({"page_size": 2_000}, ALL),
        ({"is_root": True, "has_error": True}, []),
    ],
    ids=str,
)
def test_list_runs_takes_each_condition(
    stubs: Stubs, tree: Tree, condition: dict[str, Any], expected: list[str]
) -> None:
    """Each condition leaves exactly the runs that it describes."""
    ids = {name: str(run_id) for name, run_id in tree.ids.items()} | {"example": str(tree.example)}

    def value(given: Any) -> Any:
        if isinstance(given, datetime):
            return timestamp(given)
        if isinstance(given, list):
            return [ids[name] for name in given]
        return ids.get(given, given) if isinstance(given, str) else given

    conditions = {name: value(given) for name, given in condition.items()}
    request = queries.ListRunsRequest(project_ids=[tree.project_id], fields=[pb.RUN_FIELD_NAME], **conditions)
    assert [run.name for run in stubs.queries.ListRuns(request).runs] == expected


@pytest.mark.parametrize("bound", ["ids", "trace_id", "parent_run_id", "reference_example_ids"])
def test_list_runs_needs_no_project_with_another_bound(stubs: Stubs, tree: Tree, bound: str) -> None:
    """Runs, a trace, a parent or examples are bounds of their own."""
    root, example = str(tree.ids["root"]), str(tree.example)
    values: dict[str, Any] = {
        "ids": [root],
        "trace_id": root,
        "parent_run_id": root,
        "reference_example_ids": [example],
    }
    assert stubs.queries.ListRuns(queries.ListRunsRequest(**{bound: values[bound]})).runs


@pytest.mark.parametrize("page_size", [1, 3, 4, 5])
def test_pages_hold_each_run_once(stubs: Stubs, tree: Tree, page_size: int) -> None:
    """An empty token ends the walk, and only it."""
    request = queries.ListRunsRequest(
        project_ids=[tree.project_id], fields=[pb.RUN_FIELD_NAME], page_size=page_size
    )
    names: list[str] = []
    for _ in range(10):
        page = stubs.queries.ListRuns(request)
        assert len(page.runs) <= page_size
        names += [run.name for run in page.runs]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert names == ALL


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({}, ""),
        ({"project_ids": ["x"]}, "project_ids[0]"),
        ({"ids": ["x"]}, "ids[0]"),
        ({"trace_id": "x"}, "trace_id"),
        ({"page_size": -1}, "page_size"),
        ({"page_token": "nonsense"}, ""),
        ({"filter": "eq("}, "filter"),
        ({"fields": [0]}, "fields"),
        ({"fields": [999]}, "fields"),
        ({"run_type": 99}, "run_type"),
        ({"min_start_time": Timestamp(seconds=-62_135_596_800)}, "min_start_time"),  # Year 1.
        ({"max_start_time": Timestamp(seconds=2**62)}, "max_start_time"),
    ],
    ids=str,
)
def test_bad_list_is_refused_by_field(stubs: Stubs, tree: Tree, request_: dict[str, Any], field: str) -> None:
    """INVALID_ARGUMENT with the field at fault in the error's detail."""
    bounds = {"project_ids": [tree.project_id]} if request_ else {}
    request = queries.ListRunsRequest(**{**bounds, **request_})
    code, detail = refusal(lambda: stubs.queries.ListRuns(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    if field:
        assert detail.field.partition("[")[0] == field.partition("[")[0]


def test_page_token_of_another_query_is_refused(stubs: Stubs, tree: Tree) -> None:
    """With the reason for programs."""
    request = queries.ListRunsRequest(project_ids=[tree.project_id], page_size=1)
    request.page_token = stubs.queries.ListRuns(request).next_page_token
    request.is_root = True
    code, detail = refusal(lambda: stubs.queries.ListRuns(request))
    assert (code, detail.reason) == (grpc.StatusCode.INVALID_ARGUMENT, error_pb2.ERROR_REASON_INVALID_CURSOR)


def test_get_run_of_nothing(stubs: Stubs, tree: Tree) -> None:
    """NOT_FOUND for unknown ids and for a run of another project, INVALID_ARGUMENT for no id."""
    for request in (
        queries.GetRunRequest(id=str(uuid.uuid4())),
        queries.GetRunRequest(id=str(tree.ids["root"]), project_id=str(uuid.uuid4())),
    ):
        code, _ = refusal(lambda request=request: stubs.queries.GetRun(request))  # type: ignore[misc]
        assert code is grpc.StatusCode.NOT_FOUND
    code, detail = refusal(lambda: stubs.queries.GetRun(queries.GetRunRequest(id="x")))
    assert (code, detail.field) == (grpc.StatusCode.INVALID_ARGUMENT, "id")
    nonsense = blobs.ReadBlobRequest(read_token="nonsense")
    code, _ = refusal(lambda: list(stubs.blobs.ReadBlob(nonsense)))
    assert code is grpc.StatusCode.NOT_FOUND


def test_http_and_grpc_serve_the_same_runs(server: Server, stubs: Stubs, tree: Tree, project: str) -> None:
    """What is written by one protocol is read by the other."""
    answer = httpx.get(f"{server.url}/runs/{tree.ids['bad']}").json()
    assert (answer["name"], answer["error"]) == ("bad", "broke")
    run_id = uuid.uuid4()
    body = {"id": str(run_id), "name": "over http", "run_type": "llm", "session_name": project}
    assert httpx.post(f"{server.url}/runs", json=body).status_code == 202
    request = queries.GetRunRequest(id=str(run_id), fields=[pb.RUN_FIELD_NAME])
    assert stubs.queries.GetRun(request).run.name == "over http"


# --- projects -----------------------------------------------------------------------------------------


def test_project_service(stubs: Stubs, project: str) -> None:
    """Create, conflict, upsert, get, list, update, delete with the runs."""
    make = projects.CreateProjectRequest(name=project, description="d", extra=b'{"metadata": {"a": 1}}')
    made = stubs.projects.CreateProject(make).project
    assert (made.name, made.description, made.extra) == (project, "d", b'{"metadata": {"a": 1}}')
    code, detail = refusal(lambda: stubs.projects.CreateProject(make))
    assert (code, detail.reason) == (grpc.StatusCode.ALREADY_EXISTS, error_pb2.ERROR_REASON_ALREADY_EXISTS)
    make.upsert = True
    assert stubs.projects.CreateProject(make).project.id == made.id

    get = projects.GetProjectRequest(id=made.id)
    assert stubs.projects.GetProject(get).project == made
    listed = stubs.projects.ListProjects(
        projects.ListProjectsRequest(metadata=b'{"a": 1}', name_contains=project)
    )
    assert list(listed.projects) == [made]
    changed = projects.UpdateProjectRequest(id=made.id, name=f"{project}-2", end_time=timestamp(STARTED))
    updated = stubs.projects.UpdateProject(changed).project
    assert (updated.name, updated.description, updated.end_time) == (f"{project}-2", "d", timestamp(STARTED))

    run_id = uuid.uuid4()
    operation = ingest.RunOperation(create=run_fields(run_id, "", project_id=made.id))
    assert not stubs.ingest.WriteRuns(ingest.WriteRunsRequest(operations=[operation])).errors
    stubs.projects.DeleteProject(projects.DeleteProjectRequest(id=made.id))
    for call in (
        lambda: stubs.projects.GetProject(get),
        lambda: stubs.projects.DeleteProject(projects.DeleteProjectRequest(id=made.id)),
        lambda: stubs.queries.GetRun(queries.GetRunRequest(id=str(run_id))),
    ):
        code, _ = refusal(call)
        assert code is grpc.StatusCode.NOT_FOUND


def test_projects_are_paged(stubs: Stubs, project: str) -> None:
    """By offset and page size, oldest or newest first; negative numbers are refused."""
    for number in range(3):
        start = timestamp(STARTED + timedelta(seconds=number))
        stubs.projects.CreateProject(
            projects.CreateProjectRequest(name=f"{project}-{number}", start_time=start)
        )

    def names(**page: Any) -> list[str]:
        request = projects.ListProjectsRequest(name_contains=project, **page)
        return [found.name[-1] for found in stubs.projects.ListProjects(request).projects]

    assert names() == ["2", "1", "0"]
    assert names(oldest_first=True) == ["0", "1", "2"]
    assert names(offset=1, page_size=1) == ["1"]
    assert names(offset=3) == []
    for field in ("offset", "page_size"):
        code, detail = refusal(lambda field=field: names(**{field: -1}))  # type: ignore[misc]
        assert (code, detail.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


# --- standard services, credentials -------------------------------------------------------------------


def test_health_is_served(stubs: Stubs, guarded_stubs: Stubs) -> None:
    """SERVING, to everybody."""
    for each in (stubs, guarded_stubs):
        answer = health_pb2_grpc.HealthStub(each.channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        # As clients send it that compress whatever they send.
        channel: Any = each.channel  # Its stubs do not know that bytes need no serializer.
        compressed = channel.unary_unary("/grpc.health.v1.Health/Check")(gzip.compress(b""))
        assert health_pb2.HealthCheckResponse.FromString(compressed) == answer


def test_reflection_lists_the_services(stubs: Stubs, guarded_stubs: Stubs) -> None:
    """As grpcurl asks for them, and their descriptors."""
    for each in (stubs, guarded_stubs):
        reflection = reflection_pb2_grpc.ServerReflectionStub(each.channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="runstore.v1.RunIngestService"),
        ]
        listed, described = reflection.ServerReflectionInfo(iter(requests))
        names = {service.name for service in listed.list_services_response.service}
        assert names >= {
            "runstore.v1.RunIngestService",
            "runstore.v1.RunQueryService",
            "runstore.v1.ProjectService",
            "grpc.health.v1.Health",
        }
        assert described.file_descriptor_response.file_descriptor_proto


def test_reflection_that_nobody_ends(guarded_stubs: Stubs) -> None:
    """Needs no key, so open streams of it must not take what others need: more are answered than there are
    threads (https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.loop.run_in_executor)."""
    reflection = reflection_pb2_grpc.ServerReflectionStub(guarded_stubs.channel)
    asked = threading.Event()

    def requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        asked.wait()

    streams = [reflection.ServerReflectionInfo(requests(), timeout=20) for _ in range(33)]
    try:
        assert all(next(stream).list_services_response.service for stream in streams)
    finally:
        asked.set()


@pytest.mark.parametrize("name", ["x-api-key", "x-service-key", "authorization", "cookie"])
def test_credentials_travel_as_metadata(guarded_stubs: Stubs, key: str, name: str) -> None:
    """The HTTP names, in lower case; a wrong key is UNAUTHENTICATED."""
    value = {"authorization": f"Bearer {key}", "cookie": f"runstore_session={key}"}.get(name, key)
    listing = projects.ListProjectsRequest()
    assert guarded_stubs.projects.ListProjects(listing, metadata=((name, value),)).projects
    wrong = value.replace(key, "rsk_" + "x" * 43)
    code, detail = refusal(lambda: guarded_stubs.projects.ListProjects(listing, metadata=((name, wrong),)))
    assert (code, detail.reason) == (grpc.StatusCode.UNAUTHENTICATED, error_pb2.ERROR_REASON_UNAUTHENTICATED)


def test_every_method_wants_a_key(guarded_stubs: Stubs) -> None:
    """UNAUTHENTICATED without credentials, for the stream too; only attachments carry their own token."""
    some_id = str(uuid.uuid4())
    calls: list[Callable[[], object]] = [
        lambda: guarded_stubs.ingest.WriteRuns(ingest.WriteRunsRequest()),
        lambda: list(guarded_stubs.ingest.StreamRuns(iter([ingest.StreamRunsRequest(batch_id="b")]))),
        lambda: guarded_stubs.ingest.WaitVisible(ingest.WaitVisibleRequest()),
        lambda: guarded_stubs.queries.ListRuns(queries.ListRunsRequest(ids=[some_id])),
        lambda: guarded_stubs.queries.GetRun(queries.GetRunRequest(id=some_id)),
        lambda: guarded_stubs.projects.CreateProject(projects.CreateProjectRequest(name="n")),
        lambda: guarded_stubs.projects.GetProject(projects.GetProjectRequest(id=some_id)),
        lambda: guarded_stubs.projects.ListProjects(projects.ListProjectsRequest()),
        lambda: guarded_stubs.projects.UpdateProject(projects.UpdateProjectRequest(id=some_id)),
        lambda: guarded_stubs.projects.DeleteProject(projects.DeleteProjectRequest(id=some_id)),
    ]
    for call in calls:
        code, _ = refusal(call)
        assert code is grpc.StatusCode.UNAUTHENTICATED


def test_tenant_in_the_metadata_must_be_the_keys(
    guarded_stubs: Stubs, key: str, foreign_key: str, project: str
) -> None:
    """PERMISSION_DENIED for another tenant's id; runs of one tenant are NOT_FOUND for the other."""
    run_id = uuid.uuid4()
    mine, theirs = (("x-api-key", key),), (("x-api-key", foreign_key),)
    write = ingest.WriteRunsRequest(operations=[create(run_id, project)])
    assert not guarded_stubs.ingest.WriteRuns(write, metadata=mine).errors
    read = queries.GetRunRequest(id=str(run_id))
    assert guarded_stubs.queries.GetRun(read, metadata=mine).run.id == str(run_id)
    code, _ = refusal(lambda: guarded_stubs.queries.GetRun(read, metadata=theirs))
    assert code is grpc.StatusCode.NOT_FOUND
    listing = projects.ListProjectsRequest()
    their_tenant = guarded_stubs.projects.ListProjects(listing, metadata=theirs).projects[0].tenant_id
    crossed = (*mine, ("x-tenant-id", their_tenant))
    code, _ = refusal(lambda: guarded_stubs.queries.GetRun(read, metadata=crossed))
    assert code is grpc.StatusCode.PERMISSION_DENIED
