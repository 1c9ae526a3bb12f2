"""The graphs of a `langgraph.json`: imported once, made ready for each run, read or question.

A variable may hold a compiled graph, a `StateGraph`, or a factory of either: a function or (async) context
manager, plain or async, of the call's config, of a `ServerRuntime`, of both or of nothing.
"""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from langgraph_sdk import runtime as sdk_runtime

from runstore.agents.manifest import BadManifest, GraphSource, Manifest
from runstore.domain.errors import ErrorReason, RunstoreError

_LIBRARY_DEFAULT_NAME = "LangGraph"
_UNKNOWN = object()

AnyGraph = Pregel[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Use:
    """What a graph is opened for."""

    config: RunnableConfig
    access: sdk_runtime.AccessContext
    checkpointer: BaseCheckpointSaver[Any] | None = None
    store: BaseStore | None = None
    context: Any = None
    """The run's context, for a factory that asks for it; runs only."""


class RegisteredGraph:
    """One entry of `graphs`, imported."""

    def __init__(self, source: GraphSource, target: Any) -> None:
        self.graph_id = source.graph_id
        self.description = source.description
        self._target: Callable[..., Any] = target
        self._compiled = _compiled(target)
        self._arguments = {} if self._compiled else _factory_arguments(source.graph_id, target)
        self._context_schema: Any = self._compiled.context_schema if self._compiled else _UNKNOWN

    @property
    def name(self) -> str:
        """The graph's own name, or its id where the author gave none."""
        own = self._compiled.name if self._compiled else None
        return own if own and own != _LIBRARY_DEFAULT_NAME else self.graph_id

    async def context_schema(self, use: Use) -> Any:
        """The type of the graph's context; None when it has none. A factory is asked once."""
        if self._context_schema is _UNKNOWN:
            async with self.opened(use) as graph:
                self._context_schema = graph.context_schema
        return self._context_schema

    @asynccontextmanager
    async def opened(self, use: Use) -> AsyncIterator[AnyGraph]:
        """The compiled graph with the checkpointer and the store of `use`, named after its id.

        A factory's context managers end with this one.
        Raises FAILED_DEPENDENCY when a factory makes something else than a graph, and what a factory raises.
        """
        update = {"checkpointer": use.checkpointer, "store": use.store, "name": self.graph_id}
        if self._compiled is not None:
            yield self._compiled.copy(update=update)
            return
        async with _entered(self._made(use)) as made:
            compiled = _compiled(made)
            if compiled is None:
                raise RunstoreError(
                    ErrorReason.FAILED_DEPENDENCY,
                    f"The factory of graph '{self.graph_id}' made {type(made).__name__}, not a graph",
                )
            yield compiled.copy(update=update)

    def _made(self, use: Use) -> Any:
        offered: dict[str, Callable[[], Any]] = {
            "config": lambda: use.config,
            "runtime": lambda: _server_runtime(use),
        }
        return self._target(**{name: offered[kind]() for name, kind in self._arguments.items()})


def load_graphs(manifest: Manifest) -> dict[str, RegisteredGraph]:
    """Imports every graph of `manifest`, by graph id. Raises BadManifest for one that cannot be had."""
    for folder in reversed(manifest.import_paths):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return {source.graph_id: _load(source) for source in manifest.graphs}


def _load(source: GraphSource) -> RegisteredGraph:
    try:
        module = _module(source)
    except Exception as error:
        raise BadManifest(
            f"graphs.{source.graph_id}: importing {source.module} failed: {type(error).__name__}: {error}"
        ) from error
    try:
        target = getattr(module, source.variable)
    except AttributeError:
        raise BadManifest(f"graphs.{source.graph_id}: {source.module} has no {source.variable!r}") from None
    return RegisteredGraph(source, target)


def _module(source: GraphSource) -> ModuleType:
    if not source.is_file:
        return importlib.import_module(source.module)
    # Two graphs of one file share its module, and files of one name in two folders do not.
    name = "_graphs_" + re.sub(r"\W", "_", source.module)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, Path(source.module))
    if spec is None or spec.loader is None:
        raise ImportError(f"{source.module} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _compiled(target: Any) -> AnyGraph | None:
    if isinstance(target, Pregel):
        return target
    return target.compile() if isinstance(target, StateGraph) else None


def _factory_arguments(graph_id: str, target: Any) -> Mapping[str, str]:
    """Which parameters of a factory get the config, and which the runtime."""
    if not callable(target):
        raise BadManifest(f"graphs.{graph_id}: {type(target).__name__} is neither a graph nor a factory")
    parameters = [
        parameter
        for parameter in inspect.signature(target, eval_str=True).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    arguments = {
        parameter.name: "runtime" if _is_runtime(parameter.annotation) else "config"
        for parameter in parameters
    }
    if len(set(arguments.values())) != len(arguments):
        raise BadManifest(
            f"graphs.{graph_id}: a factory takes a config, a ServerRuntime, both or nothing; "
            f"this one takes {', '.join(arguments)}"
        )
    return arguments


def _is_runtime(annotation: Any) -> bool:
    runtime = sdk_runtime.ServerRuntime
    return annotation is runtime or get_origin(annotation) is runtime


def _server_runtime(use: Use) -> Any:
    # Public through `ServerRuntime` only, which is the union of these two.
    execution, read = (
        get_origin(member) or member for member in sdk_runtime.ServerRuntime.__value__.__args__
    )
    if use.access == "threads.create_run":
        return execution(access_context=use.access, store=use.store, context=use.context)
    return read(access_context=use.access, store=use.store)


@asynccontextmanager
async def _entered(made: Any) -> AsyncIterator[Any]:
    """What a factory's result comes to: awaited, entered, or taken as it is."""
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        async with made as entered:
            yield entered
    elif isinstance(made, AbstractContextManager):
        with made as entered:
            yield entered
    else:
        yield made
