"""Writes `docs/compatibility.md`: what the tests say of each public method of the SDK."""

from collections.abc import Iterator
from importlib.metadata import version

from langsmith import AsyncClient, Client

from .methods import generated, handwritten
from .refusals import GENERATED, HANDWRITTEN, PARAMETERS, Refusal
from .scenarios import SHOWN

_HEAD = """# Compatibility with the LangSmith SDK

Every public method of `langsmith` {version}, and what becomes of it on runstore. Written by
`tests/contract/test_surface.py` from the scenarios in `tests/contract/surface/`, each of which calls its
methods over a socket and checks what they bring about; a test fails when this page is out of date
(`RUNSTORE_REWRITE_GOLDENS=1 .venv/bin/pytest tests/contract/test_surface.py -k page` writes it anew). Older
SDKs are tested apart: one of a year ago in `tests/contract/test_old_sdk.py`; `index_dataset`,
`sync_indexed_dataset` and `similar_examples`, which newer ones dropped, in
`tests/contract/test_dataset_index.py`.

*works*: the scenario shows it. *501*: the server refuses, with the reason. *SDK*: it never reaches a server.
`-`: the client has no such method.
"""

_GENERATED_HEAD = """
## Generated resources

Of `AsyncLangsmith`, and of `Langsmith`, which sends the same. `Client` and `AsyncClient` offer `agents`,
`annotation_queues`, `datasets`, `public`, `runs`, `sandboxes`, `sessions`, `threads` and `traces` under these
names, and `online_evaluators` as `evaluators`.

| method | | shown by, or why not |
|---|---|---|
"""

_PARAMETERS_HEAD = """
## Parameters of methods that work

| method | parameter | | why |
|---|---|---|---|
"""


def compatibility_page() -> str:
    """The page. Raises AssertionError for a method that neither a scenario nor a refusal names."""
    lines = _HEAD.format(version=version("langsmith"))
    lines += "\n## `Client` and `AsyncClient`\n\n"
    lines += "| method | `Client` | `AsyncClient` | shown by, or why not |\n|---|---|---|---|\n"
    lines += "".join(_handwritten()) + _GENERATED_HEAD + "".join(_generated())
    return lines + _PARAMETERS_HEAD + "".join(_parameters())


def _handwritten() -> Iterator[str]:
    sync, asynchronous = handwritten(Client), handwritten(AsyncClient)
    for name in sorted({*sync, *asynchronous}):
        cells = [
            _outcome(kind, name) if name in methods else "-"
            for kind, methods in (("Client", sync), ("AsyncClient", asynchronous))
        ]
        refusal = HANDWRITTEN.get(name)
        yield f"| `{name}` | {' | '.join(cells)} | {refusal.why if refusal else _places(name)} |\n"


def _generated() -> Iterator[str]:
    for path in generated():
        refusal = GENERATED.get(path.partition(".")[0])
        if refusal is None:
            yield f"| `{path}` | {_outcome('generated', path)} | {_places(path)} |\n"
        else:
            yield f"| `{path}` | {_refused(refusal)} | {refusal.why} |\n"


def _parameters() -> Iterator[str]:
    for each in PARAMETERS:
        outcome = str(each.status) if each.status >= 400 else "no effect"
        yield f"| {each.methods} | `{each.name}` | {outcome} | {each.why} |\n"


def _outcome(kind: str, method: str) -> str:
    if kind == "Client" and method in HANDWRITTEN:
        return _refused(HANDWRITTEN[method])
    assert any(kind in each.clients and method in each.methods for each in SHOWN), (
        f"no scenario shows {kind}.{method}, and no refusal says why"
    )
    return "works"


def _refused(refusal: Refusal) -> str:
    return "501" if refusal.is_sent else "SDK"


def _places(method: str) -> str:
    """Where the scenarios of a method are."""
    return ", ".join(dict.fromkeys(f"`{each.place}`" for each in SHOWN if method in each.methods))
