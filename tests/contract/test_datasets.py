"""Datasets and examples through the newest Python SDKs: created, versioned, changed, listed, deleted."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from langsmith import AsyncClient, Client
from langsmith.schemas import AttachmentsOperations, Dataset, DataType, Example, ExampleUpdate
from langsmith.utils import LangSmithConflictError, LangSmithError, LangSmithNotFoundError

from .servers import Server

pytestmark = pytest.mark.both_catalogs


@pytest.fixture
def dataset(client: Client) -> Dataset:
    """An empty dataset that no other test uses."""
    return client.create_dataset(f"dataset-{uuid.uuid4().hex}")


def files_of(example: Example) -> dict[str, tuple[str, bytes]]:
    """An example's files, fetched: name → MIME type and content."""
    attachments: dict[str, Any] = dict(example.attachments or {})
    return {name: (file["mime_type"], file["reader"].read()) for name, file in attachments.items()}


def change_of(example_id: uuid.UUID) -> ExampleUpdate:
    return ExampleUpdate(id=example_id, inputs={"q": 2})  # type: ignore[no-untyped-call]


def test_a_dataset_from_its_creation_to_its_end(client: Client) -> None:
    """What is given is read back by id and by name; a second of the name is refused; one deleted is gone."""
    name, schema = f"dataset-{uuid.uuid4().hex}", {"type": "object", "properties": {"q": {"type": "string"}}}
    created = client.create_dataset(
        name, description="☃", data_type=DataType.chat, inputs_schema=schema, metadata={"k": [1]}
    )
    assert created.url is not None
    for read in (client.read_dataset(dataset_id=created.id), client.read_dataset(dataset_name=name)):
        assert (read.id, read.name, read.description, read.data_type) == (
            created.id, name, "☃", DataType.chat,
        )  # fmt: skip
        assert (read.inputs_schema, read.outputs_schema, read.example_count) == (schema, None, 0)
        assert read.metadata is not None
        assert read.metadata["k"] == [1]
        assert "runtime" in read.metadata
    assert client.has_dataset(dataset_name=name)
    with pytest.raises(LangSmithConflictError):
        client.create_dataset(name)
    client.delete_dataset(dataset_id=created.id)
    assert not client.has_dataset(dataset_name=name)
    with pytest.raises(LangSmithNotFoundError):
        client.read_dataset(dataset_id=created.id)
    with pytest.raises(LangSmithNotFoundError):
        client.delete_dataset(dataset_id=created.id)


def test_lists_of_datasets(client: Client, server: Server) -> None:
    """Lists are in order of creation, newest first, and every condition holds."""
    mark = uuid.uuid4().hex
    made = [client.create_dataset(f"{mark}-{i}", metadata={"i": i, "mark": mark}) for i in range(3)]
    found = list(client.list_datasets(dataset_name_contains=mark.upper()))
    assert [each.name for each in found] == [f"{mark}-{i}" for i in (2, 1, 0)]
    assert [each.id for each in client.list_datasets(dataset_ids=[made[1].id])] == [made[1].id]
    assert [each.id for each in client.list_datasets(metadata={"mark": mark, "i": 1})] == [made[1].id]
    assert list(client.list_datasets(dataset_name_contains=mark, data_type="llm")) == []
    assert len(list(client.list_datasets(dataset_name_contains=mark, limit=2))) == 2
    client.create_project(f"experiment-{mark}", reference_dataset_id=made[0].id)
    listed = httpx.get(
        f"{server.url}/datasets", params={"name_contains": mark, "sort_by": "last_session_start_time"}
    ).json()
    assert [each["id"] for each in listed] == [str(made[i].id) for i in (0, 2, 1)]
    assert [each["session_count"] for each in listed] == [1, 0, 0]
    assert listed[0]["last_session_start_time"] is not None


