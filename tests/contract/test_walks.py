"""Walks through pages stay exact while runs are written, updated and deleted, in every interface.

What a walk owes is judged by what holds throughout it: a run that exists and matches from the first page to
the last comes once; one that never matches never comes; one that begins or ceases to match, or is deleted,
comes at most once.
"""

import random
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
import httpx
import pytest

from runstore.v1 import project_service_pb2 as projects
from runstore.v1 import run_deletion_service_pb2 as deletion
from runstore.v1 import run_deletion_service_pb2_grpc as deletion_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_pb2 as pb
from runstore.v1 import run_query_service_pb2 as queries

from .servers import Server
from .test_grpc import STARTED, Stubs, create, project_id_of, refusal, timestamp, update
from .wire import dotted_order

RUNS_PER_ROLE = 8
DELETED_RUNS = 3
START_TIMES = 5
"""Distinct ones: many runs share each."""
LATEST = STARTED + timedelta(hours=1)


@pytest.fixture(scope="module")
def stubs(server: Server) -> Iterator[Stubs]:
    """Of the server without authentication."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield Stubs(channel)


@dataclass(frozen=True)
class Condition:
    """A condition, and how a run comes to meet it or not."""

    filter: str
    on: dict[str, Any]
    """Fields of a run that meets it."""
    off: dict[str, Any]
    """Fields of one that does not."""
    can_end: bool = True
    """Whether a run that meets it can cease to."""
    v1: dict[str, Any] = field(default_factory=dict)
    """The body's own key for it, instead of the filter."""
    v2: dict[str, Any] = field(default_factory=dict)


def tags(*values: str) -> dict[str, Any]:
    return {"tags": ingest.TagList(values=values)}


def metadata(state: str) -> dict[str, Any]:
    return {"extra": b'{"metadata": {"state": "%b"}}' % state.encode()}


CONDITIONS = {
    "has_error": Condition(
        'eq(status, "error")', {"error": "e"}, {}, can_end=False, v1={"error": True}, v2={"has_error": True}
    ),
    "tags": Condition('has(tags, "on")', tags("on", "more"), tags("off")),
    "metadata": Condition(
        'and(eq(metadata_key, "state"), eq(metadata_value, "on"))', metadata("on"), metadata("off")
    ),
    "run_type": Condition(
        'eq(run_type, "tool")', {"run_type": pb.RUN_TYPE_TOOL}, {"run_type": pb.RUN_TYPE_LLM},
        v1={"run_type": "tool"}, v2={"run_type": "TOOL"},
    ),
    "is_root": Condition("eq(is_root, true)", {}, {}, v1={"is_root": True}, v2={"is_root": True}),
    "status": Condition('eq(status, "pending")', {}, {"end_time": timestamp(LATEST)}),
    "none": Condition("", {}, {}),
}  # fmt: skip


@dataclass
class Runs:
    """What a walk meets, by what happens to it."""

    project: str
    doomed_project: str
    condition: Condition
    steady: list[uuid.UUID] = field(default_factory=list)
    """Match throughout."""
    entering: list[uuid.UUID] = field(default_factory=list)
    leaving: list[uuid.UUID] = field(default_factory=list)
    doomed: list[uuid.UUID] = field(default_factory=list)
    """Go with their project."""
    deleted: list[uuid.UUID] = field(default_factory=list)
    """One by one, as runs or as traces."""
    never: list[uuid.UUID] = field(default_factory=list)


