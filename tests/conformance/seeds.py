"""Seeds of random tests."""

from typing import Any

import pytest


def seeds(few: int, many: int) -> list[Any]:
    """For `parametrize`: a few in every test run, as many with `-m slow`."""
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(few, many))]
