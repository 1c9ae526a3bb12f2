"""Methods that do not work here, and why."""

from dataclasses import dataclass
from typing import Final

INSIGHTS: Final = "Insights are computed by a service of LangSmith."
_FORMULAS: Final = "The SDK itself raises `NotImplementedError`; nothing is sent."


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
