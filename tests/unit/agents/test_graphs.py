"""langgraph.json: what it may say, and what is said about one that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest

from runstore.agents.graphs import RegisteredGraph, Use, load_graphs
from runstore.agents.manifest import BadManifest, GraphSource, read_manifest
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime.agents import prepare_agents
from runstore.runtime.failures import BadSettings, CannotStart
from runstore.runtime.settings import load_settings

CODE = """
from contextlib import asynccontextmanager, contextmanager
from typing import TypedDict
from langgraph.graph import START, StateGraph

class State(TypedDict):
    n: int

def build(name=None):
    builder = StateGraph(State)
    builder.add_node("a", lambda _: {"n": 1})
    builder.add_edge(START, "a")
    return builder.compile(name=name)

named = build("Ada")
def without_arguments():
    return build()
@contextmanager
def manager(config):
    yield build()
@asynccontextmanager
async def async_manager(config):
    yield build()
def three(a, b, c):
    return build()
def text():
    return "no graph"
number = 7
"""


def manifest(folder: Path, graphs: Any, **keys: Any) -> Path:
    """A langgraph.json in a folder with some code."""
    (folder / "code.py").write_text(CODE)
    path = folder / "langgraph.json"
    path.write_text(json.dumps({"graphs": graphs, **keys}))
    return path


def graph_of(folder: Path, variable: str) -> RegisteredGraph:
    """The graph of one variable."""
    return load_graphs(read_manifest(manifest(folder, {"g": f"./code.py:{variable}"})))["g"]


@pytest.mark.parametrize("variable", ["named", "without_arguments", "manager", "async_manager"])
async def test_ways_to_give_a_graph(tmp_path: Path, variable: str) -> None:
    """A graph, or what makes one."""
    graph = graph_of(tmp_path, variable)
    async with graph.opened(Use({"configurable": {}}, "threads.read")) as opened:
        assert opened.name == "g"
        assert (await opened.ainvoke({"n": 0}))["n"] == 1


def test_name_of_the_default_assistant(tmp_path: Path) -> None:
    """The graph's own, unless it has none."""
    assert graph_of(tmp_path, "named").name == "Ada"
    assert graph_of(tmp_path, "without_arguments").name == "g"


async def test_factory_that_makes_no_graph(tmp_path: Path) -> None:
    """Is at fault itself."""
    with pytest.raises(RunstoreError) as caught:
        async with graph_of(tmp_path, "text").opened(Use({"configurable": {}}, "threads.read")):
            pass
    assert caught.value.reason is ErrorReason.FAILED_DEPENDENCY


@pytest.mark.parametrize(
    ("graphs", "complaint"),
    [
        ({}, "graphs: an object"),
        ({"g": 7}, "neither text nor an object"),
        ({"g": "./code.py"}, "is not './file.py:variable'"),
        ({"g": "./nowhere.py:graph"}, "no file"),
        ({"g": "./code.py:nothing"}, "has no 'nothing'"),
        ({"g": "./code.py:number"}, "neither a graph nor a factory"),
        ({"g": "./code.py:three"}, "takes a, b, c"),
        ({"g": "no.such.module:graph"}, "ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, graphs: Any, complaint: str) -> None:
    """The sentence names the graph."""
    with pytest.raises(BadManifest) as caught:
        load_graphs(read_manifest(manifest(tmp_path, graphs)))
    assert complaint in str(caught.value)


def test_manifest(tmp_path: Path) -> None:
    """Paths are relative to the file; variables come from it or from a file beside it."""
    (tmp_path / ".env").write_text("A=1\nB='two words'\n")
    path = manifest(
        tmp_path,
        {"g": {"path": "./code.py:graph", "description": "d"}, "m": "package.module:graph"},
        env=".env",
        dependencies=[".", "./lib", "langchain"],
    )
    read = read_manifest(path)
    assert read.graphs == (
        GraphSource("g", str(tmp_path / "code.py"), is_file=True, variable="graph", description="d"),
        GraphSource("m", "package.module", is_file=False, variable="graph", description=None),
    )
    assert read.import_paths == (tmp_path, tmp_path / "lib")
    assert read.environment == {"A": "1", "B": "two words"}


@pytest.mark.parametrize("content", ["", "[]", '{"graphs": {"g": "./code.py:named"}, "env": 7}'])
def test_broken_manifest(tmp_path: Path, content: str) -> None:
    """Says so."""
    path = manifest(tmp_path, {})
    path.write_text(content)
    with pytest.raises(BadManifest, match=r"langgraph\.json"):
        read_manifest(path)


@pytest.mark.parametrize("key", ["auth", "encryption"])
def test_protection_that_is_not_offered(tmp_path: Path, key: str) -> None:
    """Is not passed over in silence."""
    path = manifest(tmp_path, {"g": "./code.py:named"}, **{key: {"path": "./auth.py:auth"}})
    with pytest.raises(BadManifest, match=f"{key}: not offered"):
        read_manifest(path)


def test_worker_without_a_manifest(tmp_path: Path) -> None:
    """Names the setting."""
    with pytest.raises(BadSettings, match="RUNSTORE_AGENTS"):
        prepare_agents(load_settings(data_dir=tmp_path))


def test_worker_with_a_bad_manifest(tmp_path: Path) -> None:
    """Does not start."""
    path = manifest(tmp_path, {"g": "./code.py:nothing"})
    with pytest.raises(CannotStart, match="has no 'nothing'"):
        prepare_agents(load_settings(data_dir=tmp_path, agents=path))


def test_missing_manifest(tmp_path: Path) -> None:
    """Says so."""
    with pytest.raises(BadManifest, match="No such file"):
        read_manifest(tmp_path / "langgraph.json")
