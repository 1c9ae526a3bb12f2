"""Filters on what only the catalog knows of runs: the dataset of their example, and their share."""

import uuid
from typing import Any, NamedTuple

import httpx
import pytest
from langsmith import Client

from .servers import Server

pytestmark = pytest.mark.both_catalogs(slow=True)

SINCE: Any = "2026-01-01T00:00:00Z"


class Experiment(NamedTuple):
    """Runs by what they were made on: two examples of one dataset, one of another, none."""

    project_id: str
    datasets: list[uuid.UUID]
    runs: list[str]


@pytest.fixture
def experiment(client: Client, project: str) -> Experiment:
    datasets = [client.create_dataset(f"dataset-{uuid.uuid4().hex}").id for _ in range(2)]
    examples: list[Any] = [
        client.create_example({"q": number}, dataset_id=dataset).id
        for number, dataset in enumerate((datasets[0], datasets[0], datasets[1]))
    ]
    runs = []
    for number, example_id in enumerate([*examples, None]):
        run_id = uuid.uuid4()
        client.create_run(
            "r", {"q": number}, "chain", id=run_id, trace_id=run_id, project_name=project,
            dotted_order=f"2026010{number + 1}T000000000000Z{run_id}", reference_example_id=example_id,
        )  # fmt: skip
        runs.append(str(run_id))
    client.flush()
    return Experiment(str(client.read_project(project_name=project).id), datasets, runs)


async def test_datasets_of_examples(client: Client, experiment: Experiment) -> None:
    """In lists of both versions, a page at a time, of traces and in sums."""
    project_id, (one, two), (first, second, third, other) = experiment
    expected = {
        f'eq(reference_dataset_id, "{one}")': [second, first],
        f'neq(reference_dataset_id, "{one}")': [other, third],
        f'in(reference_dataset_id, ["{one}", "{two}"])': [third, second, first],
        f'eq(reference_dataset_id, "{uuid.uuid4()}")': [],
        "exists(reference_dataset_id)": [third, second, first],
        "eq(reference_dataset_id, null)": [other],
        f'and(eq(reference_dataset_id, "{one}"), neq(id, "{first}"))': [second],
        f'or(eq(reference_dataset_id, "{two}"), eq(id, "{first}"))': [third, first],
    }
    for text, runs in expected.items():
        assert [str(run.id) for run in client.list_runs(project_id=project_id, filter=text)] == runs, text
        pages = client.runs.query(project_ids=[project_id], filter=text, min_start_time=SINCE, page_size=1)
        assert [run.id async for run in pages] == runs, text
        traces = client.traces.query(
            project_id=project_id, trace_filter=text, selects=["ID"], min_start_time=SINCE
        )
        assert [trace.root_run.id async for trace in traces if trace.root_run] == runs, text
        stats = client.get_run_stats(project_ids=[project_id], filter=text)
        assert stats["run_count"] == len(runs), text


def test_example_that_was_deleted(client: Client, experiment: Experiment) -> None:
    """Its runs keep their dataset, as they show."""
    dataset = experiment.datasets[1]
    [example] = client.list_examples(dataset_id=dataset)
    client.delete_example(example.id)
    text = f'eq(reference_dataset_id, "{dataset}")'
    [run] = client.list_runs(project_id=experiment.project_id, filter=text)
    assert str(run.id) == experiment.runs[2]


def test_share_tokens(client: Client, experiment: Experiment, server: Server) -> None:
    """Of the runs that are shared now."""
    run_id = experiment.runs[0]
    address = f"{server.url}/runs/{run_id}/share"

    def listed(text: str) -> list[str]:
        return [str(run.id) for run in client.list_runs(project_id=experiment.project_id, filter=text)]

    token = httpx.put(address, json={"run_id": run_id}).json()["share_token"]
    assert listed("exists(share_token)") == listed(f'eq(share_token, "{token}")') == [run_id]
    assert listed(f'neq(share_token, "{token}")') == experiment.runs[:0:-1]
    httpx.delete(address).raise_for_status()
    assert listed(f'eq(share_token, "{token}")') == []


@pytest.mark.parametrize("text", ['eq(reference_dataset_id, "x")', 'like(share_token, "%")'])
def test_refusals(experiment: Experiment, server: Server, text: str) -> None:
    """As of other ids."""
    body = {"session": [experiment.project_id], "filter": text}
    answer = httpx.post(f"{server.url}/runs/query", json=body)
    assert (answer.status_code, text[text.index("(") + 1 : text.index(",")] in answer.text) == (400, True)
