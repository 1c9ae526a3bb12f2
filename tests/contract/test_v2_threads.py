"""`client.traces`, `client.threads` and the streaming forms of the newest SDK, over `/api/v2`."""

import json
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args, get_type_hints

import httpx
import pytest
from langsmith import AsyncClient, Client
from langsmith._exceptions import (
    APIStatusError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    UnprocessableEntityError,
)
from langsmith.types import thread_aggregate_stats_params, thread_list_traces_params, thread_stats_params
from langsmith.types.run_select_field import RunSelectField

from .servers import Server
from .wire import dotted_order

STARTED = datetime.now(UTC).replace(microsecond=123456) - timedelta(hours=2)
TURNS = 4
THREAD = 'a thread / "with" \\ ünï?&#'
USAGE = {
    "input_tokens": 10,
    "output_tokens": 5,
    "total_tokens": 15,
    "input_token_details": {"cache_read": 4},
    "output_token_details": {"reasoning": 3, "cache_read": 1},
    "input_cost": 0.001,
    "output_cost": 0.002,
    "total_cost": 0.003,
    "input_cost_details": {"cache_read": 0.0001},
    "output_cost_details": {"reasoning": 0.0002},
}


def selects_of(params: Any, name: str) -> list[str]:
    """The values that the SDK's types allow."""
    [literal] = get_args(get_type_hints(params)[name])
    return list(get_args(literal))


AGGREGATE_STATS = selects_of(thread_aggregate_stats_params.ThreadAggregateStatsParams, "select")
THREAD_STATS = selects_of(thread_stats_params.ThreadStatsParams, "selects")
TURN_FIELDS = selects_of(thread_list_traces_params.ThreadListTracesParams, "selects")


class Talk:
    """A thread of four turns, each a chain with two calls of a model below it, of which the second failed;
    a later thread of one turn, and a trace of no thread."""

    def __init__(self, server: Server) -> None:
        self._client = Client(server.url, api_key="any")
        self._project = f"talk-{uuid.uuid4().hex}"
        self.turns = [
            self._trace(STARTED + timedelta(minutes=n), THREAD, error="late" if n == 1 else None)
            for n in range(TURNS)
        ]
        self.other = self._trace(STARTED + timedelta(minutes=30), "other")
        self.lone = self._trace(STARTED + timedelta(minutes=40), None)
        self._client.flush()
        self.project_id = str(self._client.read_project(project_name=self._project).id)
        self._client.close()

    def _trace(self, at: datetime, thread_id: str | None, error: str | None = None) -> str:
        root = uuid.uuid4()
        self._run(root, at, thread_id, outputs={"answer": "because"}, error=error)
        for _ in range(2):
            call = uuid.uuid4()
            token = {"name": "new_token", "time": (at + timedelta(seconds=1)).isoformat()}
            self._run(
                call,
                at + timedelta(milliseconds=1),
                thread_id,
                root,
                run_type="llm",
                outputs={"usage_metadata": USAGE},
                events=[token],
            )
        return str(root)

    def _run(
        self,
        run_id: uuid.UUID,
        at: datetime,
        thread_id: str | None,
        root: uuid.UUID | None = None,
        *,
        run_type: Any = "chain",
        **fields: Any,
    ) -> None:
        start = dotted_order(root or run_id, at=STARTED if root is None else at)
        order = dotted_order(run_id, at=at) if root is None else f"{start}.{dotted_order(run_id, at=at)}"
        self._client.create_run(
            "turn" if root is None else "call",
            {"question": "why?"},
            run_type,
            id=run_id,
            trace_id=root or run_id,
            parent_run_id=root,
            dotted_order=order,
            start_time=at,
            end_time=at + timedelta(seconds=2),
            project_name=self._project,
            extra={"metadata": {"session_id": None, "conversation_id": None, "thread_id": thread_id}},
            **fields,
        )


@pytest.fixture(scope="module")
def talk(server: Server) -> Talk:
    """Written once; the tests only read it."""
    return Talk(server)


