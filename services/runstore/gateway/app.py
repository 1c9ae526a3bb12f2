"""Puts the HTTP application together."""

from collections.abc import Callable, Collection
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from runstore.gateway.abandoned import AbandonedQuestions
from runstore.gateway.bodies import BodyLimits, BodyReader, JsonBodies
from runstore.gateway.call_log import CallLog
from runstore.gateway.cors import allow_origins
from runstore.gateway.documents import DESCRIPTION, SECURITY_SCHEMES
from runstore.gateway.error_handlers import install_error_handlers
from runstore.gateway.guard import Guard
from runstore.gateway.guarded_routes import check_guarded
from runstore.gateway.metrics import GatewayMetrics
from runstore.gateway.prefixes import CanonicalPaths
from runstore.gateway.routes_agent_assistants import assistant_routes
from runstore.gateway.routes_agent_crons import agent_cron_routes
from runstore.gateway.routes_agent_items import agent_item_routes
from runstore.gateway.routes_agent_registry import agent_registry_routes
from runstore.gateway.routes_agent_runs import agent_run_routes
from runstore.gateway.routes_agent_threads import agent_thread_routes
from runstore.gateway.routes_annotation_queues import annotation_queue_routes
from runstore.gateway.routes_dataset_files import dataset_file_routes
from runstore.gateway.routes_dataset_search import dataset_search_routes
from runstore.gateway.routes_dataset_sharing import dataset_sharing_routes
from runstore.gateway.routes_datasets import dataset_routes
from runstore.gateway.routes_delete_v1 import delete_routes_v1
from runstore.gateway.routes_examples import example_routes, platform_example_routes
from runstore.gateway.routes_experiments import experiment_routes
from runstore.gateway.routes_feedback import feedback_routes
from runstore.gateway.routes_feedback_setup import feedback_config_routes, feedback_token_routes
from runstore.gateway.routes_filters_v1 import filter_routes_v1
from runstore.gateway.routes_groups_v1 import group_routes_v1
from runstore.gateway.routes_ingest import ingest_routes
from runstore.gateway.routes_metrics import metrics_routes
from runstore.gateway.routes_not_offered import not_offered_routes
from runstore.gateway.routes_online_evaluators import online_evaluator_routes
from runstore.gateway.routes_otlp import otlp_routes
from runstore.gateway.routes_prompts import prompt_routes
from runstore.gateway.routes_queue_items import queue_item_routes
from runstore.gateway.routes_runs_v1 import run_routes_v1
from runstore.gateway.routes_runs_v2 import run_routes_v2
from runstore.gateway.routes_server import server_routes
from runstore.gateway.routes_sessions import session_routes
from runstore.gateway.routes_settings import settings_routes
from runstore.gateway.routes_shares import share_routes
from runstore.gateway.routes_stats_v1 import stats_routes_v1
from runstore.gateway.routes_threads import thread_routes
from runstore.gateway.routes_traces import trace_routes
from runstore.gateway.store_client import StoreClient

_TITLE: Final = "runstore"


def create_app(
    store: StoreClient,
    limits: BodyLimits,
    now_us: Callable[[], int],
    metrics: GatewayMetrics,
    *,
    guard: Guard | None = None,
    cors_origins: Collection[str] = (),
) -> ASGIApp:
    """The gateway as an ASGI application; `now_us` gives microseconds since the epoch.

    `guard`: None where everybody may call. `cors_origins`: whose pages may call it from a browser.
    Raises LookupError for a route without an entry in the table of access.
    """
    app: FastAPI = FastAPIOffline(
        title=_TITLE,
        version=version("runstore"),
        description=DESCRIPTION,
        redirect_slashes=False,  # `CanonicalPaths` has removed them.
    )
    app.state.guard = guard
    install_error_handlers(app)
    # In the order of matching: `/runs/query` must not be taken for a run's id, nor `/runs/batch`.
    bodies = BodyReader(limits)
    routers = (
        not_offered_routes(),
        ingest_routes(store, bodies),
        agent_cron_routes(store),
        agent_run_routes(store),
        agent_thread_routes(store),
        assistant_routes(store),
        agent_item_routes(store),
        otlp_routes(store, bodies),
        filter_routes_v1(store),
        stats_routes_v1(store),
        group_routes_v1(store),
        delete_routes_v1(store),
        run_routes_v1(store),
        run_routes_v2(store, now_us),
        feedback_token_routes(store),
        feedback_config_routes(store),
        feedback_routes(store, bodies),
        share_routes(store),
        trace_routes(store, now_us),
        thread_routes(store, now_us),
        agent_registry_routes(store),
        session_routes(store),
        annotation_queue_routes(store),
        queue_item_routes(store),
        online_evaluator_routes(store),
        experiment_routes(store),
        dataset_sharing_routes(store),
        dataset_search_routes(store),
        dataset_file_routes(store, bodies),
        dataset_routes(store),
        example_routes(store, bodies),
        platform_example_routes(store, bodies),
        prompt_routes(store),
        settings_routes(store),
        server_routes(store),
        metrics_routes(store, metrics, needs_keys=guard is not None),
    )
    # Not `include_router`, which analyses each route a second time: a sixth of the gateway's start.
    app.router.routes += [route for router in routers for route in router.routes]
    check_guarded(app)
    _document_security(app)
    logged = CallLog(CanonicalPaths(AbandonedQuestions(JsonBodies(app))), metrics)
    return allow_origins(logged, cors_origins)


def _document_security(app: FastAPI) -> None:
    """Adds the credentials to the OpenAPI; the store checks them, so no route declares them."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            schema.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
            schema["security"] = [{name: []} for name in SECURITY_SCHEMES]
            app.openapi_schema = schema
        return app.openapi_schema

    # FastAPI documents assigning the method as the way to extend the schema.
    app.openapi = openapi  # type: ignore[method-assign]