def given(stubs: Stubs, condition: Condition, chance: random.Random) -> Runs:
    """Runs of every role, stored."""
    runs = Runs(f"walk-{uuid.uuid4().hex}", f"doomed-{uuid.uuid4().hex}", condition)
    operations = []
    for role in ("steady", "entering", "leaving", "doomed", "deleted", "never"):
        on = role not in ("entering", "never")
        if not on and condition.on == condition.off:
            continue  # Everything matches, always.
        ids = [uuid.uuid4() for _ in range(DELETED_RUNS if role == "deleted" else RUNS_PER_ROLE)]
        getattr(runs, role).extend(ids)
        project = runs.doomed_project if role == "doomed" else runs.project
        fields = condition.on if on else condition.off
        operations += [run_at_any_time(run_id, project, fields, chance) for run_id in ids]
    # Both projects exist, and no role is stored together.
    chance.shuffle(operations)
    assert not stubs.ingest.WriteRuns(ingest.WriteRunsRequest(operations=operations)).errors
    return runs


def run_at_any_time(
    run_id: uuid.UUID, project: str, fields: dict[str, Any], chance: random.Random
) -> ingest.RunOperation:
    started = STARTED + timedelta(milliseconds=chance.randrange(START_TIMES))
    order = dotted_order(run_id, at=started)
    given: dict[str, Any] = {
        "run_type": pb.RUN_TYPE_LLM,
        "start_time": timestamp(started),
        "dotted_order": order,
    }
    return create(run_id, project, **{**given, **fields})


class Churn:
    """Writes, updates and deletes until it is stopped: one step for every page."""

    def __init__(self, stubs: Stubs, runs: Runs, chance: random.Random) -> None:
        self._stubs = stubs
        self._deletion = deletion_grpc.RunDeletionServiceStub(stubs.channel)
        self._runs = runs
        self._chance = chance
        self._changes = self._in_any_order()
        self._lock = threading.Lock()

    def finish(self) -> None:
        """Whatever is left to be changed."""
        for change in self._changes:
            if not isinstance(change, ingest.RunOperation):
                self._delete(change)

    def step(self) -> None:
        """New runs, some changes; once the deletion of a project."""
        with self._lock:
            condition = self._runs.condition
            fields = self._chance.choice([condition.on, condition.off])
            operations = [
                run_at_any_time(uuid.uuid4(), self._runs.project, fields, self._chance) for _ in range(3)
            ]
            # Others are updated in ways that change nothing for them.
            operations.append(update(self._chance.choice(self._runs.steady), outputs=b'{"n": 1}'))
            for change in (next(self._changes, None) for _ in range(4)):
                if change is None:
                    break
                if isinstance(change, ingest.RunOperation):
                    operations.append(change)
                else:
                    self._delete(change)
            assert not self._stubs.ingest.WriteRuns(ingest.WriteRunsRequest(operations=operations)).errors

    def _delete(self, what: str | uuid.UUID) -> None:
        """A project by its name, or a run by its id."""
        if isinstance(what, str):
            doomed = project_id_of(self._stubs, what)
            self._stubs.projects.DeleteProject(projects.DeleteProjectRequest(id=doomed))
        elif self._chance.random() < 0.5:
            self._deletion.DeleteRuns(deletion.DeleteRunsRequest(ids=[str(what)]))
        else:
            self._deletion.DeleteTraces(deletion.DeleteTracesRequest(trace_ids=[str(what)]))

    def _in_any_order(self) -> "Iterator[ingest.RunOperation | str | uuid.UUID]":
        condition = self._runs.condition
        changes: list[ingest.RunOperation | str | uuid.UUID] = [
            update(run_id, **condition.on) for run_id in self._runs.entering
        ]
        changes += self._runs.deleted
        if condition.can_end:
            changes += [update(run_id, **condition.off) for run_id in self._runs.leaving]
        self._chance.shuffle(changes)
        changes.insert(self._chance.randrange(12), self._runs.doomed_project)
        return iter(changes)


Page = tuple[list[dict[str, Any]], str]
Fetch = Callable[[int, str], Page]
"""A page of a size behind a cursor: runs with `id` and `start_time`, and the next cursor, "" at the end."""


