"""The manual: links lead somewhere, and every page is found from its index."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", flags=re.MULTILINE)
BLOCK = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return BLOCK.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Where links into a page lead, as GitHub makes them of its headings."""
    found: set[str] = set()
    for title in HEADING.findall(prose(page)):
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        same = sum(
            each == name or re.fullmatch(rf"{re.escape(name)}-\d+", each) is not None for each in found
        )
        found.add(f"{name}-{same}" if same else name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each link to a file of the repository, and into a page, has its target."""
    broken = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize(
    "index", [DOCS / "README.md", DOCS / "decisions" / "README.md"], ids=lambda page: page.parent.name
)
def test_index_names_every_page(index: Path) -> None:
    """Nothing is in a folder of the manual that its index does not name."""
    pages = {page.name for page in index.parent.glob("*.md")} - {"README.md"}
    assert pages - set(LINK.findall(index.read_text())) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_are_python(page: Path) -> None:
    """Blocks that are marked as Python compile."""
    for program in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
        ast.parse(program)