@pytest.fixture(params=["Client", "AsyncClient"])
async def sdk(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[Any]:
    """Both clients: the resources are asynchronous on either."""
    if request.param == "Client":
        client = Client(server.url, api_key="any")
        yield client
        client.close()
    else:
        async with AsyncClient(server.url, api_key="any") as async_client:
            yield async_client


async def test_traces(sdk: Any, talk: Talk) -> None:
    """Without selects the root's id alone; with them, each where it belongs; newest first, page by page."""
    traces = [trace async for trace in sdk.traces.query(project_id=talk.project_id)]
    assert [trace.root_run.id for trace in traces] == [talk.lone, talk.other, *talk.turns[::-1]]
    assert all(trace.trace_aggregates is None and trace.root_run.name is None for trace in traces)
    selects = ["ID", "NAME", "STATUS", "START_TIME", "TOTAL_TOKENS", "TOTAL_COST", "FIRST_TOKEN_TIME"]
    pages = sdk.traces.query(project_id=talk.project_id, selects=selects, page_size=2)
    traces = [trace async for trace in pages]
    assert [trace.root_run.id for trace in traces] == [talk.lone, talk.other, *talk.turns[::-1]]
    root, used = traces[-2].root_run, traces[-2].trace_aggregates
    assert (root.name, root.status, root.start_time) == ("turn", "ERROR", STARTED + timedelta(minutes=1))
    assert root.total_tokens is None
    assert (used.total_tokens, used.total_cost) == (30, 0.006)
    assert used.first_token_time == STARTED + timedelta(minutes=1, seconds=1)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"trace_filter": 'eq(status, "error")'}, [1]),
        ({"trace_filter": 'eq(run_type, "llm")'}, []),
        ({"trace_ids": [0, 3]}, [3, 0]),
        ({"min_start_time": STARTED, "max_start_time": STARTED + timedelta(minutes=2)}, [1, 0]),
        ({"max_start_time": STARTED}, []),
    ],
    ids=["on the root", "not on a child", "ids", "both bounds", "upper bound"],
)
async def test_conditions_on_traces(
    server: Server, talk: Talk, condition: dict[str, Any], expected: list[int]
) -> None:
    """Each condition leaves the traces that it describes; the end of the window is exclusive."""
    if "trace_ids" in condition:
        condition = {"trace_ids": [talk.turns[n] for n in condition["trace_ids"]]}
    async with AsyncClient(server.url, api_key="any") as client:
        found = client.traces.query(project_id=talk.project_id, **condition)
        roots = [trace.root_run and trace.root_run.id async for trace in found]
    assert roots == [talk.turns[n] for n in expected]


async def test_runs_of_a_trace(sdk: Any, talk: Talk) -> None:
    """All runs, oldest first, within bounds and filtered."""
    trace_id, project_id = talk.turns[0], talk.project_id
    runs = (await sdk.traces.list_runs(trace_id, project_id=project_id)).items
    assert len(runs) == 3
    assert (runs[0].id, runs[0].name) == (trace_id, None)
    runs = (
        await sdk.traces.list_runs(
            trace_id, project_id=project_id, selects=["NAME"], filter='eq(run_type, "llm")'
        )
    ).items
    assert [run.name for run in runs] == ["call", "call"]
    runs = (
        await sdk.traces.list_runs(
            trace_id, project_id=project_id, min_start_time=STARTED, max_start_time=STARTED
        )
    ).items
    assert [run.id for run in runs] == [trace_id]


