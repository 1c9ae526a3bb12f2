"""Sends a range of cases, in this process or in several."""

import asyncio
import multiprocessing
from collections import Counter
from dataclasses import dataclass, field

from tests.fuzz.cases import case
from tests.fuzz.checks import Checker
from tests.fuzz.target import open_target

_CONTEXT = multiprocessing.get_context("spawn")
_MOST_FAILURES = 20
_SHARE = 10_000


@dataclass(slots=True)
class Findings:
    """What a range of cases has shown."""

    bodies: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    """By kind of request and status."""
    failures: list[tuple[int, str]] = field(default_factory=list)
    """(index, what was wrong)"""


async def fuzz(
    seed: int, indexes: range, *, progress: "multiprocessing.Queue[int] | None" = None
) -> Findings:
    """Send these cases, one after the other; stops early when too much is wrong."""
    findings = Findings()
    async with open_target() as target:
        checker = Checker(target)
        for index in indexes:
            made = case(seed, index)
            found = await checker.problems(made, at_once=index == indexes[-1])
            findings.bodies += 1
            findings.failures += [(index, f"{made.kind}: {problem}") for problem in found]
            if len(findings.failures) >= _MOST_FAILURES:
                break
        findings.answers = checker.answers
    return findings


def fuzz_with_workers(seed: int, indexes: range, workers: int) -> Findings:
    """The same, spread over processes."""
    total = Findings()
    with _CONTEXT.Pool(workers) as pool:
        shares = [indexes[start : start + _SHARE] for start in range(0, len(indexes), _SHARE)]
        for findings in pool.imap_unordered(_work, [(seed, share) for share in shares]):
            print(f"{total.bodies + findings.bodies} bodies", flush=True)
            total.bodies += findings.bodies
            total.answers.update(findings.answers)
            total.failures += findings.failures
    return total


def _work(job: tuple[int, range]) -> Findings:
    seed, indexes = job
    return asyncio.run(fuzz(seed, indexes))
