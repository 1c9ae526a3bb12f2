"""What SDKs can ask for and runstore does not offer: 501 with the reason, rather than a 404 without one."""

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Request
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.guarded_routes import GuardedRouter

NOT_OFFERED: Final = {
    "/runs/rules": "No evaluator runs on this server, so runs have no rules.",
    "/runs/rules/{rest:path}": "No evaluator runs on this server, so runs have no rules.",
    "/sessions/{session_id}/insights": "Insights are computed by a service of LangSmith.",
    "/sessions/{session_id}/insights/{rest:path}": "Insights are computed by a service of LangSmith.",
    "/workspaces/current/secrets": "This server keeps no secrets for other services.",
    "/prompt-webhooks": "Commits of prompts call no webhooks.",
    "/prompt-webhooks/{rest:path}": "Commits of prompts call no webhooks.",
    "/v1/platform/issues": "Issues are found by a service of LangSmith.",
    "/v1/platform/issues/{rest:path}": "Issues are found by a service of LangSmith.",
    "/v1/platform/product-feedbacks": "Feedback on LangSmith goes to its vendor.",
    "/v1/platform/product-feedbacks/{rest:path}": "Feedback on LangSmith goes to its vendor.",
    "/v1/fleet/{rest:path}": "Fleet is a service of LangSmith.",
    "/api/v2/sandboxes/{rest:path}": "Sandboxes are a service of LangSmith.",
}
"""Path → why not."""

_METHODS: Final = ["GET", "POST", "PATCH", "PUT", "DELETE"]


def not_offered_routes() -> GuardedRouter:
    """The routes; they come before those that take any id for a part of their path."""
    router = GuardedRouter()
    for path, reason in NOT_OFFERED.items():
        router.add_api_route(path, _refusing(reason), methods=_METHODS, include_in_schema=False)
    return router


def _refusing(reason: str) -> Callable[[Request], Awaitable[Response]]:
    async def refuse(_request: Request) -> Response:
        raise RunstoreError(ErrorReason.UNIMPLEMENTED, reason)

    return refuse