@pytest.mark.parametrize("page_size", [1, 2, 100])
async def test_threads(sdk: Any, talk: Talk, page_size: int) -> None:
    """Every thread of the window once, latest first, with everything that there is to say of it."""
    found = sdk.threads.query(project_id=talk.project_id, page_size=page_size)
    other, thread = [thread async for thread in found]
    assert (other.thread_id, other.count, other.last_error) == ("other", 1, None)
    last, first = STARTED + timedelta(minutes=TURNS - 1), STARTED
    assert thread.to_dict(exclude_unset=False) | {"feedback_stats": None} == {
        "thread_id": THREAD,
        "count": TURNS,
        "start_time": last,
        "min_start_time": first,
        "max_start_time": last,
        "trace_id": talk.turns[-1],
        "first_trace_id": talk.turns[0],
        "last_trace_id": talk.turns[-1],
        "first_inputs": thread.first_inputs,
        "last_outputs": thread.last_outputs,
        "last_error": "late",
        "num_errored_turns": 1,
        "latency_p50": 2.0,
        "latency_p99": 2.0,
        "total_tokens": 30 * TURNS,
        "total_cost": 0.024,
        "total_token_details": {"cache_read": 10 * TURNS, "reasoning": 6 * TURNS},
        "total_cost_details": {"cache_read": 0.0008, "reasoning": 0.0016},
        "feedback_stats": None,
        "query_metadata": None,
    }
    assert "why?" in thread.first_inputs
    assert "because" in thread.last_outputs


async def test_windows_of_threads(sdk: Any, talk: Talk) -> None:
    """A thread is summed up over the window alone; filters keep threads, not traces."""

    async def counts(**conditions: Any) -> dict[str, int]:
        found = sdk.threads.query(project_id=talk.project_id, **conditions)
        return {thread.thread_id: thread.count async for thread in found}

    second = STARTED + timedelta(minutes=1)
    assert await counts(min_start_time=second) == {"other": 1, THREAD: TURNS - 1}
    assert await counts(min_start_time=STARTED, max_start_time=second) == {THREAD: 1}
    assert await counts(filter='eq(status, "error")') == {THREAD: TURNS}
    assert await counts(filter='eq(name, "nobody")') == {}


async def test_statistics_of_all_threads(sdk: Any, talk: Talk) -> None:
    """Every statistic of many threads, together and alone; the others are omitted."""
    stats = await sdk.threads.aggregate_stats(project_id=talk.project_id, select=AGGREGATE_STATS)
    traces = TURNS + 1
    assert (stats.thread_count, stats.trace_count, stats.error_rate) == (2, traces, 1 / traces)
    assert (stats.streaming_rate, stats.latency_p50_seconds, stats.latency_p99_seconds) == (1, 2.0, 2.0)
    assert (stats.first_token_p50_seconds, stats.first_token_p99_seconds) == (1.0, 1.0)
    assert (stats.median_tokens, stats.total_tokens) == (30, 30 * traces)
    assert (stats.prompt_tokens, stats.completion_tokens) == (20 * traces, 10 * traces)
    assert (stats.total_cost, stats.prompt_cost, stats.completion_cost) == (0.03, 0.01, 0.02)
    assert stats.prompt_token_details == {"cache_read": 8 * traces}
    assert stats.completion_cost_details == {"reasoning": 0.002}
    assert stats.thread_feedback_stats == {}
    for select in AGGREGATE_STATS[:3]:
        alone = await sdk.threads.aggregate_stats(project_id=talk.project_id, select=[select])
        assert alone.to_dict() == {select.lower(): getattr(stats, select.lower())}


async def test_statistics_of_one_thread(sdk: Any, talk: Talk) -> None:
    """Every statistic of one thread, with and without a filter on its traces."""
    stats = await sdk.threads.stats(THREAD, session_id=talk.project_id, selects=THREAD_STATS)
    assert (stats.turns, stats.first_start_time) == (TURNS, STARTED)
    assert stats.last_start_time == STARTED + timedelta(minutes=TURNS - 1)
    assert stats.last_end_time == STARTED + timedelta(minutes=TURNS - 1, seconds=2)
    assert (stats.total_tokens, stats.total_cost) == (30 * TURNS, 0.024)
    assert stats.prompt_token_details.raw == {"cache_read": 8 * TURNS}
    assert stats.completion_cost_details.raw == {"reasoning": 0.0016}
    assert stats.feedback_stats == {}
    before = f'lt(start_time, "{(STARTED + timedelta(minutes=2)).isoformat()}")'
    some = await sdk.threads.stats(THREAD, session_id=talk.project_id, selects=["TURNS"], filter=before)
    assert some.to_dict() == {"turns": 2}
    one = f'eq(trace_id, "{talk.turns[0]}")'
    some = await sdk.threads.stats(THREAD, session_id=talk.project_id, selects=["TURNS"], filter=one)
    assert some.turns == 1