def test_an_example_from_its_creation_to_its_end(client: Client, dataset: Dataset) -> None:
    """An example keeps what an update does not name; deleted softly it is in older versions alone."""
    source = uuid.uuid4()
    made = client.create_example(
        inputs={"q": "☃", "n": None}, outputs={"a": [1, {"b": 2}]}, dataset_id=dataset.id,
        metadata={"m": 1}, split="train", source_run_id=source,
    )  # fmt: skip
    read = client.read_example(made.id)
    assert (read.dataset_id, read.inputs, read.outputs) == (
        dataset.id, {"q": "☃", "n": None}, {"a": [1, {"b": 2}]},
    )  # fmt: skip
    assert (read.metadata, read.source_run_id) == ({"m": 1, "dataset_split": ["train"]}, source)
    first = client.read_dataset_version(dataset_id=dataset.id, tag="latest").as_of
    assert read.modified_at is not None
    assert read.modified_at == first.replace(tzinfo=read.modified_at.tzinfo)
    client.update_example(made.id, inputs={"q": "new"})
    changed = client.read_example(made.id)
    assert (changed.inputs, changed.outputs, changed.metadata) == ({"q": "new"}, read.outputs, read.metadata)
    assert changed.created_at == read.created_at
    assert changed.modified_at is not None
    assert changed.modified_at > read.modified_at
    assert client.read_example(made.id, as_of=read.modified_at).inputs == read.inputs
    client.update_example(made.id, metadata={"other": True}, split=["a", "b"])
    assert client.read_example(made.id).metadata == {"other": True, "dataset_split": ["a", "b"]}
    client.delete_example(made.id)
    with pytest.raises(LangSmithNotFoundError):
        client.read_example(made.id)
    assert list(client.list_examples(dataset_id=dataset.id)) == []
    [old] = client.list_examples(dataset_id=dataset.id, as_of=first)
    assert old.inputs == read.inputs
    assert client.read_dataset(dataset_id=dataset.id).example_count == 0
    client.delete_examples([made.id], hard_delete=True)
    assert list(client.list_examples(dataset_id=dataset.id, as_of=first)) == []


def test_ids_are_taken_once(client: Client, dataset: Dataset) -> None:
    """An id that exists is refused for a create, and every write to an example through another dataset."""
    example_id = uuid.uuid4()
    client.create_example({"q": 1}, dataset_id=dataset.id, example_id=example_id)
    with pytest.raises(LangSmithConflictError):
        client.create_example({"q": 2}, dataset_id=dataset.id, example_id=example_id)
    other = client.create_dataset(f"dataset-{uuid.uuid4().hex}")
    with pytest.raises(LangSmithConflictError):
        client.create_example({"q": 2}, dataset_id=other.id, example_id=example_id)
    with pytest.raises(LangSmithConflictError):
        client.update_examples(dataset_id=other.id, updates=[change_of(example_id)])
    with pytest.raises(LangSmithNotFoundError):
        client.update_examples(dataset_id=dataset.id, updates=[change_of(uuid.uuid4())])
    with pytest.raises(LangSmithNotFoundError):
        client.create_example({"q": 2}, dataset_id=uuid.uuid4())
    assert [each.inputs for each in client.list_examples(dataset_id=dataset.id)] == [{"q": 1}]
    assert list(client.list_examples(dataset_id=other.id)) == []


def test_a_write_is_one_version_or_nothing(client: Client, dataset: Dataset) -> None:
    """Of a write with one wrong example nothing is stored; a right one is one version in its own order."""
    taken = client.create_example({"q": "taken"}, dataset_id=dataset.id)
    with pytest.raises(LangSmithConflictError):
        client.create_examples(
            dataset_id=dataset.id,
            examples=[{"inputs": {"q": 1}}, {"id": taken.id, "inputs": {"q": 2}}],
        )
    assert len(list(client.list_dataset_versions(dataset_id=dataset.id))) == 1
    client.create_examples(dataset_id=dataset.id, examples=[{"inputs": {"q": i}} for i in range(250)])
    assert len(list(client.list_dataset_versions(dataset_id=dataset.id))) == 2
    listed = list(client.list_examples(dataset_id=dataset.id))
    assert [each.inputs for each in listed] == [*({"q": i} for i in range(250)), {"q": "taken"}]
    assert client.read_dataset(dataset_id=dataset.id).example_count == 251


