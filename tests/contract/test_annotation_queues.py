"""Annotation queues through the SDKs: queues, the runs in them, reviews, and the generated client's items."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from langsmith import AsyncClient, Client
from langsmith.schemas import AnnotationQueueWithDetails
from langsmith.utils import LangSmithConflictError, LangSmithError, LangSmithNotFoundError

from .servers import Server

pytestmark = pytest.mark.both_catalogs

RUBRIC: list[Any] = [{"feedback_key": "quality", "description": "How good is it?", "is_required": True}]


def given_runs(client: Client, project: str, count: int, **fields: Any) -> list[Any]:
    """Runs that began a second apart, the first first."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    run_ids = [uuid.uuid4() for _ in range(count)]
    for number, run_id in enumerate(run_ids):
        client.create_run(
            f"run {number}",
            {"question": number},
            "chain",
            id=run_id,
            project_name=project,
            start_time=start + timedelta(seconds=number),
            **fields,
        )
    return run_ids


def test_queue_is_created_read_changed_and_deleted(client: Client, project: str) -> None:
    """`create_annotation_queue`, `read_`, `update_` and `delete_`: each sees what the one before has done."""
    queue_id = uuid.uuid4()
    made = client.create_annotation_queue(
        name=project, description="d", queue_id=queue_id, rubric_instructions="Be kind", rubric_items=RUBRIC
    )
    assert (made.id, made.name, made.description, made.rubric_instructions) == (
        queue_id,
        project,
        "d",
        "Be kind",
    )
    client.update_annotation_queue(queue_id, name=f"{project}-new", rubric_instructions="Be strict")
    read = client.read_annotation_queue(queue_id)
    assert isinstance(read, AnnotationQueueWithDetails)
    assert (read.name, read.description, read.rubric_instructions) == (f"{project}-new", "d", "Be strict")
    assert read.updated_at > read.created_at
    client.delete_annotation_queue(queue_id)
    with pytest.raises(LangSmithNotFoundError):
        client.read_annotation_queue(queue_id)
    with pytest.raises(LangSmithNotFoundError):
        client.delete_annotation_queue(queue_id)
    with pytest.raises(LangSmithNotFoundError):
        client.update_annotation_queue(queue_id, name="x")


def test_queue_names_are_unique(client: Client, project: str) -> None:
    """A second queue of one name, or of one id, is a conflict; so is a rename to a taken name."""
    first = client.create_annotation_queue(name=project)
    with pytest.raises(LangSmithConflictError):
        client.create_annotation_queue(name=project)
    with pytest.raises(LangSmithConflictError):
        client.create_annotation_queue(name=f"{project}-2", queue_id=first.id)
    second = client.create_annotation_queue(name=f"{project}-2")
    with pytest.raises(LangSmithConflictError):
        client.update_annotation_queue(second.id, name=project)


def test_list_takes_each_filter(client: Client, project: str) -> None:
    """Ids, names, parts of names and a limit; the last created come first."""
    queues = [client.create_annotation_queue(name=f"{project}-{letter}") for letter in "ABC"]

    def names(**conditions: Any) -> list[str]:
        return [
            queue.name.removeprefix(f"{project}-") for queue in client.list_annotation_queues(**conditions)
        ]

    assert names(name_contains=project) == ["C", "B", "A"]
    assert names(name_contains=f"{project}-a") == ["A"]
    assert names(name=f"{project}-B") == ["B"]
    assert names(name=f"{project}-") == []
    assert names(queue_ids=[queues[0].id, queues[2].id]) == ["C", "A"]
    assert names(name_contains=project, limit=2) == ["C", "B"]


