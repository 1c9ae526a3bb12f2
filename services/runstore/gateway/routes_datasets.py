"""The dataset routes (contract resources, section 2)."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runstore.domain.errors import invalid
from runstore.gateway.dataset_json import DATA_TYPES, read_version, show_dataset, show_version
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.models_datasets import (
    DatasetCreate,
    DatasetDiffRecord,
    DatasetRecord,
    DatasetUpdate,
    DatasetVersionRecord,
    DataType,
    SplitUpdate,
    TagUpdate,
)
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.v1 import dataset_service_pb2 as pb

NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
TAKEN: Final[dict[int | str, dict[str, Any]]] = {409: {"model": Detail, "description": "The name is taken."}}


class _ListQuery(BaseModel):
    """Query parameters of the list; all conditions hold together."""

    id: list[UUID] = Field(default=[])
    data_type: list[DataType] = Field(default=[])
    name: str | None = Field(None, description="The exact name.")
    name_contains: str | None = Field(None, description="Part of the name, in any case.")
    metadata: str | None = Field(None, description="JSON object that the metadata contains.")
    sort_by: Literal["created_at", "last_session_start_time"] = "created_at"
    sort_by_desc: bool = True
    tag_value_id: list[UUID] = Field(default=[], description="With each of these values of tags.")
    exclude: list[str] = Field(default=[], description="Without effect.")
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)


class _VersionsQuery(BaseModel):
    """Query parameters of the list of versions."""

    search: str | None = Field(None, description="Part of a tag.")
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)


def dataset_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the datasets of `store`."""
    router = GuardedRouter(prefix="/datasets", tags=["Datasets"])

    @router.post("", response_model=DatasetRecord, responses=TAKEN)
    async def create_dataset(request: Request, body: DatasetCreate) -> Response:
        """Creates a dataset."""
        answer = await store.ask(
            store.datasets.CreateDataset, _create_request(body), credentials_of(request.headers)
        )
        return json_response(show_dataset(answer.dataset))

    @router.get("", response_model=list[DatasetRecord])
    async def list_datasets(request: Request, query: Annotated[_ListQuery, Query()]) -> Response:
        """Lists datasets, the last created first."""
        answer = await store.ask(
            store.datasets.ListDatasets, _list_request(query), credentials_of(request.headers)
        )
        return json_response([show_dataset(dataset) for dataset in answer.datasets])

    @router.get("/{dataset_id}", response_model=DatasetRecord, responses=NOT_FOUND)
    async def read_dataset(request: Request, dataset_id: UUID) -> Response:
        """Reads a dataset."""
        message = pb.GetDatasetRequest(id=str(dataset_id))
        answer = await store.ask(store.datasets.GetDataset, message, credentials_of(request.headers))
        return json_response(show_dataset(answer.dataset))

    @router.patch("/{dataset_id}", response_model=DatasetRecord, responses={**NOT_FOUND, **TAKEN})
    async def update_dataset(request: Request, dataset_id: UUID, body: DatasetUpdate) -> Response:
        """Changes a dataset. New schemas hold for examples that are written from now on."""
        answer = await store.ask(
            store.datasets.UpdateDataset,
            _update_request(str(dataset_id), body),
            credentials_of(request.headers),
        )
        return json_response(show_dataset(answer.dataset))

    @router.delete("/{dataset_id}", responses=NOT_FOUND)
    async def delete_dataset(request: Request, dataset_id: UUID) -> Response:
        """Deletes a dataset with its examples; experiments on it stay."""
        message = pb.DeleteDatasetRequest(id=str(dataset_id))
        await store.ask(store.datasets.DeleteDataset, message, credentials_of(request.headers))
        return json_response({"message": "Dataset deleted"})

    _add_versions(router, store)
    _add_splits(router, store)
    return router