async def test_traces_of_a_thread(sdk: Any, talk: Talk) -> None:
    """The turns, oldest first, page by page, with everything that can be selected, and without."""
    found = sdk.threads.list_traces(THREAD, project_id=talk.project_id, selects=TURN_FIELDS, page_size=3)
    turns = [turn async for turn in found]
    assert [turn.trace_id for turn in turns] == talk.turns
    assert [turn.turn_number for turn in turns] == [1, 2, 3, 4]
    turn = turns[1]
    assert (turn.thread_id, turn.name, turn.error, turn.error_preview) == (THREAD, "turn", "late", "late")
    assert (turn.latency, turn.op) == (2.0, 2)
    assert (turn.inputs, turn.outputs) == ({"question": "why?"}, {"answer": "because"})
    assert turn.start_time == STARTED + timedelta(minutes=1)
    assert turn.end_time == STARTED + timedelta(minutes=1, seconds=2)
    assert turn.first_token_time == STARTED + timedelta(minutes=1, seconds=1)
    assert (turn.total_tokens, turn.total_cost, turn.prompt_cost) == (30, 0.006, 0.002)
    assert turn.prompt_token_details.raw == {"cache_read": 8}
    bare = [turn async for turn in sdk.threads.list_traces(THREAD, project_id=talk.project_id)]
    assert [turn.to_dict() for turn in bare] == [{"trace_id": trace_id} for trace_id in talk.turns]
    failed = sdk.threads.list_traces(
        THREAD, project_id=talk.project_id, selects=["TURN_NUMBER"], filter='eq(status, "error")'
    )
    assert [(turn.trace_id, turn.turn_number) async for turn in failed] == [(talk.turns[1], 2)]


async def test_address_of_a_run(sdk: Any, talk: Talk, server: Server) -> None:
    """The address names project and run; a run that is not in the trace has none."""
    run_id = talk.turns[0]
    answer = await sdk.runs.get_url(run_id, project_id=talk.project_id, trace_id=run_id)
    assert answer.url.startswith(f"{server.url}/o/")
    assert f"/projects/p/{talk.project_id}/r/{run_id}?trace_id={run_id}" in answer.url
    with pytest.raises(NotFoundError):
        await sdk.runs.get_url(run_id, project_id=talk.project_id, trace_id=talk.turns[1])


def items_of(resource: Any) -> Callable[..., AsyncIterator[Any]]:
    """The streaming iterator of a resource: that of runs has another name."""
    streaming = resource.streaming
    name = "query_v2_items" if hasattr(streaming, "query_v2_items") else "query_items"
    found: Callable[..., AsyncIterator[Any]] = getattr(streaming, name)
    return found


@pytest.mark.parametrize("page_size", [1, 3, 100])
@pytest.mark.parametrize("resource", ["runs", "traces", "threads"])
async def test_streams_yield_what_lists_do(
    sdk: Any, server: Server, talk: Talk, resource: str, page_size: int
) -> None:
    """The streaming iterators walk all pages and yield the same items in the same order, of both clients."""
    arguments: dict[str, Any] = {"page_size": page_size}
    if resource == "runs":
        arguments |= {"project_ids": [talk.project_id], "selects": ["ID", "NAME", "INPUTS"]}
    else:
        arguments |= {"project_id": talk.project_id}
    if resource == "traces":
        arguments["selects"] = ["ID", "TOTAL_TOKENS", "OUTPUTS"]
    listed = [item.to_dict() async for item in getattr(sdk, resource).query(**arguments)]
    assert len(listed) == {"runs": 3 * (TURNS + 2), "traces": TURNS + 2, "threads": 2}[resource]
    items = items_of(getattr(sdk, resource))(**arguments)
    assert [item.to_dict() async for item in items] == listed


