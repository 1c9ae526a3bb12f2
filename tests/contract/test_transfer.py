"""`runstore export` and `runstore import`: what goes out comes back the same, as often as one likes."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from langsmith import Client

from runstore.runtime.failures import CannotStart
from runstore.runtime.transfer.writers import STDOUT, whole_file
from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import feedback_service_pb2 as feedback
from runstore.v1 import feedback_service_pb2_grpc as feedback_grpc
from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_pb2 as pb
from runstore.v1 import run_query_service_pb2 as queries

from .servers import COMMAND, Server, run_command
from .test_grpc import ALL_FIELDS, STARTED, Stubs, create, timestamp
from .wire import dotted_order

FORMATS = ("jsonl", "parquet")
TENANT_BOUND = ("app_path", "project_id", "large_payloads", "attachments")
"""Fields of a tenant alone (another one of the same server cannot have the same project id) and tokens,
whose contents are compared instead."""


@pytest.fixture(scope="module")
def source(server: Server) -> Iterator[Stubs]:
    with grpc.insecure_channel(server.grpc, [("grpc.max_receive_message_length", -1)]) as channel:
        yield Stubs(channel)


@pytest.fixture(scope="module")
def stored(source: Stubs) -> str:
    """The name of a project with runs of every kind."""
    return store(source, traces=40, judged=20)


def store(source: Stubs, *, traces: int, judged: int) -> str:
    """The name of a new project with so many traces, of two runs each, and feedback on so many runs."""
    name = f"everything-{uuid.uuid4().hex}"
    operations = [operation for number in range(traces) for operation in trace(number, name)]
    assert not source.ingest.WriteRuns(ingest.WriteRunsRequest(operations=operations)).errors
    records = [judgement(number, operation.create.id) for number, operation in enumerate(operations[:judged])]
    stub = feedback_grpc.FeedbackServiceStub(source.channel)
    assert not stub.WriteFeedback(feedback.WriteFeedbackRequest(feedback=records)).errors
    return name


def judgement(number: int, run_id: str) -> feedback.Feedback:
    """A score, a label, a comment or a correction."""
    record = feedback.Feedback(id=str(uuid.uuid4()), run_id=run_id, key=f"key {number % 3}")
    record.source.type = "api"
    record.source.metadata = b'{"by": "test"}'
    record.create_time.CopyFrom(timestamp(STARTED + timedelta(days=1, seconds=number)))
    if number % 2:
        record.score = number / 7
    else:
        record.value = b'{"label": "\xc3\xa4"}'
    if number % 3 == 0:
        record.comment, record.correction = "it's\nso", b'{"desired": 1}'
    return record


def trace(number: int, project: str) -> list[ingest.RunOperation]:
    """A root and a child; payloads, times and labels differ from trace to trace."""
    started = STARTED + timedelta(minutes=number)
    root, child = uuid.uuid4(), uuid.uuid4()
    root_order = dotted_order(root, at=started)
    fields: dict[str, Any] = {
        "start_time": timestamp(started),
        "dotted_order": root_order,
        "name": f"Wurzel ☃ {number}",
        "inputs": b'{\n "question": "a\\nb\\u0000",\r\n "n": %d}' % number,
        "tags": ingest.TagList(values=[f"t{number % 3}", "it's", ""]),
    }
    if number % 4:
        fields["end_time"] = timestamp(started + timedelta(seconds=1.5))
        fields["outputs"] = b"[1, 2.50, null]" if number % 4 == 1 else b'{"answer": "42"}'
    if number % 5 == 0:
        fields["error"] = 'Traceback: "quoted"\nsecond line'
    if number % 7 == 0:
        fields["outputs"] = b'{"text": "%b"}' % (b"x" * (1 << 20))
        fields["attachments"] = [
            ingest.AttachmentContent(name="small", mime_type="text/plain", content=b"\0\xff small"),
            ingest.AttachmentContent(name="large", mime_type="image/png", content=bytes(range(256)) * 401),
        ]
    child_fields: dict[str, Any] = {
        "start_time": timestamp(started + timedelta(milliseconds=3)),
        "dotted_order": f"{root_order}.{dotted_order(child, at=started + timedelta(milliseconds=3))}",
        "run_type": pb.RUN_TYPE_LLM,
        "events": b'[{"name": "new_token", "time": "2026-04-05T06:07:09+00:00"}]',
        "extra": b'{"metadata": {"thread_id": "t%d", "ls_model_name": "gpt-4o", "k": {"a": 1}}}'
        % (number % 3),
        "manifest": b'{"lc": 1}',
        "outputs": b'{"usage_metadata": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12, '
        b'"input_token_details": {"cache_read": 2}}}',
        "reference_example_id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))),
    }
    return [create(root, project, **fields), create(child, project, **child_fields)]


def export(server: Server, path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return server.command("export", "--output", str(path), *arguments)


def import_(server: Server, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    said = run_command("import", *arguments, environment=server.environment, check=False)
    assert not check or said.returncode == 0, said.stderr
    return said


def contents(stubs: Stubs, project: str, metadata: tuple[tuple[str, str], ...] = ()) -> list[dict[str, Any]]:
    """All runs of a project, oldest first, with what their tokens lead to."""
    found = stubs.projects.ListProjects(projects.ListProjectsRequest(name=project), metadata=metadata)
    query = queries.ListRunsRequest(
        project_ids=[found.projects[0].id], fields=ALL_FIELDS, page_size=1_000, sort_order=pb.SORT_ORDER_ASC
    )
    runs = stubs.queries.ListRuns(query, metadata=metadata).runs
    return [content(stubs, run) for run in runs]


def judgements(
    stubs: Stubs, project: str, metadata: tuple[tuple[str, str], ...] = ()
) -> list[feedback.Feedback]:
    """All feedback on runs of a project, in order of its ids; apart from whose it is."""
    found = stubs.projects.ListProjects(projects.ListProjectsRequest(name=project), metadata=metadata)
    condition = feedback.FeedbackCondition(project_ids=[found.projects[0].id])
    records = feedback_grpc.FeedbackServiceStub(stubs.channel).ListFeedback(
        feedback.ListFeedbackRequest(condition=condition), metadata=metadata
    )
    for record in records.feedback:
        record.ClearField("project_id")
    return sorted(records.feedback, key=lambda record: record.id)


def content(stubs: Stubs, run: pb.Run) -> dict[str, Any]:
    bare = pb.Run()
    bare.CopyFrom(run)
    for name in TENANT_BOUND:
        bare.ClearField(name)  # type: ignore[arg-type] # a Literal of every name
    files = {name: (file.mime_type, read(stubs, file.read_token)) for name, file in run.attachments.items()}
    payloads = {name: read(stubs, payload.read_token) for name, payload in run.large_payloads.items()}
    return {"run": one_line(bare), "files": files, "payloads": payloads}


def one_line(run: pb.Run) -> pb.Run:
    """As exports write JSON: breaks between its values become blanks; inside of strings there are none."""
    run.inputs = run.inputs.replace(b"\n", b" ").replace(b"\r", b" ")
    return run


def read(stubs: Stubs, token: str) -> bytes:
    answers = stubs.blobs.ReadBlob(blobs.ReadBlobRequest(read_token=token))
    return b"".join(answer.chunk for answer in answers)


# -- round trips -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_is_exported_comes_back_the_same(
    server: Server, guarded: Server, source: Stubs, stored: str, tmp_path: Path, file_format: str
) -> None:
    """Every field of every run, payloads and files to the byte, elsewhere; once more changes nothing."""
    path = tmp_path / f"runs.{file_format}"
    said = export(server, path, "--project", stored, "--attachments")
    assert said.stderr.splitlines() == ["Exported 80 runs and 20 feedback records."]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    key = guarded.create_key(f"import-{file_format}")
    sent, said_of_them = contents(source, stored), judgements(source, stored)
    assert len(said_of_them) == 20
    assert len(sent) == 80
    assert sum(bool(each["payloads"]) for each in sent) == 6
    with grpc.insecure_channel(guarded.grpc, [("grpc.max_receive_message_length", -1)]) as channel:
        for _ in range(2):
            said = import_(guarded, str(path), "--api-key", key)
            assert said.stderr.splitlines() == ["Imported 80 runs and 20 feedback records."]
            assert contents(Stubs(channel), stored, (("x-api-key", key),)) == sent
            assert judgements(Stubs(channel), stored, (("x-api-key", key),)) == said_of_them


def test_choice_of_runs(server: Server, stored: str, tmp_path: Path) -> None:
    """Times, filters and projects choose runs; attachments left out are counted."""
    path = tmp_path / "some.jsonl"
    since, until = STARTED + timedelta(minutes=7), STARTED + timedelta(minutes=21)
    said = export(
        server, path, "--project", stored, "--from", since.isoformat(), "--until", until.isoformat(),
        "--filter", "eq(is_root, true)",
    )  # fmt: skip
    assert said.stderr.splitlines() == [
        "Exported 15 runs and 3 feedback records.",
        "Left out 6 attachments: see --attachments.",
    ]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["start_time"] for row in rows] == [
        (since + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%S.%fZ") for minute in range(15)
    ]
    assert {row["session_name"] for row in rows} == {stored}
    assert rows[0]["parent_run_ids"] == []
    said = server.command("export", "--project", stored, "--filter", 'has(tags, "t1")', "--format", "jsonl")
    assert {tuple(json.loads(line)["tags"]) for line in said.stdout.splitlines()} == {("t1", "it's", "")}


def test_parquet_has_typed_columns(server: Server, stored: str, tmp_path: Path) -> None:
    """Times, counts and costs are columns of their type, named as in LangSmith's bulk exports."""
    path = tmp_path / "runs.parquet"
    export(server, path, "--project", stored)
    table = pq.read_table(path)
    for name in (
        "id",
        "trace_id",
        "parent_run_id",
        "dotted_order",
        "session_id",
        "inputs",
        "outputs",
        "extra",
    ):
        assert table.schema.field(name).type == pa.string()
    assert table.schema.field("start_time").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("total_tokens").type == pa.int64()
    assert table.schema.field("total_cost").type == pa.float64()
    rows = table.sort_by("start_time").to_pylist()
    assert rows[0]["start_time"] == STARTED
    assert rows[1]["total_tokens"] == 12
    assert rows[1]["total_cost"] > 0
    assert json.loads(rows[1]["prompt_token_details"]) == {"cache_read": 2}


