"""Hot statements explain to the index that makes them fast."""

import asyncio
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from runstore.domain.runs import RunField, RunQuery
from runstore.query.binding import parse_condition
from runstore.storage.blobs import BlobStore
from runstore.storage.clickhouse.columns import Present
from runstore.storage.clickhouse.feedback_sql import EVERYTHING
from runstore.storage.clickhouse.run_store import ClickHouseRunStore

from .pipeline import Pipeline

pytestmark = pytest.mark.engine

RUNS = 100_000
_IS_RARE = "number % 5000 = 7"
RARE = 20
"""Runs that most of the filters below look for, all over the table."""
_SHARED = 2
"""Granules at the borders of the tenant, which may hold rows of others that match."""


class Spy:
    """An engine that notes the statements it is asked."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.cluster: str = engine.cluster
        self.statements: list[tuple[str, dict[str, Any]]] = []

    async def read(self, call: Callable[[Any], Any], *, is_limited: bool = True) -> Any:
        return await self._engine.read(
            lambda client: call(_SpiedClient(client, self.statements)), is_limited=is_limited
        )


class _SpiedClient:
    def __init__(self, client: Any, statements: list[tuple[str, dict[str, Any]]]) -> None:
        self._client = client
        self._statements = statements

    def query(self, text: str, parameters: dict[str, Any], **options: Any) -> Any:
        self._statements.append((text, dict(parameters)))
        return self._client.query(text, parameters=parameters, **options)


class Explained:
    """The plans of what one call asked."""

    def __init__(self, plans: list[tuple[str, str]]) -> None:
        self._plans = plans

    @property
    def statements(self) -> int:
        """How many were asked."""
        return len(self._plans)

    def rows_read(self, table: str, index: str) -> int:
        """Granules that the best read of the table through the index is left with."""
        one = rf"ReadFromMergeTree \([\w.]*{table}(?:_local)?\)(.*?)(?=ReadFrom|\Z)"
        reads = [read for _, plan in self._plans for read in re.findall(one, plan, re.DOTALL)]
        figures = [re.findall(rf"Name: {index}\n.*?Granules: (\d+)/", read, re.DOTALL) for read in reads]
        return min(int(figure[-1]) for figure in figures if figure)

    def of(self, table: str) -> list[str]:
        """Plans of the statements that read the table."""
        return [plan for text, plan in self._plans if re.search(rf"FROM {table}\b", text)]

    def largest_read(self, table: str, statement: int | None = None) -> int:
        """Granules that the greediest statement, or one of them, reads of the table."""
        plans = self.of(table)
        plans = plans if statement is None else [plans[statement]]
        assert plans
        # The last figure of a read is what is left after every index.
        one = rf"ReadFromMergeTree \([\w.]*{table}(?:_local)?\)(.*?)(?=ReadFrom|\Z)"
        reads = [re.findall(one, plan, re.DOTALL) for plan in plans]
        return max(int(re.findall(r"Granules: (\d+)/", read)[-1]) for plan in reads for read in plan)


class Table:
    """A tenant with many runs in few parts, and what its reads explain to."""

    def __init__(self, pipeline: Pipeline, tenant_id: str) -> None:
        self.tenant_id = tenant_id
        self.project_id = str(uuid.uuid4())
        self._pipeline = pipeline
        self._spy = Spy(pipeline.store._engine)
        self.store = ClickHouseRunStore(self._spy, pipeline.store._blocks)  # type: ignore[arg-type]  # reads alone are asked of it

    async def fill(self) -> None:
        bits = Present.NAME | Present.RUN_TYPE | Present.SETTLED | Present.TAGS | Present.EXTRA
        bits |= Present.INPUTS | Present.OUTPUTS
        columns = {
            "tenant_id": f"'{self.tenant_id}'",
            "project_id": f"'{self.project_id}'",
            "start_time": "toDateTime64('2026-03-01 00:00:00', 6, 'UTC') + number",
            "run_id": "generateUUIDv4() AS id",
            "seq": "number",
            "present": str(bits.value),
            "trace_id": "id",
            "name": "'n'",
            "run_type": "'llm'",
            "tags": f"if({_IS_RARE}, ['rare', 'eu'], ['eu'])",
            "metadata": "map('user', concat('\"u', toString(number % 5000), '\"'))",
            "thread_id": "concat('t', toString(intDiv(number, 10)))",
        }
        await self._pipeline.command(
            f"INSERT INTO runs ({', '.join(columns)}) "
            f"SELECT {', '.join(columns.values())} FROM numbers({RUNS})"
        )
        key = "tenant_id, project_id, start_time, run_id, seq, present"
        await self._pipeline.command(
            f"INSERT INTO run_payloads ({key}, inputs, outputs) SELECT {key}, "
            "if(has(tags, 'rare'), '{\"q\": \"About quokkas\"}', '{\"q\": \"About dogs\"}'), '1' FROM runs "
            f"WHERE tenant_id = '{self.tenant_id}'"
        )
        await self._pipeline.command(
            "INSERT INTO feedback (tenant_id, run_id, feedback_id, seq, present, key, score) "
            f"SELECT tenant_id, run_id, run_id, seq, {EVERYTHING}, if(has(tags, 'rare'), 'stars', 'seen'), 1 "
            f"FROM runs WHERE tenant_id = '{self.tenant_id}' AND seq % 100 = 7"
        )
        await self._pipeline.merge_parts()

    async def explain(self, query: RunQuery) -> Explained:
        self._spy.statements.clear()
        assert (await self.store.list_runs(query)).runs
        plans = []
        for text, parameters in self._spy.statements:
            rows = await self._pipeline.query(f"EXPLAIN PLAN indexes = 1, actions = 1 {text}", **parameters)
            plans.append((text, "\n".join(str(row[0]) for row in rows)))
        return Explained(plans)

    async def explain_filter(self, **filters: str) -> Explained:
        """Of a question with filters, all the answers to which fit on a page."""
        conditions = {name: parse_condition(text, name) for name, text in filters.items()}
        return await self.explain(
            RunQuery(
                self.tenant_id,
                frozenset(),
                (self.project_id,),
                filter=conditions.get("filter"),
                trace_filter=conditions.get("trace_filter"),
                tree_filter=conditions.get("tree_filter"),
            )
        )

    async def some_run(self) -> str:
        query = RunQuery(self.tenant_id, frozenset(), project_ids=(self.project_id,), limit=1)
        return (await self.store.list_runs(query)).runs[0].position.run_id


@pytest.fixture(scope="module")
def table(run_store: ClickHouseRunStore, blobs: BlobStore) -> Table:
    table = Table(Pipeline(run_store, blobs), str(uuid.uuid4()))
    with asyncio.Runner() as runner:
        runner.run(table.fill())
    return table


@pytest.mark.parametrize("descending", [True, False])
async def test_newest_runs_are_read_in_key_order(table: Table, descending: bool) -> None:
    """One statement reads them in the order of the key, from either end, and stops where the page is full."""
    query = RunQuery(
        table.tenant_id, frozenset({RunField.NAME}), (table.project_id,), limit=99, descending=descending
    )
    [page] = (await table.explain(query)).of("runs")
    assert f"Read type: {'InReverseOrder' if descending else 'InOrder'}" in page
    assert "PrimaryKey" in page


async def test_newest_runs_are_found_again_without_a_look_at_older_ones(table: Table) -> None:
    """Whoever asks again prunes by how far back the newest rows reached the last time."""
    query = RunQuery(table.tenant_id, frozenset({RunField.NAME}), (table.project_id,), limit=98)
    await table.explain(query)
    assert (await table.explain(query)).largest_read("runs") <= 2


async def test_next_page_begins_where_the_last_ended(table: Table) -> None:
    """Deep in a walk the page prunes by the position, not only by the project."""
    query = RunQuery(table.tenant_id, frozenset(), (table.project_id,), limit=RUNS - 1_000)
    after = (await table.store.list_runs(query)).runs[-1].position
    page = (await table.explain(replace(query, limit=100, after=after))).of("runs")[-1]
    assert int(re.findall(r"Granules: (\d+)/", page)[-1]) <= 2


async def test_runs_by_id_prune_both_tables(table: Table) -> None:
    """A run is found in the key table by its id and in the runs table by its key: a granule or two each."""
    query = RunQuery(table.tenant_id, frozenset({RunField.NAME}), run_ids=(await table.some_run(),))
    plans = await table.explain(query)
    assert plans.largest_read("run_keys") <= 2
    assert plans.largest_read("runs") <= 2


async def test_trace_prunes_both_tables(table: Table) -> None:
    """A trace is bounded by its times, found by its id."""
    query = RunQuery(table.tenant_id, frozenset({RunField.NAME}), trace_id=await table.some_run())
    plans = await table.explain(query)
    assert plans.largest_read("trace_keys") <= 2
    assert plans.largest_read("runs") <= 2


async def test_payloads_are_read_for_the_page_alone(table: Table) -> None:
    """The payload table is pruned to the keys of the page."""
    query = RunQuery(table.tenant_id, frozenset({RunField.OUTPUTS}), (table.project_id,), limit=10)
    assert (await table.explain(query)).largest_read("run_payloads") <= 2


async def test_feedback_is_read_for_the_page_alone(table: Table, pipeline: Pipeline) -> None:
    """Statistics of a page's runs prune the table of feedback by its key, and read no column for nothing."""
    await pipeline.command(
        "INSERT INTO feedback (tenant_id, run_id, feedback_id, seq, present, key) "
        f"SELECT '{table.tenant_id}', generateUUIDv4(), generateUUIDv4(), number, 31, 'k' "
        f"FROM numbers({RUNS})"
    )
    await pipeline.command("OPTIMIZE TABLE feedback FINAL")
    fields = frozenset({RunField.FEEDBACK_STATS})
    plans = await table.explain(RunQuery(table.tenant_id, fields, (table.project_id,), limit=10))
    assert plans.largest_read("feedback") <= 10 * 2
    [plan] = plans.of("feedback")
    for column in ("correction", "source_metadata", "feedback_group_id"):
        assert column not in plan


