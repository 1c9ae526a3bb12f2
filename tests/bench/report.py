"""Figures: beside their budget and the engine's own, as a table for people and as JSON for comparison."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_NUMBER_WIDTH = 12


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    section: str
    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    engine: float | None = None
    """What the engine alone needs or reaches for the same, in the same run and unit."""
    note: str = ""

    @property
    def key(self) -> str:
        """Names the figure in comparisons."""
        return f"{self.section} / {self.name}"

    @property
    def budget(self) -> str:
        """As text; empty when there is none."""
        if self.at_least is not None:
            return f"≥ {number(self.at_least)}"
        return "" if self.at_most is None else f"≤ {number(self.at_most)}"

    @property
    def verdict(self) -> str:
        """ "ok", "MISSED", or nothing without a budget."""
        if self.at_least is None and self.at_most is None:
            return ""
        low = self.at_least is None or self.value >= self.at_least
        high = self.at_most is None or self.value <= self.at_most
        return "ok" if low and high else "MISSED"


@dataclass(slots=True)
class Report:
    """Everything one benchmark found out."""

    machine: dict[str, str]
    plan: dict[str, Any]
    figures: list[Figure]
    warnings: list[str]

    def add(self, figure: Figure) -> None:
        """Keep a figure and say it at once: a long run should not be silent."""
        self.figures.append(figure)
        print(f"  {figure.name}: {number(figure.value)} {figure.unit}  {figure.note}".rstrip(), flush=True)

    def value(self, key: str) -> float | None:
        """A figure found earlier in this run."""
        return next((figure.value for figure in self.figures if figure.key == key), None)

    def warn(self, text: str) -> None:
        """Something that makes figures doubtful."""
        self.warnings.append(text)
        print(f"  WARNING: {text}", flush=True)

    def save(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load(path: Path) -> Report:
    """A saved report."""
    saved = json.loads(path.read_text())
    figures = [Figure(**figure) for figure in saved["figures"]]
    return Report(saved["machine"], saved["plan"], figures, saved["warnings"])


def number(value: float) -> str:
    """With three significant digits, or whole with thousands."""
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


_HEADINGS = ("figure", "value", "unit", "budget", "", "engine alone", "ratio", "note")


def _rows(figures: Sequence[Figure], before: Report | None) -> Iterator[tuple[str, list[str]]]:
    """Section and cells of each figure, section by section; the last cell compares with an earlier report."""
    sections = list(dict.fromkeys(figure.section for figure in figures))
    for figure in sorted(figures, key=lambda figure: sections.index(figure.section)):
        cells = [figure.name, number(figure.value), figure.unit, figure.budget, figure.verdict]
        if figure.engine:
            cells += [number(figure.engine), f"{figure.value / figure.engine:.2f}"]
        else:
            cells += ["", ""]
        cells.append(figure.note)
        if before is not None:
            earlier = before.value(figure.key)
            cells.append(f"{number(earlier)} → {100 * figure.value / earlier:.0f} %" if earlier else "")
        yield figure.section, cells


def text_table(report: Report, before: Report | None = None) -> str:
    """For a terminal."""
    headings = [*_HEADINGS, "before"] if before else [*_HEADINGS]
    rows = list(_rows(report.figures, before))
    widths = [
        max(len(cells[n]) for cells in [headings, *(cells for _, cells in rows)])
        for n in range(len(headings))
    ]

    def line(cells: Sequence[str]) -> str:
        # Numbers to the right, words to the left.
        aligned = [
            cell.rjust(width) if n in (1, 3, 5, 6) else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    lines = [*_machine_lines(report), "", line(headings)]
    section = ""
    for name, cells in rows:
        if name != section:
            section = name
            lines += ["", section]
        lines.append(line(cells))
    lines += ["", *(f"WARNING: {warning}" for warning in report.warnings)]
    return "\n".join(lines)


def markdown_table(report: Report, before: Report | None = None) -> str:
    """For docs/performance.md."""
    headings = ["", *_HEADINGS, "before"] if before else ["", *_HEADINGS]
    rows = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    section = ""
    for name, cells in _rows(report.figures, before):
        first = f"**{name}**" if name != section else ""
        section = name
        rows.append("| " + " | ".join([first, *cells]) + " |")
    warnings = [f"- Warning: {warning}" for warning in report.warnings]
    return "\n".join([*(f"- {line}" for line in _machine_lines(report)), *warnings, "", *rows])


def _machine_lines(report: Report) -> list[str]:
    plan = ", ".join(f"{name}={value}" for name, value in report.plan.items())
    return [*(f"{name}: {value}" for name, value in report.machine.items()), f"plan: {plan}"]
