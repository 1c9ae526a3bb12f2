"""Feedback through the newest Python SDK: over its own requests, within traces, and read back."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from langsmith import AsyncClient, Client, traceable, tracing_context
from langsmith.schemas import Feedback, FeedbackSourceType
from langsmith.utils import LangSmithError, LangSmithNotFoundError

from .servers import Server
from .wire import CONTENT_TYPE, multipart, part, run_json

pytestmark = [
    pytest.mark.both_catalogs(slow=True),
    pytest.mark.filterwarnings("ignore:Creating feedback for a run without session_id"),
]


def make_run(client: Client, project: str) -> uuid.UUID:
    """A stored root run."""
    run_id = uuid.uuid4()
    client.create_run("judged", {"q": 1}, "chain", id=run_id, project_name=project)
    return run_id


def by_key(found: Any) -> dict[str, Feedback]:
    return {record.key: record for record in found}


def test_a_record_from_its_creation_to_its_end(client: Client, project: str) -> None:
    """Everything that is given is read back; an update changes what it names; a deleted record is gone."""
    run_id, source_run, feedback_id = make_run(client, project), uuid.uuid4(), uuid.uuid4()
    started = datetime.now(UTC)
    client.create_feedback(
        run_id, "correctness", score=0.25, value="fair", comment='it\'s "ok"\n☃', correction={"a": [1]},
        source_info={"judge": "me"}, feedback_source_type=FeedbackSourceType.MODEL, source_run_id=source_run,
        feedback_id=feedback_id, extra={"k": None},
    )  # fmt: skip
    record = client.read_feedback(feedback_id)
    run = client.read_run(run_id)
    assert (record.id, record.run_id, record.trace_id, record.session_id) == (
        feedback_id, run_id, run_id, run.session_id,
    )  # fmt: skip
    assert (record.key, record.score, record.value) == ("correctness", 0.25, "fair")
    assert (record.comment, record.correction, record.extra) == ('it\'s "ok"\n☃', {"a": [1]}, {"k": None})
    assert record.feedback_source is not None
    assert record.feedback_source.type == "model"
    assert record.feedback_source.metadata == {"judge": "me", "__run": {"run_id": str(source_run)}}
    assert started <= record.created_at <= datetime.now(UTC)
    client.update_feedback(feedback_id, score=True, comment="better")
    changed = client.read_feedback(feedback_id)
    assert (changed.score, changed.comment, changed.value) == (1, "better", "fair")
    assert changed.created_at == record.created_at
    assert changed.modified_at > record.modified_at
    client.update_feedback(feedback_id, value={"label": 2}, correction={"b": 2})
    changed = client.read_feedback(feedback_id)
    assert (changed.score, changed.value, changed.correction) == (1, {"label": 2}, {"b": 2})
    client.delete_feedback(feedback_id)
    for gone in (
        lambda: client.read_feedback(feedback_id),
        lambda: client.delete_feedback(feedback_id),
        lambda: client.update_feedback(feedback_id, score=1),
    ):
        with pytest.raises(LangSmithNotFoundError):
            gone()
    assert list(client.list_feedback(run_ids=[run_id])) == []


def test_scores_and_values(client: Client) -> None:
    """Each kind of score and value comes back as it was given; truth values of scores as numbers."""
    run_id = uuid.uuid4()
    values: list[Any] = ["", "label", 0, 1.5, True, {"a": {"b": []}}, None]
    given = {
        str(uuid.uuid4()): (score, value)
        for score in (None, 0, 1, -3, 0.1234, True, False)
        for value in values
    }
    for feedback_id, (score, value) in given.items():
        client.create_feedback(run_id, "k", score=score, value=value, feedback_id=feedback_id)
    found = {str(each.id): (each.score, each.value) for each in client.list_feedback(run_ids=[run_id])}
    assert found == given
    assert {key: type(value) for key, (_, value) in found.items()} == {
        key: type(value) for key, (_, value) in given.items()
    }


def test_the_same_id_replaces(client: Client, project: str) -> None:
    """A second creation of an id replaces the record as a whole, also when it is about another run."""
    first, second, feedback_id = make_run(client, project), make_run(client, project), uuid.uuid4()
    client.create_feedback(first, "a", score=1, comment="gone", feedback_id=feedback_id)
    client.create_feedback(first, "b", value="x", feedback_id=feedback_id)
    [record] = client.list_feedback(run_ids=[first])
    assert (record.key, record.score, record.value, record.comment) == ("b", None, "x", None)
    client.create_feedback(second, "c", feedback_id=feedback_id)
    [record] = client.list_feedback(run_ids=[first, second])
    assert (record.run_id, record.key) == (second, "c")
    assert client.read_feedback(feedback_id).run_id == second
    assert client.read_run(first).feedback_stats is None


def test_feedback_before_its_run(client: Client, project: str) -> None:
    """Feedback on a run that does not exist is kept, and is the run's once it comes."""
    run_id = uuid.uuid4()
    client.create_feedback(run_id, "early", score=1, stop_after_attempt=1)
    [record] = client.list_feedback(run_ids=[run_id])
    assert record.trace_id is None
    client.create_run("late", {}, "chain", id=run_id, project_name=project)
    [record] = client.list_feedback(run_ids=[run_id])
    assert record.trace_id == run_id
    stats = client.read_run(run_id).feedback_stats
    assert stats is not None
    assert stats["early"]["n"] == 1


