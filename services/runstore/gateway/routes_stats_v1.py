"""The v1 route of statistics: `POST /runs/stats` (contract runs-v1, section 7)."""

from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from runstore.domain.errors import invalid
from runstore.gateway.conditions_v1 import run_conditions, with_question
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail, RunGroupByV1, RunStatsQueryV1, RunStatsV1
from runstore.gateway.run_stats import StatsSelection
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.v1 import run_stats_service_pb2 as pb

_ATTRIBUTES: Final = {
    "name": pb.RUN_GROUP_ATTRIBUTE_NAME,
    "run_type": pb.RUN_GROUP_ATTRIBUTE_RUN_TYPE,
    "tag": pb.RUN_GROUP_ATTRIBUTE_TAG,
    "metadata": pb.RUN_GROUP_ATTRIBUTE_METADATA,
}
_BAD: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Detail, "description": "Bad filter, or no bound."}
}


def stats_routes_v1(store: StoreClient) -> GuardedRouter:
    """The route, reading from `store`."""
    router = GuardedRouter(tags=["Runs (v1)"])

    @router.post("/runs/stats", response_model=RunStatsV1 | dict[str, RunStatsV1], responses=_BAD)
    async def sum_runs_up(request: Request, body: RunStatsQueryV1) -> Response:
        """Sums runs up, all together, or by group: the answer is then an object of groups.

        The conditions are those of `POST /runs/query`.
        """
        selection = StatsSelection(body.select)
        credentials = credentials_of(request.headers)
        runs = run_conditions(body)
        await with_question(runs, body, None, store, credentials)
        query = pb.RunStatsRequest(
            runs=runs,
            fields=selection.fields,
            grouping=None if body.group_by is None else _grouping(body.group_by, body.groups or []),
        )
        answer = await store.run_stats(query, credentials)
        if body.group_by is None:
            [of_all] = answer.groups
            return json_response(selection.show(of_all.stats))
        return json_response({group.group: selection.show(group.stats) for group in answer.groups})

    return router


def _grouping(group_by: RunGroupByV1, groups: list[str]) -> pb.RunGrouping:
    if group_by.attribute == "metadata" and not group_by.path:
        raise invalid("group_by.path", "grouping by metadata needs the path of a value")
    return pb.RunGrouping(
        attribute=_ATTRIBUTES[group_by.attribute],
        path=group_by.path or "",
        groups=groups,
        max_groups=group_by.max_groups,
    )
