"""Traces of the newest Python SDK, as an application makes them, read back with the same SDK."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from langsmith import Client, traceable, tracing_context
from langsmith.run_helpers import get_current_run_tree
from langsmith.run_trees import RunTree
from langsmith.schemas import Attachment, Run
from langsmith.uuid import uuid7
from tests.waiting import until

from .reading import address_of, files_of
from .servers import Server
from .test_metrics import exposition
from .wire import CONTENT_TYPE, dotted_order, multipart, part, run_json

PNG = bytes(range(256)) * 8


@traceable(run_type="tool", name="look up")
def look_up(word: str) -> str:
    if word == "unknown":
        raise LookupError("no such word: ünknown ☃")
    return word.upper()


@traceable(run_type="llm", name="think", tags=["model"], metadata={"temperature": 0})
def think(word: str) -> str:
    return look_up(word)


@traceable(run_type="chain", name="answer", tags=["app", "test"], metadata={"user": "ann"})
def answer(words: list[str]) -> list[str]:
    found = []
    for word in words:
        try:
            found.append(think(word))
        except LookupError:
            found.append("?")
    return found


@traceable(run_type="tool", name="look up")
async def look_up_async(word: str) -> str:
    await asyncio.sleep(0)
    if word == "unknown":
        raise LookupError("no such word: ünknown ☃")
    return word.upper()


@traceable(run_type="llm", name="think", tags=["model"], metadata={"temperature": 0})
async def think_async(word: str) -> str:
    return await look_up_async(word)


@traceable(run_type="chain", name="answer", tags=["app", "test"], metadata={"user": "ann"})
async def answer_async(words: list[str]) -> list[str]:
    results = await asyncio.gather(*map(think_async, words), return_exceptions=True)
    return ["?" if isinstance(result, LookupError) else str(result) for result in results]


def runs_of(client: Client, project: str) -> list[Run]:
    """All runs of a project once everything has been sent, oldest first."""
    client.flush()
    return sorted(client.list_runs(project_name=project), key=lambda run: run.dotted_order or "")


def only_run(client: Client, project: str) -> Run:
    [run] = runs_of(client, project)
    return run


def check_tree(runs: list[Run]) -> None:
    """What the trees of `answer` and `answer_async` look like for a known and an unknown word."""
    by_name: dict[str, list[Run]] = {"answer": [], "think": [], "look up": []}
    for run in runs:
        by_name[run.name].append(run)
    [root], thoughts, lookups = by_name["answer"], by_name["think"], by_name["look up"]
    assert len(runs) == 5
    assert root.run_type == "chain"
    assert root.status == "success"
    assert root.inputs == {"words": ["known", "unknown"]}
    assert root.outputs == {"output": ["KNOWN", "?"]}
    assert root.tags == ["app", "test"]
    assert root.metadata["user"] == "ann"
    assert root.parent_run_id is None
    assert not root.parent_run_ids
    assert {run.trace_id for run in runs} == {root.id}
    assert len({run.session_id for run in runs}) == 1
    assert [run.parent_run_id for run in thoughts] == [root.id, root.id]
    # Tags and metadata are inherited: the SDK sends them so.
    assert [set(run.tags or ()) for run in thoughts] == [{"app", "test", "model"}] * 2
    assert {run.metadata["temperature"] for run in thoughts} == {0}
    assert {run.parent_run_id for run in lookups} == {run.id for run in thoughts}
    for run in lookups:
        assert run.parent_run_ids == [root.id, run.parent_run_id]
        assert run.dotted_order.startswith(root.dotted_order + ".")
        assert run.end_time is not None
        assert run.start_time <= run.end_time
    good, bad = sorted(lookups, key=lambda run: run.error is not None)
    assert (good.status, good.error, good.outputs) == ("success", None, {"output": "KNOWN"})
    assert bad.status == "error"
    assert bad.error is not None
    assert "no such word: ünknown ☃" in bad.error
    assert not any((bad.outputs or {}).values())


def test_traceable_tree_arrives_whole(client: Client, project: str) -> None:
    """Three levels, one leaf of which fails: names, types, parents, payloads, tags, metadata, error."""
    with tracing_context(enabled=True, client=client, project_name=project):
        assert answer(["known", "unknown"]) == ["KNOWN", "?"]
    check_tree(runs_of(client, project))


async def test_async_traceable_tree_arrives_whole(client: Client, project: str) -> None:
    """The same tree, grown concurrently by coroutines."""
    with tracing_context(enabled=True, client=client, project_name=project):
        assert await answer_async(["known", "unknown"]) == ["KNOWN", "?"]
    check_tree(runs_of(client, project))


def test_plain_multipart_carries_the_same_tree(
    server: Server, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without compression the SDK sends its parts plainly; nothing else differs."""
    monkeypatch.setenv("LANGSMITH_DISABLE_RUN_COMPRESSION", "true")
    client = Client(server.url, api_key="any")
    assert client.compressed_traces is None
    with tracing_context(enabled=True, client=client, project_name=project):
        answer(["known", "unknown"])
    check_tree(runs_of(client, project))
    client.close()