@traceable(name="child")
def child(question: str) -> str:
    return question


@traceable(name="root")
def root(question: str) -> str:
    return child(question)


def test_feedback_within_a_traced_batch(client: Client, project: str) -> None:
    """Feedback that names its trace travels with the runs, in parts of the same bodies."""
    run_id = uuid.uuid4()
    with tracing_context(enabled=True, client=client, project_name=project):
        root("?", langsmith_extra={"run_id": run_id})
    client.create_feedback(key="on the root", trace_id=run_id, score=0.5, comment="c")
    client.create_feedback(run_id, "label", trace_id=run_id, value="good")
    client.flush()
    runs = {run.name: run for run in client.list_runs(project_name=project)}
    records = by_key(client.list_feedback(run_ids=[run_id]))
    assert {(record.run_id, record.trace_id) for record in records.values()} == {(run_id, run_id)}
    assert (records["on the root"].score, records["on the root"].comment) == (0.5, "c")
    assert runs["root"].feedback_stats == {
        "on the root": {
            "n": 1, "avg": 0.5, "min": 0.5, "max": 0.5, "stdev": None, "values": {}, "comments": ["c"],
            "errors": 0, "sources": ["api"], "contains_thread_feedback": False,
        },
        "label": {
            "n": 1, "avg": None, "min": None, "max": None, "stdev": None, "values": {"good": 1},
            "comments": [], "errors": 0, "sources": ["api"], "contains_thread_feedback": False,
        },
    }  # fmt: skip
    assert runs["child"].feedback_stats is None


def test_feedback_on_a_project(client: Client, project: str) -> None:
    """Feedback may be on a project as a whole; lists tell it from that on runs."""
    run_id = make_run(client, project)
    project_id = client.read_project(project_name=project).id
    client.create_feedback(None, "summary", score=1, project_id=project_id)
    client.create_feedback(run_id, "single", score=0)

    def keys(**conditions: Any) -> set[str]:
        return {record.key for record in client.list_feedback(session=[project_id], **conditions)}

    assert keys() == {"summary", "single"}
    assert keys(level="run") == {"single"}
    assert keys(level="session") == {"summary"}
    [record] = client.list_feedback(session=[project_id], level="session")
    assert (record.run_id, record.session_id) == (None, project_id)
    client.delete_project(project_name=project)
    assert keys() == set()
    assert list(client.list_feedback(run_ids=[run_id])) == []


def test_lists(client: Client, project: str) -> None:
    """Every condition of a list narrows it, they hold together, and lists go on over pages."""
    runs = [make_run(client, project) for _ in range(2)]
    for number in range(120):
        client.create_feedback(runs[0], f"k{number % 3}", score=number)
    client.create_feedback(
        runs[1], "label", value="x", comment="why", feedback_source_type="model", error=True
    )
    found = list(client.list_feedback(run_ids=runs))
    assert len({record.id for record in found}) == len(found) == 121
    assert [record.created_at for record in found] == sorted((r.created_at for r in found), reverse=True)
    assert len(list(client.list_feedback(run_ids=runs, limit=7))) == 7
    for conditions, count in (
        ({"feedback_key": ["k0"]}, 40),
        ({"feedback_key": ["k0", "label"]}, 41),
        ({"feedback_source_type": [FeedbackSourceType.MODEL]}, 1),
        ({"feedback_source_type": [FeedbackSourceType.MODEL], "feedback_key": ["k0"]}, 0),
        ({"has_comment": "true"}, 1),
        ({"has_score": "false"}, 1),
        ({"has_score": "true", "feedback_key": ["k1"]}, 40),
        ({"min_created_at": found[2].created_at.isoformat()}, 3),
        ({"max_created_at": found[-1].created_at.isoformat()}, 1),
        ({"comparative_experiment_id": str(uuid.uuid4())}, 0),
        ({"user": ["nobody"]}, 0),
    ):
        assert len(list(client.list_feedback(run_ids=runs, **conditions))) == count, conditions
    assert list(client.list_feedback(run_ids=[uuid.uuid4()])) == []


