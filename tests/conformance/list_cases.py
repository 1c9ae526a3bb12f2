"""Random lists of runs, compared with the oracle."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from runstore.domain.runs import Position, RunPage, RunQuery
from runstore.domain.times import EPOCH, MICROSECOND
from runstore.query.filters import parse

from .filter_oracle import Asked, Run, meets, selected, with_feedback_of
from .filter_questions import RunQuestion, Way, question
from .filter_scenes import Scene
from .pipeline import Pipeline
from .thread_oracle import id_order


@dataclass(frozen=True)
class Listing:
    """The runs that a question means."""

    question: RunQuestion

    def smaller(self) -> Iterator["Listing"]:
        return map(Listing, self.question.smaller())

    async def check(self, pipeline: Pipeline) -> None:
        query = self.question.query
        wanted = [str(run.run_id) for run in answer(self.question)]
        match self.question.way:
            case Way.PAGE:
                _same_page(await pipeline.store.list_runs(query), query, wanted)
            case Way.AGAIN:
                for _ in range(2):
                    _same_page(await pipeline.store.list_runs(query), query, wanted)
            case Way.WALK:
                found = [run.position.run_id for run in await pipeline.list(query)]
                _same(found, wanted)
            case Way.TOGETHER:
                matching = await pipeline.store.matching(query, ["name"])
                text = f"SELECT toString(run_id) FROM ({matching.text})"
                rows = await pipeline.query(text, **matching.parameters)
                _same(sorted(run_id for (run_id,) in rows), sorted(wanted))

    def __str__(self) -> str:
        return str(self.question)


def listing(scene: Scene, chance: random.Random) -> Listing:
    """Any."""
    return Listing(question(scene, chance))


def answer(asked: RunQuestion) -> list[Run]:
    """The runs that the contract wants, behind `after` and in order."""
    query = asked.query
    trees = {name: parse(str(text)) for name, text in asked.filters.items()}
    seen = with_feedback_of(asked.scene.runs, *asked.feedback_window)
    ids = selected(seen, Asked(**trees))
    runs = [run for run in asked.scene.runs if run.run_id in ids and meets(run, query)]
    if query.descending:
        runs.reverse()
    return [run for run in runs if query.after is None or _is_behind(run, query, query.after)]


def _is_behind(run: Run, query: RunQuery, after: Position) -> bool:
    mark = after.start_time_us, id_order(after.run_id)
    place = (run.start_time - EPOCH) // MICROSECOND, id_order(str(run.run_id))
    return place < mark if query.descending else place > mark


def _same_page(page: RunPage, query: RunQuery, wanted: list[str]) -> None:
    _same([run.position.run_id for run in page.runs], wanted[: query.limit])
    assert page.has_more == (len(wanted) > query.limit), f"has_more={page.has_more}"


def _same(found: list[str], wanted: list[str]) -> None:
    """Assert it with a message that says what differs."""
    if found == wanted:
        return
    missing, too_many = (
        [each for each in wanted if each not in found],
        [each for each in found if each not in wanted],
    )
    assert found == wanted, (
        f"missing {missing}, too many {too_many}, {len(found)} found, {len(wanted)} wanted"
    )
