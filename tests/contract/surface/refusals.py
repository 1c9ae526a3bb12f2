"""Methods that do not work here, and parameters; and why."""

from dataclasses import dataclass
from typing import Any, Final

INSIGHTS: Final = "Insights are computed by a service of LangSmith."
_FORMULAS: Final = "The SDK itself raises `NotImplementedError`; nothing is sent."  # Text of the docs.


@dataclass(frozen=True)
class Refusal:
    """A method that the server answers with 501, or that the SDK does not even send."""

    why: str
    """For a method that is sent, the server's own words."""
    is_sent: bool = True


HANDWRITTEN: Final = {
    "generate_insights": Refusal("This server keeps no secrets for other services."),
    "poll_insights": Refusal(INSIGHTS),
    "get_insights_report": Refusal(INSIGHTS),
    "list_project_issues": Refusal("Issues are found by a service of LangSmith."),
    "create_feedback_formula": Refusal(_FORMULAS, is_sent=False),
    "get_feedback_formula_by_id": Refusal(_FORMULAS, is_sent=False),
    "list_feedback_formulas": Refusal(_FORMULAS, is_sent=False),
    "update_feedback_formula": Refusal(_FORMULAS, is_sent=False),
    "delete_feedback_formula": Refusal(_FORMULAS, is_sent=False),
}
"""Methods of `Client`; `AsyncClient` has none of them."""

GENERATED: Final = {
    "evaluators": Refusal("No evaluator runs on this server, so runs have no rules."),
    "fleet": Refusal("Fleet is a service of LangSmith."),
    "issues": Refusal("Issues are found by a service of LangSmith."),
    "product_feedback": Refusal("Feedback on LangSmith goes to its vendor."),
    "prompt_webhooks": Refusal("Commits of prompts call no webhooks."),
    "sandboxes": Refusal("Sandboxes are a service of LangSmith."),
}
"""Whole resources."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of methods that work, which is refused or changes nothing."""

    methods: str
    name: str
    request: tuple[str, str, dict[str, Any]]
    """Method, path, and query (GET) or body that has the parameter; `{project}` stands for a project's id."""
    why: str
    status: int = 501
    """200 for one without effect."""


_NO_MODEL: Final = "The server has been given no language model (`RUNSTORE_AI_URL`)."

PARAMETERS: Final = (
    Parameter(
        "`list_runs`, `get_run_stats`",
        "query",
        ("POST", "/runs/query", {"session": ["{project}"], "query": "slow ones"}),
        _NO_MODEL,
    ),
    Parameter(
        "`runs.query`, `traces.query`, `threads.query`",
        "ai_search",
        ("POST", "/api/v2/runs/query", {"project_ids": ["{project}"], "ai_search": "slow ones"}),
        _NO_MODEL,
    ),
    Parameter(
        "`agents.list`",
        "sort_by=last_run_start_time",
        ("GET", "/agents", {"sort_by": "last_run_start_time"}),
        "Agents are not sorted by their runs.",
    ),
    Parameter(
        "`annotation_queues.retrieve_annotation_queues`",
        "tag_value_id",
        ("GET", "/annotation-queues", {"tag_value_id": "{project}"}),
        "Queues have no tags.",
    ),
    Parameter(
        "`annotation_queues.retrieve_annotation_queues`",
        "assigned_to_me",
        ("GET", "/annotation-queues", {"assigned_to_me": True}),
        "Queues are everybody's.",
        200,
    ),
    Parameter(
        "`create_project`, `sessions.create`",
        "num_examples, num_repetitions, evaluator_keys, default_dataset_id, kicked_off_by",
        ("POST", "/sessions?upsert=true", {"name": "default", "num_examples": 3, "evaluator_keys": ["k"]}),
        "Progress of experiments is counted from their runs.",
        200,
    ),
    Parameter(
        "`list_runs`, `get_run_stats`",
        "data_source_type",
        ("POST", "/runs/query", {"session": ["{project}"], "data_source_type": "historical"}),
        "All runs are in one place.",
        200,
    ),
    Parameter(
        "`get_experiment_results`, `datasets.experiment_runs.query`",
        "comparative_experiment_id",
        ("GET", "/feedback", {"comparative_experiment_id": "{project}"}),
        "Must compare them, else 404 or 422. All feedback is shown; `list_feedback` knows comparisons.",
        200,
    ),
)