def test_statistics_in_both_versions(client: Client, server: Server, project: str) -> None:
    """A run's statistics are the same under v1 and v2: numbers, labels, errors, comments and sources."""
    run_id = make_run(client, project)
    for score in (0.0, 0.5, 1.0):
        client.create_feedback(run_id, "number", score=score, comment=f"c{score}")
    for value in ("good", "good", "bad"):
        client.create_feedback(run_id, "label", value=value, feedback_source_type="model")
    client.create_feedback(run_id, "broken", error=True)
    v1 = client.read_run(run_id)
    assert v1.feedback_stats is not None
    v1_stats: dict[str, dict[str, Any]] = v1.feedback_stats
    number, label, broken = (dict(v1_stats[key]) for key in ("number", "label", "broken"))
    assert sorted(number.pop("comments")) == ["c0.0", "c0.5", "c1.0"]
    assert number == {
        "n": 3, "avg": 0.5, "min": 0.0, "max": 1.0, "stdev": 0.5, "values": {}, "errors": 0,
        "sources": ["api"], "contains_thread_feedback": False,
    }  # fmt: skip
    assert (label["n"], label["avg"], label["values"], label["sources"]) == (
        3, None, {"good": 2, "bad": 1}, ["model"],
    )  # fmt: skip
    assert (broken["n"], broken["errors"]) == (0, 1)
    query = {"project_id": str(v1.session_id), "selects": ["FEEDBACK_STATS"]}
    v2 = httpx.get(f"{server.url}/api/v2/runs/{run_id}", params=query).json()
    shown = v2["feedback_stats"]
    shown["number"]["comments"].sort()
    v1_stats["number"]["comments"].sort()
    assert shown == v1_stats


async def test_asynchronous_client(client: Client, async_client: AsyncClient, project: str) -> None:
    """The same from creation to deletion with the asynchronous SDK."""
    run_id, feedback_id = await asyncio.to_thread(make_run, client, project), uuid.uuid4()
    await async_client.create_feedback(run_id, "k", score=0.5, feedback_id=feedback_id, comment="c")
    record = await async_client.read_feedback(feedback_id)
    assert (record.run_id, record.score, record.comment) == (run_id, 0.5, "c")
    listed = [each async for each in async_client.list_feedback(run_ids=[run_id], limit=10)]
    assert [each.id for each in listed] == [feedback_id]
    await async_client.delete_feedback(feedback_id)
    assert [each async for each in async_client.list_feedback(run_ids=[run_id])] == []


# --- bad input ----------------------------------------------------------------------------------------

SOME_ID = str(uuid.UUID(int=5))
GOOD = {"run_id": SOME_ID, "key": "k"}
# What is changed in good feedback → the field that the refusal names.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"key": None}, "key"),
    ({"key": ""}, "key"),
    ({"key": "k" * 181}, "key"),
    ({"key": 5}, "key"),
    ({"id": "x"}, "id"),
    ({"run_id": "x"}, "run_id"),
    ({"run_id": None}, "run_id"),
    ({"trace_id": "' OR 1=1"}, "trace_id"),
    ({"session_id": "x"}, "session_id"),
    ({"session_id": SOME_ID}, "project_id"),
    ({"score": "high"}, "score"),
    ({"score": []}, "score"),
    ({"value": [1]}, "value"),
    ({"correction": 5}, "correction"),
    ({"correction": []}, "correction"),
    ({"comment": {}}, "comment"),
    ({"extra": "x"}, "extra"),
    ({"error": "x"}, "error"),
    ({"feedback_source": {"type": "x" * 65}}, "longer than 64"),
    ({"feedback_source": {"type": "api", "metadata": []}}, "metadata"),
    ({"feedback_source": "api"}, "feedback_source"),
    ({"created_at": "soon"}, "created_at"),
    ({"modified_at": "9999-12-31T23:59:59Z"}, "modified_at"),
    ({"start_time": {}}, "start_time"),
    ({"comparative_experiment_id": "x"}, "comparative_experiment_id"),
    ({"feedback_group_id": 7}, "feedback_group_id"),
]


