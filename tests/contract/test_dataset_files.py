"""Datasets made of CSV files, and exported, with the newest Python SDK."""

import csv
import io
import json
import uuid

import httpx
import pytest
from langsmith import Client
from langsmith.utils import LangSmithError

from .servers import Server

pytestmark = pytest.mark.both_catalogs


def test_csv_in_and_out(client: Client, server: Server) -> None:
    """Each line is an example, in the order of the file, and comes out as it went in."""
    lines = [
        ("q", "a", "note"),
        ('say "x"', "1,5", ""),
        ("two\nlines", "☃", "n"),
        *(("q", str(i), "") for i in range(150)),
    ]
    written = io.StringIO()
    csv.writer(written).writerows(lines)
    name = f"{uuid.uuid4().hex}.csv"
    made = client.upload_csv(
        (name, io.BytesIO(written.getvalue().encode())),
        input_keys=["q"],
        output_keys=["a", "note"],
        description="d",
    )
    assert (made.name, made.description, made.example_count) == (name, "d", 152)
    listed = list(client.list_examples(dataset_id=made.id))
    assert [(each.inputs, each.outputs) for each in listed] == [
        ({"q": q}, {"a": a, "note": note}) for q, a, note in lines[1:]
    ]
    exported = httpx.get(f"{server.url}/datasets/{made.id}/csv")
    assert exported.headers["content-type"].startswith("text/csv")
    found = list(csv.reader(io.StringIO(exported.text, newline="")))
    assert [tuple(line[1:]) for line in found] == lines
    objects = httpx.get(f"{server.url}/datasets/{made.id}/jsonl").text.splitlines()
    assert [json.loads(line)["id"] for line in objects] == [str(each.id) for each in listed]
    assert httpx.get(f"{server.url}/datasets/{made.id}/csv", params={"as_of": "nobody's"}).status_code == 404
    with pytest.raises(LangSmithError, match="already exists"):
        client.upload_csv((name, io.BytesIO(b"q\n1\n")), input_keys=["q"], output_keys=[])


@pytest.mark.parametrize(
    ("content", "fields", "named"),
    [
        (b"q\n1\n", {"input_keys": "missing"}, "input_keys"),
        (b"q\n1\n", {}, "input_keys"),
        (b"\xff\xfe", {"input_keys": "q"}, "file"),
        (b"q\n1\n", {"input_keys": "q", "data_type": "x"}, "data_type"),
        (b"q\n1\n", {"input_keys": "q", "id": "x"}, "id"),
        (b"q\n1\n", {"input_keys": "q", "inputs_schema_definition": '{"required": ["z"]}'}, "inputs"),
    ],
)
def test_wrong_files_leave_nothing(
    server: Server, content: bytes, fields: dict[str, str], named: str
) -> None:
    """What cannot be a dataset is refused by field, and no dataset is left."""
    name = uuid.uuid4().hex
    answer = httpx.post(
        f"{server.url}/datasets/upload", data={"name": name, **fields}, files={"file": ("f.csv", content)}
    )
    assert answer.status_code == 422, answer.text
    assert named in answer.json()["detail"][0]["loc"]
    assert httpx.get(f"{server.url}/datasets", params={"name": name}).json() == []


def test_fine_tuning_files(client: Client) -> None:
    """Messages of OpenAI and LangChain become conversations, large ones too; anything else is text."""
    made = client.create_dataset(f"dataset-{uuid.uuid4().hex}")
    long = "x" * 2_000_000
    client.create_examples(
        dataset_id=made.id,
        examples=[
            {
                "inputs": {
                    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": long}]
                },
                "outputs": {"choices": [{"message": {"role": "assistant", "content": "a"}}]},
            },
            {
                "inputs": {"input": [{"type": "human", "data": {"content": "h"}}]},
                "outputs": {"output": {"id": ["langchain", "AIMessage"], "kwargs": {"content": "b"}}},
            },
            {"inputs": {"q": "text"}, "outputs": {"a": 1, "b": [2]}},
        ],
    )
    assert [each["messages"] for each in client.read_dataset_openai_finetuning(made.id)] == [
        [
            {"role": "system", "content": "s"},
            {"role": "user", "content": long},
            {"role": "assistant", "content": "a"},
        ],
        [{"role": "user", "content": "h"}, {"role": "assistant", "content": "b"}],
        [{"role": "user", "content": "text"}, {"role": "assistant", "content": '{"a":1,"b":[2]}'}],
    ]
