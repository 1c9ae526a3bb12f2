"""The example routes (contract resources, section 3)."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runstore.domain.errors import invalid
from runstore.gateway.bodies import BodyReader, BodyStream
from runstore.gateway.call_log import add_call_facts
from runstore.gateway.dataset_json import read_version
from runstore.gateway.dialects import json_response
from runstore.gateway.documents import EXAMPLE_BODY, EXAMPLES_BODY, EXAMPLES_MULTIPART_BODY
from runstore.gateway.example_json import (
    DEFAULT_KEYS,
    ExampleJson,
    change_of,
    read_example,
    read_examples,
    show_example,
    written,
)
from runstore.gateway.example_parts import ExampleParts, example_part_kind
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.large_answers import runs_response
from runstore.gateway.models import Detail
from runstore.gateway.models_datasets import ExampleRecord
from runstore.gateway.multipart import boundary_of, split
from runstore.gateway.run_json import canonical_uuid, parse_object
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.gateway.streamed_parts import StreamedParts
from runstore.v1 import example_service_pb2 as pb

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_TAKEN: Final[dict[int | str, dict[str, Any]]] = {
    404: {"model": Detail, "description": "The dataset, or an example to be updated."},
    409: {"model": Detail, "description": "The id is taken, or that of an example of another dataset."},
}
_ORDERS: Final = {
    "recent": pb.EXAMPLE_ORDER_RECENT,
    "recently_created": pb.EXAMPLE_ORDER_CREATED,
    "id": pb.EXAMPLE_ORDER_ID,
    "random": pb.EXAMPLE_ORDER_RANDOM,
}
_READ_AT_ONCE: Final = 100
_MAX_ERASED: Final = 1_000

_Key = Literal[
    "id", "dataset_id", "name", "inputs", "outputs", "metadata", "created_at", "modified_at",
    "source_run_id", "attachment_urls",
]  # fmt: skip


class _ListQuery(BaseModel):
    """Query parameters of the list; all conditions hold together."""

    dataset: UUID | None = Field(None, description="Needed without ids.")
    id: list[UUID] = Field(default=[])
    as_of: str | None = Field(None, description="The version: a time or a tag.")
    splits: list[str] = Field(default=[], description="In any of these.")
    filter: str | None = Field(None, description='Such as `exists(metadata, "k")`; on metadata alone.')
    metadata: str | None = Field(None, description="JSON object that the metadata contains.")
    full_text_contains: list[str] = Field(default=[], description="Each of them, in any case.")
    select: list[_Key] = Field(default=[], description="Beside the default keys.")
    exclude_default_fields: bool = Field(default=False, description="Only what is selected, and the id.")
    inline_s3_urls: bool = Field(default=True, description="Without effect: contents are always inline.")
    order: Literal["recent", "recently_created", "id", "random"] = "recent"
    descending: bool | None = Field(None, description="True when absent; for ids, false.")
    random_seed: float = 0.0
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)


class _EraseJson(msgspec.Struct):
    example_ids: list[str]
    hard_delete: bool = False


_ERASE: Final = msgspec.json.Decoder(_EraseJson)


def example_routes(store: StoreClient, bodies: BodyReader) -> GuardedRouter:
    """The routes, on the examples of `store`."""
    router = GuardedRouter(prefix="/examples", tags=["Examples"])
    examples = _Examples(store)

    @router.post("", response_model=ExampleRecord, responses=_TAKEN, openapi_extra=EXAMPLE_BODY)
    async def create_example(request: Request) -> Response:
        """Creates an example."""
        async with bodies.read(request) as body:
            [shown] = await examples.write_and_show(request, [read_example(body)], create=True)
        return runs_response(shown, store)

    @router.post("/bulk", response_model=list[ExampleRecord], responses=_TAKEN, openapi_extra=EXAMPLES_BODY)
    async def create_examples(request: Request) -> Response:
        """Creates examples, those of a dataset all or none."""
        async with bodies.read(request) as body:
            shown = await examples.write_and_show(request, read_examples(body), create=True)
        return runs_response(shown, store)

    @router.patch("/bulk", responses=_TAKEN, openapi_extra=EXAMPLES_BODY)
    async def update_examples(request: Request) -> Response:
        """Changes examples, those of a dataset all or none; null and absent keys keep what is there."""
        async with bodies.read(request) as body:
            shown = await examples.write_and_show(request, read_examples(body), create=False)
        return json_response({"message": f"{len(shown)} examples updated", "count": len(shown)})

    @router.patch("/{example_id}", responses=_TAKEN, openapi_extra=EXAMPLE_BODY)
    async def update_example(request: Request, example_id: UUID) -> Response:
        """Changes an example; null and absent keys keep what is there."""
        async with bodies.read(request) as body:
            given = read_example(body)
            given.id = str(example_id)
            [shown] = await examples.write_and_show(request, [given], create=False)
        return runs_response({**shown, "message": "Example updated"}, store)

    _add_reads(router, store)
    _add_deletions(router, store)
    return router


def _add_reads(router: GuardedRouter, store: StoreClient) -> None:
    @router.get("", response_model=list[ExampleRecord], responses=_NOT_FOUND)
    async def list_examples(request: Request, query: Annotated[_ListQuery, Query()]) -> Response:
        """Lists examples, the last changed first."""
        answer = await store.ask(
            store.examples.ListExamples, _list_request(query), credentials_of(request.headers)
        )
        add_call_facts(request.scope, examples=len(answer.examples))
        keys = frozenset({"id", *query.select, *(() if query.exclude_default_fields else DEFAULT_KEYS)})
        base_url = str(request.base_url)
        return runs_response([show_example(example, base_url, keys) for example in answer.examples], store)

    @router.get("/{example_id}", response_model=ExampleRecord, responses=_NOT_FOUND)
    async def get_example(
        request: Request, example_id: UUID, as_of: str | None = None, dataset: UUID | None = None
    ) -> Response:
        """Reads an example as it is, or as it was in a version."""
        message = pb.GetExampleRequest(
            id=str(example_id),
            version=read_version("as_of", as_of),
            dataset_id=None if dataset is None else str(dataset),
        )
        answer = await store.ask(store.examples.GetExample, message, credentials_of(request.headers))
        return runs_response(show_example(answer.example, str(request.base_url)), store)


def _add_deletions(router: GuardedRouter, store: StoreClient) -> None:
    @router.delete("/{example_id}", responses=_NOT_FOUND)
    async def delete_example(request: Request, example_id: UUID) -> Response:
        """Deletes an example; older versions keep it."""
        message = pb.DeleteExamplesRequest(ids=[str(example_id)])
        await store.ask(store.examples.DeleteExamples, message, credentials_of(request.headers))
        return json_response({"message": "Example deleted"})

    @router.delete("", responses=_NOT_FOUND)
    async def delete_examples(request: Request, example_ids: Annotated[list[UUID], Query()]) -> Response:
        """Deletes examples, all or none; older versions keep them."""
        message = pb.DeleteExamplesRequest(ids=map(str, example_ids))
        answer = await store.ask(store.examples.DeleteExamples, message, credentials_of(request.headers))
        return json_response({"count": len(answer.ids), "example_ids": list(answer.ids)})


def platform_example_routes(store: StoreClient, bodies: BodyReader) -> GuardedRouter:
    """The platform routes, which take files and erase examples."""
    router = GuardedRouter(prefix="/v1/platform", tags=["Examples"])
    examples = _Examples(store)

    @router.post("/datasets/examples/delete", responses=_NOT_FOUND)
    async def erase_examples(request: Request) -> Response:
        """Deletes examples: `{"example_ids": […], "hard_delete": true}` out of every version."""
        async with bodies.read(request) as body:
            given = parse_object(_ERASE, body)
        if not 1 <= len(given.example_ids) <= _MAX_ERASED:
            raise invalid("example_ids", f"1 to {_MAX_ERASED} of them")
        message = pb.DeleteExamplesRequest(
            ids=[canonical_uuid("example_ids", text) for text in given.example_ids], hard=given.hard_delete
        )
        answer = await store.ask(store.examples.DeleteExamples, message, credentials_of(request.headers))
        return json_response({"count": len(answer.ids), "example_ids": list(answer.ids)})

    @router.post(
        "/datasets/{dataset_id}/examples",
        status_code=201,
        responses=_TAKEN,
        openapi_extra=EXAMPLES_MULTIPART_BODY,
    )
    async def upload_examples(request: Request, dataset_id: UUID) -> Response:
        """Creates examples with their files, all or none."""
        return await examples.write_parts(request, bodies, ExampleParts(create=True), str(dataset_id))

    @router.patch(
        "/datasets/{dataset_id}/examples",
        status_code=201,
        responses=_TAKEN,
        openapi_extra=EXAMPLES_MULTIPART_BODY,
    )
    async def change_examples(request: Request, dataset_id: UUID) -> Response:
        """Changes examples and their files, all or none; what has no part stays."""
        return await examples.write_parts(request, bodies, ExampleParts(create=False), str(dataset_id))

    @router.post(
        "/examples/multipart", status_code=201, responses=_TAKEN, openapi_extra=EXAMPLES_MULTIPART_BODY
    )
    async def upsert_examples(request: Request) -> Response:
        """Creates or changes examples of the datasets that their main parts name."""
        return await examples.write_parts(request, bodies, ExampleParts(create=True, upsert=True), None)

    @router.delete("/datasets/{dataset_id}/examples/{example_id}", status_code=204, responses=_NOT_FOUND)
    async def delete_example(request: Request, dataset_id: UUID, example_id: UUID) -> Response:
        """Deletes an example; older versions keep it."""
        message = pb.DeleteExamplesRequest(ids=[str(example_id)], dataset_id=str(dataset_id))
        await store.ask(store.examples.DeleteExamples, message, credentials_of(request.headers))
        return Response(status_code=204)

    return router


class _Examples:
    """Writes examples and reads them back."""

    def __init__(self, store: StoreClient) -> None:
        self._store = store

    async def write_and_show(
        self, request: Request, given: Sequence[ExampleJson], *, create: bool
    ) -> list[dict[str, Any]]:
        """The examples as they are stored now, in the order given."""
        credentials = credentials_of(request.headers)
        changes = [(each.dataset_id, change_of(each, create=create)) for each in given]
        if create:
            for dataset_id, _ in changes:
                if dataset_id is None:
                    raise invalid("dataset_id", "missing")
        await self._write(changes, credentials)
        base_url = str(request.base_url)
        ids = [change.id for _, change in changes]
        shown: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), _READ_AT_ONCE):
            message = pb.ListExamplesRequest(ids=ids[start : start + _READ_AT_ONCE], page_size=_READ_AT_ONCE)
            answer = await self._store.ask(self._store.examples.ListExamples, message, credentials)
            shown.update({example.id: show_example(example, base_url) for example in answer.examples})
        return [shown[example_id] for example_id in ids if example_id in shown]

    async def write_parts(
        self, request: Request, bodies: BodyReader, parts: ExampleParts, dataset_id: str | None
    ) -> Response:
        """Writes the examples of a multipart body, of `dataset_id` whatever they say when it is given."""
        credentials = credentials_of(request.headers)
        boundary = boundary_of(request.headers.get("content-type", ""))
        async with bodies.read_or_stream(request) as body:
            if isinstance(body, BodyStream):
                streamed = StreamedParts(boundary, self._store, credentials, body, example_part_kind)
                async with aclosing(streamed.read()) as arriving:
                    async for part in arriving:
                        parts.add(part)
            else:
                for part in split(body, boundary):
                    parts.add(part)
            changes = [(dataset_id or named, change) for named, change in parts.changes()]
            if not changes and dataset_id is not None:
                message = pb.WriteExamplesRequest(dataset_id=dataset_id)
                await self._store.ask(self._store.examples.WriteExamples, message, credentials)
            add_call_facts(request.scope, examples=len(changes))
            answer = await self._write(changes, credentials)
        return json_response(written(answer), 201)

    async def _write(
        self, changes: Sequence[tuple[str | None, pb.ExampleChange]], credentials: Credentials
    ) -> pb.WriteExamplesResponse:
        """One call for each dataset; all ids, and the version that the last one made."""
        by_dataset: dict[str, list[pb.ExampleChange]] = {}
        for named, change in changes:
            dataset_id = named or await self._dataset_of(change.id, credentials)
            by_dataset.setdefault(canonical_uuid("dataset_id", dataset_id), []).append(change)
        done = pb.WriteExamplesResponse()
        for dataset_id, together in by_dataset.items():
            message = pb.WriteExamplesRequest(dataset_id=dataset_id, changes=together)
            answer = await self._store.ask(self._store.examples.WriteExamples, message, credentials)
            done.example_ids.extend(answer.example_ids)
            done.as_of.CopyFrom(answer.as_of)
        return done

    async def _dataset_of(self, example_id: str, credentials: Credentials) -> str:
        message = pb.GetExampleRequest(id=example_id)
        answer = await self._store.ask(self._store.examples.GetExample, message, credentials)
        return answer.example.dataset_id


def _list_request(query: _ListQuery) -> pb.ListExamplesRequest:
    ascending = query.order == "id" if query.descending is None else not query.descending
    return pb.ListExamplesRequest(
        dataset_id=None if query.dataset is None else str(query.dataset),
        ids=map(str, query.id),
        version=read_version("as_of", query.as_of),
        splits=query.splits,
        filter=query.filter or "",
        metadata=None if query.metadata is None else query.metadata.encode(),
        full_text_contains=query.full_text_contains,
        order=_ORDERS[query.order],
        ascending=ascending,
        random_seed=query.random_seed,
        offset=query.offset,
        page_size=query.limit,
    )
