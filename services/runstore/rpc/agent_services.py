"""The services of agents, registered together."""

from dataclasses import dataclass

import grpc

from runstore.rpc.agent_runs import AgentRunServicer
from runstore.rpc.agent_threads import ThreadServicer
from runstore.rpc.agent_worker import AgentWorkerServicer
from runstore.rpc.assistants import AssistantServicer
from runstore.rpc.crons import CronServicer
from runstore.v1 import (
    agent_run_service_pb2_grpc,
    agent_worker_service_pb2_grpc,
    assistant_service_pb2_grpc,
    cron_service_pb2_grpc,
    thread_service_pb2_grpc,
)

NAMES = (
    "runstore.v1.AgentRunService",
    "runstore.v1.ThreadService",
    "runstore.v1.AssistantService",
    "runstore.v1.CronService",
    "runstore.v1.AgentWorkerService",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentServicers:
    """Runs, threads, assistants, crons, and the workers that run graphs."""

    runs: AgentRunServicer
    threads: ThreadServicer
    assistants: AssistantServicer
    crons: CronServicer
    workers: AgentWorkerServicer

    def register(self, server: grpc.aio.Server) -> None:
        """Has `server` serve all of them."""
        agent_run_service_pb2_grpc.add_AgentRunServiceServicer_to_server(self.runs, server)
        thread_service_pb2_grpc.add_ThreadServiceServicer_to_server(self.threads, server)
        assistant_service_pb2_grpc.add_AssistantServiceServicer_to_server(self.assistants, server)
        cron_service_pb2_grpc.add_CronServiceServicer_to_server(self.crons, server)
        agent_worker_service_pb2_grpc.add_AgentWorkerServiceServicer_to_server(self.workers, server)
