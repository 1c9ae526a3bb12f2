"""Runs of graphs over HTTP: what the store is asked, and what becomes of answers that take long."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError
from tests.waiting import LONGEST_WAIT_S, until

from runstore.domain.errors import ErrorReason
from runstore.gateway import live_answers
from runstore.v1 import agent_run_pb2 as runs
from runstore.v1 import agent_run_service_pb2 as pb

from .conftest import BackgroundLoop, FakeStore, Refuse, RunningGateway
from .fake_agents import ASSISTANT_ID, RUN_ID, THREAD_ID, end, event

ON_THREAD = f"/threads/{THREAD_ID}/runs"
RUN_PATH = f"{ON_THREAD}/{RUN_ID}"
BODY = {"assistant_id": "steps"}
AWAY = Refuse(ErrorReason.UNAVAILABLE, "gone", has_detail=False)


@pytest.fixture
def client(url: str, store: FakeStore) -> Iterator[SyncLangGraphClient]:
    """The published SDK."""
    with get_sync_client(url=url, api_key=None) as client:
        yield client


@pytest.fixture
def quick_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life every 20 ms."""
    monkeypatch.setattr(live_answers, "_HEARTBEAT_S", 0.02)


def script(*steps: Any) -> Callable[[Any], AsyncIterator[Any]]:
    """Each join answers with these steps."""

    async def answer(_: Any) -> AsyncIterator[Any]:
        for step in steps:
            yield step

    return answer


def scripts(*answers: Callable[[Any], AsyncIterator[Any]]) -> Callable[[Any], AsyncIterator[Any]]:
    """Joins answer with one script after the other."""
    left = iter(answers)

    def answer(request: Any) -> AsyncIterator[Any]:
        return next(left)(request)

    return answer


class Waiting:
    """A run that goes on until it is told to end."""

    def __init__(self, loop: BackgroundLoop) -> None:
        self._loop = loop
        self.was_left = threading.Event()
        self.has_begun = threading.Event()
        self._may_end: asyncio.Event = loop.start(asyncio.Event)

    async def __call__(self, _: Any) -> AsyncIterator[Any]:
        self.has_begun.set()
        try:
            await self._may_end.wait()
        except asyncio.CancelledError:
            self.was_left.set()
            raise
        yield end(b'{"n":1}')

    def finish(self) -> None:
        """Let it end."""
        self._loop.start(self._may_end.set)


# -- creating ------------------------------------------------------------------------------------------


def test_every_key_reaches_the_store(http: httpx.Client, store: FakeStore) -> None:
    """JSON is handed on as it was sent, everything else as its type."""
    body = (
        b'{"assistant_id":"steps","input":{"n": 1e400, "x":99999999999999999999},"command":{"resume": false},'
        b'"metadata":{"m":1},"config":{"tags":["t"]},"context":{"c":1},"checkpoint":{"checkpoint_id":"c"},'
        b'"checkpoint_id":"33333333333343338333333333333333","checkpoint_during":false,"durability":"exit",'
        b'"interrupt_before":"*","interrupt_after":["b"],"webhook":"https://w","multitask_strategy":"rollback",'
        b'"if_not_exists":"create","on_completion":"keep","after_seconds":2.5,"feedback_keys":["k"],'
        b'"langsmith_tracer":{"project_name":"p","example_id":"33333333-3333-4333-8333-333333333333"},'
        b'"stream_mode":["values","messages-tuple"],"stream_subgraphs":true,"stream_resumable":true,'
        b'"strict_resume":true,"on_disconnect":"cancel","unknown":{}}'
    )
    headers = {"x-request-id": "req", "langsmith-trace": "t", "baggage": "b", "x-other": "o"}
    assert http.post(ON_THREAD, content=body, headers=headers).status_code == 200
    [request] = store.of("CreateAgentRun")
    assert request == pb.CreateAgentRunRequest(
        thread_id=THREAD_ID, assistant_id="steps", input=b'{"n": 1e400, "x":99999999999999999999}',
        command=b'{"resume": false}', metadata=b'{"m":1}', config=b'{"tags":["t"]}', context=b'{"c":1}',
        checkpoint=b'{"checkpoint_id":"c"}', checkpoint_id=ASSISTANT_ID, checkpoint_during=False,
        durability=runs.DURABILITY_EXIT, interrupt_before=b'"*"', interrupt_after=b'["b"]', webhook="https://w",
        multitask_strategy=runs.MULTITASK_STRATEGY_ROLLBACK, create_thread=True, keep_thread=True,
        after_seconds=2.5, feedback_keys=["k"], project_name="p", example_id=ASSISTANT_ID,
        stream_modes=["values", "messages-tuple"], stream_subgraphs=True, stream_resumable=True,
        strict_resume=True, request_id="req", headers={"langsmith-trace": "t", "baggage": "b"},
    )  # fmt: skip


