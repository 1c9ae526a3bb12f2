"""Spans as Langfuse's SDK 5 writes them, and the runs they become."""

import json
from typing import Any

import pytest

from runstore.v1 import run_pb2

from .making import extra, metadata, run

GENERATION: dict[str, Any] = {
    "langfuse.observation.type": "generation",
    "langfuse.observation.input": '[{"role": "user", "content": "hi"}]',
    "langfuse.observation.output": "hello",
    "langfuse.observation.model.name": "gpt-4o",
    "langfuse.observation.model.parameters": '{"temperature": 0.2}',
    "langfuse.observation.usage_details": '{"input": 3, "output": 5, "total": 8}',
    "langfuse.observation.cost_details": '{"input": 0.001, "total": 0.003}',
    "langfuse.observation.metadata.step": "7",
    "langfuse.observation.metadata.who": '"me"',
    "langfuse.trace.metadata.team": '{"name": "search"}',
    "langfuse.trace.tags": ["a", "b"],
    "langfuse.environment": "production",
    "session.id": "thread-1",
    "user.id": "u-1",
}


def test_generation() -> None:
    """Payloads, model, parameters, usage, costs, metadata, tags and thread are where those of others are."""
    fields = run(GENERATION)
    assert fields.run_type == run_pb2.RUN_TYPE_LLM
    assert json.loads(fields.inputs) == {"input": [{"role": "user", "content": "hi"}]}
    assert json.loads(fields.outputs) == {"output": "hello"}
    assert list(fields.tags.values) == ["a", "b"]
    kept = metadata(fields)
    assert extra(fields)["invocation_params"] == {"temperature": 0.2}
    assert kept["ls_model_name"] == "gpt-4o"
    assert (kept["step"], kept["who"], kept["team"]) == (7, "me", {"name": "search"})
    assert (kept["session_id"], kept["user_id"]) == ("thread-1", "u-1")
    assert kept["langfuse.environment"] == "production"
    assert kept["usage_metadata"] == {
        "input_tokens": 3, "output_tokens": 5, "total_tokens": 8, "input_cost": 0.001, "total_cost": 0.003,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("tool", "TOOL"),
        ("retriever", "RETRIEVER"),
        ("embedding", "EMBEDDING"),
        ("agent", "CHAIN"),
        ("guardrail", "CHAIN"),
    ],
)
def test_kinds(told: str, expected: str) -> None:
    """What is no run's type is a chain, and keeps its word."""
    fields = run({"langfuse.observation.type": told})
    assert run_pb2.RunType.Name(fields.run_type) == f"RUN_TYPE_{expected}"
    assert metadata(fields)["langfuse.observation.type"] == told


def test_unknown_kinds_of_tokens_are_kept() -> None:
    """Tokens that have no name elsewhere stay under Langfuse's."""
    details = '{"input": 3, "video_tokens": 9}'
    kept = metadata(run({"langfuse.observation.usage_details": details}))
    assert kept["usage_metadata"]["input_tokens"] == 3
    assert kept["langfuse.observation.usage_details"] == details
