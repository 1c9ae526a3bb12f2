"""What the newest SDK offers: the public methods of its two clients and of the generated resources."""

import inspect
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final

from langsmith import AsyncClient, AsyncLangsmith, Client

# Other forms of each method, with the same request; and helpers of the generated classes.
_FORMS: Final = ("with_raw_response", "with_streaming_response")


def handwritten(client: type[Client] | type[AsyncClient]) -> list[str]:
    """The public methods of a handwritten client, by name."""
    return sorted(
        name for name, member in inspect.getmembers(client) if not name.startswith("_") and callable(member)
    )


def generated() -> list[str]:
    """The methods of the generated client, each with the resources that lead to it: `runs.share.create`."""
    client = AsyncLangsmith(api_key="any", base_url="http://127.0.0.1:1")
    roots = [name for name in _resources(AsyncLangsmith) if hasattr(getattr(client, name), "_client")]
    return sorted(path for name in roots for path in _methods(getattr(client, name), name))


def is_resource(value: object) -> bool:
    """Whether it is one of the generated resources."""
    return type(value).__module__.startswith("langsmith.resources")


def _resources(owner: type[Any]) -> list[str]:
    return [
        name
        for name, member in inspect.getmembers(owner)
        if isinstance(member, cached_property) and name not in _FORMS
    ]


def _methods(resource: object, path: str) -> Iterator[str]:
    kind = type(resource)
    for name, member in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_"):
            assert callable(member)
            yield f"{path}.{name}"
    for name in _resources(kind):
        yield from _methods(getattr(resource, name), f"{path}.{name}")