def test_half_of_an_emoji_is_replaced(http: httpx.Client, store: FakeStore) -> None:
    """JavaScript cuts them; no graph could write one down again."""
    body = b'{"assistant_id":"steps","input":"\\ud83d \\ud83d\\ude00"}'
    assert http.post(ON_THREAD, content=body).status_code == 200
    assert store.of("CreateAgentRun")[0].input == b'"\\ufffd \\ud83d\\ude00"'


def test_absent_and_null_say_nothing(http: httpx.Client, store: FakeStore) -> None:
    """A body of nulls is that of the assistant alone."""
    nulls = dict.fromkeys(("input", "command", "config", "webhook", "stream_mode", "durability", "metadata"))
    http.post(ON_THREAD, json={**BODY, **nulls}, headers={"x-request-id": "r"})
    http.post(ON_THREAD, json=BODY, headers={"x-request-id": "r"})
    first, second = store.of("CreateAgentRun")
    assert (
        first == second == pb.CreateAgentRunRequest(thread_id=THREAD_ID, assistant_id="steps", request_id="r")
    )


def test_run_has_the_keys_of_the_contract(client: SyncLangGraphClient) -> None:
    """`created_at` is the time it is due."""
    run = client.runs.create(THREAD_ID, "steps", input={"n": 1})
    assert (run["run_id"], run["thread_id"]) == (RUN_ID, THREAD_ID)
    assert (run["status"], run["multitask_strategy"]) == ("pending", "enqueue")
    assert str(run["created_at"]) == "2026-01-01T00:00:03.000000+00:00"
    assert str(run["updated_at"]) == "2026-01-01T00:00:00.500000+00:00"
    assert run["metadata"] == {"created_by": "system"}
    assert run["assistant_id"] == ASSISTANT_ID


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"assistant_id": None}, "assistant_id"),
        ({"multitask_strategy": "queue"}, "multitask_strategy"),
        ({"durability": "often"}, "durability"),
        ({"on_completion": "x"}, "on_completion"),
        ({"on_disconnect": "x"}, "on_disconnect"),
        ({"if_not_exists": "x"}, "if_not_exists"),
        ({"stream_mode": "lifecycle"}, "stream_mode"),
        ({"stream_mode": ["values", "tools"]}, "stream_mode"),
        ({"checkpoint_id": "c"}, "checkpoint_id"),
        ({"metadata": [1]}, "metadata"),
        ({"config": "x"}, "config"),
        ({"command": 1}, "command"),
        ({"interrupt_before": 1}, "interrupt_before"),
        ({"after_seconds": "soon"}, "after_seconds"),
        ({"langsmith_tracer": {"example_id": "e"}}, "example_id"),
    ],
)
def test_bad_value_is_refused_by_name(
    http: httpx.Client, store: FakeStore, change: dict[str, Any], named: str
) -> None:
    """422 with a sentence; the store is not asked."""
    answer = http.post(f"{ON_THREAD}/wait", json={**BODY, **change})
    assert answer.status_code == 422
    assert list(answer.json()) == ["detail"]
    assert named in answer.json()["detail"]
    assert store.requests == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"assistant_id":"\xff"}', b"[" * 100_000])
