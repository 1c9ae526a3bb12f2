"""Routes that index and search datasets; SDKs up to 0.7 call them (contract resources, section 2)."""

from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from fastapi import Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runstore.gateway.dialects import json_response
from runstore.gateway.example_json import show_example
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.large_answers import runs_response
from runstore.gateway.models import Detail
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.v1 import example_search_service_pb2 as pb

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_KEYS: Final = frozenset({"id", "inputs", "outputs", "metadata"})


class _Index(BaseModel):
    """What of the dataset to index."""

    tag: Literal["latest"] = Field("latest", description="Later changes reach the index by themselves.")


class _Search(BaseModel):
    """What to look for."""

    inputs: dict[str, Any]
    limit: int = Field(5, ge=1, le=1000)
    filter: str | None = Field(None, description="On metadata alone.")


def dataset_search_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the datasets of `store`."""
    router = GuardedRouter(prefix="/datasets", tags=["Datasets"])

    @router.post("/{dataset_id}/index", responses=_NOT_FOUND)
    async def index_dataset(
        request: Request,
        dataset_id: UUID,
        body: _Index,  # noqa: ARG001 - checked, and there is but one
    ) -> Response:
        """Makes a dataset ready to be searched, with everything written later."""
        message = pb.IndexDatasetRequest(dataset_id=str(dataset_id))
        await store.ask(store.example_search.IndexDataset, message, credentials_of(request.headers))
        return json_response({"message": "Dataset indexed"})

    @router.post("/{dataset_id}/index/sync", responses=_NOT_FOUND)
    async def sync_index(request: Request, dataset_id: UUID) -> Response:
        """Answers once the index holds every example."""
        message = pb.SyncDatasetIndexRequest(dataset_id=str(dataset_id))
        answer = await store.ask(
            store.example_search.SyncDatasetIndex, message, credentials_of(request.headers)
        )
        return json_response({"message": "Index synced", "example_count": answer.example_count})

    @router.post("/{dataset_id}/search", responses=_NOT_FOUND)
    async def search_examples(request: Request, dataset_id: UUID, body: _Search) -> Response:
        """Finds examples whose inputs share words with those given, the best match first."""
        message = pb.SearchExamplesRequest(
            dataset_id=str(dataset_id),
            inputs=msgspec.json.encode(body.inputs),
            limit=body.limit,
            filter=body.filter or "",
        )
        answer = await store.ask(
            store.example_search.SearchExamples, message, credentials_of(request.headers)
        )
        base_url = str(request.base_url)
        shown = [show_example(example, base_url, _KEYS) for example in answer.examples]
        return runs_response({"examples": shown}, store)

    return router
