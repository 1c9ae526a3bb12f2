"""`langgraph.json`: which graphs a worker offers, and the environment that their code expects.

The format is that of the `langgraph` command line (its keys for building images are ignored here).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values


class BadManifest(Exception):
    """langgraph.json, or a graph that it names, cannot be used."""


# To pass over these would serve to everybody, or keep in the open, what the author wanted protected.
_NOT_OFFERED = {
    "auth": "RUNSTORE_AUTH=keys asks callers for keys",
    "encryption": "checkpoints are as safe as the disk or the database that keeps them",
}


@dataclass(frozen=True, slots=True)
class GraphSource:
    """Where one graph is: a Python file or an importable module, and the variable in it."""

    graph_id: str
    module: str
    """A dotted name, or an absolute path when `is_file`."""
    is_file: bool
    variable: str
    description: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `read_manifest` found, all paths absolute."""

    path: Path
    graphs: tuple[GraphSource, ...]
    import_paths: tuple[Path, ...]
    """Local folders among `dependencies`, and the manifest's own."""
    environment: Mapping[str, str]
    """Variables that the graphs' code expects."""


def read_manifest(path: Path) -> Manifest:
    """Reads a `langgraph.json`. Raises BadManifest, with the key at fault."""
    path = path.expanduser().absolute()
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise BadManifest(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BadManifest(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadManifest(f"{path}: not a JSON object")
    for key, instead in _NOT_OFFERED.items():
        if content.get(key):
            raise BadManifest(f"{path}: {key}: not offered; {instead}. Remove it to go on")
    graphs = content.get("graphs")
    if not isinstance(graphs, dict) or not graphs:
        raise BadManifest(f"{path}: graphs: an object of graph id to './file.py:variable' is needed")
    return Manifest(
        path,
        tuple(_source(path, graph_id, target) for graph_id, target in graphs.items()),
        _import_paths(path, content.get("dependencies", [])),
        _environment(path, content.get("env", {})),
    )


def _source(path: Path, graph_id: str, target: Any) -> GraphSource:
    description = None
    if isinstance(target, dict):
        description, target = target.get("description"), target.get("path")
    where = f"{path}: graphs.{graph_id}"
    if not isinstance(target, str):
        raise BadManifest(f"{where}: neither text nor an object with a path")
    module, colon, variable = target.rpartition(":")
    if not colon or not module or not variable:
        raise BadManifest(f"{where}: {target!r} is not './file.py:variable' or 'package.module:variable'")
    if "/" not in module and not module.endswith(".py"):
        return GraphSource(graph_id, module, is_file=False, variable=variable, description=description)
    file = (path.parent / module).resolve()
    if not file.is_file():
        raise BadManifest(f"{where}: no file {file}")
    return GraphSource(graph_id, str(file), is_file=True, variable=variable, description=description)


def _import_paths(path: Path, dependencies: Any) -> tuple[Path, ...]:
    if not isinstance(dependencies, list) or not all(isinstance(entry, str) for entry in dependencies):
        raise BadManifest(f"{path}: dependencies: not an array of text")
    # Others are packages of an index, which are installed before a worker starts.
    local = [(path.parent / entry).resolve() for entry in dependencies if entry.startswith(".")]
    return tuple(dict.fromkeys([path.parent, *local]))


def _environment(path: Path, env: Any) -> dict[str, str]:
    if isinstance(env, dict):
        return {str(name): str(value) for name, value in env.items()}
    if not isinstance(env, str):
        raise BadManifest(f"{path}: env: neither an object nor the path of a .env file")
    file = path.parent / env
    if not file.is_file():
        raise BadManifest(f"{path}: env: no file {file}")
    return {name: value for name, value in dotenv_values(file).items() if value is not None}