def test_body_that_is_no_object_is_refused(http: httpx.Client, body: bytes) -> None:
    """422, as clients of agents expect for broken JSON, too."""
    for path in (f"{ON_THREAD}/wait", "/runs/stream", ON_THREAD, "/threads/search", "/assistants"):
        answer = http.post(path, content=body)
        if body or path != "/threads/search":
            assert answer.status_code == 422, path
            assert isinstance(answer.json()["detail"], str)


def test_ids_in_paths_are_uuids(http: httpx.Client) -> None:
    """422 with a sentence, where the reference has 400 or 422."""
    for method, path in (
        ("POST", "/threads/nobody/runs/wait"), ("GET", f"/threads/x/runs/{RUN_ID}"),
        ("GET", f"{ON_THREAD}/x"), ("GET", "/threads/x"), ("GET", "/assistants/steps"),
        ("POST", f"{ON_THREAD}/x/cancel"),
    ):  # fmt: skip
        answer = http.request(method, path, json=BODY if method == "POST" else None)
        assert (answer.status_code, isinstance(answer.json()["detail"], str)) == (422, True), path


@pytest.mark.parametrize(
    ("refusal", "raised", "status"),
    [
        (Refuse(ErrorReason.NOT_FOUND, "no such thread"), NotFoundError, 404),
        (Refuse(ErrorReason.CONFLICT, "a run is in flight"), ConflictError, 409),
        (Refuse(ErrorReason.INVALID_ARGUMENT, "loopback", field="webhook"), UnprocessableEntityError, 422),
    ],
)
def test_refusals_are_the_sdks_exceptions(
    client: SyncLangGraphClient, store: FakeStore, refusal: Refuse, raised: type[Exception], status: int
) -> None:
    """`create` and `stream` raise by status; `wait` raises httpx's error with the body as a note."""
    store.answers["CreateAgentRun"] = refusal
    with pytest.raises(raised, match=refusal.message):
        client.runs.create(THREAD_ID, "steps")
    with pytest.raises(raised, match=refusal.message):
        list(client.runs.stream(THREAD_ID, "steps"))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        client.runs.wait(THREAD_ID, "steps")
    assert caught.value.response.status_code == status
    assert refusal.message in "".join(caught.value.__notes__)


def test_run_is_not_created_twice(http: httpx.Client, store: FakeStore) -> None:
    """A store that breaks off while it creates is not asked again: nobody knows what it has done."""
    store.answers["CreateAgentRun"] = AWAY
    answer = http.post(ON_THREAD, json=BODY)
    assert (answer.status_code, len(store.of("CreateAgentRun"))) == (503, 1)


# -- where LangSmith's SDK posts, too --------------------------------------------------------------------


def test_post_runs_is_told_apart(http: httpx.Client, store: FakeStore) -> None:
    """An object with `assistant_id` is a run of a graph, everything else is a traced run."""
    traced = {"id": RUN_ID, "name": "n", "run_type": "llm", "inputs": {"assistant_id": "steps"}}
    assert http.post("/runs", json=traced).status_code == 202
    assert len(store.of("WriteRuns")) == 1
    created = http.post("/runs", json=BODY)
    assert (created.status_code, created.json()["run_id"]) == (200, RUN_ID)
    assert created.headers["content-location"] == RUN_PATH
    assert store.of("CreateAgentRun")[0].thread_id == ""
    refused = http.post("/runs", json={**BODY, "durability": "x"})
    assert (refused.status_code, list(refused.json())) == (422, ["detail"])
    assert http.post("/runs", json={"durability": "x"}).json().keys() == {"error"}