def test_runs_are_added_read_listed_and_removed(client: Client, project: str) -> None:
    """Runs keep the order in which they were added; adding one again changes nothing."""
    run_ids = given_runs(client, project, 3)
    queue = client.create_annotation_queue(name=project)
    client.add_runs_to_annotation_queue(queue.id, run_ids=[run_ids[2], run_ids[0]])
    client.add_runs_to_annotation_queue(queue.id, run_ids=[run_ids[0], run_ids[1]])
    first = client.get_run_from_annotation_queue(queue.id, index=0)
    assert (first.id, first.name, first.inputs) == (run_ids[2], "run 2", {"question": 2})
    assert first.added_at is not None
    listed = list(client.list_runs_from_annotation_queue(queue.id))
    assert [run.id for run in listed] == [run_ids[2], run_ids[0], run_ids[1]]
    client.delete_run_from_annotation_queue(queue.id, run_id=run_ids[0])
    assert client.get_run_from_annotation_queue(queue.id, index=1).id == run_ids[1]
    with pytest.raises(LangSmithNotFoundError):
        client.get_run_from_annotation_queue(queue.id, index=2)
    with pytest.raises(LangSmithNotFoundError):
        client.delete_run_from_annotation_queue(queue.id, run_id=run_ids[0])


def test_runs_are_added_by_key(client: Client, project: str) -> None:
    """`runs` with project and start time are added like bare ids."""
    [run_id] = given_runs(client, project, 1)
    run = client.read_run(run_id)
    queue = client.create_annotation_queue(name=project)
    client.add_runs_to_annotation_queue(
        queue.id,
        runs=[{"run_id": run_id, "session_id": str(run.session_id), "start_time": run.start_time}],
    )
    assert client.get_run_from_annotation_queue(queue.id, index=0).id == run_id


def test_unknown_runs_and_queues_are_not_found(client: Client, project: str) -> None:
    """Nothing is added when one of the runs does not exist; nor to a queue that does not exist."""
    [run_id] = given_runs(client, project, 1)
    queue = client.create_annotation_queue(name=project)
    with pytest.raises(LangSmithNotFoundError):
        client.add_runs_to_annotation_queue(queue.id, run_ids=[run_id, uuid.uuid4()])
    assert list(client.list_runs_from_annotation_queue(queue.id)) == []
    with pytest.raises(LangSmithNotFoundError):
        client.add_runs_to_annotation_queue(uuid.uuid4(), run_ids=[run_id])


def test_list_of_runs_walks_pages(client: Client, project: str) -> None:
    """More runs than a page holds are all listed, each once, in order."""
    run_ids = given_runs(client, project, 105)
    queue = client.create_annotation_queue(name=project)
    client.add_runs_to_annotation_queue(queue.id, run_ids=run_ids)
    assert [run.id for run in client.list_runs_from_annotation_queue(queue.id)] == run_ids
    assert len(list(client.list_runs_from_annotation_queue(queue.id, limit=3))) == 3


async def test_reviews_move_runs_through_the_sections(client: Client, project: str) -> None:
    """A run that its reviewer completes is archived; taking the review back brings it back."""
    run_ids = given_runs(client, project, 2)
    queue = client.create_annotation_queue(name=project)
    client.add_runs_to_annotation_queue(queue.id, run_ids=run_ids)
    generated = client.annotation_queues

    def ids(status: Any) -> list[uuid.UUID]:
        return [run.id for run in client.list_runs_from_annotation_queue(queue.id, status=status)]

    async def sizes() -> list[int]:
        answers = [
            await generated.retrieve_size(str(queue.id), status="needs_my_review"),
            await generated.retrieve_size(str(queue.id), status="needs_others_review"),
            await generated.retrieve_size(str(queue.id), status="completed"),
            await generated.retrieve_size(str(queue.id)),
            await generated.retrieve_total_size(str(queue.id)),
            await generated.retrieve_total_archived(str(queue.id)),
        ]
        return [answer.size for answer in answers]

    assert ids("needs_my_review") == run_ids
    item = await generated.retrieve_run(0, queue_id=str(queue.id))
    await generated.create_run_status(item.queue_run_id, status="viewed")
    assert ids("needs_my_review") == run_ids
    await generated.create_run_status(item.queue_run_id, status="completed")
    assert (ids("needs_my_review"), ids("completed")) == ([run_ids[1]], [run_ids[0]])
    assert client.get_run_from_annotation_queue(queue.id, index=0).id == run_ids[1]
    [archived] = client.list_runs_from_annotation_queue(queue.id, status="completed")
    assert archived.last_reviewed_time is not None
    assert await sizes() == [1, 0, 1, 2, 2, 1]
    await generated.create_run_status(item.queue_run_id, status=None)
    assert ids("needs_my_review") == run_ids
    assert await sizes() == [2, 0, 0, 2, 2, 0]


