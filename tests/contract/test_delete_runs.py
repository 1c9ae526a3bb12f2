"""Deleting runs and traces over HTTP and gRPC, and what of it survives a crash."""

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from langsmith import Client
from langsmith.utils import LangSmithNotFoundError

from runstore.v1 import run_deletion_service_pb2 as pb
from runstore.v1 import run_deletion_service_pb2_grpc

from .servers import Server, serving

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def trace(client: Client, project: str, **metadata: Any) -> list[uuid.UUID]:
    """A root and its child, as clients without batching send them."""
    root, child = uuid.uuid4(), uuid.uuid4()
    for run_id, parent in ((root, None), (child, root)):
        client.create_run(
            "n", {"secret": str(run_id)}, "chain", id=run_id, project_name=project, start_time=START,
            parent_run_id=parent, extra={"metadata": metadata},
        )  # fmt: skip
    return [root, child]


def found(client: Client, project: str) -> set[uuid.UUID]:
    return {run.id for run in client.list_runs(project_name=project)}


def delete(server: Server, path: str = "/runs/delete", **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=60)


def test_traces_by_id(server: Server, client: Client, project: str) -> None:
    """All of their runs are gone when the answer comes, for every kind of read; others stay."""
    doomed, kept = trace(client, project), trace(client, project)
    client.create_feedback(doomed[1], "k", score=1, session_id=client.read_project(project_name=project).id)
    session = str(client.read_project(project_name=project).id)
    answer = delete(server, trace_ids=[str(doomed[0])], session_id=session)
    assert (answer.status_code, answer.json()) == (200, {})
    assert found(client, project) == set(kept)
    for run_id in doomed:
        with pytest.raises(LangSmithNotFoundError):
            client.read_run(run_id)
    assert list(client.list_feedback(run_ids=doomed)) == []
    assert client.get_run_stats(project_names=[project])["run_count"] == 2
    assert delete(server, trace_ids=[str(doomed[0])]).status_code == 200
    answer = delete(server, "/api/v1/runs/delete/traces", trace_ids=[str(kept[0])], session_id=session)
    assert answer.status_code == 200
    assert found(client, project) == set()


def test_only_in_the_named_project(server: Server, client: Client, project: str) -> None:
    """A trace of another project stays."""
    kept = trace(client, project)
    other = str(client.create_project(f"{project}-other").id)
    assert delete(server, trace_ids=[str(kept[0])], session_id=other).status_code == 200
    assert found(client, project) == set(kept)


def test_traces_by_metadata(server: Server, client: Client, project: str) -> None:
    """Any of the pairs is enough, whatever the project; other keys and values do not count."""
    user = uuid.uuid4().hex
    doomed = [
        *trace(client, project, user_id=user),
        *trace(client, f"{project}-2", user_id=f"{user}-2"),
        *trace(client, project, number=7, user=user),
    ]
    kept = trace(client, project, other=user) + trace(client, project, number=8)
    answer = delete(server, metadata={"user_id": [user, f"{user}-2"], "user": user})
    assert answer.status_code == 200
    assert found(client, project) == set(kept)
    assert found(client, f"{project}-2") == set()
    assert doomed


def test_deleted_run_can_be_written_again(server: Server, client: Client, project: str) -> None:
    """The id is free; nothing of what was deleted shows in the new run."""
    root, child = trace(client, project)
    assert delete(server, trace_ids=[str(root)]).status_code == 200
    client.create_run("again", {}, "tool", id=root, project_name=project, start_time=START)
    run = client.read_run(root)
    assert (run.name, run.inputs, run.extra) == ("again", {}, run.extra)
    assert found(client, project) == {root}
    client.update_run(child, outputs={"late": True})
    assert found(client, project) == {root}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"trace_ids": []},
        {"trace_ids": ["x"]},
        {"trace_ids": [str(uuid.uuid4())], "metadata": {"a": "b"}},
        {"trace_ids": [str(uuid.uuid4())] * 1_001},
        {"metadata": {"a": {"b": 1}}},
        {"metadata": {}},
        {"metadata": [], "session_id": str(uuid.uuid4())},
        {"metadata": {"a": [str(number) for number in range(101)]}},
    ],
)
def test_bad_requests(server: Server, body: dict[str, Any]) -> None:
    """Refused with the field named, and nothing is deleted."""
    answer = delete(server, **body)
    assert (answer.status_code, list(answer.json())) == (422, ["detail"])


def test_grpc(server: Server, client: Client, project: str) -> None:
    """Single runs, without their children; traces; the same refusals."""
    root, child = trace(client, project)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = run_deletion_service_pb2_grpc.RunDeletionServiceStub(channel)
        stub.DeleteRuns(pb.DeleteRunsRequest(ids=[str(root)]))
        assert found(client, project) == {child}
        stub.DeleteTraces(pb.DeleteTracesRequest(trace_ids=[str(root)]))
        assert found(client, project) == set()
        refused: list[tuple[Any, Any]] = [
            (stub.DeleteRuns, pb.DeleteRunsRequest()),
            (stub.DeleteRuns, pb.DeleteRunsRequest(ids=["'; DROP TABLE runs"])),
            (stub.DeleteTraces, pb.DeleteTracesRequest()),
            (stub.DeleteTraces, pb.DeleteTracesRequest(trace_ids=[str(root)] * 1_001)),
        ]
        for call, bad in refused:
            with pytest.raises(grpc.RpcError) as refusal:
                call(bad)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_tenants_delete_their_own(guarded: Server, key: str, foreign_key: str, project: str) -> None:
    """Another tenant's key deletes nothing, by id or by metadata; without a key nobody does."""
    client = Client(guarded.url, api_key=key)
    runs = trace(client, project, user="u")
    for body in ({"trace_ids": [str(runs[0])]}, {"metadata": {"user": "u"}}):
        answer = httpx.post(f"{guarded.url}/runs/delete", json=body, headers={"x-api-key": foreign_key})
        assert answer.status_code == 200
        assert httpx.post(f"{guarded.url}/runs/delete", json=body).status_code == 401
    assert found(client, project) == set(runs)
    client.close()


def test_deletion_survives_a_crash(tmp_path: Path, project: str) -> None:
    """Killed right behind the answer, before anything is purged, a server comes back without the runs, also
    though the log that is replayed has them; and what was written after the deletion is there."""
    with serving(tmp_path) as server:
        client = Client(server.url, api_key="any")
        doomed, kept = trace(client, project), trace(client, project)
        assert found(client, project) == {*doomed, *kept}
        assert delete(server, trace_ids=[str(doomed[0])]).status_code == 200
        late = trace(client, project)
        client.close()
        server.kill()
    # The checkpoint may be older than what is stored: the whole log is replayed.
    (tmp_path / "data" / "log" / "checkpoint").write_bytes(b"")
    with serving(tmp_path) as server:
        client = Client(server.url, api_key="any")
        assert found(client, project) == {*kept, *late}
        assert delete(server, trace_ids=[str(late[0])]).status_code == 200
        assert found(client, project) == set(kept)
        client.close()
        assert server.defects() == []
