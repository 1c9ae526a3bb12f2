"""Reads runs through the public API, and holds everything that is stored against the ledger."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from tests.soak.ledger import Ledger, Path, extra_values, kept, listed_too_often
from tests.soak.stories import PROJECTS

from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import blob_service_pb2_grpc as blobs_grpc
from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import project_service_pb2_grpc as projects_grpc
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as queries
from runstore.v1 import run_query_service_pb2_grpc as queries_grpc

_FIELDS = [
    run_pb2.RunField.Value(f"RUN_FIELD_{name}")
    for name in (
        "ID", "NAME", "RUN_TYPE", "STATUS", "START_TIME", "END_TIME", "ERROR", "EXTRA", "EVENTS", "INPUTS",
        "OUTPUTS", "MANIFEST", "PARENT_RUN_IDS", "PROJECT_ID", "TRACE_ID", "DOTTED_ORDER", "TAGS",
        "ATTACHMENTS",
    )
]  # fmt: skip
_PAGE_SIZE = 500
_HTTP_PAGE_SIZE = 100
_PAGE_TIMEOUT_S = 60.0
_PATIENCE_S = 120.0


@dataclass(slots=True)
class Found:
    """A run as a reader gets it."""

    run_id: str
    values: dict[Path, object]
    project_id: str
    trace_id: str
    dotted_order: str
    ancestors: tuple[str, ...]
    status: str
    attachments: dict[str, str]
    """Name → token to read it with."""


class Reader:
    """Reads over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._runs = queries_grpc.RunQueryServiceStub(channel)
        self._blobs = blobs_grpc.BlobServiceStub(channel)
        self._projects = projects_grpc.ProjectServiceStub(channel)

    async def by_ids(self, run_ids: list[str], *, timeout_s: float) -> list[Found]:
        """The runs that exist of these. Raises AioRpcError."""
        request = queries.ListRunsRequest(ids=run_ids, fields=_FIELDS, page_size=len(run_ids))
        return [_found(run) for run in (await self._runs.ListRuns(request, timeout=timeout_s)).runs]

    async def project_ids(self) -> dict[str, str]:
        """The soak's projects: name → id."""
        answer = await self._projects.ListProjects(
            projects.ListProjectsRequest(page_size=100), timeout=_PATIENCE_S, wait_for_ready=True
        )
        return {each.name: each.id for each in answer.projects if each.name in PROJECTS}

    async def of_project(self, project_id: str) -> AsyncIterator[Found]:
        """Every run, page by page."""
        request = queries.ListRunsRequest(project_ids=[project_id], fields=_FIELDS, page_size=_PAGE_SIZE)
        while True:
            page = await self._runs.ListRuns(request, timeout=_PAGE_TIMEOUT_S)
            for run in page.runs:
                yield _found(run)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def attachment(self, token: str) -> tuple[str, int]:
        """MIME type and size of the content."""
        mime_type, size_bytes = "", 0
        async for part in self._blobs.ReadBlob(
            blobs.ReadBlobRequest(read_token=token), timeout=_PAGE_TIMEOUT_S
        ):
            mime_type = part.header.mime_type or mime_type
            size_bytes += len(part.chunk)
        return mime_type, size_bytes


@dataclass(slots=True)
class Comparison:
    """The ledger beside what is stored."""

    runs: int = 0
    fields: int = 0
    attachments: int = 0
    uncertain_fields: int = 0
    """Fields that more than one value would have been right for."""
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)


async def compare(ledger: Ledger, http_url: str, channel: grpc.aio.Channel) -> Comparison:
    """Read all projects over both protocols."""
    reader, comparison = Reader(channel), Comparison()
    project_ids = await reader.project_ids()
    found: dict[str, Found] = {}
    for project_id in project_ids.values():
        async for run in reader.of_project(project_id):
            if run.run_id in found:
                comparison.duplicated.append(f"{run.run_id} in gRPC pages")
            found[run.run_id] = run
    for run in found.values():
        await _compare_run(ledger, project_ids, run, reader, comparison)
    comparison.missing += [
        f"{run_id} was created and is not listed"
        for run_id, run in ledger.runs.items()
        if run.is_created and run_id not in found
    ]
    listed = await _ids_over_http(http_url, list(project_ids.values()))
    comparison.duplicated += [f"{run_id} in HTTP pages" for run_id in listed_too_often(listed)]
    comparison.missing += [f"{run_id} is not in HTTP pages" for run_id in found.keys() - set(listed)]
    return comparison


