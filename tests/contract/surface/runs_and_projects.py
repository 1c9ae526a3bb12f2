"""Projects, runs and threads of the handwritten clients."""

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from langsmith.evaluation import EvaluationResult, RunEvaluator
from langsmith.run_trees import RunTree
from langsmith.utils import LangSmithNotFoundError

from .scenarios import BOTH, SYNC, World, shows


@shows(BOTH, "create_project", "read_project", "delete_project")
def projects(sdk: Any, world: World) -> None:
    name = world.name()
    made = sdk.create_project(name, description="d")
    assert sdk.read_project(project_name=name).id == made.id
    assert sdk.read_project(project_id=str(made.id)).description == "d"
    sdk.delete_project(project_name=name)
    assert not world.client.has_project(name)


@shows(SYNC, "update_project", "list_projects", "has_project", "aread_project")
def projects_beside(sdk: Any, world: World) -> None:
    made = world.client.create_project(world.name())
    renamed = world.name()
    sdk.update_project(made.id, name=renamed, metadata={"k": "v"})
    assert sdk.has_project(renamed)
    assert sdk.aread_project(project_name=renamed).id == made.id
    [listed] = sdk.list_projects(name_contains=renamed, metadata={"k": "v"}, include_stats=True)
    assert (listed.id, listed.run_count) == (made.id, 0)


@shows(BOTH, "create_run", "update_run", "read_run", "list_runs")
def runs(sdk: Any, world: World) -> None:
    run_id, project = uuid.uuid4(), world.name()
    sdk.create_run("made", {"q": 1}, "tool", id=run_id, project_name=project)
    sdk.update_run(run_id, outputs={"a": 2}, end_time=datetime.now(UTC))
    read = sdk.read_run(run_id)
    assert (read.name, read.inputs, read.outputs) == ("made", {"q": 1}, {"a": 2})
    assert [run.id for run in sdk.list_runs(project_name=project, filter='eq(status, "success")')] == [run_id]


@shows(BOTH, "share_run", "run_is_shared", "read_run_shared_link")
def shared_runs(sdk: Any, world: World) -> None:
    run_id = uuid.uuid4()
    world.client.create_run("shared", {}, "tool", id=run_id, project_name=world.project)
    assert not sdk.run_is_shared(run_id)
    link = sdk.share_run(run_id)
    assert sdk.run_is_shared(run_id)
    assert sdk.read_run_shared_link(run_id) == link


@shows(SYNC, "unshare_run", "read_shared_run", "list_shared_runs")
def public_runs(sdk: Any, world: World) -> None:
    token = world.client.share_run(world.run_id).rsplit("/", 2)[-2]
    assert sdk.read_shared_run(token).id == world.run_id
    assert {run.id for run in sdk.list_shared_runs(token)} == {world.run_id, world.child_id}
    sdk.unshare_run(world.run_id)
    with pytest.raises(LangSmithNotFoundError):
        sdk.read_shared_run(token)


@shows(SYNC, "get_run_stats", "get_run_url", "list_threads", "read_thread")
def read_models(sdk: Any, world: World) -> None:
    assert sdk.get_run_stats(project_names=[world.project], trace=world.run_id)["run_count"] == 2
    run = world.client.read_run(world.run_id)
    assert str(world.run_id) in sdk.get_run_url(run=run, project_name=world.project)
    [thread] = sdk.list_threads(project_name=world.project)
    assert thread["thread_id"] == world.thread_id
    found = sdk.read_thread(thread_id=world.thread_id, project_name=world.project)
    assert world.run_id in {run.id for run in found}


@shows(
    SYNC,
    *("batch_ingest_runs", "multipart_ingest", "flush", "flush_compressed_traces"),
    *("request_with_retries", "cleanup", "close"),
)
def batches(sdk: Any, world: World) -> None:
    project = world.name()
    sent = [RunTree(name=f"sent {n}", run_type="tool", inputs={}, project_name=project) for n in range(2)]
    for send, run in zip((sdk.batch_ingest_runs, sdk.multipart_ingest), sent, strict=True):
        fields = {"id": run.id, "trace_id": run.trace_id, "dotted_order": run.dotted_order}
        send(create=[{**fields, "name": run.name, "run_type": "tool", "inputs": {}, "session_name": project}])
    sdk.flush()
    sdk.flush_compressed_traces()
    assert {run.id for run in world.client.list_runs(project_name=project)} == {run.id for run in sent}
    assert sdk.request_with_retries("GET", "/ok").json()["ok"]
    sdk.cleanup()
    sdk.close()


@shows(("AsyncClient",), "info", "aclose")
def closing(sdk: Any, world: World) -> None:
    assert sdk.info().version
    sdk.aclose()


class _Judge(RunEvaluator):
    def evaluate_run(self, run: Any, example: Any = None, evaluator_run_id: Any = None) -> EvaluationResult:
        return EvaluationResult(key="judged", score=int(run.outputs["a"] == "because"))


@shows(SYNC, "evaluate_run", "aevaluate_run")
def single_evaluations(sdk: Any, world: World) -> None:
    for evaluate in (sdk.evaluate_run, sdk.aevaluate_run):
        result = evaluate(world.run_id, _Judge(), project_id=world.project_id, start_time=world.started)
        assert (result.key, result.score) == ("judged", 1)
    sdk.flush()
    records = list(world.client.list_feedback(run_ids=[world.run_id], feedback_key=["judged"]))
    assert [record.score for record in records] == [1, 1]


@shows(SYNC, "evaluate", "aevaluate", "get_experiment_results", "get_test_results")
def experiments(sdk: Any, world: World) -> None:
    dataset = world.client.read_dataset(dataset_id=world.dataset())

    def answer(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"a": inputs["q"]}

    async def answer_later(inputs: dict[str, Any]) -> dict[str, Any]:
        return answer(inputs)

    def correct(outputs: dict[str, Any], reference_outputs: dict[str, Any]) -> bool:
        return outputs == reference_outputs

    names = [
        evaluate(target, data=dataset.name, evaluators=[correct]).experiment_name
        for evaluate, target in ((sdk.evaluate, answer), (sdk.aevaluate, answer_later))
    ]
    sdk.flush()
    for name in names:
        results = sdk.get_experiment_results(name=name)
        assert results["feedback_stats"]["correct"]["avg"] == 1
        assert sum(len(example.runs) for example in results["examples_with_runs"]) == 2
    assert len(sdk.get_test_results(project_name=names[0])) == 2


@shows(SYNC, "create_comparative_experiment")
def comparisons(sdk: Any, world: World) -> None:
    dataset_id = world.dataset()
    experiment = world.client.create_project(world.name(), reference_dataset_id=dataset_id)
    made = sdk.create_comparative_experiment(name=world.name(), experiments=[experiment.id])
    assert made.reference_dataset_id == dataset_id