def test_post_batch_is_told_apart(client: SyncLangGraphClient, http: httpx.Client, store: FakeStore) -> None:
    """An array is runs of graphs, an object is traced runs."""
    made = client.runs.create_batch([{"assistant_id": "a", "input": {}}, {"assistant_id": "b"}])  # type: ignore[typeddict-item]
    assert [run["run_id"] for run in made] == [RUN_ID, RUN_ID]
    [request] = store.of("CreateAgentRuns")
    assert [each.assistant_id for each in request.requests] == ["a", "b"]
    assert http.post("/runs/batch", json={"post": []}).status_code == 202
    assert http.post("/runs/batch", json=[{"assistant_id": 1}]).status_code == 422


# -- waiting -------------------------------------------------------------------------------------------


def test_headers_come_before_the_result(
    quick_heartbeat: None, http: httpx.Client, store: FakeStore, loop: BackgroundLoop
) -> None:
    """`Location` and `Content-Location` at once, line breaks meanwhile, JSON at last."""
    waiting = Waiting(loop)
    store.answers["JoinAgentRun"] = waiting
    with http.stream("POST", f"{ON_THREAD}/wait", json=BODY) as answer:
        assert answer.status_code == 200
        assert answer.headers["location"] == f"{RUN_PATH}/join"
        assert answer.headers["content-location"] == RUN_PATH
        assert answer.headers["content-type"] == "application/json"
        assert "content-length" not in answer.headers
        body = answer.iter_raw()
        assert next(body) + next(body) == b"\n\n"
        waiting.finish()
        assert json.loads(b"".join(body)) == {"n": 1}
    [joining] = store.of("JoinAgentRun")
    assert joining == pb.JoinAgentRunRequest(thread_id=THREAD_ID, run_id=RUN_ID, end_only=True)


def test_wait_tells_of_the_run_and_gives_its_result(client: SyncLangGraphClient, store: FakeStore) -> None:
    """`on_run_created` is called once with both ids; the result is the store's, byte for byte."""
    store.answers["JoinAgentRun"] = script(end(b'{"log":["a"],"big":1e2}'))
    told: list[Any] = []
    result = client.runs.wait(None, "steps", input={}, on_run_created=told.append)
    assert result == {"log": ["a"], "big": 100.0}
    assert told == [{"run_id": RUN_ID, "thread_id": THREAD_ID}]


def test_error_of_the_graph_is_raised_by_the_sdk(client: SyncLangGraphClient, store: FakeStore) -> None:
    """HTTP 200 with `__error__`, which `raise_error=False` returns."""
    error = {"__error__": {"error": "ValueError", "message": "boom"}}
    store.answers["JoinAgentRun"] = script(end(json.dumps(error).encode()))
    with pytest.raises(Exception, match="ValueError: boom"):
        client.runs.wait(THREAD_ID, "steps")
    assert client.runs.wait(THREAD_ID, "steps", raise_error=False) == error


def test_wait_outlives_the_store(client: SyncLangGraphClient, store: FakeStore) -> None:
    """The gateway joins again, more often than its patience would last."""
    store.answers["JoinAgentRun"] = scripts(script(AWAY), script(), script(AWAY), script(end(b"42")))
    result: Any = client.runs.wait(THREAD_ID, "steps")
    assert result == 42
    assert len(store.of("JoinAgentRun")) == 4
    assert len(store.of("CreateAgentRun")) == 1


def test_refusal_after_the_headers_is_an_error_of_the_run(
    client: SyncLangGraphClient, store: FakeStore
) -> None:
    """The status is sent already."""
    store.answers["JoinAgentRun"] = script(Refuse(ErrorReason.NOT_FOUND, "no such run"))
    answer = client.runs.wait(THREAD_ID, "steps", raise_error=False)
    assert answer == {"__error__": {"error": "NotFoundError", "message": "no such run"}}