async def test_queue_of_two_reviewers_waits_for_the_other(guarded: Server, key: str, project: str) -> None:
    """With two reviewers an item needs both: each sees what they, and what others, have to do."""
    other_key = guarded.create_key("research")
    mine, theirs = Client(guarded.url, api_key=key), Client(guarded.url, api_key=other_key)
    [run_id] = given_runs(mine, project, 1)
    queue = await mine.annotation_queues.annotation_queues(name=project, num_reviewers_per_item=2)
    mine.add_runs_to_annotation_queue(queue.id, run_ids=[run_id])
    item = await mine.annotation_queues.retrieve_run(0, queue_id=queue.id)

    def sections(client: Client) -> list[str]:
        statuses: list[Any] = ["needs_my_review", "needs_others_review", "completed"]
        return [
            status
            for status in statuses
            if list(client.list_runs_from_annotation_queue(queue.id, status=status))
        ]

    await mine.annotation_queues.create_run_status(item.queue_run_id, status="completed")
    assert sections(mine) == ["needs_others_review"]
    assert sections(theirs) == ["needs_my_review"]
    await theirs.annotation_queues.create_run_status(item.queue_run_id, status="completed")
    assert sections(mine) == sections(theirs) == ["completed"]
    # Wanting a third review brings it back, for those who have not judged it.
    await mine.annotation_queues.update(queue.id, num_reviewers_per_item=3)
    assert sections(mine) == ["needs_others_review"]
    mine.close()
    theirs.close()


def test_queues_of_another_tenant_are_not_found(
    guarded: Server, key: str, foreign_key: str, project: str
) -> None:
    """Another tenant neither reads nor changes a queue, nor puts runs of others into its own."""
    mine, theirs = Client(guarded.url, api_key=key), Client(guarded.url, api_key=foreign_key)
    [run_id] = given_runs(mine, project, 1)
    queue = mine.create_annotation_queue(name=project)
    mine.add_runs_to_annotation_queue(queue.id, run_ids=[run_id])
    assert list(theirs.list_annotation_queues(name=project)) == []
    with pytest.raises(LangSmithNotFoundError):
        theirs.get_run_from_annotation_queue(queue.id, index=0)
    with pytest.raises(LangSmithNotFoundError):
        theirs.delete_run_from_annotation_queue(queue.id, run_id=run_id)
    their_queue = theirs.create_annotation_queue(name=project)
    with pytest.raises(LangSmithNotFoundError):
        theirs.add_runs_to_annotation_queue(their_queue.id, run_ids=[run_id])
    mine.close()
    theirs.close()


