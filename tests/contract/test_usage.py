"""Token usage and costs, found wherever the contract lists them (runs-v1 §10), exact to the last digit."""

import uuid
from decimal import Decimal
from typing import Any

import httpx
import pytest
from langsmith import Client, traceable, tracing_context
from langsmith.run_helpers import get_current_run_tree
from langsmith.schemas import Run

from .wire import dotted_order, run_json

USAGE: dict[str, Any] = {
    "input_tokens": 20,
    "output_tokens": 10,
    "total_tokens": 30,
    "input_token_details": {"cache_read": 5, "foo": 1},
    "output_token_details": {"reasoning": 7},
}
MESSAGE = {"message": {"kwargs": {"usage_metadata": USAGE}}}
HALF = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


def stored(client: Client, project: str, **fields: Any) -> Run:
    """An LLM run with these fields, as `list_runs` answers it."""
    run_id = uuid.uuid4()
    client.create_run(
        "call",
        {},
        "llm",
        id=run_id,
        trace_id=run_id,
        dotted_order=dotted_order(run_id),
        project_name=project,
        **fields,
    )
    client.flush()
    run: Run = next(client.list_runs(project_name=project))
    return run


@pytest.mark.parametrize(
    "fields",
    [
        {"outputs": {"usage_metadata": USAGE}},
        {"extra": {"metadata": {"usage_metadata": USAGE}}},
        {"outputs": {"generations": [[MESSAGE]]}},
        {"outputs": {"generations": [[{"message": {"usage_metadata": USAGE}}]]}},
        {"outputs": {"generations": [MESSAGE]}},
    ],
    ids=["outputs", "metadata", "langchain", "langchain message", "flat generations"],
)
def test_usage_metadata_is_found(client: Client, project: str, fields: dict[str, Any]) -> None:
    """Totals and details of `usage_metadata`, unknown categories included."""
    run = stored(client, project, **fields)
    assert (run.prompt_tokens, run.completion_tokens, run.total_tokens) == (20, 10, 30)
    assert run.prompt_token_details == {"cache_read": 5, "foo": 1}
    assert run.completion_token_details == {"reasoning": 7}


@pytest.mark.parametrize(
    "outputs",
    [
        {"llm_output": {"token_usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}}},
        {"usage": {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}},
        {"usage": {"input_tokens": 20, "output_tokens": 10}},
        {"generations": [[{"message": {"kwargs": {"usage_metadata": HALF}}}] * 2]},
    ],
    ids=["llm_output", "openai", "responses", "sum of generations"],
)
def test_legacy_usage_is_found(client: Client, project: str, outputs: dict[str, Any]) -> None:
    """The older places, and the sum over several generations."""
    run = stored(client, project, outputs=outputs)
    assert (run.prompt_tokens, run.completion_tokens, run.total_tokens) == (20, 10, 30)


def test_explicit_costs_are_exact(client: Client, project: str) -> None:
    """Costs that the client gives win and come back as the very decimals, by run and by category."""
    usage = {
        **USAGE,
        "input_cost": 0.000001,
        "output_cost": 0.1,
        "total_cost": 0.100001,
        "input_cost_details": {"cache_read": 0.0000001},
        "output_cost_details": {"reasoning": 0.3},
    }
    run = stored(
        client,
        project,
        outputs={"usage_metadata": usage},
        extra={"metadata": {"ls_model_name": "gpt-4o", "ls_provider": "openai"}},
    )
    assert run.prompt_cost == Decimal("1e-6")
    assert run.completion_cost == Decimal("0.1")
    assert run.total_cost == Decimal("0.100001")
    assert run.prompt_cost_details == {"cache_read": Decimal("1e-7")}
    assert run.completion_cost_details == {"reasoning": Decimal("0.3")}
    answer = httpx.get(f"{client.api_url}/runs/{run.id}").json()
    assert answer["prompt_cost"] == "0.000001"
    assert answer["total_cost"] == "0.100001"


def test_known_model_is_priced(client: Client, project: str) -> None:
    """Without costs, the price library gives them from model and provider; parts add up to the total."""
    run = stored(
        client,
        project,
        outputs={"usage_metadata": USAGE},
        extra={"metadata": {"ls_model_name": "gpt-4o", "ls_provider": "openai"}},
    )
    assert run.prompt_cost is not None
    assert run.completion_cost is not None
    assert run.total_cost == run.prompt_cost + run.completion_cost
    assert run.prompt_cost > 0


def test_unknown_model_has_tokens_and_no_costs(client: Client, project: str) -> None:
    """No price is made up for a model that nobody lists."""
    run = stored(
        client,
        project,
        outputs={"usage_metadata": USAGE},
        extra={"metadata": {"ls_model_name": "my-own-model", "ls_provider": "me"}},
    )
    assert run.total_tokens == 30
    assert run.total_cost is None


def test_usage_set_inside_a_traced_function(client: Client, project: str) -> None:
    """`RunTree.set(usage_metadata=…)` arrives with details."""

    @traceable(run_type="llm")
    def call() -> str:
        tree = get_current_run_tree()
        assert tree is not None
        tree.set(
            usage_metadata={
                "input_tokens": 10,
                "output_tokens": 5,
                "total_tokens": 15,
                "input_token_details": {"cache_read": 2},
            }
        )
        return "done"

    with tracing_context(enabled=True, client=client, project_name=project):
        call()
    client.flush()
    [run] = client.list_runs(project_name=project)
    assert (run.prompt_tokens, run.completion_tokens, run.total_tokens) == (10, 5, 15)
    assert run.prompt_token_details == {"cache_read": 2}


def test_usage_may_come_with_an_update(client: Client, project: str) -> None:
    """Model name in the create, usage in the update: tokens and costs as if both came at once."""
    run_id = uuid.uuid4()
    base = f"{client.api_url}/runs"
    create = run_json(
        run_id,
        project,
        run_type="llm",
        extra={"metadata": {"ls_model_name": "gpt-4o", "ls_provider": "openai"}},
    )
    assert httpx.post(base, json=create).status_code == 202
    assert client.read_run(run_id).total_tokens == 0
    update = {"outputs": {"usage_metadata": HALF}}
    assert httpx.patch(f"{base}/{run_id}", json=update).status_code == 202
    run = client.read_run(run_id)
    assert run.total_tokens == 15
    assert run.total_cost