def pages_v1(url: str, ids: list[str], condition: Condition, *, ascending: bool) -> Fetch:
    def fetch(size: int, cursor: str) -> Page:
        body: dict[str, Any] = {
            "session": ids, "limit": min(size, 100), "order": "asc" if ascending else "desc",
            "cursor": cursor, "select": ["id"], **(condition.v1 or {"filter": condition.filter}),
        }  # fmt: skip
        answer = httpx.post(f"{url}/runs/query", json=body, timeout=60).raise_for_status().json()
        return answer["runs"], answer["cursors"]["next"] or ""

    return fetch


def pages_v2(url: str, ids: list[str], condition: Condition, *, ascending: bool) -> Fetch:
    def fetch(size: int, cursor: str) -> Page:
        body: dict[str, Any] = {
            "project_ids": ids, "page_size": size, "sort_order": "ASC" if ascending else "DESC",
            "selects": ["ID", "START_TIME"], "min_start_time": STARTED.isoformat(),
            "max_start_time": LATEST.isoformat(),
            **(condition.v2 or {"filter": condition.filter}), **({"cursor": cursor} if cursor else {}),
        }  # fmt: skip
        answer = httpx.post(f"{url}/api/v2/runs/query", json=body, timeout=60).raise_for_status().json()
        return answer["items"], answer["next_cursor"] or ""

    return fetch


def pages_grpc(stubs: Stubs, ids: list[str], condition: Condition, *, ascending: bool) -> Fetch:
    def fetch(size: int, cursor: str) -> Page:
        request = grpc_request(ids, condition, ascending=ascending)
        request.page_size, request.page_token = size, cursor
        page = stubs.queries.ListRuns(request)
        return [
            {"id": run.id, "start_time": run.start_time.ToJsonString()} for run in page.runs
        ], page.next_page_token

    return fetch


def grpc_request(ids: list[str], condition: Condition, *, ascending: bool) -> queries.ListRunsRequest:
    return queries.ListRunsRequest(
        project_ids=ids,
        filter=condition.filter,
        fields=[pb.RUN_FIELD_ID, pb.RUN_FIELD_START_TIME],
        sort_order=pb.SORT_ORDER_ASC if ascending else pb.SORT_ORDER_DESC,
    )


def rows(runs: Iterable[pb.Run]) -> list[dict[str, Any]]:
    return [{"id": run.id, "start_time": run.start_time.ToMicroseconds()} for run in runs]


