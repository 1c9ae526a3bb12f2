"""Serves `DatasetSharingService` to owners, and `SharedDatasetService` to everybody who has a token."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

import grpc

from runstore.catalog.dataset_shares import DatasetShareCatalog
from runstore.catalog.datasets import DatasetCatalog
from runstore.catalog.examples import ExampleCatalog
from runstore.catalog.projects import ProjectCatalog
from runstore.domain.examples import Example
from runstore.domain.projects import ProjectFilter
from runstore.ingest.validation import uuid_text
from runstore.rpc.authentication import current_principal
from runstore.rpc.dataset_messages import dataset_message
from runstore.rpc.datasets import page
from runstore.rpc.examples import example_filter
from runstore.rpc.mapping import ids, project_message
from runstore.v1 import dataset_sharing_service_pb2 as pb
from runstore.v1 import dataset_sharing_service_pb2_grpc as pb_grpc
from runstore.v1 import example_service_pb2

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ExampleMessages(Protocol):
    """Makes messages of examples."""

    async def messages(
        self, tenant_id: str, found: Sequence[Example]
    ) -> list[example_service_pb2.Example]: ...


class DatasetSharingServicer(pb_grpc.DatasetSharingServiceServicer):
    """Maps calls about tokens to the catalog."""

    def __init__(self, shares: DatasetShareCatalog) -> None:
        self._shares = shares

    async def ShareDataset(
        self, request: pb.ShareDatasetRequest, context: _Context
    ) -> pb.ShareDatasetResponse:
        token = await self._shares.share(*_place(request), projects=request.share_projects)
        return pb.ShareDatasetResponse(share_token=token)

    async def GetDatasetShare(
        self, request: pb.GetDatasetShareRequest, context: _Context
    ) -> pb.GetDatasetShareResponse:
        return pb.GetDatasetShareResponse(share_token=await self._shares.token(*_place(request)))

    async def UnshareDataset(
        self, request: pb.UnshareDatasetRequest, context: _Context
    ) -> pb.UnshareDatasetResponse:
        await self._shares.revoke(*_place(request))
        return pb.UnshareDatasetResponse()


class SharedDatasetServicer(pb_grpc.SharedDatasetServiceServicer):
    """Answers about what a token opens, and nothing else; there is no principal."""

    def __init__(
        self,
        shares: DatasetShareCatalog,
        datasets: DatasetCatalog,
        examples: ExampleCatalog,
        projects: ProjectCatalog,
        messages: ExampleMessages,
    ) -> None:
        self._shares = shares
        self._datasets = datasets
        self._examples = examples
        self._projects = projects
        self._messages = messages

    async def GetSharedDataset(
        self, request: pb.GetSharedDatasetRequest, context: _Context
    ) -> pb.GetSharedDatasetResponse:
        share = await self._shares.find(uuid_text("share_token", request.share_token))
        dataset = await self._datasets.get(share.tenant_id, share.dataset_id)
        return pb.GetSharedDatasetResponse(dataset=dataset_message(dataset))

    async def ListSharedExamples(
        self, request: pb.ListSharedExamplesRequest, context: _Context
    ) -> pb.ListSharedExamplesResponse:
        share = await self._shares.find(uuid_text("share_token", request.share_token))
        condition = replace(example_filter(request.examples), dataset_id=share.dataset_id)
        found = await self._examples.list(share.tenant_id, condition)
        messages = await self._messages.messages(share.tenant_id, found)
        return pb.ListSharedExamplesResponse(examples=messages)

    async def ListSharedProjects(
        self, request: pb.ListSharedProjectsRequest, context: _Context
    ) -> pb.ListSharedProjectsResponse:
        share = await self._shares.find(uuid_text("share_token", request.share_token))
        offset, limit = page(request)
        if not share.share_projects:
            return pb.ListSharedProjectsResponse()
        condition = ProjectFilter(
            ids=ids("ids", request.ids),
            name=request.name if request.HasField("name") else None,
            name_contains=request.name_contains if request.HasField("name_contains") else None,
            reference_dataset_ids=(share.dataset_id,),
            offset=offset,
            limit=limit,
        )
        found = await self._projects.list(share.tenant_id, condition)
        return pb.ListSharedProjectsResponse(projects=map(project_message, found))


def _place(request: Any) -> tuple[str, str]:
    return current_principal.get().tenant_id, uuid_text("dataset_id", request.dataset_id)
