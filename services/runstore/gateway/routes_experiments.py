"""The routes about experiments on a dataset: their runs beside its examples, and comparisons of them."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

import msgspec
from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.gateway import run_v1, run_v2
from runstore.gateway.call_log import add_call_facts
from runstore.gateway.dataset_json import show_time
from runstore.gateway.dialects import json_response
from runstore.gateway.example_json import show_example
from runstore.gateway.experiment_runs import ExperimentRuns
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.large_answers import runs_response
from runstore.gateway.models import Detail, Problem
from runstore.gateway.models_datasets import (
    ComparativeCreate,
    ComparativeRecord,
    ExperimentRunsQuery,
    ExperimentRunsQueryV2,
)
from runstore.gateway.store_client import Credentials, StoreClient, credentials_of
from runstore.gateway.time_fields import to_time_us, to_timestamp
from runstore.v1 import comparative_experiment_service_pb2 as comparisons_pb
from runstore.v1 import dataset_service_pb2 as datasets_pb
from runstore.v1 import example_service_pb2 as pb

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_CURSOR: Final = re.compile(r"([0-9]{1,17})\.([0-9]{1,9})", re.ASCII)
_PREVIEW: Final = run_v1.Selection(
    (run_v1.DEFAULT_SELECTION.keys - {"inputs", "outputs"}) | {"inputs_preview", "outputs_preview"}
)


class _ComparisonsQuery(BaseModel):
    """Query parameters of the list of comparisons."""

    id: list[UUID] = Field(default=[])
    name: str | None = Field(None, description="The exact name.")
    name_contains: str | None = Field(None, description="Part of the name, in any case.")
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)


class _Position(NamedTuple):
    """Where a list of v2 goes on: in the version that it began with, which later writes do not change."""

    as_of_us: int
    offset: int


def experiment_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the experiments of `store`."""
    router = GuardedRouter(tags=["Experiments"])

    @router.post("/datasets/{dataset_id}/runs", responses=_NOT_FOUND)
    async def query_experiment_runs(
        request: Request, dataset_id: UUID, body: ExperimentRunsQuery
    ) -> Response:
        """Lists the examples of a dataset, each with the runs of experiments on it."""
        credentials = credentials_of(request.headers)
        await _check_comparison(
            store, dataset_id, body.comparative_experiment_id, body.session_ids, credentials
        )
        message = pb.ListExamplesRequest(dataset_id=str(dataset_id), offset=body.offset, page_size=body.limit)
        answer = await store.ask(store.examples.ListExamples, message, credentials)
        selection = _PREVIEW if body.preview else run_v1.DEFAULT_SELECTION
        reader = ExperimentRuns(store, credentials, body.session_ids, body.filters)
        runs = await reader.of_examples([example.id for example in answer.examples], selection.fields)
        add_call_facts(request.scope, examples=len(answer.examples))
        base_url = str(request.base_url)
        return runs_response(
            [
                {
                    **show_example(example, base_url),
                    "runs": [selection.show(run, base_url) for run in runs.get(example.id, ())],
                }
                for example in answer.examples
            ],
            store,
        )

    @router.post(
        "/api/v2/datasets/{dataset_id}/experiment-runs",
        responses={400: {"model": Problem}, 404: {"model": Problem}, 422: {"model": Problem}},
    )
    async def query_experiment_runs_v2(
        request: Request, dataset_id: UUID, body: ExperimentRunsQueryV2
    ) -> Response:
        """Lists the examples of a dataset, each with the selected keys of the runs of experiments on it."""
        credentials = credentials_of(request.headers)
        await _check_comparison(
            store, dataset_id, body.comparative_experiment_id, body.experiment_ids, credentials
        )
        reader = ExperimentRuns(store, credentials, body.experiment_ids, body.filters)
        position = await _position(store, str(dataset_id), body.cursor, credentials)
        examples, is_last = await _examples(store, reader, str(dataset_id), body, position, credentials)
        selection = run_v2.Selection(body.selects or (), str(request.base_url))
        runs = await reader.of_examples([example.id for example in examples], selection.fields)
        items = [
            {
                **show_example(example, str(request.base_url)),
                "runs": [selection.show(run) for run in runs.get(example.id, ())],
            }
            for example in examples
        ]
        cursor = None if is_last else f"{position.as_of_us}.{position.offset + body.page_size}"
        return runs_response({"items": items, "next_cursor": cursor}, store)

    _add_comparisons(router, store)
    return router


async def _check_comparison(
    store: StoreClient,
    dataset_id: UUID,
    comparison_id: UUID | None,
    experiment_ids: Sequence[UUID],
    credentials: Credentials,
) -> None:
    """Raises NOT_FOUND unless the dataset has it, INVALID_ARGUMENT when it is of other experiments."""
    if comparison_id is None:
        return
    request = comparisons_pb.ListComparativeExperimentsRequest(
        reference_dataset_id=str(dataset_id), ids=[str(comparison_id)]
    )
    answer = await store.ask(store.comparative_experiments.ListComparativeExperiments, request, credentials)
    if not answer.comparative_experiments:
        raise RunstoreError(
            ErrorReason.NOT_FOUND, "the dataset has no such comparison", field="comparative_experiment_id"
        )
    if not {str(each) for each in experiment_ids} <= set(answer.comparative_experiments[0].experiment_ids):
        raise invalid("comparative_experiment_id", "not a comparison of these experiments")


