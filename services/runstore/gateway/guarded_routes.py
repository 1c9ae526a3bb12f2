"""Routes that let nobody in who lacks the access that the table gives them (`domain/access_table.py`)."""

from collections.abc import Callable, Coroutine, Iterable
from enum import Enum
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import Request
from starlette.responses import Response

from runstore.domain.access import WITHOUT_CREDENTIAL, Access
from runstore.domain.access_table import route_access
from runstore.gateway.guard import Guard


class GuardedRoute(APIRoute):
    """A route that asks the application's guard before it reads path, query or body."""

    def __init__(
        self, path: str, endpoint: Callable[..., Any], *, methods: Iterable[str] | None = None, **rest: Any
    ) -> None:
        """Raises LookupError for a route without an entry in the table."""
        methods = set(methods or ("GET",))
        [self.access] = {route_access(method, path) for method in methods}
        super().__init__(path, endpoint, methods=methods, **rest)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, behind the guard."""
        handle = super().get_route_handler()
        access = self.access
        if access in WITHOUT_CREDENTIAL:
            return handle

        async def guarded(request: Request) -> Response:
            guard: Guard | None = request.app.state.guard
            if guard is not None:
                request.state.caller = await guard.admit(request, access)
            return await handle(request)

        return guarded


class GuardedRouter(APIRouter):
    """A router whose routes are guarded."""

    def __init__(self, prefix: str = "", tags: list[str | Enum] | None = None) -> None:
        # curl without a header sends JSON, too.
        super().__init__(prefix=prefix, tags=tags, route_class=GuardedRoute, strict_content_type=False)


def check_guarded(app: FastAPI) -> None:
    """Raises LookupError for a route that is neither guarded nor public, such as one of a plain router."""
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, GuardedRoute):
            continue
        for method in route.methods or ("*",):
            if route_access(method, route.path or "") is not Access.PUBLIC:
                raise LookupError(f"{method} {route.path} is not guarded: use a GuardedRouter")