@pytest.mark.parametrize("path", [f"{ON_THREAD}/wait", "/runs/wait", f"{ON_THREAD}/stream", "/runs/stream"])
@pytest.mark.parametrize("wish", ["cancel", "continue", None])
def test_client_that_leaves(
    http: httpx.Client, store: FakeStore, loop: BackgroundLoop, path: str, wish: str | None
) -> None:
    """Its run is cancelled if that was its wish; in any case the store is no longer joined."""
    cancelled = threading.Event()

    def on_cancel(_: Any) -> pb.CancelAgentRunResponse:
        cancelled.set()
        return pb.CancelAgentRunResponse()

    waiting = Waiting(loop)
    store.answers |= {"JoinAgentRun": waiting, "CancelAgentRun": on_cancel}
    with http.stream("POST", path, json={**BODY, "on_disconnect": wish}):
        assert waiting.has_begun.wait(LONGEST_WAIT_S)
    assert waiting.was_left.wait(LONGEST_WAIT_S)
    if wish == "cancel":
        assert cancelled.wait(LONGEST_WAIT_S)
        [request] = store.of("CancelAgentRun")
        assert (request.run_id, request.action) == (RUN_ID, runs.CANCEL_ACTION_INTERRUPT)
        assert "left" in request.reason
    else:
        assert http.get("/ok").status_code == 200  # A round trip later, still nothing.
        assert store.of("CancelAgentRun") == []


@pytest.mark.parametrize("path", ["join", "stream"])
def test_join_may_cancel_when_its_client_leaves(
    http: httpx.Client, store: FakeStore, loop: BackgroundLoop, path: str
) -> None:
    """`cancel_on_disconnect` is the join's own."""
    cancelled = threading.Event()
    waiting = Waiting(loop)
    store.answers |= {"JoinAgentRun": waiting, "CancelAgentRun": lambda _: cancelled.set()}
    with http.stream("GET", f"{RUN_PATH}/{path}", params={"cancel_on_disconnect": "true"}):
        assert waiting.has_begun.wait(LONGEST_WAIT_S)
    assert cancelled.wait(LONGEST_WAIT_S)


def test_stop_cuts_waits_off(
    loop: BackgroundLoop, store: FakeStore, store_and_target: tuple[FakeStore, str]
) -> None:
    """A gateway that stops waits for no run; its clients notice, and go elsewhere; nothing is cancelled."""
    gateway, spare = (RunningGateway(loop, store_and_target[1]) for _ in range(2))
    waiting = Waiting(loop)
    store.answers["JoinAgentRun"] = waiting
    errors: list[Exception] = []

    def wait() -> None:
        try:
            httpx.post(f"{gateway.url}{ON_THREAD}/wait", json={**BODY, "on_disconnect": "cancel"}, timeout=20)
        except httpx.HTTPError as error:
            errors.append(error)

    caller = threading.Thread(target=wait)
    caller.start()
    assert waiting.has_begun.wait(LONGEST_WAIT_S)
    gateway.stop()
    caller.join(LONGEST_WAIT_S)
    assert isinstance(errors[0], httpx.RemoteProtocolError | httpx.ReadError)
    assert store.of("CancelAgentRun") == []
    waiting.finish()
    assert httpx.get(f"{spare.url}{RUN_PATH}/join", timeout=20).json() == {"n": 1}
    spare.stop()


# -- joining -------------------------------------------------------------------------------------------


def test_join_asks_for_what_the_thread_holds(client: SyncLangGraphClient, store: FakeStore) -> None:
    """A run that has ended answers with its thread's present values, as the contract has it."""
    store.answers["JoinAgentRun"] = script(end(b'{"now":1}'))
    assert client.runs.join(THREAD_ID, RUN_ID) == {"now": 1}
    [joining] = store.of("JoinAgentRun")
    assert (joining.latest_of_thread, joining.end_only) == (True, True)


def test_join_of_an_unknown_run_is_404(client: SyncLangGraphClient, store: FakeStore) -> None:
    """Before any header is sent."""
    missing = Refuse(ErrorReason.NOT_FOUND, "no such run")
    store.answers |= {"GetAgentRun": missing, "JoinAgentRun": script(missing)}
    with pytest.raises(httpx.HTTPStatusError) as caught:
        client.runs.join(THREAD_ID, RUN_ID)
    assert caught.value.response.status_code == 404
    with pytest.raises(NotFoundError):
        list(client.runs.join_stream(THREAD_ID, RUN_ID))


