"""Serves `CronService`, and creates the runs of crons."""

import dataclasses
import uuid
from typing import Any, Final, TypeAlias

import grpc

from runstore.catalog.catalog import Catalog
from runstore.catalog.texts import json_object
from runstore.dispatch.runs import AgentRuns
from runstore.domain.assistants import assistant_id_of
from runstore.domain.crons import Cron, CronFilter, CronOrder, next_time_us
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.ingest.validation import uuid_text
from runstore.rpc.agent_runs import new_run, user_id
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import optional_time_us, set_time
from runstore.runtime.clock import Clock
from runstore.v1 import cron_service_pb2 as pb
from runstore.v1 import cron_service_pb2_grpc
from runstore.v1.agent_run_service_pb2 import CreateAgentRunRequest

_DEFAULT_PAGE_SIZE: Final = 10
_ORDERS: Final = {
    pb.CRON_ORDER_UNSPECIFIED: CronOrder.CREATE_TIME,
    **{pb.CronOrder.Value(f"CRON_ORDER_{order.name}"): order for order in CronOrder},
}
# Of a run's fields that have no presence of their own: taken over only when told.
_TOLD: Final = ("keep_thread", "stream_subgraphs", "stream_resumable")

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CronServicer(cron_service_pb2_grpc.CronServiceServicer):
    """Maps calls to the catalog."""

    def __init__(self, catalog: Catalog, runs: AgentRuns, clock: Clock) -> None:
        self._crons = catalog.crons
        self._assistants = catalog.assistants
        self._threads = catalog.agent_threads
        self._runs = runs
        self._clock = clock

    async def create_run(self, cron: Cron, run_id: str) -> None:
        """Creates the run of one time of `cron`. Raises ALREADY_EXISTS when it has been created before."""
        new = new_run(CreateAgentRunRequest.FromString(cron.run), cron.user_id or "")
        of_time = dataclasses.replace(new, run_id=run_id, cron_id=cron.id)
        await self._runs.create(cron.tenant_id, [(cron.assistant_id, of_time)])

    async def CreateCron(self, request: pb.CreateCronRequest, context: _Context) -> pb.CreateCronResponse:
        run = CreateAgentRunRequest()
        run.CopyFrom(request.run)
        run.assistant_id = await self._assistant_id(run.assistant_id)
        if run.thread_id:
            run.thread_id = uuid_text("run.thread_id", run.thread_id)
            await self._threads.get(_tenant_id(), run.thread_id)
        now_us = self._clock.now_us()
        cron = self._due(
            Cron(
                id=str(uuid.uuid4()),
                tenant_id=_tenant_id(),
                user_id=user_id() or None,
                schedule=request.schedule,
                timezone=request.timezone or None,
                end_time_us=optional_time_us(request, "end_time"),
                enabled=not request.disabled,
                **self._run_columns(run),
                next_run_at_us=None,
                created_at_us=now_us,
                updated_at_us=now_us,
            )
        )
        await self._crons.create(cron)
        return pb.CreateCronResponse(cron=_message(cron))

    async def _assistant_id(self, id_or_graph: str) -> str:
        try:
            return (await self._assistants.resolve(_tenant_id(), id_or_graph)).assistant_id
        except RunstoreError as error:
            # What names no graph is not found, here and only here (contract agents, section 2.15).
            if error.reason is ErrorReason.INVALID_ARGUMENT:
                raise RunstoreError(ErrorReason.NOT_FOUND, error.message, field=error.field) from error
            raise

    def _run_columns(self, run: CreateAgentRunRequest) -> dict[str, Any]:
        self._runs.check(new_run(run, user_id()))
        run.after_seconds = 0
        return {
            "assistant_id": run.assistant_id,
            "thread_id": run.thread_id or None,
            "metadata": run.metadata or b"{}",
            "run": run.SerializeToString(deterministic=True),
        }

    def _due(self, cron: Cron) -> Cron:
        """The cron with its next run; its calendar is checked, be it enabled or not."""
        following = next_time_us(
            cron.schedule, cron.timezone, after_us=self._clock.now_us(), end_time_us=cron.end_time_us
        )
        return dataclasses.replace(cron, next_run_at_us=following if cron.enabled else None)

    async def GetCron(self, request: pb.GetCronRequest, context: _Context) -> pb.GetCronResponse:
        cron = await self._crons.get(_tenant_id(), uuid_text("cron_id", request.cron_id))
        return pb.GetCronResponse(cron=_message(cron))

    async def UpdateCron(self, request: pb.UpdateCronRequest, context: _Context) -> pb.UpdateCronResponse:
        cron_id = uuid_text("cron_id", request.cron_id)
        if request.clear_end_time and request.HasField("end_time"):
            raise RunstoreError(
                ErrorReason.INCONSISTENT, "end_time is given and to be cleared", field="end_time"
            )
        before = await self._crons.get(_tenant_id(), cron_id)
        after = await self._crons.replace(before, self._changed(before, request))
        return pb.UpdateCronResponse(cron=_message(after))

    def _changed(self, before: Cron, request: pb.UpdateCronRequest) -> Cron:
        changes: dict[str, Any] = {}
        if request.HasField("schedule"):
            changes["schedule"] = request.schedule
        if request.HasField("timezone"):
            changes["timezone"] = request.timezone or None
        if request.HasField("end_time") or request.clear_end_time:
            changes["end_time_us"] = optional_time_us(request, "end_time")
        if request.HasField("enabled"):
            changes["enabled"] = request.enabled
        if request.HasField("run"):
            changes |= self._run_columns(_merged(before.run, request))
        return self._due(dataclasses.replace(before, **changes))

    async def DeleteCron(self, request: pb.DeleteCronRequest, context: _Context) -> pb.DeleteCronResponse:
        await self._crons.delete(_tenant_id(), uuid_text("cron_id", request.cron_id))
        return pb.DeleteCronResponse()

    async def SearchCrons(self, request: pb.SearchCronsRequest, context: _Context) -> pb.SearchCronsResponse:
        for field in ("offset", "page_size"):
            if getattr(request, field) < 0:
                raise invalid(field, "must not be negative")
        if request.order not in _ORDERS:
            raise invalid("order", f"{request.order} is no order of crons")
        condition = dataclasses.replace(
            _filter(request.condition),
            order=_ORDERS[request.order],
            ascending=request.ascending,
            offset=request.offset,
            limit=request.page_size or _DEFAULT_PAGE_SIZE,
        )
        crons, total = await self._crons.search(_tenant_id(), condition)
        return pb.SearchCronsResponse(crons=map(_message, crons), total_count=total)

    async def CountCrons(self, request: pb.CountCronsRequest, context: _Context) -> pb.CountCronsResponse:
        condition = dataclasses.replace(_filter(request.condition), limit=0)
        _, total = await self._crons.search(_tenant_id(), condition)
        return pb.CountCronsResponse(count=total)


