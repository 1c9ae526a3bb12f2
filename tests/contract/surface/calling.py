"""Calls any client of the SDK in one way, and writes down which of its methods have answered."""

import asyncio
import inspect
from collections.abc import AsyncIterable, Callable
from types import GeneratorType
from typing import Any

from langsmith.evaluation._arunner import AsyncExperimentResults

from .methods import is_resource


class Sdk:
    """A client, or a resource of one.

    Coroutines are run, and what can only be iterated comes as a list, so that a scenario reads the same for
    both clients.
    """

    def __init__(self, target: object, runner: asyncio.Runner, answered: set[str], path: str = "") -> None:
        self._target = target
        self._runner = runner
        self._answered = answered
        self._path = path

    def __getattr__(self, name: str) -> Any:
        value, path = getattr(self._target, name), self._path + name
        if is_resource(value):
            return Sdk(value, self._runner, self._answered, f"{path}.")
        return self._watched(path, value) if callable(value) else value

    def _watched(self, path: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            answer = self._runner.run(_result(method, arguments, options))
            self._answered.add(path)
            return answer

        return call


async def _result(method: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    # The synchronous client must not find the loop running that its asynchronous parts would need.
    if not _is_asynchronous(method):
        answer = await asyncio.to_thread(_listed, method, arguments, options)
    else:
        answer = method(*arguments, **options)
    # Pages of the generated client can be awaited, too, for one of them; experiments are more than rows.
    if inspect.isawaitable(answer) and not isinstance(answer, AsyncIterable):
        answer = await answer
    if isinstance(answer, AsyncIterable) and not isinstance(answer, AsyncExperimentResults):
        return [item async for item in answer]
    return answer


def _is_asynchronous(method: Callable[..., Any]) -> bool:
    owner = type(getattr(method, "__self__", None)).__name__
    return owner.startswith("Async") or inspect.iscoroutinefunction(method)


def _listed(method: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    answer = method(*arguments, **options)
    return list(answer) if isinstance(answer, GeneratorType) else answer