def test_files(client: Client, dataset: Dataset) -> None:
    """Files are read back; updates replace, keep, rename and drop them as they say."""
    example_id = uuid.uuid4()
    big = bytes(range(256)) * 8_192
    client.create_examples(
        dataset_id=dataset.id,
        examples=[
            {
                "id": example_id,
                "inputs": {"q": 1},
                "attachments": {
                    "b": ("image/png", b"\x00\xff"),
                    "a": ("text/plain", b""),
                    "big": ("x/y", big),
                },
            }
        ],
    )
    read = client.read_example(example_id)
    assert files_of(read) == {"b": ("image/png", b"\x00\xff"), "a": ("text/plain", b""), "big": ("x/y", big)}
    assert list(read.attachments or {}) == ["b", "a", "big"]
    [listed] = client.list_examples(dataset_id=dataset.id, include_attachments=True)
    assert files_of(listed) == {
        "b": ("image/png", b"\x00\xff"),
        "a": ("text/plain", b""),
        "big": ("x/y", big),
    }
    assert listed.inputs == {"q": 1}
    [bare] = client.list_examples(dataset_id=dataset.id)
    assert not bare.attachments
    client.update_example(example_id, inputs={"q": 2})
    assert set(files_of(client.read_example(example_id))) == {"a", "b", "big"}
    client.update_example(
        example_id,
        attachments_operations=AttachmentsOperations(rename={"b": "c"}, retain=["a"]),
        attachments={"c": ("x/new", b"wins")},
    )
    assert files_of(client.read_example(example_id)) == {"c": ("x/new", b"wins"), "a": ("text/plain", b"")}
    client.update_example(example_id, attachments={"only": ("x/y", b"1")})
    assert files_of(client.read_example(example_id)) == {"only": ("x/y", b"1")}
    assert read.modified_at is not None
    assert set(files_of(client.read_example(example_id, as_of=read.modified_at))) == {"a", "b", "big"}
    client.delete_examples([example_id], hard_delete=True)
    with pytest.raises(LangSmithNotFoundError):
        client.read_example(example_id, as_of=read.modified_at)


def test_large_contents(client: Client, dataset: Dataset) -> None:
    """Inputs and outputs of megabytes, and files of tens of them, come back whole."""
    inputs, outputs = {"text": "ü" * 2_000_000}, {"text": "y" * 16_000_000}
    files = {f"f{i}": ("x/y", bytes([i]) * 9_000_000) for i in range(2)}
    made = client.create_example(inputs, outputs=outputs, dataset_id=dataset.id, attachments=files)
    read = client.read_example(made.id)
    assert (read.inputs, read.outputs) == (inputs, outputs)
    assert files_of(read) == files
    client.update_example(made.id, metadata={"k": 1})
    [listed] = client.list_examples(dataset_id=dataset.id)
    assert (listed.inputs, listed.outputs) == (inputs, outputs)


