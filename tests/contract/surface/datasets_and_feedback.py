"""Datasets, examples, feedback and annotation queues of the handwritten clients."""

import uuid
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from langsmith import schemas
from langsmith.utils import LangSmithError

from .scenarios import BOTH, SYNC, World, shows

# Their constructors are untyped.
_Create: Any = schemas.ExampleCreate
_Update: Any = schemas.ExampleUpdate


@shows(BOTH, "create_dataset", "read_dataset", "list_datasets", "delete_dataset")
def datasets(sdk: Any, world: World) -> None:
    name = world.name()
    made = sdk.create_dataset(name, description="d")
    assert sdk.read_dataset(dataset_name=name).id == made.id
    assert sdk.read_dataset(dataset_id=made.id).description == "d"
    assert made.id in [dataset.id for dataset in sdk.list_datasets()]
    sdk.delete_dataset(dataset_id=made.id)
    assert not world.client.has_dataset(dataset_name=name)


@shows(BOTH, "create_example", "read_example", "list_examples")
def examples(sdk: Any, world: World) -> None:
    dataset_id = world.dataset(0)
    made = sdk.create_example({"q": 1}, outputs={"a": 2}, dataset_id=dataset_id)
    read = sdk.read_example(made.id)
    assert (read.inputs, read.outputs) == ({"q": 1}, {"a": 2})
    assert [example.id for example in sdk.list_examples(dataset_id=dataset_id)] == [made.id]


@shows(SYNC, "has_dataset", "upload_csv", "upload_dataframe", "read_dataset_openai_finetuning")
def files_of_datasets(sdk: Any, world: World) -> None:
    pd = import_module("pandas")  # Two seconds, and it has no types.
    table = pd.DataFrame({"q": ["1", "2"], "a": ["x", "y"]})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file.csv"
        table.to_csv(path, index=False)
        uploaded = sdk.upload_csv(str(path), ["q"], ["a"], name=world.name())
    again = sdk.upload_dataframe(table, world.name(), ["q"], ["a"])
    for dataset in (uploaded, again):
        assert sdk.has_dataset(dataset_id=dataset.id)
        found = [example.inputs for example in world.client.list_examples(dataset_id=dataset.id)]
        assert found == [{"q": "1"}, {"q": "2"}]
    chat = world.client.create_dataset(world.name(), data_type=schemas.DataType.chat)
    message = {"type": "human", "data": {"content": "hi"}}
    world.client.create_example(
        {"input": [message]}, outputs={"output": {**message, "type": "ai"}}, dataset_id=chat.id
    )
    assert "hi" in str(sdk.read_dataset_openai_finetuning(dataset_id=chat.id))


@shows(
    SYNC,
    *("create_examples", "update_example", "update_examples", "delete_example", "delete_examples"),
    *("create_chat_example", "create_llm_example", "create_example_from_run"),
)
def examples_beside(sdk: Any, world: World) -> None:
    dataset_id = world.dataset(0)

    def questions() -> list[Any]:
        return [each.inputs for each in world.client.list_examples(dataset_id=dataset_id)]

    made = sdk.create_examples(dataset_id=dataset_id, examples=[{"inputs": {"q": n}} for n in range(3)])
    ids = made["example_ids"]
    sdk.update_example(ids[0], inputs={"q": 10}, dataset_id=dataset_id)
    sdk.update_examples(dataset_id=dataset_id, updates=[{"id": ids[1], "inputs": {"q": 11}}])
    assert sorted(each["q"] for each in questions()) == [2, 10, 11]
    sdk.delete_example(ids[0])
    sdk.delete_examples(ids[1:2], hard_delete=True)
    assert questions() == [{"q": 2}]
    chat = sdk.create_chat_example([{"type": "human", "data": {"content": "hi"}}], dataset_id=dataset_id)
    llm = sdk.create_llm_example("2+2", "4", dataset_id=dataset_id)
    copied = sdk.create_example_from_run(world.client.read_run(world.run_id), dataset_id=dataset_id)
    assert chat.inputs["input"][0]["data"]["content"] == "hi"
    assert (llm.inputs, llm.outputs) == ({"input": "2+2"}, {"output": "4"})
    assert (copied.inputs, copied.outputs) == ({"q": "why"}, {"a": "because"})


@shows(SYNC, "upload_examples_multipart", "update_examples_multipart", "upsert_examples_multipart")
def multipart_examples(sdk: Any, world: World) -> None:
    dataset_id, example_id = world.dataset(0), uuid.uuid4()
    upload: Any = _Create(id=example_id, inputs={"q": 1}, attachments={"f": ("text/plain", b"1")})
    assert sdk.upload_examples_multipart(dataset_id=dataset_id, uploads=[upload])["count"] == 1
    change: Any = _Update(id=example_id, inputs={"q": 2})
    assert sdk.update_examples_multipart(dataset_id=dataset_id, updates=[change])["count"] == 1
    upsert = schemas.ExampleUpsertWithAttachments(id=example_id, dataset_id=dataset_id, inputs={"q": 3})
    assert sdk.upsert_examples_multipart(upserts=[upsert])["count"] == 1
    assert world.client.read_example(example_id).inputs == {"q": 3}