def _tenant_id() -> str:
    return current_principal.get().tenant_id


def _merged(stored: bytes, request: pb.UpdateCronRequest) -> CreateAgentRunRequest:
    """What runs are created with from now on; thread and assistant stay."""
    run = CreateAgentRunRequest.FromString(stored)
    given = CreateAgentRunRequest()
    given.CopyFrom(request.run)
    for field in ("thread_id", "assistant_id", "create_thread"):
        given.ClearField(field)
    if given.stream_modes:
        run.ClearField("stream_modes")
    run.MergeFrom(given)
    for field in _TOLD:
        if getattr(request, f"sets_{field}"):
            setattr(run, field, getattr(request.run, field))
    return run


def _filter(condition: pb.CronCondition) -> CronFilter:
    return CronFilter(
        assistant_id=(
            assistant_id_of(condition.assistant_id) if condition.HasField("assistant_id") else None
        ),
        thread_id=uuid_text("thread_id", condition.thread_id) if condition.HasField("thread_id") else None,
        enabled=condition.enabled if condition.HasField("enabled") else None,
        metadata=json_object("metadata", condition.metadata) if condition.HasField("metadata") else None,
    )


def _message(cron: Cron) -> pb.Cron:
    message = pb.Cron(
        cron_id=cron.id,
        schedule=cron.schedule,
        timezone=cron.timezone or "",
        enabled=cron.enabled,
        run=CreateAgentRunRequest.FromString(cron.run),
        user_id=cron.user_id or "",
    )
    set_time(message.create_time, cron.created_at_us)
    set_time(message.update_time, cron.updated_at_us)
    if cron.end_time_us is not None:
        set_time(message.end_time, cron.end_time_us)
    if cron.next_run_at_us is not None:
        set_time(message.next_run_time, cron.next_run_at_us)
    return message
