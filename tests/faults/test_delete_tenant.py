"""The store dies while a tenant is being deleted: its successors end what was begun, and nothing is left."""

import asyncio
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import func, select
from tests.contract.servers import run_command
from tests.engine_front.front import engine_front

from runstore.catalog import open_catalog
from runstore.catalog.tenant_deletions import OWNED, belonging
from runstore.storage.clickhouse.run_store import ClickHouseRunStore, open_run_store
from runstore.storage.clickhouse.tenants import TABLES
from runstore.v1 import admin_service_pb2 as admin
from runstore.v1 import admin_service_pb2_grpc as admin_grpc
from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_pb2

from .store_process import Store

pytestmark = [pytest.mark.engine, pytest.mark.slow]

RUNS = 300
PAYLOAD = b'{"text": "%s"}' % (b"x" * 3_000_000)
LONGEST_PURGE_S = 180.0


def keys(store: Store, *arguments: str) -> str:
    """What `runstore keys …` prints."""
    return run_command("keys", *arguments, environment=store.environment).stdout.strip()


def write(channel: grpc.Channel, key: str) -> None:
    """Many runs, one of which has a blob."""
    fields = [
        ingest.RunFields(
            id=str(uuid.uuid4()), name="n", run_type=run_pb2.RUN_TYPE_LLM, project_name="p",
            inputs=PAYLOAD if number == 0 else b"{}",
        )
        for number in range(RUNS)
    ]  # fmt: skip
    request = ingest.WriteRunsRequest(operations=[ingest.RunOperation(create=each) for each in fields])
    stub = ingest_grpc.RunIngestServiceStub(channel)
    assert not stub.WriteRuns(request, metadata=(("x-api-key", key),), timeout=60).errors


async def rows_of(runs: ClickHouseRunStore, table: str, tenant_id: str) -> int:
    """Rows that a replay has inserted again count once, merged or not."""

    def count(client: Any) -> int:
        text = f"SELECT count() FROM {table} FINAL WHERE tenant_id = {{tenant:UUID}}"
        return int(client.query(text, parameters={"tenant": tenant_id}).result_rows[0][0])

    return await runs._engine.read(count)


async def left(store: Store, dsn: str, tenant_id: str) -> dict[str, int]:
    """Rows of a tenant, by table of catalog and engine, and its blobs."""
    counts = {}
    folder = Path(store.environment["RUNSTORE_DATA_DIR"])
    location = f"sqlite:///{folder / 'catalog.sqlite'}"
    async with open_catalog(location) as catalog, catalog._database.read() as connection:
        for table in OWNED:
            is_theirs = belonging(table, tenant_id)
            assert is_theirs is not None
            query = select(func.count()).select_from(table).where(is_theirs)
            counts[table.name] = (await connection.execute(query)).scalar_one()
    async with open_run_store(dsn) as runs:
        for table in TABLES:
            counts[table] = await rows_of(runs, table, tenant_id)
    counts["blobs"] = sum(path.is_file() for path in (folder / "blobs").rglob(f"{tenant_id}/**/*"))
    return {name: count for name, count in counts.items() if count}


def test_killed_while_a_tenant_is_deleted(tmp_path: Path) -> None:
    """Right after the answer, and again during the purge; another tenant keeps everything."""
    with engine_front(tmp_path / "engine") as front:
        store = Store(tmp_path, auth="keys", clickhouse_dsn=front.dsn)
        with store.running() as process, grpc.insecure_channel(store.address) as channel:
            doomed, kept = (keys(store, "create", "--name", "k", "--tenant", each) for each in "ab")
            as_operator = (("authorization", f"Bearer {keys(store, 'operator')}"),)
            for key in (doomed, kept):
                write(channel, key)
            stub = admin_grpc.AdminServiceStub(channel)
            tenants = stub.ListTenants(admin.ListTenantsRequest(), metadata=as_operator).tenants
            ids = {tenant.name: tenant.id for tenant in tenants}
            request = admin.DeleteTenantRequest(tenant_id=ids["a"], name="a")
            stub.DeleteTenant(request, metadata=as_operator)
            process.kill()
            process.wait()
        is_over = False
        give_up_at = time.monotonic() + LONGEST_PURGE_S
        for is_last in (False, True):
            with store.running() as process, grpc.insecure_channel(store.address) as channel:
                with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                    write(channel, doomed)
                stub = admin_grpc.AdminServiceStub(channel)
                while not is_over and time.monotonic() < give_up_at:
                    status = stub.GetStatus(admin.GetStatusRequest(), metadata=as_operator)
                    is_over = not status.tenant_deletions
                    if not is_last and (is_over or status.tenant_deletions[0].removed_rows):
                        break
                    time.sleep(0.2)
                process.kill()
                process.wait()
        assert is_over, store.output
        assert asyncio.run(left(store, front.dsn, ids["a"])) == {}
        others = asyncio.run(left(store, front.dsn, ids["b"]))
        assert others["runs"] == RUNS
        assert others["blobs"] == 1
