"""Random statistics of random runs, compared with the oracle."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from runstore.domain.run_stats import GroupAttribute, Grouping, StatsField, StatsQuery
from runstore.domain.runs import RunField

from .filter_questions import RunQuestion, question
from .filter_scenes import KEYS, Scene
from .list_cases import answer
from .pipeline import Pipeline
from .stats_oracle import NUMBERS, Run, assert_stats, grouped, metadata_text

_ORDERED_NUMBERS = sorted(NUMBERS)


@dataclass(frozen=True)
class Statistics:
    """Some statistics of the runs that a question means."""

    question: RunQuestion
    fields: frozenset[StatsField]
    grouping: Grouping | None

    def smaller(self) -> Iterator["Statistics"]:
        """Of fewer runs, in no groups, or fewer of them."""
        for less in self.question.smaller():
            yield replace(self, question=less)
        if self.grouping:
            yield replace(self, grouping=None)
        if len(self.fields) > 1:
            for field in sorted(self.fields):
                yield replace(self, fields=frozenset({field}))

    async def check(self, pipeline: Pipeline) -> None:
        """Groups in their order, and each with its statistics."""
        runs = [self.question.scene.fields[str(run.run_id)] for run in answer(self.question)]
        found = await pipeline.store.stats.run_stats(
            StatsQuery(self.question.query, self.fields, self.grouping)
        )
        wanted = [("", runs)] if self.grouping is None else _groups(self.grouping, runs)
        assert [group.group for group in found] == [key for key, _ in wanted]
        for group, (_, members) in zip(found, wanted, strict=True):
            assert_stats(group, members, self.fields)

    def __str__(self) -> str:
        return f"{sorted(self.fields)} by {self.grouping} of {self.question}"


def statistics_of(scene: Scene, chance: random.Random) -> Statistics:
    """Any."""
    asked = question(scene, chance)
    asked = replace(asked, parts={name: value for name, value in asked.parts.items() if name != "after"})
    fields = frozenset(chance.sample(_ORDERED_NUMBERS, chance.randrange(1, 8)))
    return Statistics(asked, fields, _grouping(scene, chance) if chance.random() < 0.5 else None)


def _grouping(scene: Scene, chance: random.Random) -> Grouping:
    attribute = chance.choice(list(GroupAttribute))
    path = (chance.choice(KEYS),) if attribute is GroupAttribute.METADATA else ()
    keys = sorted({key for run in scene.fields.values() for key in _KEYS[attribute](run, path)})
    values = tuple(chance.sample(keys, min(len(keys), 2))) if chance.random() < 0.3 else ()
    return Grouping(attribute, path, values, max_groups=chance.choice([1, 3, 50]))


_KEYS: Mapping[GroupAttribute, Callable[[Run, tuple[str, ...]], Iterable[str]]] = {
    GroupAttribute.PROJECT: lambda run, _: [run[RunField.PROJECT_ID]],
    GroupAttribute.NAME: lambda run, _: [run[RunField.NAME]],
    GroupAttribute.RUN_TYPE: lambda run, _: [run[RunField.RUN_TYPE]],
    GroupAttribute.TAG: lambda run, _: run.get(RunField.TAGS, ()),
    GroupAttribute.METADATA: lambda run, path: metadata_text(run, *path),
}


def _groups(grouping: Grouping, runs: list[Run]) -> list[tuple[str, list[Run]]]:
    def keys(run: Run) -> list[str]:
        every = _KEYS[grouping.attribute](run, grouping.path)
        return [key for key in every if not grouping.values or key in grouping.values]

    return grouped(runs, keys, grouping.max_groups)