@pytest.mark.parametrize(("changes", "field"), WRONG, ids=lambda value: str(value)[:50])
def test_wrong_records_are_refused(server: Server, changes: dict[str, Any], field: str) -> None:
    """A record with one thing wrong is refused by name, posted and as a part, and nothing is stored."""
    run_id = str(uuid.uuid4())
    record = {**GOOD, "run_id": run_id, **changes}
    with httpx.Client(base_url=server.url, timeout=30) as http:
        answer = http.post("/feedback", json=record)
        assert answer.status_code == 422, answer.text
        assert field in answer.text
        name = f"feedback.{uuid.uuid4()}"
        answer = http.post(
            "/runs/multipart", content=multipart([part(name, record)]), headers={"content-type": CONTENT_TYPE}
        )
        assert answer.status_code == 422, answer.text
        assert name in answer.text
        assert field in answer.text
        assert http.get("/feedback", params={"run": run_id}).json() == []


def test_a_bad_part_costs_its_neighbours_nothing(server: Server, client: Client, project: str) -> None:
    """Of a body, the good runs and records are stored and the bad ones are named."""
    run_id, good, bad = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    body = multipart(
        [
            part(f"post.{run_id}", run_json(run_id, project)),
            part(f"feedback.{bad}", {"key": "", "trace_id": str(run_id)}),
            part(f"feedback.{good}", {"key": "k", "trace_id": str(run_id), "score": None}),
        ]
    )
    answer = httpx.post(f"{server.url}/runs/multipart", content=body, headers={"content-type": CONTENT_TYPE})
    assert answer.status_code == 422
    assert [refused["source"] for refused in answer.json()["refused"]] == [f"feedback.{bad}"]
    assert [record.id for record in client.list_feedback(run_ids=[run_id])] == [good]
    assert client.read_run(run_id).name == "sent"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"run": "x"}, "run"),
        ({"session": "' OR 1=1"}, "session"),
        ({"level": "trace"}, "level"),
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"offset": -1}, "offset"),
        ({"has_score": "perhaps"}, "has_score"),
        ({"min_created_at": "soon"}, "min_created_at"),
        ({"comparative_experiment_id": "x"}, "comparative_experiment_id"),
    ],
    ids=str,
)
def test_wrong_lists_are_refused(server: Server, query: dict[str, Any], field: str) -> None:
    """A parameter that cannot be is refused by name."""
    answer = httpx.get(f"{server.url}/feedback", params=query)
    assert answer.status_code == 422, answer.text
    assert field in answer.text


@pytest.mark.parametrize("text", ["'", "\\", "{k:String}", "a\x00b", "'); DROP TABLE feedback --", "☃\n\t"])
def test_hostile_texts_are_inert(client: Client, text: str) -> None:
    """Texts in keys, users and conditions are only compared."""
    run_id = uuid.uuid4()
    client.create_feedback(run_id, text, comment=text, value=text, source_info={text: text})
    [record] = client.list_feedback(run_ids=[run_id], feedback_key=[text])
    assert (record.key, record.comment, record.value) == (text, text, text)
    assert list(client.list_feedback(run_ids=[run_id], user=[text])) == []
    assert list(client.list_feedback(run_ids=[run_id], feedback_key=[text + "x"])) == []


def test_tenants_do_not_meet(guarded: Server, key: str, foreign_key: str) -> None:
    """A record is read, changed and deleted by its own tenant alone; the same id may be used by both."""
    own, foreign = (Client(guarded.url, api_key=each) for each in (key, foreign_key))
    run_id, feedback_id = uuid.uuid4(), uuid.uuid4()
    own.create_feedback(run_id, "k", score=1, feedback_id=feedback_id)
    attempts: list[Callable[[], object]] = [
        lambda: foreign.read_feedback(feedback_id),
        lambda: foreign.update_feedback(feedback_id, score=0),
        lambda: foreign.delete_feedback(feedback_id),
    ]
    for attempt in attempts:
        with pytest.raises(LangSmithNotFoundError):
            attempt()
    foreign.create_feedback(run_id, "k", score=0, feedback_id=feedback_id)
    assert own.read_feedback(feedback_id).score == 1
    assert [record.score for record in foreign.list_feedback(run_ids=[run_id])] == [0]
    with pytest.raises(LangSmithError):
        Client(guarded.url, api_key="nobody's").create_feedback(run_id, "k", stop_after_attempt=1)