def test_batch_endpoint_carries_the_same_tree(server: Server, project: str) -> None:
    """An SDK that is told not to use multipart sends `/runs/batch`; nothing else differs."""
    info = httpx.get(f"{server.url}/info").json()
    info["batch_ingest_config"]["use_multipart_endpoint"] = False
    info["instance_flags"]["zstd_compression_enabled"] = False
    client = Client(server.url, api_key="any", info=info)
    with tracing_context(enabled=True, client=client, project_name=project):
        answer(["known", "unknown"])
    check_tree(runs_of(client, project))
    client.close()
    assert 'route="/runs/batch",status="202"' in exposition(server.url)


def test_child_runs_are_loaded_as_a_tree(client: Client, project: str) -> None:
    """`read_run(load_child_runs=True)` nests children under their parents."""
    with tracing_context(enabled=True, client=client, project_name=project):
        answer(["known"])
    [root, *_] = runs_of(client, project)
    loaded = client.read_run(root.id, load_child_runs=True)
    assert loaded.child_runs is not None
    [thought] = loaded.child_runs
    assert thought.child_runs is not None
    assert [thought.name, thought.child_runs[0].name] == ["think", "look up"]


def check_stream(run: Run) -> None:
    """What the runs of the two generators below look like."""
    assert run.outputs == {"output": ["a", "b", "c"]}
    assert run.events is not None
    tokens = [event for event in run.events if event["name"] == "new_token"]
    assert tokens
    assert run.first_token_time is not None
    # Only for start and end does the SDK read a time without an offset as UTC.
    first_token_time = run.first_token_time.replace(tzinfo=UTC)
    assert first_token_time == datetime.fromisoformat(str(tokens[0]["time"]))
    assert run.end_time is not None
    assert run.start_time <= first_token_time <= run.end_time


def test_streamed_tokens_are_kept_as_events(client: Client, project: str) -> None:
    """A generator's tokens come back as events; the first one gives `first_token_time`."""

    @traceable(run_type="llm")
    def stream() -> Iterator[str]:
        yield from "abc"

    with tracing_context(enabled=True, client=client, project_name=project):
        assert "".join(stream()) == "abc"
    check_stream(only_run(client, project))


async def test_async_streamed_tokens_are_kept_as_events(client: Client, project: str) -> None:
    """The same of an asynchronous generator."""

    @traceable(run_type="llm")
    async def stream() -> AsyncIterator[str]:
        for token in "abc":
            yield token

    with tracing_context(enabled=True, client=client, project_name=project):
        assert [token async for token in stream()] == ["a", "b", "c"]
    check_stream(only_run(client, project))


