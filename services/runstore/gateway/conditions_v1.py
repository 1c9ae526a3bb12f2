"""The conditions of v1 bodies as the store takes them (contract runs-v1, section 6)."""

from fastapi import HTTPException

from runstore.gateway.models import RunConditionsV1
from runstore.gateway.questions import Understood, both, understand
from runstore.gateway.run_json import RUN_TYPES
from runstore.gateway.store_client import Credentials, StoreClient
from runstore.gateway.time_fields import to_timestamp
from runstore.v1 import run_query_service_pb2 as pb


def run_conditions(body: RunConditionsV1) -> pb.ListRunsRequest:
    """A request for the runs that the body means, without fields, order and page."""
    if body.id:
        # The contract: ids switch every condition off.
        return pb.ListRunsRequest(ids=map(str, body.id))
    if not (body.session or body.parent_run or body.trace or body.reference_example):
        raise HTTPException(
            400,
            "At least one of 'session', 'id', 'parent_run', 'trace' or 'reference_example' must be specified",
        )
    is_root = True if body.is_root is None and body.execution_order == 1 else body.is_root
    conditions = pb.ListRunsRequest(
        project_ids=map(str, body.session or ()),
        reference_example_ids=map(str, body.reference_example or ()),
        trace_id=None if body.trace is None else str(body.trace),
        parent_run_id=None if body.parent_run is None else str(body.parent_run),
        is_root=is_root,
        has_error=body.error,
        min_start_time=None if body.start_time is None else to_timestamp(body.start_time),
        max_start_time=None if body.end_time is None else to_timestamp(body.end_time),
        filter=body.filter or "",
        trace_filter=body.trace_filter or "",
        tree_filter=body.tree_filter or "",
    )
    if body.run_type is not None:
        conditions.run_type = RUN_TYPES[body.run_type]
    return conditions


async def with_question(
    conditions: pb.ListRunsRequest,
    body: RunConditionsV1,
    cursor: str | None,
    store: StoreClient,
    credentials: Credentials,
) -> Understood | None:
    """Add the filter that the body's question means to the conditions, if it has one; ids switch it off, too.

    `cursor` is the client's. Raises `RunstoreError`.
    """
    question = body.query or body.search_filter
    if not question or body.id:
        return None
    understood = await understand(store, question, cursor, credentials)
    conditions.filter = both(conditions.filter, understood.filter)
    return understood
