"""The services that answer questions, called as gRPC calls them, but for the socket."""

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import cycle
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from runstore.domain.errors import RunstoreError
from runstore.domain.principals import Principal
from runstore.query.cursors import PageTokens
from runstore.query.list_runs import ListRuns
from runstore.query.list_threads import ListThreads
from runstore.query.list_traces import ListTraces
from runstore.query.read_tokens import ReadTokens
from runstore.query.references import References
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import time_us
from runstore.rpc.run_messages import RunMessages
from runstore.rpc.thread_query import ThreadQueryServicer
from runstore.rpc.trace_query import TraceQueryServicer
from runstore.runtime.clock import SystemClock

from .pipeline import Pipeline

_SECRET = b"a secret of thirty-two bytes...."
_NOTHING: Any = None
"""In place of what answers do not need unless fields of the catalog are selected, and of gRPC's context."""


NO_REFERENCES: Final = References(_NOTHING, _NOTHING)
"""There is no catalog."""


class QueryServices:
    """Threads and traces of what went through a pipeline, where every project exists."""

    def __init__(self, pipeline: Pipeline, tenant_id: str) -> None:
        self._principal = Principal(tenant_id, None)
        around = _Surroundings(pipeline)
        tokens = PageTokens(_SECRET)
        runs = ListRuns(pipeline.store, around, tokens, NO_REFERENCES)
        traces = ListTraces(runs, pipeline.store.traces, around)
        threads = ListThreads(pipeline.store.threads, runs, traces, around, around, tokens, NO_REFERENCES)
        messages = RunMessages(ReadTokens(_SECRET, SystemClock()), _NOTHING, _NOTHING, _NOTHING)
        self.traces = TraceQueryServicer(traces, messages)
        self.threads = ThreadQueryServicer(threads, messages)

    async def call(self, method: Callable[[Any, Any], Awaitable[Any]], request: Any) -> Any:
        """What a method answers to the tenant."""
        current_principal.set(self._principal)
        return await method(request, _NOTHING)

    async def walk(
        self, method: Callable[[Any, Any], Awaitable[Any]], request: Any, name: str, page_sizes: Sequence[int]
    ) -> list[Any]:
        """The items `name` of all pages, which have these sizes by turns."""
        items: list[Any] = []
        for page_size in cycle(page_sizes):
            request.page_size = page_size
            page = await self.call(method, request)
            found = getattr(page, name)
            assert len(found) <= page_size
            assert found or not request.page_token, "a page behind the last"
            items += found
            request.page_token = page.next_page_token
            if not request.page_token:
                break
            assert found, "an empty page with more to come"
        return items


class _Surroundings:
    """What services ask of the catalog and of the writers."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def exists(self, tenant_id: str, project_id: str) -> bool:
        return True

    async def snapshot(self, tenant_id: str, project_ids: tuple[str, ...] = ()) -> int:
        return self._pipeline.last_sequence

    async def see_writes(self, *_: Any, **__: Any) -> None:
        """Writes are read at once."""


@contextmanager
def refused(reason: str) -> Iterator[None]:
    """What is done inside is refused with this in the message."""
    said = "nothing"
    try:
        yield
    except RunstoreError as error:
        said = str(error)
    assert reason in said, f"refused with {said}, wanted {reason}"


def shown(message: Any) -> dict[str, Any]:
    """What a message has, as plain values: times in microseconds, costs as Decimal."""
    return {field.name: _plain(field.name, value) for field, value in message.ListFields()}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return time_us(value)
    if name.endswith("_cost"):
        return Decimal(value)
    if name == "feedback_stats":
        return {key: shown(each) for key, each in value.items()}
    if name.endswith("_cost_details"):
        return {category: Decimal(each) for category, each in value.items()}
    if name in ("values", "prompt_token_details", "completion_token_details"):
        return dict(value)
    if hasattr(value, "ListFields"):
        return shown(value)
    return list(value) if hasattr(value, "extend") else value


def assert_alike(found: Any, wanted: Any, path: str = "") -> None:
    """Equal, floats nearly; tells where not."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in found.keys() | wanted.keys():
            assert_alike(found.get(key), wanted.get(key), f"{path}.{key}")
    elif isinstance(wanted, list) and isinstance(found, list):
        assert len(found) == len(wanted), f"{path}: {found}, wanted {wanted}"
        for index, each in enumerate(wanted):
            assert_alike(found[index], each, f"{path}[{index}]")
    elif isinstance(wanted, float) and isinstance(found, float):
        assert math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-9), f"{path}: {found}, wanted {wanted}"
    else:
        assert found == wanted, f"{path}: {found!r}, wanted {wanted!r}"
