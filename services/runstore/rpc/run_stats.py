"""Serves `RunStatsService`."""

from typing import Any, TypeAlias

import grpc

from runstore.domain.errors import invalid
from runstore.domain.run_stats import GroupAttribute, Grouping, GroupStats, StatsField, StatsQuery
from runstore.query.run_stats import DEFAULT_GROUPS, MAX_GROUPS, RunStatistics
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import decimal_text, feedback_stats_message, run_query, set_time
from runstore.v1 import run_stats_service_pb2 as pb
from runstore.v1 import run_stats_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_FIELDS: dict[pb.RunStatsField.ValueType, StatsField] = {
    number: StatsField(name.removeprefix("RUN_STATS_FIELD_").lower())
    for name, number in pb.RunStatsField.items()
    if number != pb.RUN_STATS_FIELD_UNSPECIFIED
}
_ATTRIBUTES: dict[pb.RunGroupAttribute.ValueType, GroupAttribute] = {
    number: GroupAttribute(name.removeprefix("RUN_GROUP_ATTRIBUTE_").lower())
    for name, number in pb.RunGroupAttribute.items()
    if number != pb.RUN_GROUP_ATTRIBUTE_UNSPECIFIED
}


class RunStatsServicer(run_stats_service_pb2_grpc.RunStatsServiceServicer):
    """Maps questions in and statistics out."""

    def __init__(self, statistics: RunStatistics) -> None:
        self._statistics = statistics

    async def RunStats(self, request: pb.RunStatsRequest, context: _Context) -> pb.RunStatsResponse:
        query = StatsQuery(
            run_query(request.runs, current_principal.get().tenant_id),
            _fields(request),
            _grouping(request.grouping) if request.HasField("grouping") else None,
        )
        groups = await self._statistics.of(query)
        return pb.RunStatsResponse(groups=[_group_message(group) for group in groups])


def _fields(request: pb.RunStatsRequest) -> frozenset[StatsField]:
    for number in request.fields:
        if number not in _FIELDS:
            raise invalid("fields", f"{number} is no statistic")
    return frozenset(_FIELDS[number] for number in request.fields) or frozenset(StatsField)


def _grouping(grouping: pb.RunGrouping) -> Grouping:
    if grouping.attribute not in _ATTRIBUTES:
        raise invalid("grouping.attribute", f"{grouping.attribute} is nothing to group by")
    return Grouping(
        _ATTRIBUTES[grouping.attribute],
        path=tuple(grouping.path.split(".")),
        values=tuple(grouping.groups),
        max_groups=min(grouping.max_groups or DEFAULT_GROUPS, MAX_GROUPS),
    )


def _group_message(group: GroupStats) -> pb.RunGroupStats:
    message = pb.RunGroupStats(group=group.group)
    for field, value in group.values.items():
        _set(message.stats, field, value)
    return message


def _set(stats: pb.RunStats, field: StatsField, value: Any) -> None:
    match field:
        case StatsField.LAST_RUN_START_TIME:
            set_time(stats.last_run_start_time, value)
        case StatsField.TOTAL_COST | StatsField.PROMPT_COST | StatsField.COMPLETION_COST:
            setattr(stats, field.value, decimal_text(value))
        case StatsField.PROMPT_TOKEN_DETAILS | StatsField.COMPLETION_TOKEN_DETAILS:
            getattr(stats, field.value).update(value)
        case StatsField.PROMPT_COST_DETAILS | StatsField.COMPLETION_COST_DETAILS:
            costs = {category: decimal_text(cost) for category, cost in value.items()}
            getattr(stats, field.value).update(costs)
        case StatsField.FEEDBACK_STATS | StatsField.SESSION_FEEDBACK_STATS:
            by_key = getattr(stats, field.value)
            for key, feedback in value.items():
                by_key[key].CopyFrom(feedback_stats_message(feedback))
        case StatsField.RUN_FACETS:
            stats.run_facets.extend(
                pb.RunFacet(field=facet.field.value, value=facet.value, count=facet.count) for facet in value
            )
        case _:
            setattr(stats, field.value, value)