@shows(
    SYNC,
    *("list_dataset_versions", "read_dataset_version", "update_dataset_tag", "diff_dataset_versions"),
    *("list_dataset_splits", "update_dataset_splits"),
)
def versions(sdk: Any, world: World) -> None:
    dataset_id = world.dataset(1)
    first = sdk.read_dataset_version(dataset_id=dataset_id, tag="latest").as_of
    sdk.update_dataset_tag(dataset_id=dataset_id, as_of=first, tag="prod")
    added = world.client.create_example({"q": 2}, dataset_id=dataset_id)
    diff = sdk.diff_dataset_versions(dataset_id=dataset_id, from_version="prod", to_version="latest")
    assert diff.examples_added == [added.id]
    assert [version.tags for version in sdk.list_dataset_versions(dataset_id=dataset_id)] == [
        ["latest"],
        ["prod"],
    ]
    sdk.update_dataset_splits(dataset_id=dataset_id, split_name="test", example_ids=[added.id])
    assert sdk.list_dataset_splits(dataset_id=dataset_id) == ["base", "test"]


@shows(
    SYNC,
    *("share_dataset", "unshare_dataset", "read_dataset_shared_schema", "read_shared_dataset"),
    *("list_shared_examples", "list_shared_projects", "clone_public_dataset"),
)
def shared_datasets(sdk: Any, world: World) -> None:
    dataset_id = world.dataset()
    token = str(sdk.share_dataset(dataset_id)["share_token"])
    assert str(sdk.read_dataset_shared_schema(dataset_id)["share_token"]) == token
    assert sdk.read_shared_dataset(token).id == dataset_id
    assert [example.inputs for example in sdk.list_shared_examples(token)] == [{"q": 0}, {"q": 1}]
    assert sdk.list_shared_projects(dataset_share_token=token) == []
    copy = sdk.clone_public_dataset(
        f"{world.url}/public/{token}/d", source_api_url=world.url, dataset_name=world.name()
    )
    copied = [example.outputs for example in world.client.list_examples(dataset_id=copy.id)]
    assert copied == [{"a": 0}, {"a": 1}]
    sdk.unshare_dataset(dataset_id)
    with pytest.raises(LangSmithError):
        sdk.read_shared_dataset(token)


@shows(BOTH, "create_feedback", "read_feedback", "list_feedback", "delete_feedback")
def feedback(sdk: Any, world: World) -> None:
    feedback_id, key = uuid.uuid4(), world.name()
    sdk.create_feedback(world.run_id, key, score=0.5, comment="c", feedback_id=feedback_id)
    read = sdk.read_feedback(feedback_id)
    assert (read.run_id, read.key, read.score, read.comment) == (world.run_id, key, 0.5, "c")
    listed = sdk.list_feedback(run_ids=[world.run_id], feedback_key=[key])
    assert [record.id for record in listed] == [feedback_id]
    sdk.delete_feedback(feedback_id)
    assert sdk.list_feedback(run_ids=[world.run_id], feedback_key=[key]) == []


@shows(BOTH, "create_presigned_feedback_token", "create_feedback_from_token")
def feedback_tokens(sdk: Any, world: World) -> None:
    key = world.name()
    token = sdk.create_presigned_feedback_token(world.run_id, key)
    sdk.create_feedback_from_token(token.id, score=1)
    [record] = world.client.list_feedback(run_ids=[world.run_id], feedback_key=[key])
    assert record.score == 1


@shows(
    BOTH,
    *("create_feedback_config", "list_feedback_configs", "update_feedback_config", "delete_feedback_config"),
)
def feedback_configs(sdk: Any, world: World) -> None:
    key = world.name()
    sdk.create_feedback_config(key, feedback_config={"type": "continuous", "min": 0, "max": 1})
    sdk.update_feedback_config(key, is_lower_score_better=True)
    [config] = sdk.list_feedback_configs(feedback_key=[key])
    assert (config.feedback_config["max"], config.is_lower_score_better) == (1, True)
    sdk.delete_feedback_config(key)
    assert sdk.list_feedback_configs(feedback_key=[key]) == []


@shows(SYNC, "update_feedback", "create_presigned_feedback_tokens", "list_presigned_feedback_tokens")
def feedback_beside(sdk: Any, world: World) -> None:
    run_id, feedback_id = uuid.uuid4(), uuid.uuid4()
    world.client.create_run("judged", {}, "tool", id=run_id, project_name=world.project)
    world.client.create_feedback(run_id, "k", score=0, feedback_id=feedback_id)
    sdk.update_feedback(feedback_id, score=1)
    assert world.client.read_feedback(feedback_id).score == 1
    made = sdk.create_presigned_feedback_tokens(run_id, ["a", "b"])
    listed = sdk.list_presigned_feedback_tokens(run_id)
    assert {token.id for token in listed} == {token.id for token in made}


@shows(
    BOTH,
    *("create_annotation_queue", "list_annotation_queues", "read_annotation_queue"),
    *("update_annotation_queue", "delete_annotation_queue", "add_runs_to_annotation_queue"),
    *("get_run_from_annotation_queue", "list_runs_from_annotation_queue", "delete_run_from_annotation_queue"),
)
def queues(sdk: Any, world: World) -> None:
    queue = sdk.create_annotation_queue(name=world.name())
    sdk.update_annotation_queue(queue.id, description="new")
    assert sdk.read_annotation_queue(queue.id).description == "new"
    assert [found.id for found in sdk.list_annotation_queues(name=queue.name)] == [queue.id]
    sdk.add_runs_to_annotation_queue(queue.id, run_ids=[world.run_id])
    assert sdk.get_run_from_annotation_queue(queue.id, index=0).id == world.run_id
    sdk.delete_run_from_annotation_queue(queue.id, run_id=world.run_id)
    assert sdk.list_runs_from_annotation_queue(queue.id) == []
    sdk.delete_annotation_queue(queue.id)
    assert sdk.list_annotation_queues(name=queue.name) == []