async def _compare_run(
    ledger: Ledger, project_ids: dict[str, str], run: Found, reader: Reader, comparison: Comparison
) -> None:
    comparison.runs += 1
    expected = ledger.runs.get(run.run_id)
    if expected is None or not (expected.is_created or expected.may_be_created):
        comparison.wrong.append(f"{run.run_id} is listed, but was never created")
        return
    comparison.fields += len(expected.fields)
    comparison.uncertain_fields += sum(
        any(value != fate.acknowledged for value in fate.possible) for fate in expected.fields.values()
    )
    problems = list(ledger.wrong_fields(run.run_id, run.values))
    if run.project_id != project_ids[expected.node.project]:
        problems.append(f"it is in project {run.project_id}")
    if ledger.is_position_known(run.run_id):
        node = expected.node
        told = (run.trace_id, run.ancestors, run.dotted_order)
        if told != (node.trace_id, node.ancestors, node.dotted_order):
            problems.append(f"its place is {told}, not {node.dotted_order}")
    if run.status != _status(run):
        problems.append(f"its status is {run.status}")
    for name, token in run.attachments.items():
        comparison.attachments += 1
        if run.values["attachments", name] != (content := await reader.attachment(token)):
            problems.append(f"the content of its attachment {name} is {content}")
    comparison.wrong += [f"{run.run_id}: {problem}" for problem in problems]


def _status(run: Found) -> str:
    if ("error",) in run.values:
        return "error"
    return "success" if ("end_time",) in run.values else "pending"


async def _ids_over_http(url: str, project_ids: list[str]) -> list[str]:
    """Ids of all runs, as `Client.list_runs` gets them."""
    ids: list[str] = []
    async with httpx.AsyncClient(base_url=url, timeout=_PAGE_TIMEOUT_S) as client:
        for project_id in project_ids:
            cursor = None
            while True:
                query = {
                    "session": [project_id],
                    "limit": _HTTP_PAGE_SIZE,
                    "select": ["id"],
                    "cursor": cursor,
                }
                answer = await client.post("/runs/query", json=query)
                answer.raise_for_status()
                page = answer.json()
                ids += [run["id"] for run in page["runs"]]
                cursor = page["cursors"].get("next")
                if not cursor:
                    break
    return ids


async def until_answering(channel: grpc.aio.Channel) -> None:
    """Return once the server can read from its engine again."""
    reader = Reader(channel)
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            try:
                for project_id in (await reader.project_ids()).values():
                    await anext(reader.of_project(project_id), None)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
            else:
                return


def _found(run: Any) -> Found:
    """`run` is a `run_pb2.Run`."""
    values: dict[Path, object] = {}
    for name in ("name", "error", "inputs", "outputs", "events"):
        if run.HasField(name):
            values[name,] = kept(getattr(run, name))
    if run.HasField("manifest"):
        values["serialized",] = kept(run.manifest)
    if run.run_type:
        values["run_type",] = run_pb2.RunType.Name(run.run_type).removeprefix("RUN_TYPE_").lower()
    for name in ("start_time", "end_time"):
        if run.HasField(name):
            values[name,] = _time_us(getattr(run, name))
    if run.tags:
        values["tags",] = tuple(run.tags)
    if run.HasField("extra"):
        extra: dict[str, Any] = msgspec.json.decode(run.extra)
        values.update(extra_values(extra))
    for name, file in run.attachments.items():
        values["attachments", name] = (file.mime_type, file.size_bytes)
    return Found(
        run_id=run.id,
        values=values,
        project_id=run.project_id,
        trace_id=run.trace_id,
        dotted_order=run.dotted_order,
        ancestors=tuple(run.parent_run_ids),
        status=run_pb2.RunStatus.Name(run.status).removeprefix("RUN_STATUS_").lower(),
        attachments={name: file.read_token for name, file in run.attachments.items()},
    )


def _time_us(time: Timestamp) -> int:
    return time.seconds * 1_000_000 + time.nanos // 1_000
