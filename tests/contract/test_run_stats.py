"""Statistics through the newest SDK and over gRPC."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import pytest
from langsmith import Client
from langsmith.utils import LangSmithError

from runstore.v1 import run_query_service_pb2 as queries
from runstore.v1 import run_stats_service_pb2 as pb
from runstore.v1 import run_stats_service_pb2_grpc

from .servers import Server

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def runs(client: Client, project: str) -> list[uuid.UUID]:
    """Four runs of the project that took 1, 2, 3 and 4 seconds; the last failed, two spent tokens."""
    run_ids = []
    for seconds in range(1, 5):
        run_id = uuid.uuid4()
        run_ids.append(run_id)
        usage: dict[str, float] = {
            "input_tokens": 10 * seconds,
            "output_tokens": seconds,
            "total_tokens": 11 * seconds,
        }
        usage |= {"input_cost": 0.25, "output_cost": 0.5, "total_cost": 0.75}
        client.create_run(
            name="odd" if seconds % 2 else "even",
            inputs={},
            run_type="llm" if seconds < 3 else "tool",
            id=run_id,
            project_name=project,
            start_time=START,
            end_time=START + timedelta(seconds=seconds),
            outputs={"usage_metadata": usage} if seconds < 3 else {},
            error="no" if seconds == 4 else None,
            tags=["both", f"only-{seconds}"],
            extra={"metadata": {"team": {"name": "blue" if seconds < 4 else "red"}}},
        )
    return run_ids


@pytest.fixture
def ask(server: Server, client: Client, project: str, runs: list[uuid.UUID]) -> Callable[..., Any]:
    """Answers of `POST /runs/stats` about the project."""
    session = str(client.read_project(project_name=project).id)

    def post(**body: Any) -> Any:
        answer = httpx.post(f"{server.url}/runs/stats", json={"session": [session], **body})
        assert answer.status_code == 200, answer.text
        return answer.json()

    return post


def test_get_run_stats(client: Client, project: str, runs: list[uuid.UUID]) -> None:
    """The SDK's call answers what the contract has, feedback and facets included."""
    session = client.read_project(project_name=project).id
    for run_id, score in zip(runs, (1, 0), strict=False):
        client.create_feedback(run_id, "good", score=score, session_id=session)
    stats = client.get_run_stats(project_names=[project])
    assert stats["run_count"] == 4
    assert (stats["latency_p50"], stats["latency_p99"]) == (2.5, pytest.approx(3.97))
    assert (stats["total_tokens"], stats["prompt_tokens"], stats["completion_tokens"]) == (33, 30, 3)
    assert (stats["median_tokens"], stats["tokens_p99"]) == (22, 22)
    assert (stats["total_cost"], stats["prompt_cost"], stats["completion_cost"]) == (1.5, 0.5, 1.0)
    assert (stats["cost_p50"], stats["error_rate"], stats["streaming_rate"]) == (0.75, 0.25, 0.0)
    assert stats["last_run_start_time"] == "2026-03-01T12:00:00.000000"
    assert stats["first_token_p50"] is None
    assert stats["feedback_stats"]["good"]["n"] == 2
    assert stats["feedback_stats"]["good"]["avg"] == 0.5
    facets = {(facet["key"], facet["value"]): facet for facet in stats["run_facets"]}
    assert facets["tags", "both"] == {"key": "tags", "value": "both", "query": 'has(tags, "both")', "n": 4}
    assert facets["name", "odd"]["n"] == 2
    found = client.list_runs(project_name=project, filter=facets["name", "odd"]["query"])
    assert {run.id for run in found} == {runs[0], runs[2]}


def test_conditions_of_the_sdk(client: Client, project: str, runs: list[uuid.UUID]) -> None:
    """`get_run_stats` takes the conditions of a list."""

    def count(**conditions: Any) -> int:
        stats = client.get_run_stats(project_names=[project], **conditions)
        return int(stats["run_count"])

    assert count(run_type="llm") == 2
    assert count(error=True) == 1
    assert count(filter='eq(name, "even")') == 2
    assert count(filter="gt(latency, 2)") == 2
    assert count(is_root=False) == 0
    assert count(id=[str(runs[0])]) == 1
    assert count(trace=str(runs[1])) == 1
    assert count(start_time=(START + timedelta(seconds=1)).isoformat()) == 0


def test_select_decides(ask: Callable[..., Any]) -> None:
    """What is not selected is null; bundles select many; feedback on threads is never there."""
    one = ask(select=["latency_avg"])
    assert one.pop("latency_avg") == 2.5
    assert one
    assert set(one.values()) == {None}
    assert ask(select=["all_run_stats"])["total_tokens"] is None
    assert ask(select=["all_run_stats"])["latency_avg"] == 2.5
    assert ask(select=["all_token_stats"])["total_tokens"] == 33
    assert ask(select=["thread_feedback_stats"])["thread_feedback_stats"] == {}