def test_join_of_a_stateless_run_after_its_end(client: SyncLangGraphClient, store: FakeStore) -> None:
    """The run is gone with its thread, and its result is still there."""
    store.answers["GetAgentRun"] = Refuse(ErrorReason.NOT_FOUND, "no such run")
    store.answers["JoinAgentRun"] = script(end(b'{"n":1}'))
    assert client.runs.join(THREAD_ID, RUN_ID) == {"n": 1}


@pytest.mark.filterwarnings("ignore:Request failed, attempting reconnect")
def test_wait_that_is_cut_off_is_taken_up_by_the_sdk(
    loop: BackgroundLoop, store: FakeStore, store_and_target: tuple[FakeStore, str]
) -> None:
    """It follows `Location`, and `on_run_created` is not called again."""
    first = RunningGateway(loop, store_and_target[1])
    waiting = Waiting(loop)
    store.answers["JoinAgentRun"] = waiting
    told: list[Any] = []
    results: list[Any] = []

    def wait() -> None:
        with get_sync_client(url=first.url, api_key=None) as client:
            results.append(client.runs.wait(THREAD_ID, "steps", on_run_created=told.append))

    caller = threading.Thread(target=wait)
    caller.start()
    assert waiting.has_begun.wait(LONGEST_WAIT_S)
    port = first.port
    first.stop()
    second = RunningGateway(loop, store_and_target[1], port=port)
    waiting.finish()
    caller.join(LONGEST_WAIT_S)
    second.stop()
    assert (results, len(told)) == ([{"n": 1}], 1)


# -- streaming -----------------------------------------------------------------------------------------