def walked(fetch: Fetch, churn: Churn, chance: random.Random) -> list[dict[str, Any]]:
    """All pages, of sizes by chance, with changes between them; none but the first is empty."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        size = chance.choice([1, 3, 8, 30, 1_000])
        page, cursor = fetch(size, cursor)
        assert len(page) <= size
        assert page or (not cursor and not found), "an empty page"
        found += page
        if not cursor:
            return found
        churn.step()


def check(runs: Runs, found: list[dict[str, Any]], *, ascending: bool) -> None:
    ids = [run["id"] for run in found]
    assert len(set(ids)) == len(ids), "a run came twice"
    assert {str(run_id) for run_id in runs.steady} <= set(ids), "a run is missing"
    assert not {str(run_id) for run_id in runs.never} & set(ids), "a run that never matched"
    times = [run["start_time"] for run in found]
    assert times == sorted(times, reverse=not ascending)


USUAL = ("tags", "has_error")
"""What every test run asks for; the other conditions are slow tests."""


@pytest.mark.parametrize(
    "name", [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in CONDITIONS]
)
def test_walks_are_exact_while_everything_changes(server: Server, stubs: Stubs, name: str) -> None:
    """v1, v2 and gRPC walk at once, in both orders, at page sizes from 1 to 1,000."""
    chance = random.Random(name)
    runs = given(stubs, CONDITIONS[name], chance)
    ids = [project_id_of(stubs, project) for project in (runs.project, runs.doomed_project)]
    churn = Churn(stubs, runs, chance)
    ascending = chance.random() < 0.5
    with ThreadPoolExecutor(3) as threads:
        walks = [
            threads.submit(walked, fetch, churn, random.Random(f"{name} {number}"))
            for number, fetch in enumerate(
                (
                    pages_v1(server.url, ids, runs.condition, ascending=ascending),
                    pages_v2(server.url, ids, runs.condition, ascending=not ascending),
                    pages_grpc(stubs, ids, runs.condition, ascending=ascending),
                )
            )
        ]
        for number, walk in enumerate(walks):
            check(runs, walk.result(timeout=120), ascending=ascending != (number == 1))
    churn.finish()
    fetch = pages_grpc(stubs, ids, runs.condition, ascending=True)
    left = {run["id"] for run in walked(fetch, churn, chance)}
    assert not left & {str(run_id) for run_id in (*runs.deleted, *runs.doomed)}
    exported: list[dict[str, Any]] = []
    request = queries.ExportRunsRequest(query=grpc_request(ids, runs.condition, ascending=True))
    request.query.page_size = 5
    for message in stubs.queries.ExportRuns(request):
        assert message.runs
        exported += rows(message.runs)
        churn.step()
        if len(exported) > 400:
            break  # New runs may come faster than they are read; what is owed has long been there.
    check(runs, exported, ascending=True)


# -- cursors -----------------------------------------------------------------------------------------------


def altered(cursor: str) -> Iterator[str]:
    """The cursor with a character changed, dropped, doubled, here and there, and others that are none."""
    chance = random.Random(cursor)
    for _ in range(12):
        at = chance.randrange(len(cursor))
        other = chance.choice([c for c in "Aa0_-9zZ" if c != cursor[at]])
        yield cursor[:at] + other + cursor[at + 1 :]
        yield cursor[:at] + cursor[at + 1 :]
    yield from (cursor * 2, cursor + "=", cursor[:-4], "null", "0", "é", "' OR 1=1 --", "A" * 5_000)


def test_cursors_of_others_and_altered_ones_are_refused(
    server: Server, stubs: Stubs, guarded: Server
) -> None:
    """In all three interfaces, with the contract's status: of other queries, of others, or tampered with."""
    condition = CONDITIONS["none"]
    runs = given(stubs, condition, random.Random(1))
    ids = [project_id_of(stubs, runs.project)]
    interfaces: dict[str, Callable[..., Fetch]] = {
        "v1": lambda *given, **order: pages_v1(server.url, *given, **order),
        "v2": lambda *given, **order: pages_v2(server.url, *given, **order),
        "grpc": lambda *given, **order: pages_grpc(stubs, *given, **order),
    }
    cursors = {name: pages(ids, condition, ascending=True)(5, "")[1] for name, pages in interfaces.items()}
    assert all(cursors.values())
    for name, pages in interfaces.items():
        refused = [
            (pages(ids, condition, ascending=False), cursors[name]),
            (pages(ids, CONDITIONS["tags"], ascending=True), cursors[name]),
            (pages([str(uuid.uuid4())], condition, ascending=True), cursors[name]),
        ]
        refused += [(pages(ids, condition, ascending=True), cursor) for cursor in altered(cursors[name])]
        for fetch, cursor in refused:
            assert_refused(fetch, cursor)
        assert pages(ids, condition, ascending=True)(3, cursors[name])[0]
    key = guarded.create_key(f"walker-{uuid.uuid4().hex}")
    request = grpc_request(ids, condition, ascending=True)
    request.page_token = cursors["grpc"]
    with grpc.insecure_channel(guarded.grpc) as channel:
        code, detail = refusal(
            lambda: Stubs(channel).queries.ListRuns(request, metadata=(("x-api-key", key),))
        )
    assert (code, detail.field) == (grpc.StatusCode.INVALID_ARGUMENT, "cursor")


def assert_refused(fetch: Fetch, cursor: str) -> None:
    with pytest.raises((httpx.HTTPStatusError, grpc.RpcError)) as refused:
        fetch(5, cursor)
    error: Any = refused.value
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else error.code()
    assert status in (400, grpc.StatusCode.INVALID_ARGUMENT), cursor