async def _position(
    store: StoreClient, dataset_id: str, cursor: str | None, credentials: Credentials
) -> _Position:
    if cursor:
        found = _CURSOR.fullmatch(cursor)
        if found is None:
            raise RunstoreError(ErrorReason.INVALID_CURSOR, "not a cursor of this server", field="cursor")
        return _Position(int(found[1]), int(found[2]))
    message = datasets_pb.GetDatasetRequest(id=dataset_id)
    answer = await store.ask(store.datasets.GetDataset, message, credentials)
    return _Position(to_time_us(answer.dataset.update_time), 0)


async def _examples(
    store: StoreClient,
    reader: ExperimentRuns,
    dataset_id: str,
    body: ExperimentRunsQueryV2,
    position: _Position,
    credentials: Credentials,
) -> tuple[list[pb.Example], bool]:
    """The page's examples, and whether it is the last page."""
    request = pb.ListExamplesRequest(
        dataset_id=dataset_id,
        ids=map(str, body.example_ids or ()),
        version=datasets_pb.VersionName(as_of=to_timestamp(position.as_of_us)),
        offset=position.offset,
        page_size=body.page_size + 1,
    )
    if body.sort is None:
        answer = await store.ask(store.examples.ListExamples, request, credentials)
        return list(answer.examples[: body.page_size]), len(answer.examples) <= body.page_size
    if len(body.experiment_ids) > 1:
        raise invalid("sort", "only one experiment can be sorted by")
    scores = await reader.mean_scores(body.sort.by.removeprefix("feedback."))
    wanted = {str(example_id) for example_id in body.example_ids or ()}
    ordered = sorted(
        (example_id for example_id in scores if not wanted or example_id in wanted),
        key=lambda example_id: (scores[example_id], example_id),
        reverse=body.sort.order == "DESC",
    )
    page = ordered[position.offset : position.offset + body.page_size]
    if not page:
        return [], True
    request.ClearField("ids")
    request.ids.extend(page)
    request.offset = 0
    answer = await store.ask(store.examples.ListExamples, request, credentials)
    by_id = {example.id: example for example in answer.examples}
    is_last = position.offset + body.page_size >= len(ordered)
    return [by_id[example_id] for example_id in page if example_id in by_id], is_last


def _add_comparisons(router: GuardedRouter, store: StoreClient) -> None:
    @router.post(
        "/datasets/comparative",
        response_model=ComparativeRecord,
        responses={**_NOT_FOUND, 409: {"model": Detail, "description": "The id is taken."}},
    )
    async def create_comparative_experiment(request: Request, body: ComparativeCreate) -> Response:
        """Creates a comparison of experiments on one dataset."""
        message = comparisons_pb.CreateComparativeExperimentRequest(
            id=None if body.id is None else str(body.id),
            name=body.name,
            description=body.description,
            reference_dataset_id=str(body.reference_dataset_id),
            experiment_ids=map(str, body.experiment_ids),
            extra=None if body.extra is None else msgspec.json.encode(body.extra),
            create_time=None if body.created_at is None else to_timestamp(body.created_at),
        )
        answer = await store.ask(
            store.comparative_experiments.CreateComparativeExperiment,
            message,
            credentials_of(request.headers),
        )
        return json_response(_show(answer.comparative_experiment))

    @router.get("/datasets/{dataset_id}/comparative", response_model=list[ComparativeRecord])
    async def list_comparative_experiments(
        request: Request, dataset_id: UUID, query: Annotated[_ComparisonsQuery, Query()]
    ) -> Response:
        """Lists the comparisons of experiments on a dataset, the last created first."""
        message = comparisons_pb.ListComparativeExperimentsRequest(
            reference_dataset_id=str(dataset_id),
            ids=map(str, query.id),
            name=query.name,
            name_contains=query.name_contains,
            offset=query.offset,
            page_size=query.limit,
        )
        answer = await store.ask(
            store.comparative_experiments.ListComparativeExperiments,
            message,
            credentials_of(request.headers),
        )
        return json_response([_show(each) for each in answer.comparative_experiments])

    @router.delete("/datasets/comparative/{comparative_experiment_id}", responses=_NOT_FOUND)
    async def delete_comparative_experiment(request: Request, comparative_experiment_id: UUID) -> Response:
        """Deletes a comparison; the experiments stay."""
        message = comparisons_pb.DeleteComparativeExperimentRequest(id=str(comparative_experiment_id))
        await store.ask(
            store.comparative_experiments.DeleteComparativeExperiment,
            message,
            credentials_of(request.headers),
        )
        return json_response({"message": "Comparative experiment deleted"})


def _show(comparison: comparisons_pb.ComparativeExperiment) -> dict[str, Any]:
    return {
        "id": comparison.id,
        "tenant_id": comparison.tenant_id,
        "name": comparison.name,
        "description": comparison.description if comparison.HasField("description") else None,
        "reference_dataset_id": comparison.reference_dataset_id,
        "experiment_ids": list(comparison.experiment_ids),
        "experiments_info": [{"id": each} for each in comparison.experiment_ids],
        "extra": msgspec.Raw(comparison.extra),
        "created_at": show_time(comparison, "create_time"),
        "modified_at": show_time(comparison, "update_time"),
    }