def test_versions_tags_and_diff(client: Client, dataset: Dataset, server: Server) -> None:
    """Versions are named and compared; a tag moves; reads by tag see its version."""
    first = client.create_example({"q": 1}, dataset_id=dataset.id)
    client.update_dataset_tag(
        dataset_id=dataset.id,
        as_of=client.read_dataset_version(dataset_id=dataset.id, tag="latest").as_of,
        tag="prod",
    )
    second = client.create_example({"q": 2}, dataset_id=dataset.id)
    client.update_example(first.id, inputs={"q": 1})
    client.delete_example(second.id)
    third = client.create_example({"q": 3}, dataset_id=dataset.id)
    versions = list(client.list_dataset_versions(dataset_id=dataset.id))
    assert len(versions) == 5
    assert [version.tags for version in versions] == [["latest"], None, None, None, ["prod"]]
    times = [version.as_of for version in versions]
    assert times == sorted(times, reverse=True)
    assert [each.inputs for each in client.list_examples(dataset_id=dataset.id, as_of="prod")] == [{"q": 1}]
    by_tag = httpx.get(f"{server.url}/examples/{first.id}", params={"as_of": "prod"}).json()
    assert by_tag["inputs"] == {"q": 1}
    diff = client.diff_dataset_versions(dataset_id=dataset.id, from_version="prod", to_version="latest")
    assert (diff.examples_modified, diff.examples_added, diff.examples_removed) == (
        [first.id],
        [third.id],
        [],
    )
    diff = client.diff_dataset_versions(dataset_id=dataset.id, from_version=times[2], to_version="latest")
    assert (diff.examples_modified, diff.examples_added, diff.examples_removed) == (
        [], [third.id], [second.id],
    )  # fmt: skip
    client.update_dataset_tag(dataset_id=dataset.id, as_of=times[1], tag="prod")
    assert client.read_dataset_version(dataset_id=dataset.id, tag="prod").as_of == times[1]
    assert client.read_dataset_version(dataset_id=dataset.id, as_of=datetime.now(UTC)).as_of == times[0]
    with pytest.raises(LangSmithNotFoundError):
        client.read_dataset_version(dataset_id=dataset.id, as_of=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(LangSmithNotFoundError):
        client.read_dataset_version(dataset_id=dataset.id, tag="nobody's")
    with pytest.raises(LangSmithError):
        client.update_dataset_tag(dataset_id=dataset.id, as_of=times[1], tag="latest")


def test_splits(client: Client, dataset: Dataset) -> None:
    """Examples are in `base` unless told; splits are listed, changed, filtered by, also in old versions."""
    made = [client.create_example({"q": i}, dataset_id=dataset.id, split=s) for i, s in enumerate(
        [None, "train", ["train", "test"]]
    )]  # fmt: skip
    assert client.list_dataset_splits(dataset_id=dataset.id) == ["base", "test", "train"]

    def of(*splits: str, **more: Any) -> set[int]:
        found = client.list_examples(dataset_id=dataset.id, splits=splits, **more)
        return {each.inputs["q"] for each in found if each.inputs is not None}

    assert (of("base"), of("train"), of("test"), of("base", "test")) == ({0}, {1, 2}, {2}, {0, 2})
    before = client.read_dataset_version(dataset_id=dataset.id, tag="latest").as_of
    client.update_dataset_splits(
        dataset_id=dataset.id, split_name="new", example_ids=[made[0].id, made[1].id]
    )
    client.update_dataset_splits(
        dataset_id=dataset.id, split_name="train", example_ids=[made[1].id], remove=True
    )
    assert (of("new"), of("train"), of("nothing")) == ({0, 1}, {2}, set())
    assert (of("new", as_of=before), of("train", as_of=before)) == (set(), {1, 2})
    assert client.list_dataset_splits(dataset_id=dataset.id, as_of=before) == ["base", "test", "train"]
    with pytest.raises(LangSmithNotFoundError):
        client.update_dataset_splits(dataset_id=dataset.id, split_name="x", example_ids=[uuid.uuid4()])


def test_lists_of_examples(client: Client, dataset: Dataset, server: Server) -> None:
    """Conditions on metadata and text hold; every order is one, and pages neither overlap nor leave gaps."""
    client.create_examples(
        dataset_id=dataset.id,
        examples=[
            {"inputs": {"q": i, "t": f'say "{i}"'}, "metadata": {"i": i, "odd": bool(i % 2), "n": {"k": "v"}}}
            for i in range(7)
        ],
    )

    def found(**query: Any) -> list[int]:
        return [
            each.inputs["q"]
            for each in client.list_examples(dataset_id=dataset.id, **query)
            if each.inputs is not None
        ]

    assert found(metadata={"odd": True}) == [1, 3, 5]
    assert found(filter="and(has(metadata, '{\"odd\": false}'), not(eq(metadata.i, 2)))") == [0, 4, 6]
    assert found(filter='exists("metadata", "missing")') == []
    assert found(filter="or(gte(metadata.i, 6), eq(metadata.i, 0))") == [0, 6]
    assert found(filter='eq(metadata.n.k, "v")', limit=2, offset=5) == [5, 6]
    assert found(full_text_contains=['SAY "3']) == [3]
    mixed = found(order="random", random_seed=0.25)
    assert sorted(mixed) == list(range(7))
    # The order depends on the ids, too: that of one seed may happen to be the usual one.
    assert any(found(order="random", random_seed=n / 8) != sorted(mixed) for n in range(4))
    assert found(order="random", random_seed=0.25, offset=3) == mixed[3:]
    pages = [
        httpx.get(
            f"{server.url}/examples",
            params={"dataset": str(dataset.id), "limit": 2, "offset": offset, "order": "id"},
        ).json()
        for offset in range(0, 9, 2)
    ]
    ids = [each["id"] for page in pages for each in page]
    assert ids == sorted(ids)
    assert (len(ids), len(set(ids)), pages[-1]) == (7, 7, [])
    assert {each.id for each in client.list_examples(example_ids=ids[:3])} == {
        uuid.UUID(each) for each in ids[:3]
    }
    selected = httpx.get(
        f"{server.url}/examples",
        params={"dataset": str(dataset.id), "select": "metadata", "exclude_default_fields": True, "limit": 1},
    ).json()
    assert [set(each) for each in selected] == [{"id", "metadata"}]


def test_schemas_are_enforced(client: Client, server: Server) -> None:
    """Examples that do not satisfy the schemas are refused by field, whichever way they come."""
    schema = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    made = client.create_dataset(f"d-{uuid.uuid4().hex}", inputs_schema=schema, outputs_schema=schema)
    good = client.create_example({"q": "x"}, outputs={"q": "y"}, dataset_id=made.id)
    attempts: list[Callable[[], object]] = [
        lambda: client.create_example({"q": 1}, outputs={"q": "y"}, dataset_id=made.id),
        lambda: client.create_example({"q": "x"}, outputs={}, dataset_id=made.id),
        lambda: client.update_example(good.id, outputs={"q": 5}),
        lambda: client.create_example({"t": "x" * 40_000_000}, dataset_id=made.id),
    ]
    for attempt in attempts:
        with pytest.raises(LangSmithError, match="422"):
            attempt()
    answer = httpx.post(f"{server.url}/examples", json={"dataset_id": str(made.id), "inputs": {"q": 1}})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "inputs", "q"]
    assert [each.id for each in client.list_examples(dataset_id=made.id)] == [good.id]
    for bad in ({"type": "nonsense"}, {"$ref": "http://127.0.0.1:1/x"}):
        with pytest.raises(LangSmithError, match="inputs_schema"):
            client.create_dataset(f"d-{uuid.uuid4().hex}", inputs_schema=bad)


async def test_asynchronous_client(async_client: AsyncClient) -> None:
    """The same from creation to deletion with the asynchronous SDK."""
    name = f"dataset-{uuid.uuid4().hex}"
    made = await async_client.create_dataset(name, description="d")
    assert (await async_client.read_dataset(dataset_name=name)).id == made.id
    assert [each.id async for each in async_client.list_datasets(name=name)] == [made.id]
    example = await async_client.create_example({"q": 1}, outputs={"a": 1}, dataset_id=made.id)
    assert (await async_client.read_example(example.id)).outputs == {"a": 1}
    assert [each.id async for each in async_client.list_examples(dataset_id=made.id)] == [example.id]
    await async_client.delete_dataset(dataset_id=made.id)
    with pytest.raises(LangSmithNotFoundError):
        await async_client.read_dataset(dataset_id=made.id)
    with pytest.raises(LangSmithNotFoundError):
        await async_client.read_example(example.id)