def test_running_run_is_pending_until_it_ends(client: Client, project: str) -> None:
    """A posted run is listed as pending without an end; its patch completes it."""
    run = RunTree(name="job", run_type="chain", inputs={"a": 1}, ls_client=client, project_name=project)
    run.post()
    pending = only_run(client, project)
    assert (pending.status, pending.end_time, pending.outputs) == ("pending", None, None)
    run.end(outputs={"b": 2})
    run.patch()
    done = only_run(client, project)
    assert (done.status, done.inputs, done.outputs) == ("success", {"a": 1}, {"b": 2})
    assert done.end_time is not None


def test_run_tree_by_hand_keeps_everything(client: Client, project: str) -> None:
    """A `RunTree` built by hand: children, times to the microsecond, tags, metadata, extra, events."""
    started = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    root = RunTree(
        name="pipeline",
        run_type="chain",
        inputs={"question": "?"},
        start_time=started,
        tags=["one"],
        extra={"metadata": {"session": 7, "nested": {"deep": [1, None]}}, "own": {"key": True}},
        ls_client=client,
        project_name=project,
    )
    child = root.create_child("step", "retriever", inputs={"query": "x"}, start_time=started)
    grandchild = child.create_child("parse", "parser", inputs={}, start_time=started + timedelta(seconds=1))
    grandchild.add_event({"name": "note", "time": started.isoformat(), "kwargs": {"a": 1}})
    grandchild.add_tags(["late"])
    grandchild.add_metadata({"later": "yes"})
    for run in (grandchild, child, root):
        run.end(outputs={"of": run.name}, end_time=started + timedelta(seconds=2, microseconds=1))
    for run in (root, child, grandchild):
        run.post()
    first, second, third = runs_of(client, project)
    assert [first.name, second.name, third.name] == ["pipeline", "step", "parse"]
    assert [first.run_type, second.run_type, third.run_type] == ["chain", "retriever", "parser"]
    assert first.start_time == started
    assert first.end_time == started + timedelta(seconds=2, microseconds=1)
    assert first.latency == 2.000001
    assert first.tags == ["one"]
    assert first.extra is not None
    assert first.extra["own"] == {"key": True}
    assert first.metadata["session"] == 7
    assert first.metadata["nested"] == {"deep": [1, None]}
    assert third.tags == ["late"]
    assert third.metadata["later"] == "yes"
    assert third.events == [{"name": "note", "time": started.isoformat(), "kwargs": {"a": 1}}]
    assert third.parent_run_ids == [root.id, child.id]
    assert third.dotted_order == grandchild.dotted_order


def test_attachments_come_back_byte_for_byte(client: Client, project: str, tmp_path: Path) -> None:
    """Files sent with a run are read back, with their types, by `read_run` and by `list_runs`."""
    (tmp_path / "notes.txt").write_bytes(b"line\r\n--boundary?\r\n")

    @traceable(run_type="chain", dangerously_allow_filesystem=True)
    def describe(picture: Attachment, empty: Attachment, notes: Attachment) -> str:
        return "seen"

    with tracing_context(enabled=True, client=client, project_name=project):
        describe(
            Attachment(mime_type="image/png", data=PNG),
            Attachment(mime_type="application/x-empty", data=b""),
            Attachment(mime_type="text/plain", data=tmp_path / "notes.txt"),
        )
    listed = only_run(client, project)
    expected = {
        "picture": ("image/png", PNG),
        "empty": ("application/x-empty", b""),
        "notes": ("text/plain", b"line\r\n--boundary?\r\n"),
    }
    for run in (listed, client.read_run(listed.id)):
        assert files_of(run) == expected