def _add_versions(router: GuardedRouter, store: StoreClient) -> None:
    @router.get("/{dataset_id}/versions", response_model=list[DatasetVersionRecord], responses=NOT_FOUND)
    async def list_versions(
        request: Request, dataset_id: UUID, query: Annotated[_VersionsQuery, Query()]
    ) -> Response:
        """Lists versions, the newest first. Each write to examples makes one."""
        message = pb.ListDatasetVersionsRequest(
            dataset_id=str(dataset_id), search=query.search, offset=query.offset, page_size=query.limit
        )
        answer = await store.ask(store.datasets.ListDatasetVersions, message, credentials_of(request.headers))
        return json_response([show_version(version) for version in answer.versions])

    @router.get("/{dataset_id}/version", response_model=DatasetVersionRecord, responses=NOT_FOUND)
    async def read_version_of(
        request: Request, dataset_id: UUID, as_of: str | None = None, tag: str | None = None
    ) -> Response:
        """Reads a version: the last one until a time, or the one with a tag."""
        if (as_of is None) == (tag is None):
            raise invalid("as_of", "give either as_of or tag")
        version = pb.VersionName(tag=tag) if tag else read_version("as_of", as_of)
        message = pb.GetDatasetVersionRequest(dataset_id=str(dataset_id), version=version)
        answer = await store.ask(store.datasets.GetDatasetVersion, message, credentials_of(request.headers))
        return json_response(show_version(answer.version))

    @router.put("/{dataset_id}/tags", response_model=DatasetVersionRecord, responses=NOT_FOUND)
    async def tag_version(request: Request, dataset_id: UUID, body: TagUpdate) -> Response:
        """Gives a version a name, which another version loses."""
        message = pb.TagDatasetVersionRequest(
            dataset_id=str(dataset_id), version=read_version("as_of", body.as_of), tag=body.tag
        )
        answer = await store.ask(store.datasets.TagDatasetVersion, message, credentials_of(request.headers))
        return json_response(show_version(answer.version))

    @router.get("/{dataset_id}/versions/diff", response_model=DatasetDiffRecord, responses=NOT_FOUND)
    async def diff_versions(
        request: Request, dataset_id: UUID, from_version: str, to_version: str
    ) -> Response:
        """Says which examples differ between two versions, each a time or a tag."""
        message = pb.DiffDatasetVersionsRequest(
            dataset_id=str(dataset_id),
            from_version=read_version("from_version", from_version),
            to_version=read_version("to_version", to_version),
        )
        answer = await store.ask(store.datasets.DiffDatasetVersions, message, credentials_of(request.headers))
        return json_response(
            {
                "examples_modified": list(answer.modified_ids),
                "examples_added": list(answer.added_ids),
                "examples_removed": list(answer.removed_ids),
            }
        )


def _add_splits(router: GuardedRouter, store: StoreClient) -> None:
    @router.get("/{dataset_id}/splits", response_model=list[str], responses=NOT_FOUND)
    async def list_splits(request: Request, dataset_id: UUID, as_of: str | None = None) -> Response:
        """Lists the names of the splits of a version."""
        message = pb.ListDatasetSplitsRequest(
            dataset_id=str(dataset_id), version=read_version("as_of", as_of)
        )
        answer = await store.ask(store.datasets.ListDatasetSplits, message, credentials_of(request.headers))
        return json_response(list(answer.splits))

    @router.put("/{dataset_id}/splits", response_model=list[UUID], responses=NOT_FOUND)
    async def update_split(request: Request, dataset_id: UUID, body: SplitUpdate) -> Response:
        """Puts examples into a split, or takes them out of it; answers with those that changed."""
        message = pb.UpdateDatasetSplitRequest(
            dataset_id=str(dataset_id),
            split=body.split_name,
            example_ids=map(str, body.examples),
            remove=body.remove,
        )
        answer = await store.ask(store.datasets.UpdateDatasetSplit, message, credentials_of(request.headers))
        return json_response(list(answer.example_ids))


def _create_request(body: DatasetCreate) -> pb.CreateDatasetRequest:
    metadata = body.metadata
    if metadata is None and body.extra is not None:
        metadata = body.extra.metadata
    return pb.CreateDatasetRequest(
        name=body.name,
        id=None if body.id is None else str(body.id),
        description=body.description,
        type=DATA_TYPES[body.data_type or "kv"],
        metadata=_json(metadata),
        inputs_schema=_json(body.inputs_schema_definition),
        outputs_schema=_json(body.outputs_schema_definition),
        transformations=_json(body.transformations),
        tag_value_ids=map(str, body.tag_value_ids or ()),
    )


def _update_request(dataset_id: str, body: DatasetUpdate) -> pb.UpdateDatasetRequest:
    def erasable(key: str) -> bytes | None:
        return msgspec.json.encode(getattr(body, key)) if key in body.model_fields_set else None

    return pb.UpdateDatasetRequest(
        id=dataset_id,
        name=body.name,
        description=body.description,
        metadata=_json(body.metadata),
        inputs_schema=erasable("inputs_schema_definition"),
        outputs_schema=erasable("outputs_schema_definition"),
        transformations=erasable("transformations"),
    )


def _list_request(query: _ListQuery) -> pb.ListDatasetsRequest:
    return pb.ListDatasetsRequest(
        ids=map(str, query.id),
        types=[DATA_TYPES[name] for name in query.data_type],
        name=query.name,
        name_contains=query.name_contains,
        metadata=None if query.metadata is None else query.metadata.encode(),
        tag_value_ids=map(str, query.tag_value_id),
        by_last_experiment=query.sort_by == "last_session_start_time",
        ascending=not query.sort_by_desc,
        offset=query.offset,
        page_size=query.limit,
    )


def _json(content: object) -> bytes | None:
    return None if content is None else msgspec.json.encode(content)
