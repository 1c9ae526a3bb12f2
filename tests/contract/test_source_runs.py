"""Examples that are made of runs, and runs that are made on examples: what each says of the other."""

import uuid
from typing import Any

import httpx
import pytest
from langsmith import Client
from langsmith.schemas import Attachment, Dataset
from langsmith.utils import LangSmithError

from .reading import files_of
from .servers import Server

pytestmark = pytest.mark.both_catalogs(slow=True)

FILES = {"a": Attachment("text/plain", b"first"), "b": Attachment("image/png", b"\x89PNG")}


@pytest.fixture
def dataset(client: Client) -> Dataset:
    """A new dataset."""
    return client.create_dataset(f"dataset-{uuid.uuid4().hex}")


def given_run(client: Client, project: str, inputs: dict[str, Any], **fields: Any) -> uuid.UUID:
    """A stored run with two files."""
    run_id = uuid.uuid4()
    with_place: dict[str, Any] = {"trace_id": run_id, "dotted_order": f"20260101T000000000000Z{run_id}"}
    client.create_run(
        "r", inputs, "chain", id=run_id, project_name=project, attachments=FILES, **with_place, **fields
    )
    client.flush()
    return run_id


@pytest.mark.parametrize("size", [1, 3_000_000], ids=["inline", "in the blob store"])
def test_contents_of_a_run_become_an_example(
    client: Client, dataset: Dataset, project: str, size: int
) -> None:
    """Copied: what is given goes first, and the example stays when the run has gone."""
    inputs, outputs = {"q": "x" * size}, {"a": "y" * size}
    run_id = given_run(client, project, inputs, outputs=outputs)
    copied = client.create_example(
        dataset_id=dataset.id, source_run_id=run_id, use_source_run_io=True, use_source_run_attachments=["b"]
    )
    given = client.create_example(
        outputs={"a": "mine"}, dataset_id=dataset.id, source_run_id=run_id, use_source_run_io=True,
        attachments={"a": ("text/plain", b"mine")}, use_source_run_attachments=["a", "b"],
    )  # fmt: skip
    client.delete_project(project_name=project)
    read = client.read_example(copied.id)
    assert (read.inputs, read.outputs, read.source_run_id) == (inputs, outputs, run_id)
    assert files_of(read) == {"b": ("image/png", b"\x89PNG")}  # type: ignore[arg-type]
    read = client.read_example(given.id)
    assert (read.inputs, read.outputs) == (inputs, {"a": "mine"})
    assert files_of(read) == {"a": ("text/plain", b"mine"), "b": ("image/png", b"\x89PNG")}  # type: ignore[arg-type]


def test_all_files_of_a_run(client: Client, dataset: Dataset, project: str, server: Server) -> None:
    """`true` stands for every attachment; a name that the run does not have is refused, as is no run."""
    run_id = given_run(client, project, {"q": 1})
    body: dict[str, Any] = {"dataset_id": str(dataset.id), "source_run_id": str(run_id)}
    use = {"use_source_run_io": True, "use_source_run_attachments": True}
    made = httpx.post(f"{server.url}/examples", json={**body, **use}).json()
    assert set(made["attachment_urls"]) == {"attachment.a", "attachment.b"}
    assert made["outputs"] is None
    wrong: list[tuple[dict[str, Any], str]] = [
        ({**use, "use_source_run_attachments": ["c"]}, "use_source_run_attachments"),
        ({**use, "source_run_id": None}, "source_run_id"),
        ({**use, "source_run_id": str(uuid.uuid4())}, "source_run_id"),
    ]
    for changes, field in wrong:
        refused = httpx.post(f"{server.url}/examples", json={**body, **changes})
        assert (refused.status_code, field in refused.text) == (422, True), refused.text
    assert len(list(client.list_examples(dataset_id=dataset.id))) == 1


def test_schema_holds_for_what_a_run_gave(client: Client, project: str) -> None:
    """Copied contents are checked like any other."""
    strict = client.create_dataset(
        f"dataset-{uuid.uuid4().hex}", inputs_schema={"type": "object", "required": ["question"]}
    )
    run_id = given_run(client, project, {"q": 1})
    with pytest.raises(LangSmithError, match="question"):
        client.create_example(dataset_id=strict.id, source_run_id=run_id, use_source_run_io=True)


async def test_runs_know_their_datasets(
    client: Client, dataset: Dataset, project: str, server: Server
) -> None:
    """The dataset of the example that a run was made on, and whether one was made of it; in both versions."""
    source = given_run(client, project, {"q": 1})
    project_id = client.read_project(project_name=project).id

    def known(run_id: uuid.UUID) -> tuple[Any, Any]:
        body = {"id": [str(run_id)], "select": ["reference_dataset_id", "in_dataset"]}
        [run] = httpx.post(f"{server.url}/runs/query", json=body).json()["runs"]
        assert "reference_example_id" not in run
        return run["reference_dataset_id"], run["in_dataset"]

    assert known(source) == (None, False)
    example = client.create_example({"q": 1}, dataset_id=dataset.id, source_run_id=source)
    judged = given_run(client, project, {"q": 1}, reference_example_id=example.id)
    assert known(source) == (None, True)
    assert known(judged) == (str(dataset.id), False)
    selects: Any = ["ID", "REFERENCE_DATASET_ID", "IS_IN_DATASET"]
    start: Any = "2026-01-01T00:00:00Z"
    page = client.runs.query(project_ids=[str(project_id)], selects=selects, min_start_time=start)
    assert {run.id: (run.reference_dataset_id, run.is_in_dataset) async for run in page} == {
        str(source): (None, True),
        str(judged): (str(dataset.id), False),
    }
    traces = client.traces.query(project_id=str(project_id), selects=selects, min_start_time=start)
    assert {t.root_run.id: t.root_run.is_in_dataset async for t in traces if t.root_run} == {
        str(source): True,
        str(judged): False,
    }
    client.delete_example(example.id)
    assert known(source) == (None, False)
