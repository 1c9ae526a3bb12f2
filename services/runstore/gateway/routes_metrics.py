"""`GET /metrics`: the store and every gateway beside this one, for Prometheus."""

from fastapi import Request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.metrics import GatewayMetrics, store_up
from runstore.gateway.store_client import StoreClient, credentials_of

_AWAY = (ErrorReason.UNAVAILABLE, ErrorReason.DEADLINE_EXCEEDED)


def metrics_routes(store: StoreClient, of_gateways: GatewayMetrics, *, needs_keys: bool) -> GuardedRouter:
    """The route. `needs_keys`: only the store can say who may see metrics."""
    router = GuardedRouter(tags=["Server"])

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE_PLAIN_0_0_4: {}}, "description": "All metrics."}},
    )
    async def metrics(request: Request) -> Response:
        """All metrics of the store and of every gateway beside this one, for Prometheus.

        With API keys in force it needs the operator's key (`runstore keys operator`) as bearer token. While
        the store is away the gateways' metrics come alone, or 503 where nobody can say who may see them.
        """
        try:
            of_store = await store.get_metrics(credentials_of(request.headers))
        except RunstoreError as error:
            if needs_keys or error.reason not in _AWAY:
                raise
            of_store = b""
        parts = (of_store, store_up(is_up=bool(of_store)), await of_gateways.exposition())
        return Response(b"".join(parts), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    return router
