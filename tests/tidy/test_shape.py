"""The shape of the source: short functions, modules that say what they are for, nobody's own paths."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted([*ROOT.glob("services/**/*.py"), *ROOT.glob("tests/**/*.py")])
MODULES = [module for module in MODULES if "node_modules" not in module.parts]

LONGEST_FUNCTION_LINES = 70

SKIPPED_FOLDERS = {"node_modules", "data", "__pycache__", "bench-results"}
TEXT_ENDINGS = {
    ".py",
    ".pyi",
    ".md",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
    ".json",
    ".proto",
    ".lark",
    ".sql",
    ".sh",
    "",
}
# Paths of the machine a file was written on, and where packages came from there.
PRIVATE = re.compile(
    r"(?<![\w.-])/(?:root|work|home/\w+|Users/\w+)/"
    r"|files\.pythonhosted\.org|(?:^|[^\w.])pypi\.org/simple|registry\.(?:npmjs|yarnpkg)"
    r"|--?(?:extra-)?index-url|--find-links|file:///"
)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_functions_fit_on_a_screen(module: Path) -> None:
    """No function is longer than 70 lines, its signature and docstring included."""
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION_LINES
    ]
    assert long == []


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_module_says_what_it_is_for(module: Path) -> None:
    """The first sentence of a module tells its one reason to exist."""
    source = module.read_text()
    if source.strip():
        assert ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize("module", [m for m in MODULES if m.name.startswith("test_")], ids=relative)
def test_tests_state_a_behaviour(module: Path) -> None:
    """Every test's docstring says what holds, so that a failure reads as a sentence."""
    silent = [
        node.name
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_no_file_names_a_private_place() -> None:
    """What is committed works on any machine: no home folders, no package mirrors."""
    found = []
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in parts)
        if hidden or SKIPPED_FOLDERS & set(parts) or path.suffix not in TEXT_ENDINGS or not path.is_file():
            continue
        if path != Path(__file__):
            lines = path.read_text(errors="replace").splitlines()
            found += [f"{relative(path)}:{n}" for n, line in enumerate(lines, 1) if PRIVATE.search(line)]
    assert found == []


def test_constraints_are_versions_alone() -> None:
    """`constraints.txt` pins names to versions: no hosts, no paths, no markers."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)] == []
