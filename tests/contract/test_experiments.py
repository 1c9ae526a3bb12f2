"""Experiments with the newest SDK, end to end: evaluated, compared, read back beside their examples."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from langsmith import Client, aevaluate, evaluate, trace
from langsmith.evaluation import EvaluationResult
from langsmith.schemas import Dataset, Example, Run
from langsmith.utils import LangSmithError, LangSmithNotFoundError

from .servers import Server

pytestmark = pytest.mark.both_catalogs(slow=True)


@pytest.fixture
def dataset(client: Client) -> Dataset:
    """Three examples, whose question is its own answer."""
    made = client.create_dataset(f"dataset-{uuid.uuid4().hex}")
    client.create_examples(
        dataset_id=made.id,
        examples=[
            {"inputs": {"q": i}, "outputs": {"a": i}, "attachments": {"file": ("text/plain", b"%d" % i)}}
            for i in range(3)
        ],
    )
    return made


def answer(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"a": inputs["q"] or "wrong"}


def correct(run: Run, example: Example) -> dict[str, Any]:
    return {"key": "correct", "score": run.outputs == example.outputs}


def experiment(client: Client, dataset: Dataset, **more: Any) -> Any:
    """The project of a new experiment, everything of it stored."""
    results = evaluate(
        answer, data=dataset.name, evaluators=[correct], client=client,
        experiment_prefix=f"e-{uuid.uuid4().hex[:8]}", blocking=True, **more,
    )  # fmt: skip
    client.flush()
    return client.read_project(project_name=results.experiment_name, include_stats=True)


def test_evaluation_with_repetitions(client: Client, dataset: Dataset) -> None:
    """Every example is run as often as asked, scored, and counted exactly."""
    project = experiment(client, dataset, num_repetitions=2, metadata={"model": "m"})
    assert project.reference_dataset_id == dataset.id
    assert project.run_count == 6
    assert project.feedback_stats["correct"]["n"] == 6
    assert project.feedback_stats["correct"]["avg"] == pytest.approx(2 / 3)
    assert project.extra["metadata"]["model"] == "m"
    latest = client.read_dataset_version(dataset_id=dataset.id, tag="latest").as_of
    assert project.extra["metadata"]["dataset_version"] == latest.isoformat()
    assert project.extra["metadata"]["dataset_splits"] == ["base"]
    results = client.get_experiment_results(project_id=project.id)
    assert results["feedback_stats"]["correct"]["n"] == 6
    assert results["run_stats"]["run_count"] == 6
    shown = {each.inputs["q"]: each for each in results["examples_with_runs"] if each.inputs is not None}
    assert sorted(shown) == [0, 1, 2]
    for question, example in shown.items():
        assert [run.outputs for run in example.runs] == [answer({"q": question})] * 2
        assert {run.reference_example_id for run in example.runs} == {example.id}
        assert [run.feedback_stats["correct"]["n"] for run in example.runs if run.feedback_stats] == [1, 1]
    previews = client.get_experiment_results(project_id=project.id, preview=True, limit=2)
    assert [len(each.runs) for each in previews["examples_with_runs"]] == [2, 2]
    assert [each.id for each in client.list_projects(reference_dataset_id=dataset.id)] == [project.id]


def test_evaluation_with_attachments(client: Client, dataset: Dataset) -> None:
    """A target that asks for attachments gets those of its example."""
    seen: dict[int, bytes] = {}

    def target(inputs: dict[str, Any], attachments: dict[str, Any]) -> dict[str, Any]:
        seen[inputs["q"]] = attachments["file"]["reader"].read()
        return {"a": inputs["q"]}

    evaluate(target, data=dataset.name, client=client, max_concurrency=0)
    assert seen == {0: b"0", 1: b"1", 2: b"2"}


async def test_asynchronous_evaluation(client: Client, dataset: Dataset) -> None:
    """The same with `aevaluate`, on examples of one version."""

    async def target(inputs: dict[str, Any]) -> dict[str, Any]:
        return answer(inputs)

    version = client.read_dataset_version(dataset_id=dataset.id, tag="latest").as_of
    client.create_example({"q": 99}, dataset_id=dataset.id)
    results = await aevaluate(
        target, data=client.list_examples(dataset_id=dataset.id, as_of=version),
        evaluators=[correct], client=client,
    )  # fmt: skip
    scores = [each["evaluation_results"]["results"][0].score async for each in results]
    assert sorted(map(bool, scores)) == [False, True, True]


async def test_attachments_repetitions_and_summaries(client: Client, dataset: Dataset) -> None:
    """Asynchronously, each repetition reads the files anew; a summary judges the experiment as a whole."""
    seen: list[bytes] = []

    async def target(inputs: dict[str, Any], attachments: dict[str, Any]) -> dict[str, Any]:
        seen.append(attachments["file"]["reader"].read())
        return {"a": inputs["q"]}

    def with_file(attachments: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        same = attachments["file"]["reader"].read() == str(outputs["a"]).encode()
        return {"key": "same", "score": same}

    def total(runs: list[Run], examples: list[Example]) -> EvaluationResult:
        return EvaluationResult(key="total", score=len(runs) / len(examples))

    results = await aevaluate(
        target, data=dataset.name, evaluators=[with_file], summary_evaluators=[total],
        num_repetitions=2, max_concurrency=3, client=client,
    )  # fmt: skip
    client.flush()
    assert sorted(seen) == [b"0", b"0", b"1", b"1", b"2", b"2"]
    project = client.read_project(project_name=results.experiment_name, include_stats=True)
    assert project.run_count == 6
    assert {key: (each["n"], each["avg"]) for key, each in (project.feedback_stats or {}).items()} == {
        "same": (6, 1.0)
    }
    assert (project.session_feedback_stats or {})["total"]["avg"] == 1
    [summary] = client.list_feedback(session=[project.id], level="session")
    assert (summary.key, summary.run_id, summary.session_id) == ("total", None, project.id)


def test_experiments_are_evaluated_again(client: Client, dataset: Dataset) -> None:
    """Other evaluators, later, on what is stored of an experiment, by its id or name, with its children."""

    def nested(inputs: dict[str, Any]) -> dict[str, Any]:
        with trace("inner", client=client) as run:
            run.end(outputs={"seen": inputs["q"]})
        return {"a": inputs["q"]}

    first = evaluate(nested, data=dataset.name, client=client, experiment_prefix="again")
    client.flush()
    project = client.read_project(project_name=first.experiment_name)

    def by_child(run: Run, example: Example) -> dict[str, Any]:
        [child] = run.child_runs or []
        return {"key": "inner", "score": (child.outputs or {})["seen"] == (example.inputs or {})["q"]}

    again = evaluate(project.id, evaluators=[by_child], client=client, load_nested=True)
    assert len(list(again)) == 3
    client.evaluate(first.experiment_name, evaluators=[correct])
    client.flush()
    results = client.get_experiment_results(project_id=project.id)
    assert {key: (each["n"], each["avg"]) for key, each in results["feedback_stats"].items()} == {
        "inner": (3, 1.0),
        "correct": (3, 1.0),
    }
    assert {len(example.runs) for example in results["examples_with_runs"]} == {1}


def test_many_evaluations_at_once(client: Client, dataset: Dataset) -> None:
    """Fifty experiments on one dataset at the same time: none is lost, and each has its own exact counts."""

    def evaluated(_number: int) -> str:
        results = evaluate(
            answer, data=dataset.name, evaluators=[correct], client=client, experiment_prefix="at once"
        )
        return str(results.experiment_name)

    with ThreadPoolExecutor(50) as threads:
        names = set(threads.map(evaluated, range(50)))
    client.flush()
    projects = list(client.list_projects(reference_dataset_id=dataset.id, include_stats=True))
    assert {project.name for project in projects} == names
    assert len(names) == 50
    assert [project.run_count for project in projects] == [3] * 50
    for project in projects:
        assert project.feedback_stats is not None
        score = project.feedback_stats["correct"]
        assert (score["n"], score["avg"]) == (3, pytest.approx(2 / 3))
    [listed] = client.list_datasets(dataset_ids=[dataset.id])
    assert (listed.session_count, listed.example_count) == (50, 3)


def test_comparisons(client: Client, dataset: Dataset, server: Server) -> None:
    """Experiments are compared by a judge; the comparison is listed and deleted, the experiments stay."""
    first, second = (experiment(client, dataset) for _ in range(2))

    def prefer(runs: Sequence[Run], _example: Example | None) -> dict[str, Any]:
        return {"key": "preferred", "scores": {run.id: float(i) for i, run in enumerate(runs)}}

    results = evaluate(
        (first.name, second.name), evaluators=[prefer], client=client, experiment_prefix="compared"
    )
    assert len(list(results)) == 3
    client.flush()
    address = f"{server.url}/datasets/{dataset.id}/comparative"
    [listed] = httpx.get(address).json()
    assert set(listed["experiment_ids"]) == {str(first.id), str(second.id)}
    assert listed["name"].startswith("compared")
    client.create_comparative_experiment(name="again", experiments=[first.id], metadata={"k": 1})
    assert [each["name"] for each in httpx.get(address, params={"name_contains": "AGAIN"}).json()] == [
        "again"
    ]
    with pytest.raises(LangSmithNotFoundError):
        client.create_comparative_experiment(
            name="foreign", experiments=[uuid.uuid4()], reference_dataset=dataset.id
        )
    for path, key in (
        ("/datasets/{}/runs", "session_ids"),
        ("/api/v2/datasets/{}/experiment-runs", "experiment_ids"),
    ):
        url = server.url + path.format(dataset.id)
        statuses = [
            httpx.post(url, json={key: [str(each.id)], "comparative_experiment_id": comparison}).status_code
            for each, comparison in (
                (first, listed["id"]),
                (dataset, listed["id"]),
                (first, str(uuid.uuid4())),
            )
        ]
        assert statuses == [200, 422, 404]
    gone = f"{server.url}/datasets/comparative/{listed['id']}"
    assert [httpx.delete(gone).status_code for _ in range(2)] == [200, 404]
    assert client.has_project(first.name)


def test_experiment_runs_of_v2(client: Client, dataset: Dataset, server: Server) -> None:
    """Pages of v2 hold each example once while others are written, in order of scores when asked."""
    project = experiment(client, dataset)
    address = f"{server.url}/api/v2/datasets/{dataset.id}/experiment-runs"
    body: dict[str, Any] = {"experiment_ids": [str(project.id)], "page_size": 1, "selects": ["OUTPUTS"]}
    seen = []
    for _ in range(3):
        page = httpx.post(address, json=body).json()
        [item] = page["items"]
        assert [set(run) for run in item["runs"]] == [{"outputs"}]
        seen.append(item["id"])
        client.create_example({"q": "later"}, dataset_id=dataset.id)
        body["cursor"] = page["next_cursor"]
    assert (len(set(seen)), body["cursor"]) == (3, None)
    sort = {"by": "feedback.correct", "order": "asc"}
    found = httpx.post(address, json={**body, "page_size": 3, "sort": sort}).json()["items"]
    assert found[0]["inputs"] == {"q": 0}
    filters = {str(project.id): ['eq(feedback_key, "correct")', "eq(feedback_score, 1)"]}
    body = {"experiment_ids": [str(project.id)], "filters": filters}
    found = httpx.post(address, json=body).json()["items"]
    assert sum(len(each["runs"]) for each in found) == 2
    bad: list[tuple[dict[str, Any], int]] = [
        ({"cursor": "x"}, 400),
        ({"page_size": 0}, 400),
        ({"experiment_ids": []}, 400),
        ({"selects": ["x"]}, 400),
    ]
    for changes, status in bad:
        assert httpx.post(address, json={**body, **changes}).status_code == status


async def test_generated_client(client: Client, dataset: Dataset) -> None:
    """The generated client walks the pages of an experiment."""
    project = await asyncio.to_thread(experiment, client, dataset)
    pages = client.datasets.experiment_runs.query(
        str(dataset.id), experiment_ids=[str(project.id)], page_size=2
    )
    assert len({item.id async for item in pages}) == 3


def test_sharing(client: Client, dataset: Dataset, server: Server) -> None:
    """A token shows its dataset and examples to everybody, until it is revoked; experiments only if asked."""
    assert httpx.get(f"{server.url}/datasets/{dataset.id}/share").json() is None
    share = client.share_dataset(dataset.id)
    token = str(share["share_token"])
    assert str(client.share_dataset(dataset.id)["share_token"]) == token
    assert client.read_dataset_shared_schema(dataset.id)["share_token"] == share["share_token"]
    client.create_project(f"experiment-{token}", reference_dataset_id=dataset.id)
    stranger = Client(server.url, api_key="nobody's")
    assert stranger.read_shared_dataset(token).name == dataset.name
    assert [each.inputs for each in stranger.list_shared_examples(token)] == [{"q": i} for i in range(3)]
    assert list(stranger.list_shared_projects(dataset_share_token=token)) == []
    httpx.put(f"{server.url}/datasets/{dataset.id}/share", params={"share_projects": True}).raise_for_status()
    assert [each.name for each in stranger.list_shared_projects(dataset_share_token=token)] == [
        f"experiment-{token}"
    ]
    client.unshare_dataset(dataset.id)
    attempts: list[Callable[[], object]] = [
        lambda: stranger.read_shared_dataset(token),
        lambda: list(stranger.list_shared_examples(token)),
        lambda: list(stranger.list_shared_projects(dataset_share_token=token)),
    ]
    for attempt in attempts:
        with pytest.raises(LangSmithNotFoundError):
            attempt()


def test_tenants_do_not_meet(guarded: Server, key: str, foreign_key: str) -> None:
    """Datasets and examples are read and written by their own tenant alone, shared ones read by everybody."""
    own, foreign = (Client(guarded.url, api_key=each) for each in (key, foreign_key))
    name = f"dataset-{uuid.uuid4().hex}"
    made = own.create_dataset(name)
    example = own.create_example({"q": 1}, dataset_id=made.id)
    attempts: list[Callable[[], object]] = [
        lambda: foreign.read_dataset(dataset_id=made.id),
        lambda: foreign.delete_dataset(dataset_id=made.id),
        lambda: foreign.create_example({"q": 2}, dataset_id=made.id),
        lambda: foreign.read_example(example.id),
        lambda: foreign.update_example(example.id, inputs={"q": 2}),
        lambda: foreign.delete_example(example.id),
        lambda: list(foreign.list_examples(dataset_id=made.id)),
        lambda: list(foreign.list_dataset_versions(dataset_id=made.id)),
        lambda: foreign.share_dataset(made.id),
    ]
    for attempt in attempts:
        with pytest.raises(LangSmithNotFoundError):
            attempt()
    assert list(foreign.list_examples(example_ids=[example.id])) == []
    foreign.delete_examples([example.id], hard_delete=True)
    foreign.create_dataset(name)
    assert own.read_example(example.id).inputs == {"q": 1}
    token = own.share_dataset(made.id)["share_token"]
    assert httpx.get(f"{guarded.url}/public/{token}/datasets").json()["name"] == name
    assert [each["id"] for each in httpx.get(f"{guarded.url}/public/{token}/examples").json()] == [
        str(example.id)
    ]
    assert httpx.get(f"{guarded.url}/public/{uuid.uuid4()}/datasets").status_code == 404
    with pytest.raises(LangSmithError):
        Client(guarded.url, api_key="nobody's").read_dataset(dataset_id=made.id)
