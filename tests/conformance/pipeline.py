"""Drives ingest on the real engine: operations in, flush by flush, with restarts in between."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from runstore.domain.deletions import PurgeStep, RunDeletion
from runstore.domain.prices import PriceBook
from runstore.domain.retention import TraceKeep
from runstore.domain.runs import RunField, RunMove, RunPatch, RunQuery, RunRow, StoredRun
from runstore.ingest.flusher import Flusher, FlushReport
from runstore.ingest.offload import Offload
from runstore.ingest.placement import Placer
from runstore.ingest.validation import validate
from runstore.storage.blobs import BlobStore
from runstore.storage.clickhouse.run_store import ClickHouseRunStore
from runstore.storage.run_store import Block, DeletionStore

PRICES = PriceBook()
LARGEST_PAYLOAD, LARGEST_ATTACHMENT = 20_000, 1_000
"""Bytes above which payloads and files become blobs here."""
FIRST_SEQUENCE = 1_760_000_000_000_000 << 12
TABLES = (
    "runs",
    "run_payloads",
    "run_attachments",
    "run_keys",
    "trace_keys",
    "model_prices",
    "parked_operations",
    "deleted_runs",
)
DERIVED_ELSEWHERE = frozenset(
    {
        RunField.REFERENCE_DATASET_ID,
        RunField.THREAD_EVALUATION_TIME,
        RunField.IS_IN_DATASET,
        RunField.LAST_QUEUED_AT,
        RunField.SHARE_URL,
        RunField.TRACE_TIER,
    }
)
"""Fields that nothing fills yet: they need datasets, queues and shares."""
ALL_FIELDS = frozenset(RunField)


@dataclass(frozen=True, slots=True)
class Appended:
    """One call of `RunStore.append`."""

    rows: tuple[RunRow, ...]
    moves: tuple[RunMove, ...]


class _Recorder:
    """A store that remembers what was appended to it."""

    def __init__(self, store: ClickHouseRunStore, blocks: list[Appended]) -> None:
        self._store = store
        self._blocks = blocks
        self._rows: tuple[RunRow, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def block(self, rows: Sequence[RunRow], /) -> Block:
        self._rows = tuple(rows)
        return self._store.block(rows)

    async def append(self, block: Block, moves: Sequence[RunMove], /) -> None:
        self._blocks.append(Appended(self._rows, tuple(moves)))
        await self._store.append(block, moves)


class _Deletions:
    """Those of the tenants of one test: purging what others have left takes seconds."""

    def __init__(self, store: DeletionStore, tenants: Collection[str]) -> None:
        self._store = store
        self._tenants = tenants

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def purge_steps(self) -> list[PurgeStep]:
        return [step for step in await self._store.purge_steps() if step.tenant_id in self._tenants]


class Pipeline:
    """Validation, sequence numbers, placement and flushing over one store."""

    def __init__(self, store: ClickHouseRunStore, blobs: BlobStore) -> None:
        self.store = store
        self.blobs = blobs
        self.blocks: list[Appended] = []
        self.operations: list[RunPatch] = []
        """Everything accepted, as the log would have it."""
        self.flush_starts: list[int] = []
        """Where in `operations` each flush began: checkpoints of the log, and so starts of a replay."""
        self._recorder: Any = _Recorder(store, self.blocks)
        self._flusher: Flusher | None = None
        self._next = FIRST_SEQUENCE
        self._tenants: set[str] = set()
        self.deletions: Any = _Deletions(store.deletions, self._tenants)
        """To purge: those of the tenants that have sent anything here."""

    async def flush(self, patches: Iterable[RunPatch]) -> None:
        """Accept the operations in this order and store them in one flush."""
        accepted = []
        for patch in patches:
            copy = msgspec.structs.replace(patch, sequence=self._next)
            self._next += 1
            validate(copy)
            accepted.append(copy)
        self.flush_starts.append(len(self.operations))
        self.operations += [msgspec.structs.replace(patch) for patch in accepted]
        await self._store(accepted)

    @property
    def last_sequence(self) -> int:
        """Of the last operation that was accepted."""
        return self._next - 1

    async def replay(self, operations: Sequence[RunPatch], *, flush_size: int) -> None:
        """Store operations again as a restart does, in flushes of another size."""
        await self.restart()
        for start in range(0, len(operations), flush_size):
            await self._store(
                [msgspec.structs.replace(patch) for patch in operations[start : start + flush_size]]
            )

    async def _store(self, patches: list[RunPatch]) -> None:
        if not patches:
            return
        self._tenants.update(patch.tenant_id for patch in patches)
        flusher = await self._open_flusher()
        report = FlushReport(patches[-1].sequence, len(patches))
        await flusher.insert(await flusher.prepare(patches, report))

    async def _open_flusher(self) -> Flusher:
        if self._flusher is None:
            self._flusher = Flusher(
                self._recorder,
                Placer(self._recorder, await self.store.moved_runs()),
                PRICES,
                dict(await self.store.awaited_runs()),
                Offload(self.blobs, payload_bytes=LARGEST_PAYLOAD, attachment_bytes=LARGEST_ATTACHMENT),
                self.purge,
            )
        return self._flusher

    async def delete(self, tenant_id: str, **what: Any) -> RunDeletion:
        """Accept and carry out a deletion."""
        self._tenants.add(tenant_id)
        deletion = RunDeletion(tenant_id, self._next, **what)
        self._next += 1
        await (await self._open_flusher()).delete(deletion)
        return deletion

    async def keep(self, tenant_id: str, **what: Any) -> None:
        """Accept and carry out that traces are kept."""
        keep = TraceKeep(tenant_id, self._next, **what)
        self._next += 1
        await (await self._open_flusher()).keep(keep)

    async def purge(self) -> None:
        """Remove deleted runs from all tables."""
        for step in await self.deletions.purge_steps():
            await self.deletions.purge(step)
            await self.deletions.forget_deletions(step)

    async def restart(self) -> None:
        """Forget everything that is only in memory."""
        self._flusher = None

    async def append_again(self) -> None:
        """Repeat every block, as a retry after a lost answer does."""
        for block in list(self.blocks):
            await self.store.append(self.store.block(block.rows), block.moves)

    async def merge_parts(self) -> None:
        """Force the engine to merge all parts of every table."""
        for table in TABLES:
            await self.command(f"OPTIMIZE TABLE {table} FINAL SETTINGS optimize_skip_merged_partitions = 1")

    async def command(self, text: str) -> None:
        await self.store._engine.write(lambda client: client.command(text))

    async def query(self, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = await self.store._engine.read(
            lambda client: client.query(text, parameters=parameters).result_rows
        )
        return found

    async def list(self, query: RunQuery) -> list[StoredRun]:
        """Every run of a query, page by page."""
        runs: list[StoredRun] = []
        after = query.after
        while True:
            page = await self.store.list_runs(replace(query, after=after))
            runs += page.runs
            if not page.has_more:
                return runs
            assert page.runs, "an empty page with more to come"
            after = page.runs[-1].position

    async def runs(
        self, tenant_id: str, project_ids: Collection[str], fields: frozenset[RunField] = ALL_FIELDS
    ) -> dict[str, dict[RunField, Any]]:
        """Every run of some projects by its id; asserts that none is listed twice."""
        found = await self.list(RunQuery(tenant_id, fields, project_ids=tuple(project_ids), limit=1_000))
        by_id = {run.position.run_id: dict(run.values) for run in found}
        assert len(by_id) == len(found)
        return by_id

    async def run(self, tenant_id: str, run_id: str) -> dict[RunField, Any]:
        """One run by its id."""
        [run] = await self.list(RunQuery(tenant_id, ALL_FIELDS, run_ids=(run_id,)))
        return dict(run.values)