def events_of(answer: httpx.Response) -> list[tuple[str, Any]]:
    """Names and contents of the events of a stream."""
    events = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        events.append((fields.get("event", "data"), json.loads(fields.get("data", "null"))))
    return events


def test_stream_on_the_wire(server: Server, talk: Talk) -> None:
    """A root document, appends whose first leaves early, the cursor, the end."""
    body = {"project_ids": [talk.project_id], "page_size": 15}
    headers = {"Accept": "text/event-stream"}
    answer = httpx.post(f"{server.url}/api/v2/runs/query", json=body, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer)
    assert [name for name, _ in events] == ["data", "data", "data", "data", "end"]
    [root], first, second, [cursor], _ = (patches for _, patches in events)
    assert root == {"op": "add", "path": "", "value": {"items": [], "next_cursor": None}}
    assert (len(first), len(second)) == (10, 5)
    assert {patch["op"] for patch in first + second} == {"add"}
    assert {patch["path"] for patch in first + second} == {"/items/-"}
    assert (cursor["op"], cursor["path"]) == ("replace", "/next_cursor")
    whole = httpx.post(f"{server.url}/api/v2/runs/query", json=body).json()
    assert [patch["value"] for patch in first + second] == whole["items"]
    rest = {**body, "cursor": cursor["value"]}
    events = events_of(httpx.post(f"{server.url}/api/v2/runs/query", json=rest, headers=headers))
    assert [len(patches or ()) for _, patches in events] == [1, 3, 0]


def test_stream_of_payloads_over_several_lines(server: Server, client: Client, project: str) -> None:
    """Stored JSON that was printed over lines stays one event, and so does a payload that is stored apart."""
    pretty = json.dumps({"a": "x\ny", "b": [1, 2]}, indent=2)
    large = json.dumps({"text": "z" * 2_000_000}, indent=2)
    for inputs in (pretty, large):
        run_id = uuid.uuid4()
        raw = (
            f'{{"id": "{run_id}", "name": "n", "run_type": "tool", "session_name": "{project}", '
            f'"start_time": "{STARTED.isoformat()}", "inputs": {inputs}}}'
        )
        assert httpx.post(f"{server.url}/runs", content=raw).status_code == 202
    body = {
        "project_ids": [str(client.read_project(project_name=project).id)],
        "selects": ["INPUTS"],
    }
    answer = httpx.post(f"{server.url}/api/v2/runs/query", json=body, headers={"Accept": "text/event-stream"})
    [_, (_, patches), _] = events_of(answer)
    stored = [patch["value"]["inputs"] for patch in patches]
    assert sorted(stored, key=len) == [json.loads(large), json.loads(pretty)]


async def test_refusals_are_the_sdks_exceptions(sdk: Any, talk: Talk) -> None:
    """Bad requests are refused once, with the reason in the problem's `detail`."""
    missing = str(uuid.uuid4())
    with pytest.raises(NotFoundError, match="project"):
        [trace async for trace in sdk.traces.query(project_id=missing)]
    with pytest.raises(NotFoundError, match="trace"):
        await sdk.traces.list_runs(missing, project_id=talk.project_id)
    with pytest.raises(BadRequestError, match="both or neither"):
        await sdk.traces.list_runs(missing, project_id=talk.project_id, min_start_time=STARTED)
    with pytest.raises(BadRequestError, match="page_size"):
        [trace async for trace in sdk.traces.query(project_id=talk.project_id, page_size=101)]
    with pytest.raises(BadRequestError, match="project_id"):
        [thread async for thread in sdk.threads.query()]
    with pytest.raises(UnprocessableEntityError, match="project_id"):
        [thread async for thread in sdk.threads.query(project_id="x")]
    with pytest.raises(NotFoundError, match="project"):
        [thread async for thread in sdk.threads.query(project_id=missing)]
    with pytest.raises(BadRequestError, match="cursor"):
        [thread async for thread in sdk.threads.query(project_id=talk.project_id, cursor="x")]
    with pytest.raises(BadRequestError, match="filter"):
        [thread async for thread in sdk.threads.query(project_id=talk.project_id, filter="eq(")]
    with pytest.raises(BadRequestError, match="select"):
        await sdk.threads.aggregate_stats(project_id=talk.project_id, select=[])
    with pytest.raises(BadRequestError, match="select"):
        await sdk.threads.aggregate_stats(project_id=talk.project_id, select=[["TRACE_COUNT"]])
    with pytest.raises(BadRequestError, match="selects"):
        await sdk.threads.stats(THREAD, session_id=talk.project_id, selects=["NO_SUCH"])
    with pytest.raises(NotFoundError, match="thread"):
        await sdk.threads.stats("nobody", session_id=talk.project_id, selects=["TURNS"])
    with pytest.raises(NotFoundError, match="thread"):
        [turn async for turn in sdk.threads.list_traces("nobody", project_id=talk.project_id)]
    items = sdk.threads.streaming.query_items(project_id=talk.project_id, filter="eq(")
    with pytest.raises(BadRequestError, match="filter"):
        [thread async for thread in items]


