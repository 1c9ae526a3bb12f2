"""The gRPC server: every service, health and reflection, on its addresses."""

from collections.abc import Iterable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from runstore.rpc import agent_services, catalog_services, messages
from runstore.rpc.admin import AdminServicer
from runstore.rpc.agent_services import AgentServicers
from runstore.rpc.blobs import BlobServicer
from runstore.rpc.catalog_services import CatalogServicers
from runstore.rpc.comparative_experiments import ComparativeExperimentServicer
from runstore.rpc.dataset_sharing import DatasetSharingServicer, SharedDatasetServicer
from runstore.rpc.datasets import DatasetServicer
from runstore.rpc.example_search import ExampleSearchServicer
from runstore.rpc.examples import ExampleServicer
from runstore.rpc.feedback import FeedbackServicer
from runstore.rpc.filters import FilterServicer
from runstore.rpc.interceptor import CallInterceptor
from runstore.rpc.otlp import OtlpServicer
from runstore.rpc.paced_calls import PacedCalls
from runstore.rpc.projects import ProjectServicer
from runstore.rpc.registration import Registration
from runstore.rpc.run_deletion import RunDeletionServicer
from runstore.rpc.run_ingest import RunIngestServicer
from runstore.rpc.run_query import RunQueryServicer
from runstore.rpc.run_stats import RunStatsServicer
from runstore.rpc.thread_query import ThreadQueryServicer
from runstore.rpc.trace_query import TraceQueryServicer
from runstore.v1 import (
    admin_service_pb2_grpc,
    blob_service_pb2_grpc,
    comparative_experiment_service_pb2_grpc,
    dataset_service_pb2_grpc,
    dataset_sharing_service_pb2_grpc,
    example_search_service_pb2_grpc,
    example_service_pb2_grpc,
    feedback_service_pb2_grpc,
    filter_service_pb2_grpc,
    project_service_pb2_grpc,
    run_deletion_service_pb2_grpc,
    run_ingest_service_pb2_grpc,
    run_query_service_pb2_grpc,
    run_stats_service_pb2_grpc,
    thread_query_service_pb2_grpc,
    trace_query_service_pb2_grpc,
)

_HANDSHAKE_TIMEOUT_MS = 10_000
SERVICES = (
    "runstore.v1.RunIngestService",
    "runstore.v1.RunQueryService",
    "runstore.v1.TraceQueryService",
    "runstore.v1.ThreadQueryService",
    "runstore.v1.FeedbackService",
    "runstore.v1.FilterService",
    "runstore.v1.RunStatsService",
    "runstore.v1.RunDeletionService",
    "runstore.v1.ProjectService",
    *catalog_services.NAMES,
    *agent_services.NAMES,
    "runstore.v1.DatasetService",
    "runstore.v1.ExampleService",
    "runstore.v1.ExampleSearchService",
    "runstore.v1.DatasetSharingService",
    "runstore.v1.SharedDatasetService",
    "runstore.v1.ComparativeExperimentService",
    "opentelemetry.proto.collector.trace.v1.TraceService",
    "runstore.v1.BlobService",
    "runstore.v1.AdminService",
)


class StoreServer:
    """Owns the listening server."""

    def __init__(
        self,
        *,
        ingest: RunIngestServicer,
        query: RunQueryServicer,
        traces: TraceQueryServicer,
        threads: ThreadQueryServicer,
        feedback: FeedbackServicer,
        filters: FilterServicer,
        stats: RunStatsServicer,
        deletion: RunDeletionServicer,
        projects: ProjectServicer,
        datasets: DatasetServicer,
        examples: ExampleServicer,
        example_search: ExampleSearchServicer,
        dataset_sharing: DatasetSharingServicer,
        shared_datasets: SharedDatasetServicer,
        comparative_experiments: ComparativeExperimentServicer,
        catalog: CatalogServicers,
        agents: AgentServicers,
        admin: AdminServicer,
        blobs: BlobServicer,
        interceptors: Sequence[PacedCalls | CallInterceptor],
    ) -> None:
        self._server = grpc.aio.server(
            interceptors=interceptors,
            options=[
                *messages.OPTIONS,
                ("grpc.max_send_message_length", -1),
                # Two stores on one port would each hold half of the runs.
                ("grpc.so_reuseport", 0),
                # For TLS and HTTP/2's greeting; by default a silent client is kept for two minutes.
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_TIMEOUT_MS),
            ],
        )
        # Typed as the server by what protoc generates; it has the methods that are called here.
        services: Any = Registration(self._server)
        run_ingest_service_pb2_grpc.add_RunIngestServiceServicer_to_server(ingest, services)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
            OtlpServicer(ingest), services
        )
        run_query_service_pb2_grpc.add_RunQueryServiceServicer_to_server(query, services)
        trace_query_service_pb2_grpc.add_TraceQueryServiceServicer_to_server(traces, services)
        thread_query_service_pb2_grpc.add_ThreadQueryServiceServicer_to_server(threads, services)
        feedback_service_pb2_grpc.add_FeedbackServiceServicer_to_server(feedback, services)
        filter_service_pb2_grpc.add_FilterServiceServicer_to_server(filters, services)
        run_deletion_service_pb2_grpc.add_RunDeletionServiceServicer_to_server(deletion, services)
        run_stats_service_pb2_grpc.add_RunStatsServiceServicer_to_server(stats, services)
        project_service_pb2_grpc.add_ProjectServiceServicer_to_server(projects, services)
        dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(datasets, services)
        dataset_sharing_service_pb2_grpc.add_DatasetSharingServiceServicer_to_server(
            dataset_sharing, services
        )
        dataset_sharing_service_pb2_grpc.add_SharedDatasetServiceServicer_to_server(shared_datasets, services)
        comparative_experiment_service_pb2_grpc.add_ComparativeExperimentServiceServicer_to_server(
            comparative_experiments, services
        )
        example_search_service_pb2_grpc.add_ExampleSearchServiceServicer_to_server(example_search, services)
        example_service_pb2_grpc.add_ExampleServiceServicer_to_server(examples, services)
        catalog.register(services)
        agents.register(services)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin, services)
        blob_service_pb2_grpc.add_BlobServiceServicer_to_server(blobs, services)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs know only the threaded one
        health_pb2_grpc.add_HealthServicer_to_server(self._health, services)
        # `enable_server_reflection` takes `services` for a threaded server: each open stream, whosever it is,
        # would keep one of the threads that `asyncio.to_thread` has.
        names = (*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflected = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]  # as for health
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, services)

    async def start(self, addresses: Iterable[tuple[str, grpc.ServerCredentials | None]]) -> None:
        """Listen, in plain text without credentials. Raises RuntimeError when an address is taken."""
        for address, credentials in addresses:
            if credentials is None:
                self._server.add_insecure_port(address)
            else:
                self._server.add_secure_port(address, credentials)
        await self._server.start()
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls and let those under way end."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