def test_address_of_an_attachment_needs_no_key_and_cannot_be_guessed(client: Client, project: str) -> None:
    """The presigned address is read without credentials; with one character changed it is refused."""
    run_id = uuid7()
    client.create_run(
        "file",
        {},
        "tool",
        id=run_id,
        trace_id=run_id,
        dotted_order=dotted_order(run_id),
        attachments={"data": ("application/octet-stream", b"secret")},
        project_name=project,
    )
    run = only_run(client, project)
    url = address_of(run, "data")
    assert httpx.get(url).content == b"secret"
    changed = url[:-1] + ("A" if url[-1] != "A" else "B")
    refused = httpx.get(changed)
    assert refused.status_code in (403, 404)
    assert b"secret" not in refused.content


def test_run_without_start_time_takes_it_from_its_position(client: Client, project: str) -> None:
    """A multipart run without `start_time` started when its `dotted_order` says."""
    run_id, at = uuid4(), datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
    sent = run_json(run_id, project, dotted_order=dotted_order(run_id, at=at))
    answer = httpx.post(
        f"{client.api_url}/runs/multipart",
        content=multipart([part(f"post.{run_id}", sent)]),
        headers={"content-type": CONTENT_TYPE},
    )
    assert answer.status_code == 202
    assert only_run(client, project).start_time == at


def test_update_before_create_and_both_in_one_body_give_one_run(client: Client, project: str) -> None:
    """Whatever order `post` and `patch` arrive in, together or apart, one run has all fields."""
    for together in (False, True):
        run_id = uuid4()
        place = {"id": run_id, "trace_id": run_id, "dotted_order": dotted_order(run_id)}
        create = {**place, "name": "n", "run_type": "llm", "inputs": {"i": 1}, "session_name": project}
        update = {**place, "outputs": {"o": 2}, "end_time": datetime.now(UTC).isoformat()}
        if together:
            client.multipart_ingest(create=[create], update=[update])
        else:
            client.multipart_ingest(update=[update])
            client.multipart_ingest(create=[create])
            client.multipart_ingest(create=[create], update=[update])
        run = client.read_run(run_id)
        assert (run.name, run.inputs, run.outputs, run.status) == ("n", {"i": 1}, {"o": 2}, "success")
        assert len(list(client.list_runs(project_name=project, run_ids=[run_id]))) == 1
    assert len(runs_of(client, project)) == 2


def test_placeholders_of_a_create_do_not_erase_what_came_before(client: Client, project: str) -> None:
    """`RunTree.post` sends `outputs: {}` and `events: []`; sent after the patch, they erase nothing.

    The SDK's threads send the two bodies at the same time, so this order is an everyday one.
    """
    run_id = uuid4()
    place = {"id": str(run_id), "trace_id": str(run_id), "dotted_order": dotted_order(run_id)}
    events = [{"name": "new_token", "time": "2026-01-01T00:00:00+00:00"}]
    patch = {**place, "outputs": {"o": 1}, "events": events, "end_time": datetime.now(UTC).isoformat()}
    post = {**place, "name": "n", "run_type": "llm", "session_name": project, "outputs": {}, "events": []}
    for body in ({"patch": [patch]}, {"post": [post]}):
        assert httpx.post(f"{client.api_url}/runs/batch", json=body).status_code == 202
    run = only_run(client, project)
    assert run.outputs == {"o": 1}
    assert run.events is not None
    assert [event["name"] for event in run.events] == ["new_token"]


