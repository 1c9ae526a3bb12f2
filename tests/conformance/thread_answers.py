"""What the contract says of the threads and traces of a scene.

It does so in runs-v2.md, sections 5 to 10, and in filter-language.md, sections 6 to 8. Runs are selected as
`filter_oracle` has them, and summed up as `thread_oracle` does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from runstore.domain.runs import RunField
from runstore.domain.threads import LISTED_STATS, ThreadStat
from runstore.domain.times import EPOCH, MICROSECOND
from runstore.domain.traces import USAGE_FIELDS
from runstore.query.filters import Filter

from . import thread_oracle as oracle
from .filter_oracle import Feedback, Run, is_between, satisfies, with_feedback_of
from .filter_scenes import Scene, place
from .stats_oracle import feedback_stats

Turns = Sequence[Run]
"""Root runs of one thread, the oldest first."""


@dataclass(frozen=True)
class Thread(Run):
    """A thread as filters see it: tokens, costs and feedback are those of all runs of its traces."""

    turn_count: int = 0
    num_errored_turns: int = 0
    thread_duration: Decimal | None = None
    """Seconds, as the latencies."""
    trace_latency_p50: Decimal | None = None
    trace_latency_p99: Decimal | None = None

    run_count = count = turns = property(lambda self: self.turn_count)
    latency_p50 = property(lambda self: self.trace_latency_p50)
    latency_p99 = property(lambda self: self.trace_latency_p99)


class Project:
    """The runs of one project, which make its traces and threads."""

    def __init__(self, runs: Sequence[Run], fields: oracle.Runs) -> None:
        self.runs = runs
        """The oldest first."""
        self._fields = fields

    @classmethod
    def of(cls, scene: Scene, project_id: str) -> Self:
        runs = [run for run in scene.runs if str(run.project_id) == project_id]
        return cls(runs, {str(run.run_id): scene.fields[str(run.run_id)] for run in runs})

    def with_feedback_of(self, first: datetime | None, before: datetime | None) -> "Project":
        """As if there were no other feedback than that modified in a time."""
        return Project(with_feedback_of(self.runs, first, before), self._fields)

    @property
    def roots(self) -> Turns:
        return [run for run in self.runs if run.is_root]

    @property
    def threads(self) -> dict[str, Turns]:
        """All of them, with all of their turns."""
        return _by_thread(self.roots)

    def trace(self, root: Run) -> list[Run]:
        """All runs of a trace."""
        return [run for run in self.runs if run.trace_id == root.run_id]

    def fields_of(self, run: Run) -> oracle.Run:
        """What the store should show of a run."""
        return self._fields[str(run.run_id)]

    def usage(self, *roots: Run) -> dict[RunField, Any]:
        """What the runs of some traces used together."""
        return oracle.usage(self.fields_of(run) for root in roots for run in self.trace(root))

    def whole(self, root: Run) -> Run:
        """A root that has used what all of its trace has."""
        used = self.usage(root)
        values: dict[str, Any] = {
            field.value: used.get(field, {} if field.value.endswith("_details") else None)
            for field in USAGE_FIELDS
        }
        if (token_us := values["first_token_time"]) is not None:
            values["first_token_time"] = EPOCH + token_us * MICROSECOND
        return replace(root, **values)

    def summary(self, turns: Turns) -> Thread:
        """A thread with these turns."""
        used = self.usage(*turns)
        latencies = [turn.latency for turn in turns if turn.latency is not None]
        ends = [turn.end_time for turn in turns if turn.end_time is not None]
        duration = (max(ends) - turns[0].start_time) // MICROSECOND if ends else None
        return Thread(
            thread_id=turns[0].thread_id,
            turn_count=len(turns),
            num_errored_turns=sum(turn.error is not None for turn in turns),
            thread_duration=None if duration is None else Decimal(duration) / 1_000_000,
            trace_latency_p50=oracle.quantile(latencies, Decimal("0.5")),
            trace_latency_p99=oracle.quantile(latencies, Decimal("0.99")),
            total_tokens=used.get(RunField.TOTAL_TOKENS, 0),
            total_cost=used.get(RunField.TOTAL_COST, Decimal(0)),
            feedback=self.feedback(turns),
            **{field.value: used[field] for field in USAGE_FIELDS if field in used and _is_map(field)},
        )

    def feedback(self, turns: Turns) -> tuple[Feedback, ...]:
        """On any run of some traces."""
        return tuple(record for turn in turns for run in self.trace(turn) for record in run.feedback)

    def stats(self, threads: Mapping[str, Turns], stats: Iterable[ThreadStat]) -> dict[str, Any]:
        """Some turns of some threads summed up; what has no value is left out."""
        turns = {thread_id: list(map(self.fields_of, each)) for thread_id, each in threads.items()}
        values = oracle.stats(self._fields, turns)
        if feedback := feedback_stats(
            [record for each in threads.values() for record in self.feedback(each)]
        ):
            values[ThreadStat.FEEDBACK_STATS] = feedback
        return {stat.value: values[stat] for stat in stats if stat in values}

    def listed(self, turns: Turns) -> dict[str, Any]:
        """What a list says of a thread with these turns in its window."""
        first, last = self.fields_of(turns[0]), self.fields_of(turns[-1])
        failed = [turn for turn in map(self.fields_of, turns) if RunField.ERROR in turn]
        thread_id = str(turns[0].thread_id)
        values = {
            "thread_id": thread_id,
            "first_trace_id": first[RunField.ID],
            "last_trace_id": last[RunField.ID],
            "first_inputs_preview": first.get(RunField.INPUTS_PREVIEW),
            "last_outputs_preview": last.get(RunField.OUTPUTS_PREVIEW),
            "last_error_preview": failed[-1][RunField.ERROR_PREVIEW] if failed else None,
            "stats": self.stats({thread_id: turns}, LISTED_STATS),
        }
        return {name: value for name, value in values.items() if value is not None}

    def matching_threads(
        self, filters: Mapping[str, Filter], first: datetime | None, before: datetime | None
    ) -> dict[str, Turns]:
        """Threads with a turn in the window that meet each filter, the last active first, and those turns.

        Filters may be met by different turns, all of them in the window but for what `thread_filter` means.
        """

        def meets(name: str, thread_id: str, turns: Turns) -> bool:
            tree = filters[name]
            match name:
                case "filter":
                    return any(satisfies(turn, tree) for turn in turns)
                case "trace_filter":
                    return any(satisfies(self.whole(turn), tree) for turn in turns)
                case "tree_filter":
                    return any(satisfies(run, tree) for turn in turns for run in self.trace(turn))
                case _:
                    return satisfies(self.summary(every[thread_id]), tree)

        every = self.threads
        active = _by_thread(root for root in self.roots if is_between(root.start_time, first, before))
        order = sorted(active, key=lambda thread_id: place(active[thread_id][-1]), reverse=True)
        return {
            thread_id: active[thread_id]
            for thread_id in order
            if all(meets(name, thread_id, active[thread_id]) for name in filters)
        }


def _by_thread(roots: Iterable[Run]) -> dict[str, Turns]:
    threads: dict[str, list[Run]] = {}
    for root in roots:
        if root.thread_id is not None:
            threads.setdefault(root.thread_id, []).append(root)
    return dict(threads)


def _is_map(field: RunField) -> bool:
    return field.value.endswith("_details")
