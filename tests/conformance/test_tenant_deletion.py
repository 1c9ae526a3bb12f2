"""Everything of a tenant goes from every table of the engine, and from the blobs; another's stays."""

import pytest

from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.runs import Attachment
from runstore.ingest.unused_blobs import UnusedBlobs
from runstore.runtime.clock import SystemClock
from runstore.storage.clickhouse.tenants import TABLES
from runstore.storage.run_store import StoreUnavailable

from .pipeline import LARGEST_ATTACHMENT, LARGEST_PAYLOAD, Pipeline
from .test_operations import Sender, new_id

pytestmark = pytest.mark.engine


async def tables(pipeline: Pipeline) -> set[str]:
    """Names of the tables whose rows say their tenant, as the engine has them."""
    rows = await pipeline.query(
        "SELECT DISTINCT replaceRegexpOne(table, '_local$', '') FROM system.columns WHERE name = 'tenant_id' "
        "AND database = currentDatabase() AND table NOT IN (SELECT name FROM system.tables "
        "WHERE database = currentDatabase() AND engine = 'MaterializedView')"
    )
    return {name for (name,) in rows}


async def rows_of(pipeline: Pipeline, tenant_id: str) -> dict[str, int]:
    """Rows of a tenant in every table, as merged as they will ever be."""
    counts = {}
    for table in await tables(pipeline):
        [(counts[table],)] = await pipeline.query(
            f"SELECT count() FROM {table} FINAL WHERE tenant_id = {{tenant:UUID}}", tenant=tenant_id
        )
    return counts


async def blobs_of(pipeline: Pipeline, tenant_id: str) -> list[str]:
    """Keys of a tenant's blobs, and of notes about them."""
    return [
        key for folder in (tenant_id, f"notes/{tenant_id}") async for key, _ in pipeline.blobs.list(folder)
    ]


async def fill(pipeline: Pipeline, unused: UnusedBlobs, tenant_id: str) -> None:
    """Give a tenant something in every table, and blobs."""
    root, orphan = Sender(tenant_id), Sender(tenant_id)
    child, gone = Sender(tenant_id, parent=root), Sender(tenant_id, parent=root)
    files = {
        "small": Attachment("a/b", b"x"),
        "large": Attachment("a/b", b"x" * (LARGEST_ATTACHMENT + 1)),
    }
    large = b'{"a":"' + b"x" * LARGEST_PAYLOAD + b'"}'
    await pipeline.flush([root.create(inputs=large, attachments=files), child.create(), gone.create()])
    await pipeline.flush([orphan.bare_update(outputs=b"1")])
    await pipeline.store.bury([child.update(outputs=b"1")], "refused")
    judged = FeedbackPatch(tenant_id, new_id(), root.run_id, FeedbackAction.CREATE, sequence=1, key="k")
    await pipeline.store.append_feedback([judged])
    await pipeline.delete(tenant_id, run_ids=(gone.run_id,))
    await unused.suspect(tenant_id, ["a key"])


async def test_nothing_of_a_tenant_is_left(pipeline: Pipeline, tenant_id: str) -> None:
    """In whatever table the engine has; again after a replay; blobs stay while a backup copies them."""
    assert await tables(pipeline) == set(TABLES)
    unused = UnusedBlobs(pipeline.blobs, pipeline.store, None, SystemClock())  # type: ignore[arg-type]  # no sweep
    other_id = new_id()
    for each in (tenant_id, other_id):
        await fill(pipeline, unused, each)
        assert min((await rows_of(pipeline, each)).values()) > 0
        assert len(await blobs_of(pipeline, each)) == 3
    before = await rows_of(pipeline, other_id), await blobs_of(pipeline, other_id)
    total = sum((await rows_of(pipeline, tenant_id)).values())
    assert await pipeline.store.tenants.purge(tenant_id) >= total
    await pipeline.replay(
        [each for each in pipeline.operations if each.tenant_id == tenant_id], flush_size=10
    )
    assert await pipeline.store.tenants.purge(tenant_id) > 0
    assert set((await rows_of(pipeline, tenant_id)).values()) == {0}
    assert await pipeline.store.tenants.purge(tenant_id) == 0
    async with unused.held():
        with pytest.raises(StoreUnavailable, match="backup"):
            await unused.delete_tenant(tenant_id)
    assert await unused.delete_tenant(tenant_id) == 2
    assert await blobs_of(pipeline, tenant_id) == []
    assert (await rows_of(pipeline, other_id), await blobs_of(pipeline, other_id)) == before
    for table in ("dead_letters", "deleted_runs"):  # Which other tests see of all tenants.
        await pipeline.command(f"DELETE FROM {table} WHERE tenant_id = '{other_id}'")
