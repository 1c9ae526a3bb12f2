"""The generated resources."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langsmith._exceptions import ConflictError, NotFoundError

from .scenarios import GENERATED, World, shows


@shows(
    GENERATED,
    *("runs.query", "runs.query_v2", "runs.retrieve", "runs.retrieve_v2", "runs.get_url"),
    *("runs.streaming.query_v2", "runs.streaming.query_v2_items"),
)
def runs(sdk: Any, world: World) -> None:
    project_id, run_id = str(world.project_id), str(world.run_id)
    asked: Any = {"project_ids": [project_id], "is_root": True, "filter": 'eq(name, "root")'}
    for query in (sdk.runs.query, sdk.runs.query_v2, sdk.runs.streaming.query_v2_items):
        assert [run.id for run in query(**asked)] == [run_id]
    patches = [patch for event in sdk.runs.streaming.query_v2(**asked) for patch in event]
    assert run_id in str(patches)
    for retrieve in (sdk.runs.retrieve, sdk.runs.retrieve_v2):
        assert retrieve(run_id, project_id=project_id, selects=["NAME"]).name == "root"
    assert run_id in sdk.runs.get_url(run_id, project_id=project_id, trace_id=run_id).url


@shows(GENERATED, "runs.share.create", "runs.share.delete", "public.runs.query", "public.runs.retrieve")
def shared_runs(sdk: Any, world: World) -> None:
    trace_id, project_id = str(uuid.uuid4()), str(world.project_id)
    world.client.create_run(
        "r", {}, "tool", id=trace_id, project_name=world.project, start_time=world.started
    )
    token = sdk.runs.share.create(trace_id, session_id=project_id, trace_id=trace_id).share_token
    [run] = sdk.public.runs.query(token, selects=["ID", "START_TIME"]).items
    read = sdk.public.runs.retrieve(trace_id, share_token=token, selects=["NAME"], start_time=run.start_time)
    assert (run.id, read.name) == (trace_id, "r")
    sdk.runs.share.delete(trace_id, session_id=project_id)
    with pytest.raises(NotFoundError):
        sdk.public.runs.query(token, selects=["ID"])


@shows(
    GENERATED, "traces.query", "traces.list_runs", "traces.streaming.query", "traces.streaming.query_items"
)
def traces(sdk: Any, world: World) -> None:
    project_id, trace_id = str(world.project_id), str(world.run_id)
    for query in (sdk.traces.query, sdk.traces.streaming.query_items):
        found = query(project_id=project_id, trace_filter='eq(name, "root")')
        assert [trace.root_run.id for trace in found] == [trace_id]
    assert trace_id in str(sdk.traces.streaming.query(project_id=project_id))
    runs = sdk.traces.list_runs(trace_id, project_id=project_id).items
    assert {run.id for run in runs} == {trace_id, str(world.child_id)}


@shows(
    GENERATED,
    *("threads.query", "threads.streaming.query", "threads.streaming.query_items"),
    *("threads.aggregate_stats", "threads.stats", "threads.list_traces"),
    *("threads.share.create", "threads.share.retrieve", "threads.share.delete"),
)
def threads(sdk: Any, world: World) -> None:
    project_id, thread_id = str(world.project_id), world.thread_id
    for query in (sdk.threads.query, sdk.threads.streaming.query_items):
        assert [thread.thread_id for thread in query(project_id=project_id)] == [thread_id]
    assert thread_id in str(sdk.threads.streaming.query(project_id=project_id))
    assert sdk.threads.aggregate_stats(project_id=project_id, select=["THREAD_COUNT"]).thread_count == 1
    assert sdk.threads.stats(thread_id, session_id=project_id, selects=["TURNS"]).turns == 1
    [turn] = sdk.threads.list_traces(thread_id, project_id=project_id)
    assert turn.trace_id == str(world.run_id)
    share = sdk.threads.share
    token = share.create(thread_id, project_id=project_id).share_token
    assert share.retrieve(thread_id, project_id=project_id).share_token == token
    share.delete(thread_id, project_id=project_id)
    assert share.retrieve(thread_id, project_id=project_id).share_token is None


@shows(GENERATED, "sessions.create", "sessions.update", "sessions.resolve", "info.list")
def sessions(sdk: Any, world: World) -> None:
    made = sdk.sessions.create(name=world.name(), reference_dataset_id=str(uuid.uuid4()))
    assert sdk.sessions.update(made.id, description="d").description == "d"
    assert sdk.sessions.resolve(kind="EXPERIMENT", id=made.id).session_id == made.id
    with pytest.raises(NotFoundError):
        sdk.sessions.resolve(kind="AGENT", id="nobody", environment="LOCAL")
    assert sdk.info.list().version


@shows(GENERATED, "datasets.experiment_runs.query", "datasets.examples.delete")
def datasets(sdk: Any, world: World) -> None:
    dataset_id = world.dataset()
    experiment = world.client.create_project(world.name(), reference_dataset_id=dataset_id)
    example, _ = world.client.list_examples(dataset_id=dataset_id)
    run_id = uuid.uuid4()
    world.client.create_run(
        "r", {}, "chain", id=run_id, session_id=experiment.id, reference_example_id=example.id
    )
    found = sdk.datasets.experiment_runs.query(str(dataset_id), experiment_ids=[str(experiment.id)])
    assert {item.id: [run.id for run in item.runs] for item in found}[str(example.id)] == [str(run_id)]
    sdk.datasets.examples.delete(str(example.id), dataset_id=str(dataset_id))
    assert example.id not in [each.id for each in world.client.list_examples(dataset_id=dataset_id)]


@shows(
    GENERATED,
    *("annotation_queues.annotation_queues", "annotation_queues.retrieve", "annotation_queues.update"),
    *("annotation_queues.retrieve_annotation_queues", "annotation_queues.retrieve_queues"),
    *("annotation_queues.retrieve_run", "annotation_queues.retrieve_size"),
    *("annotation_queues.retrieve_total_size", "annotation_queues.retrieve_total_archived"),
    *("annotation_queues.create_run_status", "annotation_queues.export", "annotation_queues.populate"),
    *("annotation_queues.runs.create", "annotation_queues.runs.create_by_key", "annotation_queues.runs.list"),
    *("annotation_queues.runs.update", "annotation_queues.runs.delete_queue"),
    *("annotation_queues.runs.delete_all", "annotation_queues.delete"),
)
def queues(sdk: Any, world: World) -> None:
    queues, root, child = sdk.annotation_queues, str(world.run_id), str(world.child_id)
    queue = queues.annotation_queues(name=world.name())
    queues.update(queue.id, description="new")
    assert queues.retrieve(queue.id).description == "new"
    queues.runs.create(queue.id, body=[root])
    key = {"run_id": child, "session_id": str(world.project_id), "start_time": world.started.isoformat()}
    queues.runs.create_by_key(queue.id, body=[key])
    assert [run.id for run in queues.runs.list(queue.id)] == [root, child]
    [listed] = queues.retrieve_annotation_queues(name=queue.name)
    assert listed.total_runs == 2
    assert [each.id for each in queues.retrieve_queues(child)] == [queue.id]
    item = queues.retrieve_run(0, queue_id=queue.id)
    queues.runs.update(root, queue_id=queue.id, added_at=datetime.now(UTC) + timedelta(hours=1))
    assert [run.id for run in queues.runs.list(queue.id)] == [child, root]
    queues.create_run_status(item.queue_run_id, status="completed")
    assert [run["id"] for run in queues.export(queue.id)] == [root]
    sizes = (queues.retrieve_size, queues.retrieve_total_size, queues.retrieve_total_archived)
    assert [read(queue.id).size for read in sizes] == [2, 2, 1]
    queues.runs.delete_queue(child, queue_id=queue.id)
    queues.runs.delete_all(queue.id, delete_all=True)
    experiment = world.client.create_project(world.name(), reference_dataset_id=uuid.uuid4())
    world.client.create_run("r", {}, "tool", session_id=experiment.id)
    queues.populate(queue_id=queue.id, session_ids=[str(experiment.id)])
    assert queues.retrieve_total_size(queue.id).size == 1
    queues.delete(queue.id)
    with pytest.raises(NotFoundError):
        queues.retrieve(queue.id)


@shows(
    GENERATED,
    *("annotation_queues.items.create", "annotation_queues.items.list", "annotation_queues.items.update"),
    *("annotation_queues.items.create_status", "annotation_queues.items.retrieve_count"),
    *("annotation_queues.items.retrieve_placement", "annotation_queues.items.delete_all"),
)
def queue_items(sdk: Any, world: World) -> None:
    queue_id = str(world.client.create_annotation_queue(name=world.name()).id)
    items, project_id = sdk.annotation_queues.items, str(world.project_id)
    thread = {"item_type": "THREAD", "thread_id": world.thread_id, "project_id": project_id}
    made = items.create(queue_id, items=[{"item_type": "RUN", "run_id": str(world.run_id)}, thread]).items
    ids = [str(item.id) for item in made]
    assert [item.id for item in items.list(queue_id, status="needs_my_review")] == ids
    items.update(ids[0], queue_id=queue_id, added_at=datetime.now(UTC) + timedelta(hours=1))
    assert items.retrieve_placement(ids[0], queue_id=queue_id).position == 1
    items.create_status(ids[1], status="completed")
    assert items.retrieve_count(queue_id, status="archived").count == 1
    items.delete_all(queue_id, item_ids=ids)
    assert items.retrieve_count(queue_id, status="all").count == 0


@shows(
    GENERATED,
    *("online_evaluators.create", "online_evaluators.retrieve", "online_evaluators.update"),
    *("online_evaluators.list", "online_evaluators.delete", "online_evaluators.bulk_delete"),
    "online_evaluators.spend",
)
def evaluators(sdk: Any, world: World) -> None:
    evaluators, name = sdk.online_evaluators, world.name()
    code = {"code": "def perform_eval(run): ...", "language": "python"}
    made = [
        evaluators.create(name=f"{name}-{n}", type="code", code_evaluator=code).evaluator for n in range(3)
    ]
    changed = evaluators.update(made[0].id, name=f"{name}-new", code_evaluator={"code": "pass"}).evaluator
    read = evaluators.retrieve(made[0].id)
    assert (read.name, changed.updated_at) == (f"{name}-new", read.updated_at)
    assert (read.code_evaluator.code, read.code_evaluator.language) == ("pass", "python")
    found = evaluators.list(name_contains=name, type="code", limit=2, sort_by="name", sort_by_desc=False)
    assert [each.name for each in found] == [f"{name}-1", f"{name}-2", f"{name}-new"]
    evaluators.delete(made[0].id)
    with pytest.raises(NotFoundError):
        evaluators.retrieve(made[0].id)
    answer = evaluators.bulk_delete(evaluator_ids=[each.id for each in made])
    assert answer.succeeded == [made[1].id, made[2].id]
    assert [each.id for each in answer.failed] == [made[0].id]
    spend = evaluators.spend(period_start="2026-01-05", group_by="evaluator")
    assert (spend.groups, spend.period_end) == ([], "2026-01-12")


@shows(GENERATED, "agents.create", "agents.retrieve", "agents.update", "agents.list", "agents.delete")
def agents(sdk: Any, world: World) -> None:
    agent_id = f"a-{uuid.uuid4().hex}"
    made = sdk.agents.create(id=agent_id)
    assert [each.environment for each in made.environments] == [
        *("LOCAL", "DEVELOPMENT", "STAGING", "PRODUCTION")
    ]
    with pytest.raises(ConflictError):
        sdk.agents.create(id=agent_id)
    sdk.agents.update(agent_id, name=f"Support {agent_id}", owner_id="somebody")
    read = sdk.agents.retrieve(agent_id, include="runtime_bindings")
    assert (read.name, read.owner_id) == (f"Support {agent_id}", "somebody")
    assert [agent.id for agent in sdk.agents.list(name=agent_id)] == [agent_id]
    production = sdk.sessions.resolve(kind="AGENT", id=agent_id, environment="PRODUCTION")
    assert production.session_id == read.environments[3].tracer_session_id
    for _ in range(2):
        sdk.agents.delete(agent_id)
    with pytest.raises(NotFoundError):
        sdk.agents.retrieve(agent_id)
    assert not world.client.has_project(read.environments[3].tracer_session_name)
