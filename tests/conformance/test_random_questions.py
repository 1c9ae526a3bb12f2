"""Random questions on the real engine: what it says of runs, traces and threads is what the contract says.

Random trees of runs, built of partial rows, are asked for; oracles answer from plain Python values.
`make oracle` asks more. `TESTS_ORACLE_CASES=1000` does so here, of any engine; `TESTS_ORACLE_SEED=7` asks
others.
"""

import os

import pytest

from .pipeline import Pipeline
from .random_cases import corpora, failures

pytestmark = pytest.mark.engine

CASES = int(os.environ.get("TESTS_ORACLE_CASES", "90"))
SEED = int(os.environ.get("TESTS_ORACLE_SEED", "1"))
CASES_PER_CORPUS = 45


async def test_random_questions(pipeline: Pipeline) -> None:
    """Questions of any kind, with any filters and sizes of pages, are answered as the oracles answer them."""
    for corpus, indexes in corpora(CASES, CASES_PER_CORPUS):
        async for failure in failures(pipeline, SEED, corpus, indexes):
            pytest.fail(failure)
