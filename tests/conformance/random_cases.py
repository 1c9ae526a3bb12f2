"""Asks questions by the thousand: random corpora, and of each many questions, compared with the oracle.

A case is fixed by three numbers and its kind: a seed, a corpus and an index in it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import pytest

from runstore.storage.clickhouse import run_finder, threads

from .filter_scenes import Scene, plant
from .list_cases import listing
from .pipeline import Pipeline
from .stats_cases import statistics_of
from .thread_cases import about_threads
from .trace_cases import about_traces

TREES = 20
TOGETHER = 2
"""Cases that are asked at the same time."""
_FEW = (2, 8, 1_024, 1_024)
"""What finders take for few: small, so that few runs are many to them, and they go by windows."""
_MOST_SMALLER = 200


class Case(Protocol):
    """Something asked, and what the contract answers."""

    def smaller(self) -> Iterator["Case"]:
        """Cases with less in them, the smallest first."""
        ...

    async def check(self, pipeline: Pipeline) -> None:
        """Ask it. Raises AssertionError."""
        ...


Draw = Callable[[Scene, random.Random], Case]

_SHARES: Mapping[str, tuple[float, Draw]] = {
    "lists": (0.65, listing),
    "statistics": (0.15, statistics_of),
    "threads": (0.08, about_threads),
    "traces": (0.12, about_traces),
}


def any_case(scene: Scene, chance: random.Random) -> Case:
    """Of any kind."""
    shares, draws = zip(*_SHARES.values(), strict=True)
    draw: Draw = chance.choices(draws, shares)[0]
    return draw(scene, chance)


KINDS: Mapping[str, Draw] = {"any": any_case} | {kind: draw for kind, (_, draw) in _SHARES.items()}


def corpora(cases: int, of_each: int) -> Iterator[tuple[int, range]]:
    """So many cases, by the number of their corpus and their indexes in it."""
    for corpus, start in enumerate(range(0, cases, of_each)):
        yield corpus, range(min(of_each, cases - start))


async def failures(
    pipeline: Pipeline,
    seed: int,
    corpus: int,
    indexes: range,
    kind: str = "any",
) -> AsyncIterator[str]:
    """Ask cases of one corpus; a report of each that is answered wrongly, made as small as it can be."""
    scene = await plant(pipeline, seed * 1_000_000 + corpus, TREES)
    for start in range(indexes.start, indexes.stop, TOGETHER):
        group = range(start, min(start + TOGETHER, indexes.stop))
        cases = [KINDS[kind](scene, random.Random(f"{seed}-{corpus}-{index}")) for index in group]
        few = random.Random(f"{seed}-{corpus}-few-{start - start % TOGETHER}").choice(_FEW)
        with _few_are(few):
            wrong = await asyncio.gather(*(_mistake(pipeline, case) for case in cases))
            for index, case, mistake in zip(group, cases, wrong, strict=True):
                if mistake is not None:
                    smallest, why = await _smallest(pipeline, case, mistake)
                    yield f"{kind}, seed {seed}, corpus {corpus}, index {index}, few={few}: {smallest}\n{why}"


async def _smallest(pipeline: Pipeline, case: Case, mistake: str) -> tuple[Case, str]:
    """The smallest part of a case that is still answered wrongly."""
    tried = 0
    remaining = case.smaller()
    while (smaller := next(remaining, None)) is not None and tried < _MOST_SMALLER:
        tried += 1
        if (still := await _mistake(pipeline, smaller)) is not None:
            case, mistake, remaining = smaller, still, smaller.smaller()
    return case, mistake


async def _mistake(pipeline: Pipeline, case: Case) -> str | None:
    """What is wrong with the answer; None for nothing."""
    try:
        await case.check(pipeline)
    except Exception as error:  # noqa: BLE001 - every failure is a finding
        return f"{type(error).__name__}: {error}"
    return None


@contextmanager
def _few_are(few: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_finder, "_FEW", few)
        # More of what leads to traces is few, as it is usually.
        patch.setattr(run_finder, "_FEW_IN_TRACES", 4 * few)
        patch.setattr(threads, "_WIDEST_WINDOW_ROWS", few)
        patch.setattr(threads, "_FEW_ROOTS", few)
        yield
