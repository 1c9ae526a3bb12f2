"""Random questions about threads: lists of them, sums over them, and the traces of one."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runstore.domain.runs import RunField
from runstore.domain.threads import ThreadStat
from runstore.domain.times import MICROSECOND
from runstore.domain.traces import USAGE_FIELDS
from runstore.query.filters import Filter, parse
from runstore.v1 import run_pb2
from runstore.v1 import thread_query_service_pb2 as pb

from .filter_oracle import Run, satisfies
from .filter_questions import Asker, Expression, Question
from .filter_scenes import THREADS, Scene
from .pipeline import Pipeline
from .query_services import QueryServices, assert_alike, refused, shown
from .stats_oracle import Run as Fields
from .thread_answers import Project

_DEPTHS = (16, 6, 1)
"""How often a filter is at most 0, 1 and 2 levels deep."""
_PAGE_SIZES = (1, 2, 2, 3, 3, 7, 100)
USAGE = [run_pb2.RunField.Value(f"RUN_FIELD_{field.name}") for field in (RunField.ID, *USAGE_FIELDS)]


@dataclass(frozen=True)
class ServiceQuestion(Question, ABC):
    """A question as gRPC has it: parts are fields of its request, but for the sizes of pages."""

    NEEDED = frozenset({"project_id", "thread_id", "trace_id"})

    @cached_property
    def project(self) -> Project:
        return Project.of(self.scene, self.parts["project_id"])

    @cached_property
    def trees(self) -> dict[str, Filter]:
        parsed = {name: parse(str(text)) for name, text in self.filters.items()}
        return {name: tree for name, tree in parsed.items() if tree is not None}

    @property
    def window(self) -> tuple[Any, Any]:
        return self.parts.get("min_start_time"), self.parts.get("max_start_time")

    @property
    def page_sizes(self) -> tuple[int, ...]:
        return tuple(self.parts.get("page_sizes", (100,)))

    @property
    def fields(self) -> dict[str, Any]:
        """Of the request."""
        filters = {name: str(text) for name, text in self.filters.items()}
        return filters | {name: value for name, value in self.parts.items() if name != "page_sizes"}

    @abstractmethod
    async def check(self, pipeline: Pipeline) -> None:
        """Ask it. Raises AssertionError."""

    def services(self, pipeline: Pipeline) -> QueryServices:
        return QueryServices(pipeline, self.scene.tenant_id)


class ThreadList(ServiceQuestion):
    """The threads of a window, page by page."""

    async def check(self, pipeline: Pipeline) -> None:
        """In order, each with all that a list says of it."""
        services = self.services(pipeline)
        request = pb.ListThreadsRequest(**self.fields)
        found = await services.walk(services.threads.ListThreads, request, "threads", self.page_sizes)
        project = self.project
        wanted = project.matching_threads(self.trees, *self.window)
        assert_alike([thread.thread_id for thread in found], list(wanted))
        assert_alike(list(map(shown, found)), list(map(project.listed, wanted.values())))


class ThreadTotals(ServiceQuestion):
    """The threads of a window, summed up."""

    async def check(self, pipeline: Pipeline) -> None:
        """All turns in the window of all threads that match."""
        services = self.services(pipeline)
        request = pb.AggregateThreadStatsRequest(**{"fields": _all_stats(), **self.fields})
        answer = await services.call(services.threads.AggregateThreadStats, request)
        wanted = self.project.matching_threads(self.trees, *self.window)
        assert_alike(shown(answer.stats), self.project.stats(wanted, _stats(request.fields)))


class OneThread(ServiceQuestion):
    """The turns of one thread that pass a filter, summed up."""

    async def check(self, pipeline: Pipeline) -> None:
        """All of them, whenever they were; a thread that is not there is not found."""
        services, thread_id = self.services(pipeline), self.parts["thread_id"]
        request = pb.GetThreadStatsRequest(**{"fields": _all_stats(), **self.fields})
        turns = self.project.threads.get(thread_id)
        if turns is None:
            with refused("there is no thread"):
                await services.call(services.threads.GetThreadStats, request)
            return
        answer = await services.call(services.threads.GetThreadStats, request)
        passing = [turn for turn in turns if all(satisfies(turn, tree) for tree in self.trees.values())]
        wanted = self.project.stats({thread_id: passing}, _stats(request.fields))
        assert_alike(shown(answer.stats), wanted)


class ThreadTraces(ServiceQuestion):
    """The traces of one thread, page by page."""

    async def check(self, pipeline: Pipeline) -> None:
        """The oldest first, each with its number among all turns of the thread."""
        services, project = self.services(pipeline), self.project
        request = pb.ListThreadTracesRequest(fields=USAGE, **self.fields)
        walk = services.walk(services.threads.ListThreadTraces, request, "traces", self.page_sizes)
        turns = project.threads.get(self.parts["thread_id"])
        if turns is None:
            with refused("there is no thread"):
                await walk
            return
        wanted = []
        for number, turn in enumerate(turns, 1):
            if _passes(project, turn, self.trees):
                trace = trace_fields(project, turn, with_usage=request.with_usage)
                wanted.append(
                    {"trace": trace} | ({"turn_number": number} if request.with_turn_numbers else {})
                )
        assert_alike(list(map(shown, await walk)), wanted)


def _passes(project: Project, turn: Run, trees: Mapping[str, Filter]) -> bool:
    """Whether a root, and for a tree filter any run of its trace, satisfies each filter."""
    return all(
        any(satisfies(run, tree) for run in (project.trace(turn) if name == "tree_filter" else [turn]))
        for name, tree in trees.items()
    )


def trace_fields(project: Project, root: Run, *, with_usage: bool) -> dict[str, Any]:
    """A trace as a list shows it, when USAGE is selected."""
    fields = project.fields_of(root)
    trace = {"root_run": {"id": fields[RunField.ID], **usage_fields(fields)}}
    if with_usage and (usage := usage_fields(project.usage(root))):
        trace["usage"] = usage
    return trace


def usage_fields(values: Fields) -> dict[str, Any]:
    """Those of USAGE_FIELDS that there are."""
    found = {field.value: values.get(field) for field in USAGE_FIELDS}
    return {name: value for name, value in found.items() if value is not None and value != {}}


def _all_stats() -> list[pb.ThreadStatsField.ValueType]:
    return [number for number in pb.ThreadStatsField.values() if number != pb.THREAD_STATS_FIELD_UNSPECIFIED]


def _stats(numbers: Iterable[pb.ThreadStatsField.ValueType]) -> list[ThreadStat]:
    return [
        ThreadStat(pb.ThreadStatsField.Name(number).removeprefix("THREAD_STATS_FIELD_").lower())
        for number in numbers
    ]


# ---------------------------------------------------------------- drawing


def about_threads(scene: Scene, chance: random.Random) -> ServiceQuestion:
    """Any."""
    run = chance.choice(scene.runs)
    kind = chance.choices((ThreadList, ThreadTotals, OneThread, ThreadTraces), (5, 2, 1, 2))[0]
    parts: dict[str, Any] = {"project_id": str(run.project_id)}
    if kind in (OneThread, ThreadTraces):
        parts["thread_id"] = run.thread_id or chance.choice([*THREADS, "nobody"])
        shares = {"filter": 0.5} if kind is OneThread else dict.fromkeys(_ON_TRACES, 0.3)
    else:
        parts |= some_window(scene, chance)
        shares = dict.fromkeys(_ON_TRACES, 0.25)
    filters = some_filters(TurnAsker(chance, scene), chance, shares)
    if kind in (ThreadList, ThreadTotals):
        filters |= some_filters(ThreadAsker(chance, scene), chance, {"thread_filter": 0.3})
    if kind in (ThreadTotals, OneThread) and chance.random() < 0.5:
        parts["fields"] = chance.sample(_all_stats(), chance.randrange(1, 5))
    if kind in (ThreadList, ThreadTraces):
        parts["page_sizes"] = some_page_sizes(chance)
    if kind is ThreadTraces:
        parts |= {name: True for name in ("with_usage", "with_turn_numbers") if chance.random() < 0.5}
    return kind(scene, filters, parts)


_ON_TRACES = ("filter", "trace_filter", "tree_filter")


def some_filters(asker: Asker, chance: random.Random, shares: Mapping[str, float]) -> dict[str, Expression]:
    """Filters by their names, each in this share of questions."""
    return {
        name: asker.filter(chance.choices((0, 1, 2), _DEPTHS)[0])
        for name, share in shares.items()
        if chance.random() < share
    }


def some_window(scene: Scene, chance: random.Random) -> dict[str, Any]:
    """Bounds at or right behind the starts of runs; none in a third of the questions."""
    return {
        name: chance.choice(scene.runs).start_time + chance.randrange(2) * MICROSECOND
        for name in ("min_start_time", "max_start_time")
        if chance.random() < 0.4
    }


def some_page_sizes(chance: random.Random) -> tuple[int, ...]:
    """Sizes that pages of a walk have by turns."""
    return tuple(chance.choices(_PAGE_SIZES, k=chance.randrange(1, 4)))


class TurnAsker(Asker):
    """Writes filters that more often tell one turn from another."""

    def _comparison(self) -> str:
        if self._chance.random() < 0.5:
            return super()._comparison()
        telling = self._chance.choice([self._column, self._figure])
        return telling(self._chance.choice(self._scene.runs))


class ThreadAsker(Asker):
    """Writes filters on threads."""

    families = ("feedback",)

    def _comparison(self) -> str:
        chance = self._chance
        if chance.random() < 0.25:
            return self._row_test("feedback")
        if chance.random() < 0.2:
            return self._of_id()
        field, values = chance.choice(_FIGURES)
        if chance.random() < 0.1:
            return chance.choice([f"exists({field})", f"eq({field}, null)", f"neq({field}, null)"])
        if chance.random() < 0.1:
            return f"in({field}, [{', '.join(chance.sample(values, 2))}])"
        order = chance.choice(["gt", "gte", "lt", "lte", "eq", "neq"])
        return f"{order}({field}, {chance.choice(values)})"

    def _of_id(self) -> str:
        chance = self._chance
        one, other = self._quoted(chance.choice(THREADS)), self._quoted(chance.choice(THREADS))
        return chance.choice(
            [
                f"{self._equal()}(thread_id, {one})",
                f"in(thread_id, [{one}, {other}])",
                f"{chance.choice(['like', 'notlike'])}(thread_id, {self._quoted('%O%')})",
                f"search(thread_id, {self._quoted(chance.choice(THREADS)[:3])})",
            ]
        )

    def _judgements(self) -> list[str]:
        return super()._judgements()[:2]


_SECONDS = ["0", "0.000005", "2", '"2s"', "3.5", '"7000ms"', "7.01"]
_COUNTS = ["0", "1", "2", "3"]
_FIGURES = (
    ("turn_count", _COUNTS),
    ("run_count", _COUNTS),
    ("count", _COUNTS),
    ("turns", _COUNTS),
    ("num_errored_turns", _COUNTS),
    ("thread_duration", _SECONDS),
    ("trace_latency_p50", _SECONDS),
    ("trace_latency_p99", _SECONDS),
    ("latency_p50", _SECONDS),
    ("latency_p99", _SECONDS),
    ("total_tokens", ["0", "12", "24", "5007", "5019.5"]),
    ("total_cost", ["0", "0.35", "0.7", "0.01"]),
    ("prompt_token_details.cache_read", ["0", "3", "6"]),
    ("completion_cost_details.reasoning", ["0", "0.1"]),
)
