"""The shape of the source: short functions, modules that say what they are for, nobody's own paths."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Definition:
    """A module, or a function in one."""

    place: str
    name: str
    """Empty for the module itself."""
    lines: int
    says_something: bool
    """Whether it has a docstring."""


@pytest.fixture(scope="module")
def definitions() -> list[Definition]:
    """All of the source, read once; modules with nothing in them are left out."""
    return [each for module in MODULES if module.read_text().strip() for each in defined_in(module)]


def defined_in(module: Path) -> Iterator[Definition]:
    text = module.read_text()
    tree = ast.parse(text)
    yield Definition(relative(module), "", text.count("\n"), bool(ast.get_docstring(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield Definition(relative(module), node.name, lines, bool(ast.get_docstring(node)))


def test_functions_fit_on_a_screen(definitions: list[Definition]) -> None:
    """No function is longer than 70 lines, its signature and docstring included."""
    assert [each for each in definitions if each.name and each.lines > LONGEST_FUNCTION_LINES] == []


def test_modules_say_what_they_are_for(definitions: list[Definition]) -> None:
    """The first sentence of a module tells its one reason to exist."""
    assert [each.place for each in definitions if not each.name and not each.says_something] == []


def test_tests_state_a_behaviour(definitions: list[Definition]) -> None:
    """Every test's docstring says what holds, so that a failure reads as a sentence."""
    tests = [each for each in definitions if each.name.startswith("test_")]
    tests = [each for each in tests if Path(each.place).name.startswith("test_")]
    assert len(tests) > 1_000
    assert [each for each in tests if not each.says_something] == []


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