def test_frames_are_those_of_the_contract(http: httpx.Client, store: FakeStore) -> None:
    """Event, data, an id only of a resumable run; subgraphs by their path; `end` at last."""
    store.answers["JoinAgentRun"] = script(
        event(1, "metadata", b'{"run_id":"r"}'),
        event(2, "updates", b'{"a":\n1}', "sub:1", "x\ny:2"),
        end(),
    )
    answer = http.post(f"{ON_THREAD}/stream", json={**BODY, "stream_resumable": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["location"] == f"{RUN_PATH}/stream"
    assert answer.headers["content-location"] == RUN_PATH
    assert answer.content == (
        b'event: metadata\r\ndata: {"run_id":"r"}\r\nid: 1000-1\r\n\r\n'
        b'event: updates|sub:1|x y:2\r\ndata: {"a": 1}\r\nid: 1000-2\r\n\r\n'
        b"event: end\r\ndata: null\r\n\r\n"
    )
    assert b"id: " not in http.post(f"{ON_THREAD}/stream", json=BODY).content
    assert store.of("JoinAgentRun")[0].after_event_id == "0"


def test_failing_run_ends_with_one_error(client: SyncLangGraphClient, store: FakeStore) -> None:
    """Whether or not the run itself has said so before."""
    failed = end(b"{}", runs.AGENT_RUN_STATUS_ERROR, ("ValueError", "boom"))
    error = {"error": "ValueError", "message": "boom"}
    store.answers["JoinAgentRun"] = script(event(1, "values", b"{}"), failed)
    said = event(1, "error", json.dumps(error).encode())
    for steps in ((event(0, "values", b"{}"), failed), (event(0, "values", b"{}"), said, failed)):
        store.answers["JoinAgentRun"] = script(*steps)
        parts = list(client.runs.stream(THREAD_ID, "steps"))
        assert [(part.event, part.data) for part in parts] == [("values", {}), ("error", error)]


def test_cancelled_run_ends_without_an_error(client: SyncLangGraphClient, store: FakeStore) -> None:
    """Cancelling is no failure; the second version of parts hides `end`."""
    cancelled = end(b"{}", runs.AGENT_RUN_STATUS_INTERRUPTED, ("UserInterrupt", "why"))
    store.answers["JoinAgentRun"] = script(event(1, "values", b'{"n":1}'), cancelled)
    assert [part.event for part in client.runs.stream(THREAD_ID, "steps")] == ["values", "end"]
    assert [part["type"] for part in client.runs.stream(THREAD_ID, "steps", version="v2")] == ["values"]


def test_stream_goes_on_where_the_store_broke_off(client: SyncLangGraphClient, store: FakeStore) -> None:
    """Nothing twice, nothing lost: it joins again behind the last event."""
    store.answers["JoinAgentRun"] = scripts(
        script(event(1, "values", b"1"), event(2, "values", b"2"), AWAY),
        script(event(3, "values", b"3"), end()),
    )
    data: list[Any] = [part.data for part in client.runs.stream(THREAD_ID, "steps")]
    assert data == [1, 2, 3, None]
    assert [joining.after_event_id for joining in store.of("JoinAgentRun")] == ["0", "1000-2"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_stream_that_is_cut_off_is_taken_up_by_the_sdk(
    loop: BackgroundLoop, store: FakeStore, store_and_target: tuple[FakeStore, str]
) -> None:
    """It asks for what came after the last event that it has: nothing twice, nothing lost."""
    first = RunningGateway(loop, store_and_target[1])
    waiting = Waiting(loop)

    async def two_events(request: Any) -> AsyncIterator[Any]:
        yield event(1, "values", b"1")
        yield event(2, "values", b"2")
        async for step in waiting(request):
            yield step

    store.answers["JoinAgentRun"] = scripts(two_events, script(event(3, "values", b"3"), end()))
    parts: list[Any] = []

    def follow() -> None:
        with get_sync_client(url=first.url, api_key=None) as client:
            stream = client.runs.stream(THREAD_ID, "steps", stream_resumable=True)
            parts.extend(part.data for part in stream)

    caller = threading.Thread(target=follow)
    caller.start()
    until(lambda: len(parts) == 2, "both events, which the store may have sent before the client has them")
    first.stop()
    second = RunningGateway(loop, store_and_target[1], port=first.port)
    caller.join(LONGEST_WAIT_S)
    second.stop()
    assert parts == [1, 2, 3, None]
    assert [joining.after_event_id for joining in store.of("JoinAgentRun")] == ["0", "1000-2"]


def test_quiet_stream_shows_that_it_lives(
    quick_heartbeat: None, http: httpx.Client, store: FakeStore, loop: BackgroundLoop
) -> None:
    """Comments, which clients pass over."""
    waiting = Waiting(loop)
    store.answers["JoinAgentRun"] = waiting
    with http.stream("POST", "/runs/stream", json=BODY) as answer:
        body = answer.iter_raw()
        assert next(body) == b": heartbeat\r\n\r\n"
        waiting.finish()
        assert b"".join(body).endswith(b"event: end\r\ndata: null\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "position"),
    [("1000-7", "1000-7"), ("0", "0"), ("-", "0"), ("garbage", None), (None, None), ("1-2-3", None)],
)
def test_last_event_id_is_a_position(
    client: SyncLangGraphClient, store: FakeStore, sent: str | None, position: str | None
) -> None:
    """`0` and `-` are before the first; what is no position is none."""
    store.answers["JoinAgentRun"] = script(end())
    list(client.runs.join_stream(THREAD_ID, RUN_ID, last_event_id=sent))
    [joining] = store.of("JoinAgentRun")
    assert (joining.after_event_id if joining.HasField("after_event_id") else None) == position


@pytest.mark.parametrize(
    ("query", "modes"),
    [
        ([], []),
        ([("stream_mode", "")], []),
        ([("stream_mode", "values")], ["values"]),
        ([("stream_mode", "values"), ("stream_mode", "updates")], ["values", "updates"]),
        ([("stream_mode", '["values", "custom"]')], ["values", "custom"]),
    ],
)
def test_modes_filter_a_join(http: httpx.Client, store: FakeStore, query: Any, modes: list[str]) -> None:
    """Every one of a list, where the reference reads the last alone."""
    store.answers["JoinAgentRun"] = script(end())
    assert http.get(f"{RUN_PATH}/stream", params=query).status_code == 200
    assert list(store.of("JoinAgentRun")[0].modes) == modes
    for wrong in ("lifecycle", "[", "[1]"):
        assert http.get(f"{RUN_PATH}/stream", params={"stream_mode": wrong}).status_code == 422


# -- the rest ------------------------------------------------------------------------------------------


def test_list_and_its_select(client: SyncLangGraphClient, http: httpx.Client, store: FakeStore) -> None:
    """Only the keys asked for; unknown ones are refused."""
    listed: Any = client.runs.list(
        THREAD_ID, limit=2, offset=1, status="success", select=["run_id", "status"]
    )
    assert listed == [{"run_id": RUN_ID, "status": "pending"}]
    assert store.of("ListAgentRuns") == [
        pb.ListAgentRunsRequest(
            thread_id=THREAD_ID, status=runs.AGENT_RUN_STATUS_SUCCESS, offset=1, page_size=2
        )
    ]
    for query in ({"select": "x"}, {"status": "x"}, {"limit": "0"}, {"limit": "1001"}, {"offset": "-1"}):
        assert http.get(ON_THREAD, params=query).status_code == 422


def test_cancel(client: SyncLangGraphClient, http: httpx.Client, store: FakeStore) -> None:
    """202 without content at once, or `{}` once the run has stopped."""
    store.answers["JoinAgentRun"] = script(end(b'{"log":[]}'))
    answer = http.post(f"{RUN_PATH}/cancel")
    assert (answer.status_code, answer.content) == (202, b"")
    answer = http.post(f"{RUN_PATH}/cancel", params={"wait": "1", "action": "rollback"})
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["location"] == f"{RUN_PATH}/join"
    client.runs.cancel(THREAD_ID, RUN_ID, wait=True, action="rollback")
    assert [request.action for request in store.of("CancelAgentRun")] == [1, 2, 2]
    store.answers["CancelAgentRun"] = Refuse(ErrorReason.NOT_FOUND, "not in flight")
    with pytest.raises(NotFoundError):
        client.runs.cancel(THREAD_ID, RUN_ID)


def test_cancel_many(client: SyncLangGraphClient, http: httpx.Client, store: FakeStore) -> None:
    """By status, or by thread and ids; both or neither is refused."""
    client.runs.cancel_many(status="all", action="rollback")
    client.runs.cancel_many(thread_id=THREAD_ID, run_ids=[RUN_ID])
    assert store.of("CancelAgentRuns") == [
        pb.CancelAgentRunsRequest(all_in_flight=True, action=runs.CANCEL_ACTION_ROLLBACK),
        pb.CancelAgentRunsRequest(thread_id=THREAD_ID, run_ids=[RUN_ID], action=runs.CANCEL_ACTION_INTERRUPT),
    ]
    both = {"status": "all", "thread_id": THREAD_ID, "run_ids": [RUN_ID]}
    for body in ({}, both, {"thread_id": THREAD_ID}, {"run_ids": [RUN_ID]}, {"status": "error"}):
        assert http.post("/runs/cancel", json=body).status_code == 422


def test_delete_and_get(client: SyncLangGraphClient, store: FakeStore) -> None:
    """By thread and run."""
    client.runs.delete(THREAD_ID, RUN_ID)
    assert client.runs.get(THREAD_ID, RUN_ID)["run_id"] == RUN_ID
    assert store.of("DeleteAgentRun") == [pb.DeleteAgentRunRequest(thread_id=THREAD_ID, run_id=RUN_ID)]
