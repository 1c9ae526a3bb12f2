"""The routes that make a dataset of a file, and files of a dataset (contract resources, section 2)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from uuid import UUID

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from runstore.domain.errors import RunstoreError
from runstore.gateway.bodies import BodyReader
from runstore.gateway.dataset_exports import DatasetExport
from runstore.gateway.dataset_json import read_version, show_dataset
from runstore.gateway.dataset_upload import DatasetUpload
from runstore.gateway.dialects import json_response
from runstore.gateway.documents import DATASET_UPLOAD_BODY
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.models_datasets import DatasetRecord
from runstore.gateway.multipart import boundary_of
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.gateway.time_fields import to_time_us, to_timestamp
from runstore.v1 import dataset_service_pb2 as datasets_pb
from runstore.v1 import example_service_pb2 as pb

# Below what a message may hold, with room for an example that goes beyond.
_WRITTEN_AT_ONCE_BYTES: Final = 24 * 1024 * 1024
_FORMATS: Final = {
    "csv": "text/csv",
    "jsonl": "application/jsonl",
    "openai": "application/jsonl",
    "openai_ft": "application/jsonl",
}
_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}


def dataset_file_routes(store: StoreClient, bodies: BodyReader) -> GuardedRouter:
    """The routes, on the datasets of `store`."""
    router = GuardedRouter(prefix="/datasets", tags=["Datasets"])

    @router.post(
        "/upload",
        response_model=DatasetRecord,
        responses={409: {"model": Detail, "description": "The name is taken."}},
        openapi_extra=DATASET_UPLOAD_BODY,
    )
    async def upload_dataset(request: Request) -> Response:
        """Makes a dataset of a CSV file, with an example for each line."""
        credentials = credentials_of(request.headers)
        boundary = boundary_of(request.headers.get("content-type", ""))
        async with bodies.read(request) as body:
            upload = await asyncio.to_thread(DatasetUpload, body, boundary)
            examples = await asyncio.to_thread(lambda: list(upload.examples()))
        made = await store.ask(store.datasets.CreateDataset, upload.dataset(), credentials)
        dataset_id = made.dataset.id
        try:
            await _write(store, credentials, dataset_id, examples)
        except RunstoreError:
            # Half of a file is no dataset.
            await store.ask(
                store.datasets.DeleteDataset, datasets_pb.DeleteDatasetRequest(id=dataset_id), credentials
            )
            raise
        message = datasets_pb.GetDatasetRequest(id=dataset_id)
        answer = await store.ask(store.datasets.GetDataset, message, credentials)
        return json_response(show_dataset(answer.dataset))

    for name, media_type in _FORMATS.items():
        _add_export(router, store, name, media_type)
    return router


def _add_export(router: GuardedRouter, store: StoreClient, name: str, media_type: str) -> None:
    @router.get(
        f"/{{dataset_id}}/{name}",
        name=f"export_{name}",
        response_class=StreamingResponse,
        responses={200: {"content": {media_type: {}}}, **_NOT_FOUND},
    )
    async def export(request: Request, dataset_id: UUID, as_of: str | None = None) -> Response:
        """Answers with the examples of a version as a file."""
        credentials = credentials_of(request.headers)
        message = datasets_pb.GetDatasetRequest(id=str(dataset_id))
        answer = await store.ask(store.datasets.GetDataset, message, credentials)
        if as_of is None:
            now = to_timestamp(to_time_us(answer.dataset.update_time))
            version = datasets_pb.VersionName(as_of=now)
        else:
            named = datasets_pb.GetDatasetVersionRequest(
                dataset_id=str(dataset_id), version=read_version("as_of", as_of)
            )
            found = await store.ask(store.datasets.GetDatasetVersion, named, credentials)
            version = datasets_pb.VersionName(as_of=found.version.as_of)
        file = DatasetExport(store, credentials, str(dataset_id), version)
        lines: dict[str, AsyncIterator[bytes]] = {"csv": file.csv(), "jsonl": file.json_lines()}
        return StreamingResponse(lines.get(name, file.conversations()), media_type=media_type)


async def _write(
    store: StoreClient, credentials: Credentials, dataset_id: str, examples: Sequence[pb.ExampleChange]
) -> None:
    """Writes the examples, the last first in place and time: lists show them in the order of the file."""
    batches: list[list[pb.ExampleChange]] = [[]]
    size = 0
    for change in examples:
        size += change.ByteSize()
        if size > _WRITTEN_AT_ONCE_BYTES and batches[-1]:
            batches.append([])
            size = change.ByteSize()
        batches[-1].append(change)
    for batch in reversed(batches):
        if batch:
            message = pb.WriteExamplesRequest(dataset_id=dataset_id, changes=batch)
            await store.ask(store.examples.WriteExamples, message, credentials)