async def test_search_in_plain_language_is_refused(sdk: Any, talk: Talk) -> None:
    """Without the streaming form 406; with it 501, not to be retried; a blank one is no search at all."""
    for query, arguments in (
        (sdk.traces, {"project_id": talk.project_id}),
        (sdk.threads, {"project_id": talk.project_id}),
        (sdk.runs, {"project_ids": [talk.project_id]}),
    ):
        with pytest.raises(APIStatusError) as caught:
            [item async for item in query.query(**arguments, ai_search="angry customers")]
        assert caught.value.status_code == 406
        with pytest.raises(InternalServerError) as failed:
            [item async for item in items_of(query)(**arguments, ai_search="angry customers")]
        assert failed.value.status_code == 501
        assert failed.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(BadRequestError, match="ai_search"):
            [item async for item in items_of(query)(**arguments, ai_search=" ")]
        with pytest.raises(APIStatusError, match="ai_search") as caught:  # Its name of July 2026.
            [item async for item in query.query(**arguments, extra_body={"ai_query": "angry customers"})]
        assert caught.value.status_code == 406


async def test_usage_of_subtrees(sdk: Any, talk: Talk) -> None:
    """With subtree usage a root's values are those of its trace; a run without children keeps its own."""
    fields = ["ID", "TOTAL_TOKENS", "TOTAL_COST", "FIRST_TOKEN_TIME", "PROMPT_TOKEN_DETAILS", "IS_ROOT"]
    arguments = {"project_ids": [talk.project_id], "trace_id": talk.turns[0], "selects": fields}
    own = {run.id: run async for run in sdk.runs.query(**arguments)}
    assert own[talk.turns[0]].total_tokens is None
    runs = {run.id: run async for run in sdk.runs.query(**arguments, include_subtree_usage=True)}
    root = runs.pop(talk.turns[0])
    assert (root.total_tokens, root.total_cost) == (30, 0.006)
    assert root.first_token_time == STARTED + timedelta(seconds=1)
    assert root.prompt_token_details.raw == {"cache_read": 8}
    assert all(run.to_dict() == own[run_id].to_dict() for run_id, run in runs.items())
    filtered = sdk.runs.query(**arguments, include_subtree_usage=True, is_root=True)
    assert [run.total_tokens async for run in filtered] == [30]


def test_experiments_on_a_dataset(server: Server, client: Client, project: str) -> None:
    """Runs of every project that refers to the dataset, however long ago, and of no other."""
    dataset_id, run_id, at = uuid.uuid4(), uuid.uuid4(), datetime.now(UTC) - timedelta(days=30)
    body = {"name": project, "reference_dataset_id": str(dataset_id), "start_time": at.isoformat()}
    assert httpx.post(f"{server.url}/sessions", json=body).status_code == 200
    client.create_run("old", {}, "tool", id=run_id, start_time=at, project_name=project)
    client.create_run("other", {}, "tool", id=uuid.uuid4(), start_time=at, project_name=f"{project}-2")
    client.flush()

    def listed(dataset: uuid.UUID, **more: Any) -> list[str]:
        answer = httpx.post(
            f"{server.url}/api/v2/runs/query", json={"reference_dataset_id": str(dataset), **more}
        )
        return [run["id"] for run in answer.json()["items"]]

    assert listed(dataset_id) == [str(run_id)]
    assert listed(dataset_id, min_start_time=datetime.now(UTC).isoformat()) == []
    assert listed(uuid.uuid4()) == []


