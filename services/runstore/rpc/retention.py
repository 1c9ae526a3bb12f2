"""Serves `RetentionService`."""

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

import grpc

from runstore.domain.errors import invalid
from runstore.domain.retention import Retention, RetentionRule, TraceTier
from runstore.ingest.validation import uuid_text
from runstore.query.retention import ReadRetention
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import ids
from runstore.v1 import retention_service_pb2 as pb
from runstore.v1 import retention_service_pb2_grpc, run_pb2

MAX_IDS: Final = 1_000
TIERS: Final = {
    TraceTier.SHORTLIVED: run_pb2.TRACE_TIER_SHORTLIVED,
    TraceTier.LONGLIVED: run_pb2.TRACE_TIER_LONGLIVED,
}
_TIERS_BY_NUMBER: Final = {number: tier for tier, number in TIERS.items()}

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Rules(Protocol):
    """What the service needs of the catalog."""

    async def rule(self, tenant_id: str, project_id: str | None) -> RetentionRule: ...
    async def set_rule(self, tenant_id: str, project_id: str | None, rule: RetentionRule) -> None: ...


class Projects(Protocol):
    """What the service needs of the catalog's projects."""

    async def get(self, tenant_id: str, project_id: str) -> object:
        """Raises NOT_FOUND."""
        ...


class Keeps(Protocol):
    """The way into the log."""

    async def write_keep(
        self, tenant_id: str, *, run_ids: Sequence[str] = (), trace_ids: Sequence[str] = ()
    ) -> int: ...


class RetentionServicer(retention_service_pb2_grpc.RetentionServiceServicer):
    """Maps calls to the catalog; has traces kept."""

    def __init__(self, rules: Rules, reader: ReadRetention, projects: Projects, ingest: Keeps) -> None:
        self._rules = rules
        self._reader = reader
        self._projects = projects
        self._ingest = ingest

    async def GetRetention(
        self, request: pb.GetRetentionRequest, context: _Context
    ) -> pb.GetRetentionResponse:
        tenant_id, project_id = current_principal.get().tenant_id, await self._project_id(request)
        rule = await self._rules.rule(tenant_id, project_id)
        return pb.GetRetentionResponse(
            rule=pb.RetentionRule(
                trace_tier=TIERS[rule.trace_tier] if rule.trace_tier else run_pb2.TRACE_TIER_UNSPECIFIED,
                short_days=rule.short_days,
                long_days=rule.long_days,
            ),
            effective=_effective(await self._reader.of_project(tenant_id, project_id)),
        )

    async def SetRetention(
        self, request: pb.SetRetentionRequest, context: _Context
    ) -> pb.SetRetentionResponse:
        tenant_id, project_id = current_principal.get().tenant_id, await self._project_id(request)
        given = request.rule
        rule = RetentionRule(
            trace_tier=tier_of(given.trace_tier),
            short_days=given.short_days if given.HasField("short_days") else None,
            long_days=given.long_days if given.HasField("long_days") else None,
        )
        await self._rules.set_rule(tenant_id, project_id, rule)
        effective = await self._reader.of_project(tenant_id, project_id)
        return pb.SetRetentionResponse(effective=_effective(effective))

    async def KeepTraces(self, request: pb.KeepTracesRequest, context: _Context) -> pb.KeepTracesResponse:
        if not 0 < len(request.trace_ids) + len(request.run_ids) <= MAX_IDS:
            raise invalid("trace_ids", f"1 to {MAX_IDS} are needed, with run_ids")
        await self._ingest.write_keep(
            current_principal.get().tenant_id,
            run_ids=ids("run_ids", request.run_ids),
            trace_ids=ids("trace_ids", request.trace_ids),
        )
        return pb.KeepTracesResponse()

    async def _project_id(self, request: pb.GetRetentionRequest | pb.SetRetentionRequest) -> str | None:
        if not request.HasField("project_id"):
            return None
        project_id = uuid_text("project_id", request.project_id)
        await self._projects.get(current_principal.get().tenant_id, project_id)
        return project_id


def tier_of(number: run_pb2.TraceTier.ValueType) -> TraceTier | None:
    """The tier; None when it was not given. Raises INVALID_ARGUMENT for a number that is none."""
    if number and number not in _TIERS_BY_NUMBER:
        raise invalid("trace_tier", f"{number} is not a tier")
    return _TIERS_BY_NUMBER.get(number)


def _effective(retention: Retention) -> pb.RetentionRule:
    return pb.RetentionRule(
        trace_tier=TIERS[retention.trace_tier], short_days=retention.days, long_days=retention.kept_days
    )