async def test_generated_client_manages_queues_and_runs(client: Client, project: str) -> None:
    """The generated resource: queues of a run, times of an item, removal of many, populate and export."""
    queues = client.annotation_queues
    queue = await queues.annotation_queues(name=project, metadata={"team": "a"}, rubric_items=RUBRIC)
    read = await queues.retrieve(queue.id)
    assert (read.queue_type, read.metadata) == ("single", {"team": "a"})
    assert read.rubric_items is not None
    assert read.rubric_items[0].feedback_key == "quality"
    experiment = client.create_project(project, reference_dataset_id=uuid.uuid4())
    run_ids = [str(run_id) for run_id in given_runs(client, project, 3)]
    await queues.populate(queue_id=queue.id, session_ids=[str(experiment.id)])
    assert [run.id for run in await queues.runs.list(queue.id)] == run_ids
    assert [found.id for found in await queues.retrieve_queues(run_ids[0])] == [queue.id]
    [listed] = [found async for found in queues.retrieve_annotation_queues(name=project)]
    assert listed.total_runs == 3
    # Put at the end of the queue.
    await queues.runs.update(run_ids[0], queue_id=queue.id, added_at=datetime.now(UTC) + timedelta(hours=1))
    assert [run.id for run in await queues.runs.list(queue.id)] == [*run_ids[1:], run_ids[0]]
    item = await queues.retrieve_run(0, queue_id=queue.id)
    await queues.create_run_status(item.queue_run_id, status="completed")
    exported: Any = await queues.export(queue.id, include_annotator_detail=True)
    assert [(run["id"], run["inputs"], len(run["completed_by"])) for run in exported] == [
        (run_ids[1], {"question": 1}, 1)
    ]
    assert await queues.export(queue.id, end_time=datetime(2026, 1, 1, tzinfo=UTC)) == []
    await queues.runs.delete_all(queue.id, run_ids=run_ids[:1])
    assert [run.id for run in await queues.runs.list(queue.id)] == run_ids[1:]
    await queues.runs.delete_all(queue.id, exclude_run_ids=run_ids[2:])
    assert [run.id for run in await queues.runs.list(queue.id)] == run_ids[2:]
    await queues.runs.delete_all(queue.id, delete_all=True)
    assert await queues.runs.list(queue.id) == []


def test_only_experiments_populate_a_queue(client: Client, project: str) -> None:
    """A project that refers to no dataset is refused, and named."""
    queue = client.create_annotation_queue(name=project)
    plain = client.create_project(project)
    body = {"queue_id": str(queue.id), "session_ids": [str(plain.id)]}
    with pytest.raises(LangSmithError, match="is no experiment"):
        client.request_with_retries("POST", "/annotation-queues/populate", json=body)


