"""Routes that share datasets, and those that everybody who has a token may read (contract resources, 2)."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runstore.gateway.dataset_json import read_version, show_dataset
from runstore.gateway.dialects import json_response
from runstore.gateway.example_json import show_example
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.large_answers import runs_response
from runstore.gateway.models import Detail, TracerSession
from runstore.gateway.models_datasets import DatasetRecord, DatasetShareRecord, ExampleRecord
from runstore.gateway.routes_sessions import show_session
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.v1 import dataset_sharing_service_pb2 as pb
from runstore.v1.example_service_pb2 import ListExamplesRequest

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_NO_SECURITY: Final[dict[str, Any]] = {"security": []}


class _ExamplesQuery(BaseModel):
    """Query parameters of the list of shared examples."""

    id: list[UUID] = Field(default=[])
    as_of: str | None = Field(None, description="The version: a time or a tag.")
    filter: str | None = Field(None, description="On metadata alone.")
    metadata: str | None = Field(None, description="JSON object that the metadata contains.")
    splits: list[str] = Field(default=[])
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)


class _ProjectsQuery(BaseModel):
    """Query parameters of the list of shared experiments."""

    id: list[UUID] = Field(default=[])
    name: str | None = Field(None, description="The exact name.")
    name_contains: str | None = Field(None, description="Part of the name, in any case.")
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)


def dataset_sharing_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the datasets of `store`."""
    router = GuardedRouter(tags=["Datasets"])

    @router.put("/datasets/{dataset_id}/share", response_model=DatasetShareRecord, responses=_NOT_FOUND)
    async def share_dataset(
        request: Request,
        dataset_id: UUID,
        share_projects: bool = False,  # noqa: FBT001, FBT002 - a query parameter
    ) -> Response:
        """Shares a dataset with everybody who has the token; with `share_projects`, its experiments, too."""
        message = pb.ShareDatasetRequest(dataset_id=str(dataset_id), share_projects=share_projects)
        answer = await store.ask(store.dataset_sharing.ShareDataset, message, credentials_of(request.headers))
        return json_response({"dataset_id": str(dataset_id), "share_token": answer.share_token})

    @router.get("/datasets/{dataset_id}/share", response_model=DatasetShareRecord | None)
    async def read_share(request: Request, dataset_id: UUID) -> Response:
        """Reads the token of a dataset; null when it is not shared."""
        message = pb.GetDatasetShareRequest(dataset_id=str(dataset_id))
        answer = await store.ask(
            store.dataset_sharing.GetDatasetShare, message, credentials_of(request.headers)
        )
        if not answer.HasField("share_token"):
            return json_response(None)
        return json_response({"dataset_id": str(dataset_id), "share_token": answer.share_token})

    @router.delete("/datasets/{dataset_id}/share")
    async def unshare_dataset(request: Request, dataset_id: UUID) -> Response:
        """Revokes the token at once."""
        message = pb.UnshareDatasetRequest(dataset_id=str(dataset_id))
        await store.ask(store.dataset_sharing.UnshareDataset, message, credentials_of(request.headers))
        return json_response({"message": "Dataset unshared"})

    _add_public(router, store)
    return router


def _add_public(router: GuardedRouter, store: StoreClient) -> None:
    @router.get(
        "/public/{share_token}/datasets",
        response_model=DatasetRecord,
        responses=_NOT_FOUND,
        openapi_extra=_NO_SECURITY,
    )
    async def read_shared_dataset(share_token: UUID) -> Response:
        """Reads the dataset that a token opens."""
        message = pb.GetSharedDatasetRequest(share_token=str(share_token))
        answer = await store.ask(store.shared_datasets.GetSharedDataset, message, ())
        return json_response(show_dataset(answer.dataset))

    @router.get(
        "/public/{share_token}/examples",
        response_model=list[ExampleRecord],
        responses=_NOT_FOUND,
        openapi_extra=_NO_SECURITY,
    )
    async def list_shared_examples(
        request: Request, share_token: UUID, query: Annotated[_ExamplesQuery, Query()]
    ) -> Response:
        """Lists the examples of the dataset that a token opens."""
        examples = ListExamplesRequest(
            ids=map(str, query.id),
            version=read_version("as_of", query.as_of),
            splits=query.splits,
            filter=query.filter or "",
            metadata=None if query.metadata is None else query.metadata.encode(),
            offset=query.offset,
            page_size=query.limit,
        )
        message = pb.ListSharedExamplesRequest(share_token=str(share_token), examples=examples)
        answer = await store.ask(store.shared_datasets.ListSharedExamples, message, ())
        base_url = str(request.base_url)
        return runs_response([show_example(example, base_url) for example in answer.examples], store)

    @router.get(
        "/public/{share_token}/datasets/sessions",
        response_model=list[TracerSession],
        responses=_NOT_FOUND,
        openapi_extra=_NO_SECURITY,
    )
    async def list_shared_sessions(share_token: UUID, query: Annotated[_ProjectsQuery, Query()]) -> Response:
        """Lists the experiments on the dataset that a token opens, if they are shared with it."""
        message = pb.ListSharedProjectsRequest(
            share_token=str(share_token),
            ids=map(str, query.id),
            name=query.name,
            name_contains=query.name_contains,
            offset=query.offset,
            page_size=query.limit,
        )
        answer = await store.ask(store.shared_datasets.ListSharedProjects, message, ())
        return json_response([show_session(project) for project in answer.projects])