@pytest.mark.parametrize(
    ("text", "where", "index", "granules"),
    [
        ('has(tags, "rare")', "runs", "by_tag", RARE),
        ('and(eq(metadata_key, "user"), eq(metadata_value, "u7"))', "runs", "by_metadata", RARE),
        ('has(metadata, \'{"user": "u7"}\')', "runs", "by_metadata", RARE),
        ('eq(metadata.user, "u7")', "runs", "by_metadata", RARE),
        ('eq(thread_id, "t77")', "runs", "by_thread", 3),
        ('search("quokka")', "run_payloads", "by_inputs_words", RARE),
        ('search("about quokkas")', "run_payloads", "by_inputs_words", RARE),
        ('like(inputs, "%kkas%")', "run_payloads", "by_inputs_words", RARE),
        (
            'and(eq(input_key, "q"), eq(input_value, "About quokkas"))',
            "run_payloads",
            "by_inputs_words",
            RARE,
        ),
    ],
)
async def test_rare_matches_are_found_by_their_index(
    table: Table, text: str, where: str, index: str, granules: int
) -> None:
    """The candidates are read through the index, and then these alone."""
    plans = await table.explain_filter(filter=text)
    assert plans.rows_read(where, index) <= granules + _SHARED
    assert plans.largest_read("runs", -1) <= RARE + _SHARED


async def test_rare_feedback_leads_to_its_runs(table: Table) -> None:
    """The runs of a feedback key are known before any is merged."""
    plans = await table.explain_filter(filter='and(eq(feedback_key, "stars"), gt(feedback_score, 0))')
    assert plans.statements == 3
    assert plans.largest_read("runs", -1) <= RARE + _SHARED


@pytest.mark.parametrize("name", ["trace_filter", "tree_filter"])
async def test_rare_traces_are_known_by_their_ids(table: Table, name: str) -> None:
    """Common runs in rare traces: the traces are found by the index on what makes them rare."""
    plans = await table.explain_filter(filter='eq(run_type, "llm")', **{name: 'has(tags, "rare")'})
    assert plans.rows_read("runs", "by_tag") <= RARE + _SHARED
    assert plans.largest_read("runs", -1) <= RARE + _SHARED


async def test_common_matches_end_with_the_first_window(table: Table) -> None:
    """What nearly every run meets is answered by the newest rows."""
    query = RunQuery(table.tenant_id, frozenset(), (table.project_id,), limit=100)
    query = replace(query, filter=parse_condition('and(has(tags, "eu"), eq(run_type, "llm"))'))
    plans = await table.explain(query)
    assert plans.largest_read("runs", -1) <= 3
