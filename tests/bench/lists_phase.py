"""Measures lists of projects, datasets, examples and prompts, of each of which there are very many."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tests.bench.catalog_fill import Filled, fill
from tests.bench.latency import percentile
from tests.bench.plan import Plan
from tests.bench.report import Figure, Report
from tests.bench.server import Server, serving
from tests.postgres import running_postgres

_WARM_UP_CALLS = 5
_PAGE = 100


@dataclass(frozen=True, slots=True)
class _List:
    """One kind of list: paths with different arguments, and how much each answer holds."""

    name: str
    paths: list[str]
    expected: int
    key: str | None = None
    """Where in the answer the list is; None when it is the answer."""
    p50_ms: float | None = 30.0
    """Budget for the median; None for what looks through all texts."""


def measure_lists(plan: Plan, work_dir: Path, report: Report) -> None:
    """The same questions of a catalog in SQLite and of one in PostgreSQL."""
    folders = [work_dir / f"lists-{name}" for name in ("sqlite", "postgresql")]
    for folder in folders:
        folder.mkdir(parents=True)
    print(f"\nFilling catalogs with {plan.catalog_rows:,} of each", flush=True)
    url = f"sqlite:///{folders[0] / 'catalog.sqlite'}"
    filled = fill(url, plan.catalog_rows, plan.seed)
    with serving(folders[0], RUNSTORE_CATALOG_URL=url) as server:
        _ask(server, "SQLite", _lists(filled, plan.catalog_rows), plan, report)
    with running_postgres() as postgres:
        url = postgres.create_database()
        filled = fill(url, plan.catalog_rows, plan.seed)
        postgres.vacuum(url)
        with serving(folders[1], RUNSTORE_CATALOG_URL=url) as server:
            _ask(server, "PostgreSQL", _lists(filled, plan.catalog_rows), plan, report)


def _lists(filled: Filled, rows: int) -> list[_List]:
    last = f"offset={rows - _PAGE}"
    sessions, datasets, prompts = (f"/{path}?limit=100" for path in ("sessions", "datasets", "repos/"))
    examples = f"/examples?limit=100&dataset={filled.dataset_id}"
    names = [quote(name) for name in filled.dataset_names[:: rows // 20]]
    parts = [name[-6:] for name in names]
    ids = filled.example_ids
    by_ids = ["".join(f"&id={each}" for each in ids[start :: rows // _PAGE]) for start in range(20)]
    times = filled.versions[len(filled.versions) // 2 :][:10]
    return [
        _List("projects, newest", [sessions], _PAGE),
        _List("projects, last page", [f"{sessions}&{last}"], _PAGE),
        _List("projects, by name", [f"{sessions}&name={name}" for name in names], 1),
        _List("projects, by part of the name", [f"{sessions}&name_contains={part}" for part in parts], 1),
        _List("datasets, newest", [datasets], _PAGE),
        _List("datasets, last page", [f"{datasets}&{last}"], _PAGE),
        _List("datasets, by name", [f"{datasets}&name={name}" for name in names], 1),
        _List("datasets, by part of the name", [f"{datasets}&name_contains={part}" for part in parts], 1),
        _List("examples, newest", [examples], _PAGE),
        _List("examples, last page", [f"{examples}&{last}"], _PAGE),
        _List("examples, of a version", [f"{examples}&as_of={quote(at)}" for at in times], _PAGE),
        _List("examples, of a split", [f"{examples}&splits=test&offset={n}00" for n in range(10)], _PAGE),
        _List("examples, by id", [f"/examples?limit=100{some}" for some in by_ids], _PAGE),
        _List("prompts, newest", [prompts], _PAGE, "repos"),
        _List("prompts, last page", [f"{prompts}&{last}"], _PAGE, "repos"),
        _List("prompts, public", [f"{prompts}&is_public=true&is_archived=false"], _PAGE, "repos"),
        _List("prompts, most liked", [f"{prompts}&sort_field=num_likes"], _PAGE, "repos"),
        _List("prompts, by part of a text", [f"{prompts}&query={part}" for part in parts], 1, "repos", None),
    ]


def _ask(server: Server, catalog: str, lists: list[_List], plan: Plan, report: Report) -> None:
    section = f"Lists of {plan.catalog_rows:,}, {catalog}"
    print(f"\n{section}, over HTTP", flush=True)
    connection = server.http()
    for each in lists:
        times = []
        for number in range(_WARM_UP_CALLS + plan.read_calls):
            path = each.paths[number % len(each.paths)]
            request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: any\r\n\r\n".encode()
            started_s = time.perf_counter()
            status, answer, _ = connection.send(request)
            times.append((time.perf_counter() - started_s) * 1e3)
            found = json.loads(answer)
            if status != 200 or len(found if each.key is None else found[each.key]) != each.expected:
                raise RuntimeError(f"{path}: {status}, not {each.expected} but {answer[:500]!r}")
        times = times[_WARM_UP_CALLS:]
        p50, note = percentile(times, 0.5), f"P99 {percentile(times, 0.99):.0f} ms"
        report.add(Figure(section, f"{each.name}, P50", p50, "ms", at_most=each.p50_ms, note=note))
