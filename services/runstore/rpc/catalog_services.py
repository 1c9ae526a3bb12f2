"""The services on the catalog that other parts of the store know nothing of, registered together."""

from dataclasses import dataclass

import grpc

from runstore.rpc.agent_items import AgentItemServicer
from runstore.rpc.agent_registry import AgentRegistryServicer
from runstore.rpc.annotation_queues import AnnotationQueueServicer
from runstore.rpc.feedback_setup import FeedbackConfigServicer, FeedbackTokenServicer
from runstore.rpc.online_evaluators import OnlineEvaluatorServicer
from runstore.rpc.prompts import PromptServicer
from runstore.rpc.retention import RetentionServicer
from runstore.rpc.shares import SharedRunServicer, ShareServicer
from runstore.rpc.tenants import TenantServicer
from runstore.v1 import (
    agent_item_service_pb2_grpc,
    agent_registry_service_pb2_grpc,
    annotation_queue_service_pb2_grpc,
    feedback_config_service_pb2_grpc,
    feedback_token_service_pb2_grpc,
    online_evaluator_service_pb2_grpc,
    prompt_service_pb2_grpc,
    retention_service_pb2_grpc,
    share_service_pb2_grpc,
    tenant_service_pb2_grpc,
)

NAMES = (
    "runstore.v1.AnnotationQueueService",
    "runstore.v1.AgentItemService",
    "runstore.v1.PromptService",
    "runstore.v1.TenantService",
    "runstore.v1.ShareService",
    "runstore.v1.SharedRunService",
    "runstore.v1.FeedbackTokenService",
    "runstore.v1.FeedbackConfigService",
    "runstore.v1.OnlineEvaluatorService",
    "runstore.v1.AgentRegistryService",
    "runstore.v1.RetentionService",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogServicers:
    """Queues, prompts, shares, what is set up for feedback, evaluators, agents, their items, retention."""

    queues: AnnotationQueueServicer
    agent_items: AgentItemServicer
    prompts: PromptServicer
    tenants: TenantServicer
    shares: ShareServicer
    shared_runs: SharedRunServicer
    feedback_tokens: FeedbackTokenServicer
    feedback_configs: FeedbackConfigServicer
    online_evaluators: OnlineEvaluatorServicer
    agent_registry: AgentRegistryServicer
    retention: RetentionServicer

    def register(self, server: grpc.aio.Server) -> None:
        """Has `server` serve all of them."""
        annotation_queue_service_pb2_grpc.add_AnnotationQueueServiceServicer_to_server(self.queues, server)
        agent_item_service_pb2_grpc.add_AgentItemServiceServicer_to_server(self.agent_items, server)
        prompt_service_pb2_grpc.add_PromptServiceServicer_to_server(self.prompts, server)
        tenant_service_pb2_grpc.add_TenantServiceServicer_to_server(self.tenants, server)
        share_service_pb2_grpc.add_ShareServiceServicer_to_server(self.shares, server)
        share_service_pb2_grpc.add_SharedRunServiceServicer_to_server(self.shared_runs, server)
        feedback_token_service_pb2_grpc.add_FeedbackTokenServiceServicer_to_server(
            self.feedback_tokens, server
        )
        feedback_config_service_pb2_grpc.add_FeedbackConfigServiceServicer_to_server(
            self.feedback_configs, server
        )
        online_evaluator_service_pb2_grpc.add_OnlineEvaluatorServiceServicer_to_server(
            self.online_evaluators, server
        )
        agent_registry_service_pb2_grpc.add_AgentRegistryServiceServicer_to_server(
            self.agent_registry, server
        )
        retention_service_pb2_grpc.add_RetentionServiceServicer_to_server(self.retention, server)
