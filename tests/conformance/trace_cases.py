"""Random questions about traces: lists of them, the runs of one, and what is below runs."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from runstore.domain.runs import RunField
from runstore.domain.times import MICROSECOND
from runstore.domain.traces import USAGE_FIELDS
from runstore.v1 import trace_query_service_pb2 as pb

from .filter_oracle import Run, is_between, satisfies
from .filter_questions import FEEDBACK_WINDOW, Asker, RunQuestion, Way, question, some_feedback_window
from .filter_scenes import Scene
from .list_cases import answer
from .pipeline import Pipeline
from .query_services import assert_alike, refused, shown
from .thread_cases import (
    USAGE,
    ServiceQuestion,
    some_filters,
    some_page_sizes,
    some_window,
    trace_fields,
    usage_fields,
)
from .thread_oracle import usage

Traces: TypeAlias = "TraceList | TraceRuns | SubtreeUsage"


class TraceList(ServiceQuestion):
    """The traces of a project, page by page."""

    async def check(self, pipeline: Pipeline) -> None:
        """The newest root first; bounds of feedback need a filter that asks for some."""
        services = self.services(pipeline)
        request = pb.ListTracesRequest(fields=USAGE, **self.fields)
        walk = services.walk(services.traces.ListTraces, request, "traces", self.page_sizes)
        first, before = (self.parts.get(name) for name in FEEDBACK_WINDOW)
        if (first or before) and "feedback_" not in str(self.filters):
            with refused("bounds of feedback"):
                await walk
            return
        seen = self.project.with_feedback_of(first, before)
        wanted = [
            trace_fields(self.project, root, with_usage=request.with_usage)
            for root in reversed(seen.roots)
            if self._means(root, seen.trace(root))
        ]
        assert_alike(list(map(shown, await walk)), wanted)

    def _means(self, root: Run, trace: Sequence[Run]) -> bool:
        trace_ids = self.parts.get("trace_ids", [str(root.trace_id)])
        if not is_between(root.start_time, *self.window) or str(root.trace_id) not in trace_ids:
            return False
        tested = {"trace_filter": [root], "tree_filter": trace}
        return all(any(satisfies(run, tree) for run in tested[name]) for name, tree in self.trees.items())


class TraceRuns(ServiceQuestion):
    """The runs of one trace, page by page."""

    async def check(self, pipeline: Pipeline) -> None:
        """The oldest first, both bounds inclusive; a trace that is not there is not found."""
        services = self.services(pipeline)
        request = pb.ListTraceRunsRequest(fields=USAGE, **self.fields)
        walk = services.walk(services.traces.ListTraceRuns, request, "runs", self.page_sizes)
        trace = [run for run in self.project.runs if str(run.trace_id) == self.parts["trace_id"]]
        if not trace:
            with refused("there is no trace"):
                await walk
            return
        first, last = self.window
        before = None if last is None else last + MICROSECOND
        meant = [
            self.project.fields_of(run)
            for run in trace
            if is_between(run.start_time, first, before)
            and all(satisfies(run, tree) for tree in self.trees.values())
        ]
        wanted = [{"id": fields[RunField.ID], **usage_fields(fields)} for fields in meant]
        assert_alike(list(map(shown, await walk)), wanted)


class SubtreeUsage(RunQuestion):
    """What runs used together with everything below them."""

    async def check(self, pipeline: Pipeline) -> None:
        """Runs with nothing below them keep their own."""
        query = replace(self.query, fields=frozenset(USAGE_FIELDS), with_subtree_usage=True)
        found = [
            {"id": run.position.run_id, **usage_fields(run.values)} for run in await pipeline.list(query)
        ]
        wanted = [{"id": str(run.run_id), **usage_fields(self._below(run))} for run in answer(self)]
        assert_alike(found, wanted)

    def _below(self, top: Run) -> Any:
        fields = self.scene.fields
        below = [run for run in self.scene.runs if top.run_id in run.parent_run_ids]
        if not below:
            return fields[str(top.run_id)]
        return usage(fields[str(run.run_id)] for run in (top, *below))


def about_traces(scene: Scene, chance: random.Random) -> Traces:
    """Any."""
    asker, run = Asker(chance, scene), chance.choice(scene.runs)
    kind = chance.choices((TraceList, TraceRuns, SubtreeUsage), (5, 2, 2))[0]
    if kind is SubtreeUsage:
        asked = question(scene, chance)
        parts = {**asked.parts, "limit": chance.choice([7, 30, 100])}
        return SubtreeUsage(scene, asked.filters, parts, Way.WALK)
    parts = {"project_id": str(run.project_id), **some_window(scene, chance)}
    parts["page_sizes"] = some_page_sizes(chance)
    if kind is TraceRuns:
        parts["trace_id"] = str(run.trace_id)
        return TraceRuns(scene, some_filters(asker, chance, {"filter": 0.7}), parts)
    if chance.random() < 0.2:
        parts["trace_ids"] = [str(each.trace_id) for each in chance.choices(scene.runs, k=5)]
    if chance.random() < 0.5:
        parts["with_usage"] = True
    filters = some_filters(asker, chance, {"trace_filter": 0.6, "tree_filter": 0.4})
    if chance.random() < (0.5 if "feedback_" in str(filters) else 0.02):
        parts |= some_feedback_window(scene, chance)
    return TraceList(scene, filters, parts)
