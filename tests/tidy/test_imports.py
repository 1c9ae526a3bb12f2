"""The architecture as imports: dependencies point one way, and each heavy library has one home."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "services" / "runstore"

# What a part may import of runstore, besides itself. `runtime` composes everything.
MAY_IMPORT = {
    "domain": (),
    "storage": ("domain",),
    "storage.clickhouse": ("domain", "storage"),
    "catalog": ("domain", "storage"),
    "query": ("domain", "storage"),
    "ingest": ("domain", "storage"),
    # Both ends of the wire translate spans into operations, the messages that both know.
    "otlp": ("domain", "v1"),
    "chat": ("domain",),
    "dispatch": ("domain", "catalog"),
    "rpc": ("otlp", "domain", "storage", "ingest", "query", "catalog", "dispatch", "v1"),
    "gateway": ("domain", "otlp", "v1"),
    # Runs the code of users, and knows the store by its contract alone.
    "agents": ("domain", "v1"),
}

# Import nothing of runstore themselves: every layer may be driven by a test's clock, tells of its spans, and
# may share an SQLite file with other processes.
LEAVES = ("runstore.runtime.clock", "runstore.runtime.spans", "runstore.runtime.sqlite_wal")

# Libraries that only these parts may import.
HOMES = {
    "clickhouse_connect": ("storage.clickhouse",),
    "chdb": ("storage.clickhouse",),
    "pyarrow": ("storage.clickhouse", "runtime"),
    "obstore": ("storage",),
    "grpc": ("rpc", "gateway", "agents", "runtime"),
    "grpc_health": ("rpc", "gateway", "runtime"),
    "grpc_reflection": ("rpc", "gateway", "runtime"),
    "google.protobuf": ("rpc", "gateway", "otlp", "runtime"),
    "opentelemetry": ("rpc", "gateway", "otlp", "runtime"),
    "google.rpc": ("rpc", "gateway", "runtime"),
    "httpx": ("chat", "dispatch"),
    "croniter": ("domain",),
    "fastapi": ("gateway",),
    "starlette": ("gateway",),
    "sqlalchemy": ("catalog",),
    "tantivy": ("catalog",),
    "jsonschema_rs": ("domain",),
    "aiosqlite": ("catalog", "agents"),
    "psycopg": ("agents",),
    "langgraph": ("agents",),
    "langgraph_sdk": ("agents",),
    "langchain_core": ("agents",),
    "langsmith": ("agents",),
    "alembic": ("catalog",),
    "pydantic_settings": ("runtime",),
    "typer": ("runtime",),
}

MODULES = sorted(SOURCES.rglob("*.py"))


def part_of(module: Path) -> str:
    """`storage.clickhouse` for its modules, else the first folder."""
    folders = module.relative_to(SOURCES).parts[:-1]
    return "storage.clickhouse" if folders[:2] == ("storage", "clickhouse") else folders[0]


def imported_names(module: Path) -> Iterator[str]:
    """Full names of what `module` imports, also inside functions and for type checking."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            # `from runstore import v1` and `from runstore.v1 import x` both name what they reach.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def is_allowed(part: str, name: str) -> bool:
    """Whether a module of `part` may import `name`."""
    if not is_within(name, "runstore"):
        homes = next((homes for library, homes in HOMES.items() if is_within(name, library)), None)
        return homes is None or part in homes
    if part == "runtime" or any(is_within(name, leaf) for leaf in LEAVES):
        return True
    if is_within(name, "runstore.storage.clickhouse"):
        return part == "storage.clickhouse"
    return any(is_within(name, f"runstore.{other}") for other in (part, *MAY_IMPORT[part]))


def test_imports_point_one_way() -> None:
    """A module imports only what the design allows its part."""
    wrong = [
        (str(module.relative_to(SOURCES)), name)
        for module in MODULES
        for name in imported_names(module)
        if not is_allowed(part_of(module), name)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("domain", "runstore.storage.run_store.RunStore"),
        ("domain", "google.protobuf.message"),
        ("ingest", "runstore.storage.clickhouse.run_store"),
        ("ingest", "runstore.v1.run_pb2"),
        ("query", "runstore.catalog.Catalog"),
        ("query", "pyarrow"),
        ("gateway", "runstore.query.filters"),
        ("gateway", "runstore.runtime.settings"),
        ("storage", "runstore.storage.clickhouse.run_store"),
        ("rpc", "clickhouse_connect.driver"),
        ("rpc", "langgraph.pregel"),
        ("agents", "runstore.catalog.Catalog"),
    ],
)
def test_forbidden_import_is_found(part: str, name: str) -> None:
    """The rule above notices each kind of wrong turn."""
    assert not is_allowed(part, name)


def test_settings_alone_read_the_environment() -> None:
    """One module knows the environment; everything else is given what it needs."""
    readers = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            names = {getattr(node, "attr", None), getattr(node, "name", None)}
            if names & {"environ", "environb", "getenv", "putenv", "unsetenv"}:
                readers.add(str(module.relative_to(SOURCES)))
    assert readers == {"runtime/settings.py"}


def test_namespace_package_has_no_init() -> None:
    """`services/` and `gen/` are roots of one namespace package; an __init__.py would hide one of them."""
    assert not (SOURCES / "__init__.py").exists()
    assert not (SOURCES.parents[1] / "gen" / "runstore" / "__init__.py").exists()
