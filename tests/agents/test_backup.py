"""`runstore backup` and `runstore restore`: what was acknowledged before a backup began comes back."""

import json
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langsmith import Client
from tests.contract.servers import Server, run_command, serving
from tests.waiting import until

LARGE = "large " * 250_000
PROMPT = {"lc": 1, "type": "constructor", "id": ["langchain", "PromptTemplate"], "kwargs": {"n": 1}}
FILE = b"\x00\x01\xfe\xff" * 50_000


@dataclass
class Written:
    """What was acknowledged, as the SDK says it before the backup."""

    project: str
    acknowledged: list[uuid.UUID] = field(default_factory=list)
    dataset: str = ""
    prompt: str = ""
    thread: str = ""
    state: Any = None


class Writer:
    """Writes runs without a pause, each acknowledged before the next one."""

    def __init__(self, url: str, project: str) -> None:
        self._client = Client(url, api_key="any", auto_batch_tracing=False)
        self._project = project
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.acknowledged: list[uuid.UUID] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._ended.is_set():
            self.acknowledged.append(write_run(self._client, self._project, {"n": len(self.acknowledged)}))


def write_run(client: Client, project: str, inputs: dict[str, Any], **fields: Any) -> uuid.UUID:
    """A run that has ended; acknowledged when this returns."""
    run_id, now = uuid.uuid4(), datetime.now(UTC)
    client.create_run(
        "run", inputs, "chain", id=run_id, project_name=project, start_time=now, end_time=now,
        outputs={"answer": inputs}, trace_id=run_id, dotted_order=f"{now:%Y%m%dT%H%M%S%fZ}{run_id}", **fields,
    )  # fmt: skip
    return run_id


async def write_everything(server: Server, agents: LangGraphClient) -> Written:
    """Something of each kind."""
    client = Client(server.url, api_key="any")
    written = Written(f"backup-{uuid.uuid4().hex}")
    plain = write_run(client, written.project, {"question": "?"}, tags=["a"], extra={"metadata": {"k": "v"}})
    large = write_run(client, written.project, {"text": LARGE})
    filed = write_run(client, written.project, {}, attachments={"file": ("application/x-test", FILE)})
    written.acknowledged = [plain, large, filed]
    client.create_feedback(plain, "score", score=0.5, comment="so so")
    client.flush()
    dataset = client.create_dataset(f"dataset-{uuid.uuid4().hex}")
    written.dataset = dataset.name
    client.create_examples(dataset_id=dataset.id, examples=[{"inputs": {"n": n}} for n in range(3)])
    written.prompt = f"prompt-{uuid.uuid4().hex}"
    client.push_prompt(written.prompt, object=PROMPT)
    thread = await agents.threads.create()
    written.thread = thread["thread_id"]
    await agents.runs.wait(written.thread, "steps", input={"n": 5})
    written.state = await agents.threads.get_state(written.thread)
    return written


def seen(url: str, written: Written) -> dict[str, Any]:
    """What the SDK reads of it, but for the state of the thread."""
    client = Client(url, api_key="any")
    runs = {run.id: run for run in client.list_runs(project_name=written.project)}
    chosen = [runs[run_id] for run_id in written.acknowledged]
    filed = client.read_run(written.acknowledged[2])
    assert filed.attachments is not None
    return {
        "runs": [
            run.model_dump(exclude={"attachments", "app_path"})
            for run in sorted(chosen, key=lambda run: run.id)
        ],
        "file": filed.attachments["file"]["reader"].read(),
        "feedback": [
            feedback.model_dump() for feedback in client.list_feedback(run_ids=[written.acknowledged[0]])
        ],
        "examples": sorted(
            json.dumps(example.model_dump(), default=str, sort_keys=True)
            for example in client.list_examples(dataset_name=written.dataset)
        ),
        "prompt": client.pull_prompt_commit(written.prompt).manifest,
    }


def last_backup_s(url: str) -> float:
    """When the last backup was begun, by the metrics; 0 while the store is too slow to tell its own."""
    shown = httpx.get(f"{url}/metrics").text
    return float(shown.partition("\nrunstore_backup_timestamp_seconds ")[2].partition("\n")[0] or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backups")


async def test_everything_is_restored(
    server: Server, client: LangGraphClient, folder: Path, request: pytest.FixtureRequest
) -> None:
    """While a writer goes on writing; the second backup in a folder copies no blob again, and counts."""
    written = await write_everything(server, client)
    first = json.loads(server.command("backup", str(folder / "one"), "--json").stdout)
    assert first["copied_blobs"] == first["blobs"] >= 2
    with Writer(server.url, written.project) as writer:
        until(lambda: len(writer.acknowledged) >= 20, "the writer is under way")
        written.acknowledged += writer.acknowledged
        began_s = datetime.now(UTC).timestamp()
        second = json.loads(server.command("backup", str(folder / "one"), "--json").stdout)
        during = len(writer.acknowledged) - len(written.acknowledged) + 3
    assert during > 0
    assert second["copied_blobs"] == 0
    last = until(lambda: last_backup_s(server.url), "the store tells its metrics")
    assert began_s <= last <= datetime.now(UTC).timestamp()
    assert [path.name for path in (folder / "one").iterdir() if path.name.startswith("2")] == [second["id"]]
    before = seen(server.url, written)
    restored = folder / "restored"
    # Of PostgreSQL the catalog becomes SQLite.
    checkpoints = ""
    if server.environment.get("RUNSTORE_AGENT_CHECKPOINT_URL"):
        checkpoints = request.getfixturevalue("postgres").create_database()
    own = {"CATALOG_URL": "", "AGENT_CHECKPOINT_URL": checkpoints, "DATA_DIR": str(restored / "data")}
    environment = {**server.environment, **{f"RUNSTORE_{name}": value for name, value in own.items()}}
    said = run_command("restore", str(folder / "one"), environment=environment)
    assert said.stdout.startswith(f"Restored backup {second['id']}")
    agents = server.environment["RUNSTORE_AGENTS"]
    with serving(restored, agents=agents, agent_checkpoint_url=checkpoints) as again:
        assert seen(again.url, written) == before
        # Of the writes meanwhile there may be any; none of them in part.
        runs = list(Client(again.url, api_key="any").list_runs(project_name=written.project))
        assert all(run.end_time and run.outputs for run in runs)
        async with get_client(url=again.url) as restored_agents:
            assert await restored_agents.threads.get_state(written.thread) == written.state
        assert again.defects() == []