def test_all_projects_without_a_choice(
    server: Server, guarded: Server, source: Stubs, tmp_path: Path
) -> None:
    """Everything of a tenant goes out in one file, and each run comes back into the project it was in."""
    key = guarded.create_key("everything")
    exported = export(server, tmp_path / "one.jsonl", "--project", store(source, traces=3, judged=2))
    assert "6 runs" in exported.stderr
    import_(guarded, str(tmp_path / "one.jsonl"), "--api-key", key)
    import_(guarded, str(tmp_path / "one.jsonl"), "--api-key", key, "--project", "other")
    said = export(guarded, tmp_path / "all.jsonl", "--api-key", key)
    # An id is one run: the second import has moved all of them.
    assert "Exported 6 runs and" in said.stderr
    names = {json.loads(line)["session_name"] for line in (tmp_path / "all.jsonl").read_text().splitlines()}
    assert names == {"other"}


def test_refusals_leave_no_file(server: Server, guarded: Server, tmp_path: Path) -> None:
    """An unknown project, a bad filter, a missing key: one line, status 1, nothing written."""
    for running, arguments, reason in (
        (server, ("--project", "no such project"), "there is no project 'no such project'"),
        (server, ("--filter", "eq(name"), "filter"),
        (server, ("--from", "yesterday"), "--from: not an ISO 8601 time"),
        (server, ("-o", str(tmp_path / "nowhere" / "file")), "nowhere/file: No such file or directory"),
        (guarded, (), "API key"),
    ):
        path = tmp_path / "refused.parquet"
        said = run_command(
            "export", "-o", str(path), *arguments, environment=running.environment, check=False
        )
        assert said.returncode == 1
        assert reason.lower() in said.stderr.lower()
        assert len(said.stderr.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")  # macOS has none.
def test_output_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for people, and nothing more when Python flushes at its end."""
    with open("/dev/full", "w") as full:  # noqa: PTH123 - as the shell opens it
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(CannotStart, match="standard output: No space left"), whole_file(STDOUT) as file:
            file.write(b"{}")


# -- files of others ---------------------------------------------------------------------------------------


def test_rows_of_a_langsmith_bulk_export(server: Server, client: Client, tmp_path: Path) -> None:
    """Its Parquet, found in folders by date, with JSON and lists as text; the project is made by its id."""
    session, root, child = (str(uuid.uuid4()) for _ in range(3))
    started = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    order = dotted_order(uuid.UUID(root), at=started)
    rows = [
        {
            "id": root, "tenant_id": session, "session_id": session, "trace_id": root, "name": "agent",
            "run_type": "chain", "status": "success", "is_root": True, "parent_run_id": None,
            "parent_run_ids": "[]", "dotted_order": order, "start_time": started, "error": None,
            "end_time": started + timedelta(seconds=2), "inputs": '{"q": "é"}', "outputs": '{"a": 1}',
            "extra": '{"metadata": {"k": "v"}}', "events": "[]", "tags": '["x","y"]', "total_tokens": 3,
            "feedback_stats": "{}", "reference_example_id": None, "trace_tier": "shortlived",
        },
        {
            "id": child, "tenant_id": session, "session_id": session, "trace_id": root, "name": "model",
            "run_type": "llm", "status": "error", "is_root": False, "parent_run_id": root,
            "parent_run_ids": json.dumps([root]),
            "dotted_order": f"{order}.{dotted_order(uuid.UUID(child), at=started)}", "start_time": started,
            "error": "it's broken", "end_time": None, "inputs": "{}", "outputs": None, "extra": "",
            "events": None, "tags": None, "total_tokens": 0, "feedback_stats": None,
            "trace_tier": "shortlived",
        },
    ]  # fmt: skip
    folder = tmp_path / f"export_id={uuid.uuid4()}" / "runs" / "year=2026" / "month=1" / "day=2"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "data_0.parquet")
    said = import_(server, str(tmp_path))
    assert said.stderr.splitlines() == ["Imported 2 runs."]
    runs = {run.name: run for run in client.list_runs(project_id=session)}
    agent, model = runs["agent"], runs["model"]
    assert (agent.inputs, agent.outputs, agent.tags, agent.end_time) == (
        {"q": "é"}, {"a": 1}, ["x", "y"], started + timedelta(seconds=2),
    )  # fmt: skip
    assert agent.metadata["k"] == "v"
    assert (str(model.parent_run_id), model.error, model.end_time) == (root, "it's broken", None)


def test_json_of_the_sdk_and_of_the_api(server: Server, client: Client, project: str, tmp_path: Path) -> None:
    """A dump of `Client.list_runs` and an answer of `POST /runs/query` are read, pretty-printed or not."""
    for run_id in [uuid.uuid4() for _ in range(3)]:
        client.create_run("sent", {"n": 1}, "tool", id=run_id, project_name=project, outputs={"o": [1]})
    client.flush()
    runs = list(client.list_runs(project_name=project))
    assert len(runs) == 3
    dump = [json.loads(run.json()) for run in runs]
    (tmp_path / "sdk.json").write_text(json.dumps(dump, indent=2))
    (tmp_path / "api.json").write_text(json.dumps({"runs": dump, "cursors": {"next": None}}))
    (tmp_path / "one.json").write_text(json.dumps(dump[0], indent=1))
    for name, count in (("sdk", 3), ("api", 3), ("one", 1)):
        said = import_(server, str(tmp_path / f"{name}.json"), "--project", f"{project}-{name}")
        assert said.stderr.splitlines() == [f"Imported {count} run{'s' * (count > 1)}."]
        copies = list(client.list_runs(project_name=f"{project}-{name}"))
        assert sorted(str(run.id) for run in copies) == sorted(str(run.id) for run in runs[:count])
        assert all(
            (run.inputs, run.outputs, run.run_type) == ({"n": 1}, {"o": [1]}, "tool") for run in copies
        )


def test_bad_rows_are_named_and_the_rest_is_stored(server: Server, client: Client, project: str) -> None:
    """Rows that are no JSON, no run, or refused by the store, each by line and reason; status 1."""
    good, other = (json.dumps({"id": str(uuid.uuid4()), "name": "good", "run_type": "llm"}) for _ in range(2))
    lines = [
        good,
        "{oops",
        json.dumps({"name": "no id", "run_type": "llm"}),
        json.dumps({"id": str(uuid.uuid4()), "name": "n", "run_type": "llm", "start_time": "soon"}),
        json.dumps({"id": str(uuid.uuid4()), "name": "", "run_type": "llm"}),
        "",
        other,
    ]
    said = subprocess.run(
        [*COMMAND, "import", "-", "--project", project],
        input="\n".join(lines),
        env=dict(server.environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 1
    problems = said.stderr.splitlines()
    assert [line.split(": ")[:3] for line in problems[:3]] == [
        ["-", "line 2", "The JSON is malformed"],
        ["-", "line 3", "id"],
        ["-", "line 4", "start_time"],
    ]
    assert problems[3].startswith("-: line 5: name: ")
    assert problems[4:] == ["Imported 2 runs.", "Refused 4 rows."]
    assert {run.name for run in client.list_runs(project_name=project)} == {"good"}
