"""The ingest routes: `POST /runs`, `PATCH /runs/{id}`, `POST /runs/batch`, `POST /runs/multipart`.

202 means durable. A request is answered once: 422 lists what was refused, and everything else of
the request is stored; 400 means that nothing of it is.
"""

from contextlib import aclosing
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from runstore.domain.errors import invalid
from runstore.gateway.agent_run_answers import create_run as create_agent_run
from runstore.gateway.agent_run_answers import create_runs as create_agent_runs
from runstore.gateway.agent_sniffing import in_agents_dialect, is_agent_batch, is_agent_run
from runstore.gateway.bodies import BodyReader, BodyStream
from runstore.gateway.call_log import add_call_facts
from runstore.gateway.dialects import json_response
from runstore.gateway.documents import (
    ACCEPTED_ANSWER,
    BATCH_BODY,
    INGEST_ERRORS,
    MULTIPART_BODY,
    RUN_BODY,
)
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.multipart import boundary_of, split
from runstore.gateway.operations import (
    Assembly,
    Operations,
    operation_of,
    operations_of_batch,
    operations_of_parts,
)
from runstore.gateway.run_json import RunJson, canonical_uuid, parse_run
from runstore.gateway.store_client import MAX_WRITE_BYTES, Credentials, StoreClient, credentials_of
from runstore.gateway.streamed_parts import StreamedParts, run_part_kind, upload_payloads
from runstore.v1 import run_ingest_service_pb2 as pb

# A body can hold 10,000 bad runs; nobody reads more than these.
_MAX_LISTED_REFUSALS: Final = 100


def ingest_routes(store: StoreClient, bodies: BodyReader) -> GuardedRouter:
    """The routes, writing to `store`."""
    router = GuardedRouter(tags=["Ingest"])
    answers: dict[int | str, dict[str, Any]] = {202: ACCEPTED_ANSWER, **INGEST_ERRORS}

    @router.post("/runs", status_code=202, responses=answers, openapi_extra=RUN_BODY)
    async def create_run(request: Request) -> Response:
        """Creates one run, or merges into it when its id is known.

        Needs `id`, `name` and `run_type`; `trace_id` and `dotted_order` are derived when absent.

        A body with `assistant_id` asks for a stateless run of a graph instead, and is answered with it.
        """
        credentials = credentials_of(request.headers)
        async with bodies.read(request) as body:
            if is_agent_run(body):
                return await in_agents_dialect(request, create_agent_run(request, store, body))
            found = operation_of(parse_run(body), is_create=True)
            await _fit(found, body, store, credentials)
        return await _store_one(request, store, found, credentials, "Run created")

    @router.patch("/runs/{run_id}", status_code=202, responses=answers, openapi_extra=RUN_BODY)
    async def update_run(request: Request, run_id: str) -> Response:
        """Merges the given fields into a run. Null and absent fields change nothing.

        An update of a run that does not exist yet is kept until the run is created.
        """
        credentials = credentials_of(request.headers)
        async with bodies.read(request) as body:
            run = parse_run(body)
            _agree_on_id(run, run_id)
            found = operation_of(run, is_create=False)
            await _fit(found, body, store, credentials)
        return await _store_one(request, store, found, credentials, "Run updated")

    @router.post("/runs/batch", status_code=202, responses=answers, openapi_extra=BATCH_BODY)
    async def write_batch(request: Request) -> Response:
        """Creates and updates many runs; each needs `id`, `trace_id` and `dotted_order`.

        An array asks for runs of graphs instead, one for each of its objects, and is answered with them.
        """
        credentials = credentials_of(request.headers)
        async with bodies.read(request) as body:
            if is_agent_batch(body):
                return await in_agents_dialect(request, create_agent_runs(request, store, body))
            found = operations_of_batch(body)
            await _fit(found, body, store, credentials)
            return await _store_all(request, store, found, credentials)

    @router.post("/runs/multipart", status_code=202, responses=answers, openapi_extra=MULTIPART_BODY)
    async def write_multipart(request: Request) -> Response:
        """Creates and updates many runs with their payloads, attachments and feedback, one part each."""
        credentials = credentials_of(request.headers)
        boundary = boundary_of(request.headers.get("content-type", ""))
        async with bodies.read_or_stream(request) as body:
            if isinstance(body, BodyStream):
                found = await _operations_of_stream(body, boundary, store, credentials)
            else:
                found = operations_of_parts(split(body, boundary))
            return await _store_all(request, store, found, credentials)

    return router


def _agree_on_id(run: RunJson, path_id: str) -> None:
    """Gives the run of an update the id in its path."""
    run_id = canonical_uuid("run_id", path_id)
    if run.id is not None and canonical_uuid("id", run.id) != run_id:
        raise invalid("id", "differs from the id in the path")
    run.id = run_id


async def _fit(found: Operations, body: bytes, store: StoreClient, credentials: Credentials) -> None:
    """Make operations of a large body small enough for messages."""
    if len(body) > MAX_WRITE_BYTES // 2:
        await upload_payloads(found, store, credentials)


async def _operations_of_stream(
    body: BodyStream, boundary: str, store: StoreClient, credentials: Credentials
) -> Operations:
    assembly = Assembly()
    async with aclosing(StreamedParts(boundary, store, credentials, body, run_part_kind).read()) as parts:
        async for part in parts:
            assembly.add(part)
    return assembly.finish()


async def _write(store: StoreClient, found: Operations, credentials: Credentials) -> None:
    if not found.operations and not found.feedback:
        # Nothing to store, but only the store knows who may be told so.
        await store.write_runs(pb.WriteRunsRequest(), credentials)
    # One after the other: operations are applied in the order of the request.
    continues = False
    for offset, message in found.messages():
        answer = await store.write_runs(message, credentials, continues=continues)
        found.refuse_by_store(offset, answer.errors)
        continues = True
    for records in found.feedback_messages():
        confirmed = await store.write_feedback(records, credentials, continues=continues)
        continues = True
        found.refuse_feedback_by_store(records.feedback, confirmed.errors)


async def _store_one(
    request: Request, store: StoreClient, found: Operations, credentials: Credentials, done: str
) -> Response:
    add_call_facts(request.scope, operations=1)
    await _write(store, found, credentials)
    for refusal in found.refusals:
        raise invalid(refusal.field, refusal.message)
    return json_response({"message": done}, 202)


async def _store_all(
    request: Request, store: StoreClient, found: Operations, credentials: Credentials
) -> Response:
    try:
        await _write(store, found, credentials)
    finally:
        operations = len(found.operations) + len(found.feedback)
        add_call_facts(request.scope, operations=operations, refused=len(found.refusals))
    if found.refusals:
        return _refusal_answer(found)
    return json_response({"message": f"{operations} operations accepted"}, 202)


def _refusal_answer(found: Operations) -> Response:
    listed = found.refusals[:_MAX_LISTED_REFUSALS]
    lines = [str(refusal) for refusal in listed]
    if len(found.refusals) > len(listed):
        lines.append(f"and {len(found.refusals) - len(listed)} more")
    body = {
        "error": f"{len(found.refusals)} of the request refused, everything else stored",
        "details": "\n".join(lines),
        "refused": [
            {"source": refusal.source, "field": refusal.field, "message": refusal.message}
            for refusal in listed
        ],
    }
    return json_response(body, 422)
