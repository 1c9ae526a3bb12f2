"""Traces and reads with whichever `langsmith` is on the path; prints what it saw as one JSON object.

Run by `test_old_sdk.py` in a process of its own: URL, project, results.
"""

import asyncio
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import langsmith
from langsmith import AsyncClient, Client, traceable, tracing_context
from langsmith.schemas import Run

# Installed beside it for the newest SDK's prompts, and built on that one: this SDK would import it and break.
sys.modules["langchain_core"] = None  # type: ignore[assignment]

LONGEST_WAIT_S = 30
STARTED = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC)


@traceable(run_type="tool", name="leaf")
def leaf(word: str) -> str:
    if word == "bad":
        raise ValueError("it broke")
    return word.upper()


@traceable(run_type="llm", name="branch", tags=["t"], metadata={"m": 1})
def branch(word: str) -> str:
    return leaf(word)


@traceable(run_type="chain", name="root")
def root() -> str:
    try:
        branch("bad")
    except ValueError:
        return branch("good")
    return "unreachable"


@traceable(run_type="llm", name="stream")
def stream() -> Iterator[str]:
    yield from "abc"


@traceable(run_type="tool", name="leaf")
async def async_leaf(word: str) -> str:
    return word.upper()


@traceable(run_type="llm", name="stream")
async def async_stream() -> AsyncIterator[str]:
    for token in "abc":
        yield token


@traceable(run_type="chain", name="root")
async def async_root() -> list[str]:
    leaves = await asyncio.gather(*map(async_leaf, "xy"))
    return [*leaves, *[token async for token in async_stream()]]


def seen(run: Run) -> dict[str, Any]:
    """What is compared of a run."""
    return {
        "name": run.name,
        "run_type": run.run_type,
        "status": run.status,
        "error": (run.error or "").split("\n")[0].split("Traceback")[0],
        "inputs": run.inputs,
        "outputs": run.outputs,
        "tags": run.tags,
        "m": (run.metadata or {}).get("m"),
        "depth": len(run.parent_run_ids or []),
        "first_token": run.first_token_time is not None,
    }


def traced(client: Client, project: str, count: int) -> list[dict[str, Any]]:
    """The `count` runs of a project once they have ended, oldest first.

    `flush` of this SDK returns before everything has been sent.
    """
    give_up_at = time.monotonic() + LONGEST_WAIT_S
    while True:
        client.flush()
        runs = list(client.list_runs(project_name=project)) if client.has_project(project) else []
        if len(runs) >= count and all(run.end_time for run in runs):
            return [seen(run) for run in sorted(runs, key=lambda run: run.dotted_order)]
        if time.monotonic() > give_up_at:
            raise TimeoutError([(run.name, run.status) for run in runs])
        time.sleep(0.02)


def update_parameters(client: Client, project: str) -> dict[str, Any]:
    """One run, updated with everything that `update_run` takes."""
    run_id = uuid.uuid4()
    client.create_run("before", {"i": 0}, "chain", id=run_id, project_name=project, start_time=STARTED)
    client.update_run(
        run_id,
        name="after",
        run_type="llm",
        end_time=STARTED + timedelta(seconds=3),
        error="late error",
        inputs={"i": 1},
        outputs={"o": 2},
        events=[{"name": "new_token", "time": (STARTED + timedelta(seconds=1)).isoformat()}],
        extra={"metadata": {"m": 5}},
        tags=["u"],
        reference_example_id=uuid.UUID(int=7),
        api_key="any",
        api_url=client.api_url,
    )
    run = client.read_run(run_id)
    return {
        **seen(run),
        "seconds": (run.end_time - run.start_time).total_seconds() if run.end_time else None,
        "start_time": run.start_time.replace(tzinfo=None).isoformat(),
        "events": [event["name"] for event in run.events or []],
        "reference_example_id": str(run.reference_example_id),
    }


def attachments(client: Client, project: str) -> dict[str, Any]:
    """A file, sent and read back by both ways of reading."""
    run_id = uuid.uuid4()
    client.create_run(
        "file",
        {},
        "tool",
        id=run_id,
        trace_id=run_id,
        dotted_order=f"{STARTED:%Y%m%dT%H%M%S%fZ}{run_id}",
        start_time=STARTED,
        end_time=STARTED,
        attachments={"a": ("text/plain", b"bytes")},
        project_name=project,
    )
    traced(client, project, 1)
    listed = next(client.list_runs(project_name=project))
    return {"read": files_of(client.read_run(run_id)), "listed": files_of(listed)}


def files_of(run: Run) -> dict[str, list[str]]:
    """A run's attachments, fetched."""
    files: Any = run.attachments or {}
    return {name: [file["mime_type"], file["reader"].read().decode()] for name, file in files.items()}


def lists(client: Client, project: str) -> dict[str, Any]:
    """Names that `list_runs` answers to some of its parameters."""
    conditions: dict[str, dict[str, Any]] = {
        "error": {"error": True},
        "run_type": {"run_type": "tool"},
        "is_root": {"is_root": True},
        "filter": {"filter": 'and(eq(name, "branch"), eq(status, "success"))'},
        "limit": {"limit": 1, "filter": 'eq(name, "root")'},
        "select": {"select": ["id", "name"], "is_root": True},
    }
    return {
        name: sorted(run.name for run in client.list_runs(project_name=project, **condition))
        for name, condition in conditions.items()
    }


async def asynchronous(url: str, project: str) -> dict[str, Any]:
    """Create, update, read, list with `AsyncClient`."""
    async with AsyncClient(url, api_key="any") as client:
        run_id = uuid.uuid4()
        await client.create_run("made", {"i": 1}, "llm", project_name=project, id=run_id)
        pending = await client.read_run(run_id)
        await client.update_run(run_id, outputs={"o": 1}, end_time=datetime.now(UTC).isoformat())
        done = await client.read_run(run_id)
        listed = [run.name async for run in client.list_runs(project_name=project, run_type="llm")]
        made = await client.read_project(project_name=project)
    return {
        "pending": pending.status,
        "done": [done.status, done.outputs],
        "listed": listed,
        "project": made.name,
    }


def main() -> None:
    """See the module."""
    url, project = sys.argv[1:]
    client = Client(url, api_key="any")
    with tracing_context(enabled=True, client=client, project_name=project):
        root()
        "".join(stream())
    with tracing_context(enabled=True, client=client, project_name=f"{project}-async"):
        asyncio.run(async_root())
    result = {
        "version": distribution("langsmith").version,
        "is_old": "langsmith-0.4" in str(Path(langsmith.__file__)),
        "traced": traced(client, project, 6),
        "lists": lists(client, project),
        "traced_async": traced(client, f"{project}-async", 4),
        "updated": update_parameters(client, f"{project}-update"),
        "attachments": attachments(client, f"{project}-files"),
        "async": asyncio.run(asynchronous(url, f"{project}-client")),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