def test_wrong_run_type_is_logged_once_and_not_retried(
    client: Client, server: Server, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK complains exactly once of a run of an unknown type, sends it once, and its neighbour stays."""
    bad, good = uuid4(), uuid4()
    before = requests_to(server, "/runs/multipart")
    with caplog.at_level(logging.WARNING, logger="langsmith"):
        client.multipart_ingest(
            create=[
                {
                    "id": bad,
                    "trace_id": bad,
                    "dotted_order": dotted_order(bad),
                    "name": "bad",
                    "run_type": "agent",
                    "session_name": project,
                },
                {
                    "id": good,
                    "trace_id": good,
                    "dotted_order": dotted_order(good),
                    "name": "good",
                    "run_type": "llm",
                    "session_name": project,
                },
            ]
        )
        client.flush()
    # Clients that other tests have left may say goodbye meanwhile.
    [record] = [each for each in caplog.records if each.name.startswith("langsmith")]
    assert "run_type" in record.getMessage()
    until(lambda: requests_to(server, "/runs/multipart") > before, "the call is logged, after its answer")
    assert requests_to(server, "/runs/multipart") == before + 1
    assert only_run(client, project).name == "good"


def requests_to(server: Server, route: str) -> int:
    """How often a route was called so far."""
    return sum(line.get("route") == route for line in server.log())


def test_every_code_point_survives(client: Client, project: str) -> None:
    """One run with every Unicode code point, the null character included, comes back as it was sent."""
    text = "".join(map(chr, range(0x110000)))
    sent = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    run_id = uuid4()
    client.create_run("everything", {"text": sent}, "llm", id=run_id, project_name=project)
    client.flush()
    stored = client.read_run(run_id).inputs["text"]
    assert stored == sent


def test_lone_surrogates_are_accepted(client: Client, project: str) -> None:
    """Half a surrogate pair, which no encoding can carry, costs the run nothing but that character."""
    text = "".join(map(chr, range(0xD7F0, 0xE010)))
    run_id = uuid4()
    client.create_run("halves", {"text": text, "after": "kept"}, "llm", id=run_id, project_name=project)
    client.flush()
    run = client.read_run(run_id)
    assert run.inputs["after"] == "kept"
    assert run.inputs["text"].startswith("".join(map(chr, range(0xD7F0, 0xD800))))


def test_hex_ids_without_dashes_are_ids(client: Client, project: str) -> None:
    """A run posted with `.hex` ids is the run of the dashed id."""
    run_id, child_id = uuid4(), uuid4()
    for body in (
        {"id": run_id.hex, "name": "root", "run_type": "chain", "session_name": project},
        {
            "id": child_id.hex,
            "parent_run_id": run_id.hex,
            "name": "child",
            "run_type": "tool",
            "session_name": project,
        },
    ):
        assert httpx.post(f"{client.api_url}/runs", json=body).status_code == 202
    root, child = client.read_run(run_id), client.read_run(child_id)
    assert (root.id, root.trace_id) == (run_id, run_id)
    assert (child.id, child.parent_run_id, child.trace_id) == (child_id, run_id, run_id)
    assert child.dotted_order == f"{root.dotted_order}.{child.dotted_order.split('.')[-1]}"


def test_run_without_a_project_goes_to_default(client: Client) -> None:
    """Neither `session_id` nor `session_name`: the project named `default`."""
    run_id = uuid4()
    assert (
        httpx.post(
            f"{client.api_url}/runs", json={"id": str(run_id), "name": "n", "run_type": "tool"}
        ).status_code
        == 202
    )
    assert client.read_run(run_id).session_id == client.read_project(project_name="default").id


def test_large_trace_in_many_bodies_arrives_complete(client: Client, project: str) -> None:
    """A thousand runs with payloads, sent by the background threads in many bodies: each once."""

    @traceable(run_type="tool")
    def step(number: int) -> str:
        tree = get_current_run_tree()
        assert tree is not None
        return f"{number}:" + "x" * 2_000

    @traceable(run_type="chain")
    def loop() -> None:
        for number in range(1_000):
            step(number)

    with tracing_context(enabled=True, client=client, project_name=project):
        loop()
    runs = runs_of(client, project)
    steps = [run for run in runs if run.name == "step"]
    assert [run.inputs["number"] for run in steps] == list(range(1_000))
    wrong = [
        (run.inputs["number"], run.status)
        for run in steps
        if run.outputs != {"output": f"{run.inputs['number']}:" + "x" * 2_000}
    ]
    assert wrong == []
    assert len(runs) == 1_001