def test_groups(ask: Callable[..., Any]) -> None:
    """By name, type, tag and metadata; the largest groups, or those that are named."""
    by_name = ask(group_by={"attribute": "name"})
    assert {name: stats["latency_p50"] for name, stats in by_name.items()} == {"even": 3.0, "odd": 2.0}
    by_type = ask(group_by={"attribute": "run_type"}, select=["run_count"])
    assert {name: stats["run_count"] for name, stats in by_type.items()} == {"llm": 2, "tool": 2}
    by_tag = ask(group_by={"attribute": "tag", "max_groups": 2})
    assert {name: stats["run_count"] for name, stats in by_tag.items()} == {"both": 4, "only-1": 1}
    only = ask(group_by={"attribute": "tag"}, groups=["only-3", "nobody's"])
    assert list(only) == ["only-3"]
    by_team = ask(group_by={"attribute": "metadata", "path": "team.name"})
    assert {name: stats["run_count"] for name, stats in by_team.items()} == {"blue": 3, "red": 1}
    assert by_team["red"]["error_rate"] == 1.0
    assert ask(group_by={"attribute": "metadata", "path": "nothing"}) == {}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"session": ["x"]}, 422),
        ({"session": [str(uuid.uuid4())], "filter": "eq(nothing, 1)"}, 400),
        ({"session": [str(uuid.uuid4())], "select": ["password"]}, 422),
        ({"session": [str(uuid.uuid4())], "group_by": {"attribute": "metadata"}}, 422),
        ({"session": [str(uuid.uuid4())], "group_by": {"attribute": "inputs"}}, 422),
        ({"session": [str(uuid.uuid4())], "group_by": {"attribute": "name", "max_groups": 0}}, 422),
    ],
)
def test_bad_questions(server: Server, body: dict[str, Any], status: int) -> None:
    """Refused in the dialect of v1, never by a 500."""
    answer = httpx.post(f"{server.url}/runs/stats", json=body)
    assert (answer.status_code, list(answer.json())) == (status, ["detail"])


def test_default_project_of_a_fresh_server_has_statistics(client: Client) -> None:
    """Nothing is needed before statistics of the default project can be asked for."""
    assert client.get_run_stats(project_names=["default"], run_type="llm")


def test_projects_with_statistics(client: Client, project: str, runs: list[uuid.UUID]) -> None:
    """Read and listed projects have statistics if asked for, in the SDK's types; an empty one has zeros."""
    session = client.read_project(project_name=project).id
    client.create_feedback(runs[0], "good", score=1, session_id=session)
    read = client.read_project(project_name=project, include_stats=True)
    empty = client.create_project(f"{project}-empty")
    listed = {found.name: found for found in client.list_projects(name_contains=project, include_stats=True)}
    for found in (read, listed[project], client.read_project(project_id=read.id, include_stats=True)):
        assert found.run_count == 4
        assert (found.latency_p50, found.latency_p99) == (timedelta(seconds=2.5), timedelta(seconds=3.97))
        assert (found.total_tokens, found.prompt_tokens, found.completion_tokens) == (33, 30, 3)
        assert str(found.total_cost) == "1.5"
        assert found.error_rate == 0.25
        assert found.last_run_start_time == START.replace(tzinfo=None)
        assert found.feedback_stats is not None
        assert found.feedback_stats["good"]["n"] == 1
    assert listed[str(empty.name)].run_count == 0
    assert client.read_project(project_name=project).run_count is None


async def test_aread_project(client: Client, project: str, runs: list[uuid.UUID]) -> None:
    """Asynchronously as well; without being asked for, there are none."""
    read = await client.aread_project(project_name=project, include_stats=True)
    assert read.run_count == len(runs)
    assert (await client.aread_project(project_name=project)).run_count is None


def test_feedback_on_the_project_itself(client: Client, project: str, ask: Callable[..., Any]) -> None:
    """Is apart from that on its runs."""
    session = client.read_project(project_name=project).id
    client.create_feedback(key="overall", score=0.5, project_id=session)
    assert ask(select=["session_feedback_stats"])["session_feedback_stats"]["overall"]["avg"] == 0.5
    assert ask()["feedback_stats"] == {}
    read = client.read_project(project_id=session, include_stats=True)
    assert read.session_feedback_stats is not None
    assert list(read.session_feedback_stats) == ["overall"]


def test_grpc(server: Server, client: Client, project: str, runs: list[uuid.UUID]) -> None:
    """The same over gRPC; what is not selected is absent."""
    project_id = str(client.read_project(project_name=project).id)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = run_stats_service_pb2_grpc.RunStatsServiceStub(channel)
        query = queries.ListRunsRequest(project_ids=[project_id])
        grouping = pb.RunGrouping(attribute=pb.RUN_GROUP_ATTRIBUTE_RUN_TYPE, groups=["llm"])
        answer = stub.RunStats(pb.RunStatsRequest(runs=query, grouping=grouping))
        [group] = answer.groups
        assert (group.group, group.stats.run_count, group.stats.total_cost) == ("llm", 2, "1.5")
        fields = [pb.RUN_STATS_FIELD_RUN_COUNT]
        [every] = stub.RunStats(pb.RunStatsRequest(runs=query, fields=fields)).groups
        assert every.stats == pb.RunStats(run_count=4)
        for bad in (
            pb.RunStatsRequest(),
            pb.RunStatsRequest(runs=query, fields=[pb.RUN_STATS_FIELD_UNSPECIFIED]),
            pb.RunStatsRequest(runs=query, grouping=pb.RunGrouping()),
            pb.RunStatsRequest(
                runs=query, grouping=pb.RunGrouping(attribute=pb.RUN_GROUP_ATTRIBUTE_METADATA)
            ),
            pb.RunStatsRequest(
                runs=query, grouping=pb.RunGrouping(attribute=pb.RUN_GROUP_ATTRIBUTE_TAG, max_groups=-1)
            ),
        ):
            with pytest.raises(grpc.RpcError) as refusal:
                stub.RunStats(bad)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_bad_filter_is_a_client_error(client: Client, project: str) -> None:
    """The SDK raises what it raises for lists."""
    client.create_project(project)
    with pytest.raises(LangSmithError, match="400"):
        client.get_run_stats(project_names=[project], filter="eq(")
