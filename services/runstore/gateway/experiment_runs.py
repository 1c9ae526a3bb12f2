"""Runs of experiments beside the examples that they ran on: read from the store, put together by example."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from runstore.gateway.store_client import Credentials, StoreClient
from runstore.v1 import run_pb2
from runstore.v1.run_query_service_pb2 import ListRunsRequest

_PAGE_SIZE: Final = 100


class ExperimentRuns:
    """Reads the root runs of some experiments."""

    def __init__(
        self,
        store: StoreClient,
        credentials: Credentials,
        experiment_ids: Sequence[UUID],
        filters: Mapping[UUID, Sequence[str]] | None,
    ) -> None:
        """`filters` are conditions on the runs of single experiments, all of which hold."""
        self._store = store
        self._credentials = credentials
        self._groups = _groups(experiment_ids, filters or {})

    async def of_examples(
        self, example_ids: Sequence[str], fields: Sequence["run_pb2.RunField.ValueType"]
    ) -> Mapping[str, list[run_pb2.Run]]:
        """The runs by example, the first started first."""
        found: defaultdict[str, list[run_pb2.Run]] = defaultdict(list)
        if example_ids:
            for run in await self._read(example_ids, fields):
                found[run.reference_example_id].append(run)
        return found

    async def mean_scores(self, key: str) -> dict[str, float]:
        """The mean score of a key of feedback, by example, for examples whose runs have any."""
        sums: defaultdict[str, list[float]] = defaultdict(list)
        for run in await self._read((), [run_pb2.RUN_FIELD_FEEDBACK_STATS]):
            stats = run.feedback_stats.get(key)
            if run.reference_example_id and stats is not None and stats.HasField("avg"):
                sums[run.reference_example_id].append(stats.avg)
        return {example_id: sum(scores) / len(scores) for example_id, scores in sums.items()}

    async def _read(
        self, example_ids: Sequence[str], fields: Sequence["run_pb2.RunField.ValueType"]
    ) -> list[run_pb2.Run]:
        found: list[run_pb2.Run] = []
        for experiment_ids, condition in self._groups:
            request = ListRunsRequest(
                project_ids=experiment_ids,
                reference_example_ids=example_ids,
                is_root=True,
                filter=condition,
                fields={*fields, run_pb2.RUN_FIELD_REFERENCE_EXAMPLE_ID},
                sort_order=run_pb2.SORT_ORDER_ASC,
                page_size=_PAGE_SIZE,
            )
            while True:
                page = await self._store.list_runs(request, self._credentials)
                found.extend(page.runs)
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
        return found


def _groups(
    experiment_ids: Sequence[UUID], filters: Mapping[UUID, Sequence[str]]
) -> list[tuple[list[str], str]]:
    """Experiments that can be asked for together, and the condition on their runs."""
    free = [str(each) for each in experiment_ids if not filters.get(each)]
    groups = [(free, "")] if free else []
    for each in experiment_ids:
        if conditions := filters.get(each):
            condition = conditions[0] if len(conditions) == 1 else f"and({', '.join(conditions)})"
            groups.append(([str(each)], condition))
    return groups