async def test_feedback_of_a_time(sdk: Any, client: Client, project: str) -> None:
    """Bounds narrow the feedback that filters look at, in runs and in traces; alone they are refused."""
    run_id, at = uuid.uuid4(), datetime.now(UTC)
    client.create_run("judged", {}, "tool", id=run_id, start_time=at, project_name=project)
    project_id = str(client.read_project(project_name=project).id)
    client.create_feedback(run_id, key="helpful", score=1, session_id=project_id)
    judged = 'eq(feedback_key, "helpful")'
    before, after = at - timedelta(minutes=1), at + timedelta(minutes=10)
    for bounds, count in (
        ({"min_feedback_modified_at": before}, 1),
        ({"max_feedback_modified_at": after}, 1),
        ({"min_feedback_modified_at": before, "max_feedback_modified_at": after}, 1),
        ({"min_feedback_modified_at": after}, 0),
        ({"max_feedback_modified_at": before}, 0),
    ):
        runs = [run async for run in sdk.runs.query(project_ids=[project_id], filter=judged, **bounds)]
        traces = sdk.traces.query(project_id=project_id, trace_filter=judged, **bounds)
        assert (len(runs), len([trace async for trace in traces])) == (count, count), bounds
    with pytest.raises(BadRequestError, match="feedback"):
        [run async for run in sdk.runs.query(project_ids=[project_id], min_feedback_modified_at=before)]
    with pytest.raises(BadRequestError, match="feedback"):
        [t async for t in sdk.traces.query(project_id=project_id, min_feedback_modified_at=before)]


async def test_threads_and_their_feedback(sdk: Any, client: Client, project: str) -> None:
    """Feedback on a turn shows in lists and statistics of threads, and thread filters find it."""
    project_id = ""
    for thread_id, score in (("good", 1.0), ("bad", 0.0)):
        run_id = uuid.uuid4()
        metadata = {"metadata": {"thread_id": thread_id}}
        client.create_run("turn", {}, "chain", id=run_id, project_name=project, extra=metadata)
        project_id = str(client.read_project(project_name=project).id)
        client.create_feedback(run_id, key="helpful", score=score, comment=thread_id, session_id=project_id)
    threads = {thread.thread_id: thread async for thread in sdk.threads.query(project_id=project_id)}
    assert {name: thread.feedback_stats["helpful"].avg for name, thread in threads.items()} == {
        "good": 1.0,
        "bad": 0.0,
    }
    liked = 'and(eq(feedback_key, "helpful"), eq(feedback_score, 1))'
    for conditions in ({"thread_filter": liked}, {"trace_filter": liked}, {"tree_filter": liked}):
        found = sdk.threads.query(project_id=project_id, **conditions)
        assert [thread.thread_id async for thread in found] == ["good"]
    stats = await sdk.threads.aggregate_stats(
        project_id=project_id, select=["THREAD_COUNT", "THREAD_FEEDBACK_STATS"], thread_filter=liked
    )
    assert (stats.thread_count, stats.thread_feedback_stats["helpful"].n) == (1, 1)
    one = await sdk.threads.stats("bad", session_id=project_id, selects=["FEEDBACK_STATS"])
    assert one.feedback_stats["helpful"].comments == ["bad"]
    with pytest.raises(BadRequestError, match="thread_filter"):
        [t async for t in sdk.threads.query(project_id=project_id, thread_filter='eq(name, "n")')]


def test_the_sdks_lists_of_selects_were_found() -> None:
    """The selects above are those of the SDK, and RunSelectField is among what traces take."""
    assert (len(AGGREGATE_STATS), len(THREAD_STATS), len(TURN_FIELDS)) == (20, 17, 25)
    assert len(get_args(RunSelectField)) == 46
