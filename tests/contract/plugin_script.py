"""Tests as a user of the SDK's pytest plugin writes them; `test_pytest_plugin.py` has pytest run them."""

import pytest
from langsmith import expect, testing


@pytest.mark.langsmith(output_keys=["expected"], metadata={"kind": "sum"}, split="fast")
@pytest.mark.parametrize(("number", "expected"), [(1, 2), (2, 4)])
def test_doubling(number: int, expected: int) -> None:
    # The SDK takes them from the keys only where it also draws a table of results.
    testing.log_reference_outputs({"expected": expected})
    testing.log_outputs({"doubled": number * 2})
    testing.log_feedback(key="quality", score=number / 2)
    expect(number * 2).to_equal(expected)
    assert number * 2 == expected


@pytest.mark.langsmith
async def test_failure() -> None:
    testing.log_inputs({"question": "why"})
    testing.log_reference_outputs({"answer": "because"})
    with testing.trace_feedback(name="judge"):
        testing.log_feedback(key="judged", score=0)
    testing.log_outputs({"answer": "no"})
    pytest.fail("as it must")