async def test_items_hold_runs_and_threads(client: Client, project: str) -> None:
    """The generated client's items: added, listed by section and page, counted, placed, reviewed, removed."""
    queue = client.create_annotation_queue(name=project)
    queue_id, items = str(queue.id), client.annotation_queues.items
    run_ids = [str(run_id) for run_id in given_runs(client, project, 3)]
    project_id = str(client.read_project(project_name=project).id)
    created = await items.create(
        queue_id,
        items=[
            *({"item_type": "RUN", "run_id": run_id} for run_id in run_ids),  # type: ignore[list-item]
            {"item_type": "THREAD", "thread_id": "t/1 ü", "session_id": project_id},
        ],
    )
    assert created.items is not None
    ids = [str(item.id) for item in created.items]
    assert [item.item_type for item in created.items] == ["RUN", "RUN", "RUN", "THREAD"]
    again = await items.create(
        queue_id, items=[{"item_type": "THREAD", "thread_id": "t/1 ü", "project_id": project_id}]
    )
    assert again.items is not None
    assert [item.id for item in again.items] == ids[3:]

    async def listed(**conditions: Any) -> list[str]:
        return [str(item.id) async for item in items.list(queue_id, **conditions)]

    assert await listed(status="needs_my_review", page_size=3) == ids
    assert await listed(status="needs_my_review", item_type="THREAD") == ids[3:]
    bound = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert await listed(status="needs_my_review", min_start_time=bound) == ids[1:3]
    assert await listed(status="needs_my_review", max_start_time=bound) == ids[:2]
    placed = await items.retrieve_placement(ids[2], queue_id=queue_id)
    assert (placed.section, placed.position, placed.item_type) == ("needs_my_review", 2, "RUN")
    assert placed.cursor is not None
    assert await listed(status="needs_my_review", cursor=placed.cursor) == ids[2:]
    page = await items.list(queue_id, status="needs_my_review", cursor=placed.cursor, direction="backward")
    assert [item.id for item in page.items] == ids[:1]
    reviewed = await items.create_status(ids[3], status="completed")
    assert (reviewed.queue_item_id, reviewed.status, reviewed.is_archived) == (ids[3], "completed", True)
    assert await listed(status="archived") == ids[3:]
    counts = {
        status: (await items.retrieve_count(queue_id, status=status)).count
        for status in ("all", "needs_my_review", "needs_others_review", "archived")
    }
    assert counts == {"all": 4, "needs_my_review": 3, "needs_others_review": 0, "archived": 1}
    # The reviewer puts the first one behind the others, for themselves.
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await items.create_status(ids[0], status="viewed", override_added_at=later)
    assert await listed(status="needs_my_review") == [ids[1], ids[2], ids[0]]
    updated = await items.update(ids[1], queue_id=queue_id, added_at=datetime.now(UTC) + timedelta(hours=2))
    assert updated.run_id == run_ids[1]
    assert await listed(status="needs_my_review", page_size=1) == [ids[2], ids[0], ids[1]]
    await items.delete_all(queue_id, item_ids=[ids[0], ids[3]])
    assert (await items.retrieve_count(queue_id, status="all")).count == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/annotation-queues", {"description": "no name"}, 422, "name"),
        ("POST", "/annotation-queues", {"name": ""}, 422, "name"),
        ("POST", "/annotation-queues", {"name": "x", "reviewer_access_mode": "no"}, 422, "access_mode"),
        ("POST", "/annotation-queues", {"name": "x", "num_reviewers_per_item": 0}, 422, "num_reviewers"),
        ("GET", "/annotation-queues/x", None, 422, "queue_id"),
        ("GET", "/annotation-queues?limit=0", None, 422, "limit"),
        ("POST", "/annotation-queues/{queue}/runs", ["x"], 422, "body"),
        ("POST", "/annotation-queues/{queue}/runs/delete", {}, 422, "run_ids"),
        ("GET", "/annotation-queues/{queue}/runs?status=x", None, 422, "status"),
        ("POST", "/annotation-queues/status/{queue}", {"status": "completed"}, 404, "no item"),
        ("GET", "/v1/platform/annotation-queues/{queue}/items", None, 422, "status"),
        ("GET", "/v1/platform/annotation-queues/{queue}/items?status=archived&cursor=x", None, 400, "cursor"),
        ("POST", "/v1/platform/annotation-queues/{queue}/items", {"items": [{}]}, 422, "items.0.run_id"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_named(
    server: Server, client: Client, project: str, method: str, path: str, body: Any, status: int, field: str
) -> None:
    """The contract's status, and the field at fault in the answer."""
    queue = client.create_annotation_queue(name=project)
    answer = httpx.request(method, server.url + path.format(queue=queue.id), json=body)
    assert answer.status_code == status
    assert field in answer.text


async def test_async_client_manages_queues(async_client: AsyncClient, project: str) -> None:
    """Each method of the asynchronous client, once around."""
    run_id = uuid.uuid4()
    await async_client.create_run("r", {"a": 1}, "tool", id=run_id, project_name=project)
    queue = await async_client.create_annotation_queue(name=project, rubric_items=RUBRIC)
    with pytest.raises(LangSmithConflictError):
        await async_client.create_annotation_queue(name=project)
    assert [found.id async for found in async_client.list_annotation_queues(name=project)] == [queue.id]
    await async_client.update_annotation_queue(queue.id, description="new")
    assert (await async_client.read_annotation_queue(queue.id)).description == "new"
    await async_client.add_runs_to_annotation_queue(queue.id, run_ids=[run_id])
    assert (await async_client.get_run_from_annotation_queue(queue.id, index=0)).id == run_id
    runs = [run.id async for run in async_client.list_runs_from_annotation_queue(queue.id)]
    assert runs == [run_id]
    await async_client.delete_run_from_annotation_queue(queue.id, run_id=run_id)
    with pytest.raises(LangSmithNotFoundError):
        await async_client.get_run_from_annotation_queue(queue.id, index=0)
    await async_client.delete_annotation_queue(queue.id)
    # Where the synchronous client says NotFound, this one ends a list.
    with pytest.raises(StopAsyncIteration):
        await async_client.read_annotation_queue(queue.id)
