"""The store process dies at random moments of a load: nothing acknowledged is lost or doubled."""

import asyncio
import random
import signal
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.waiting import LONGEST_WAIT_S

from runstore.v1 import run_ingest_service_pb2 as ingest
from runstore.v1 import run_ingest_service_pb2_grpc as ingest_grpc
from runstore.v1 import run_pb2
from runstore.v1 import run_query_service_pb2 as query
from runstore.v1 import run_query_service_pb2_grpc as query_grpc

from .store_process import Store

pytestmark = pytest.mark.engine

ROUNDS = 2
RUNS_IN_A_BATCH = 10
IN_FLIGHT = 4
UNDER_WAY = 4
"""Replies of a load, half of them to updates, before its end is set going."""
PROJECT = "load"


class Ledger:
    """What was sent and what of it was acknowledged."""

    def __init__(self) -> None:
        self.sent: dict[str, list[str]] = {}
        """Run ids by batch."""
        self.created: set[str] = set()
        """Runs whose create was acknowledged."""
        self.updated: set[str] = set()
        self._batches = 0

    def creates(self) -> ingest.StreamRunsRequest:
        ids = [str(uuid.uuid4()) for _ in range(RUNS_IN_A_BATCH)]
        start = Timestamp(seconds=1_795_000_000 + self._batches)
        fields = [
            ingest.RunFields(
                id=run_id, name=run_id, run_type=run_pb2.RUN_TYPE_LLM, project_name=PROJECT, start_time=start,
                inputs=b'{"text":"%s"}' % (b"x" * 200),
            )
            for run_id in ids
        ]  # fmt: skip
        return self._batch("create", ids, [ingest.RunOperation(create=each) for each in fields])

    def updates(self, ids: list[str]) -> ingest.StreamRunsRequest:
        fields = [ingest.RunFields(id=run_id, outputs=b'"%s"' % run_id.encode()) for run_id in ids]
        return self._batch("update", ids, [ingest.RunOperation(update=each) for each in fields])

    def _batch(
        self, kind: str, ids: list[str], operations: list[ingest.RunOperation]
    ) -> ingest.StreamRunsRequest:
        batch_id = f"{kind} {self._batches}"
        self._batches += 1
        self.sent[batch_id] = ids
        return ingest.StreamRunsRequest(batch_id=batch_id, operations=operations)

    def acknowledge(self, reply: ingest.StreamRunsResponse) -> None:
        assert not reply.errors
        known = self.created if reply.batch_id.startswith("create") else self.updated
        known.update(self.sent[reply.batch_id])


async def load(address: str, ledger: Ledger, end: threading.Timer) -> None:
    """Stream creates, and bare updates of them, until the store is gone. `end` is started on the way."""
    replies = 0
    # A few batches on their way at a time: what is read back at the end would take too long otherwise.
    room = asyncio.Semaphore(IN_FLIGHT)

    async def requests() -> AsyncIterator[ingest.StreamRunsRequest]:
        while True:
            await room.acquire()
            created = ledger.creates()
            yield created
            await room.acquire()
            yield ledger.updates(ledger.sent[created.batch_id])

    async with grpc.aio.insecure_channel(address) as channel:
        stub = ingest_grpc.RunIngestServiceStub(channel)
        # However the client notices that nobody is there.
        with suppress(grpc.aio.AioRpcError):
            async for reply in stub.StreamRuns(requests()):
                ledger.acknowledge(reply)
                replies += 1
                if replies == UNDER_WAY:
                    end.start()
                room.release()
    assert replies >= UNDER_WAY


def stored(address: str, ledger: Ledger) -> dict[str, bytes]:
    """Outputs of every run by its id, read page by page through ids."""
    found: dict[str, bytes] = {}
    wanted = sorted({run_id for ids in ledger.sent.values() for run_id in ids})
    with grpc.insecure_channel(address) as channel:
        stub = query_grpc.RunQueryServiceStub(channel)
        for start in range(0, len(wanted), 5_000):
            request = query.ListRunsRequest(
                ids=wanted[start : start + 5_000],
                fields=[run_pb2.RUN_FIELD_ID, run_pb2.RUN_FIELD_NAME, run_pb2.RUN_FIELD_OUTPUTS],
                page_size=1_000,
            )
            while True:
                page = stub.ListRuns(request)
                for run in page.runs:
                    assert run.id not in found
                    assert run.name == run.id
                    found[run.id] = run.outputs
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
    return found


def assert_kept(address: str, ledger: Ledger) -> None:
    """Every acknowledged operation is there, and no run twice."""
    found = stored(address, ledger)
    assert ledger.created <= found.keys()
    assert {run_id for run_id in ledger.updated if found[run_id] != b'"%s"' % run_id.encode()} == set()


async def test_store_dies_during_a_load(tmp_path: Path) -> None:
    """After each of several `kill -9` at random moments, all that was acknowledged is listed once. SIGTERM in
    the middle of flushes drains: the process ends well and its log has nothing to replay."""
    chance = random.Random(11)
    # Half of it goes to the open stream, the other half is for the last flush, however slow the machine.
    store, ledger = Store(tmp_path, drain_timeout_s="8"), Ledger()
    for _ in range(ROUNDS):
        with store.running() as process:
            await asyncio.to_thread(assert_kept, store.address, ledger)
            killer = threading.Timer(chance.uniform(0.05, 1.2), process.kill)
            await load(store.address, ledger, killer)
            killer.join()
    assert len(ledger.updated) > RUNS_IN_A_BATCH * ROUNDS
    with store.running() as process:
        await asyncio.to_thread(assert_kept, store.address, ledger)
        await load(store.address, ledger, threading.Timer(0.6, process.send_signal, [signal.SIGTERM]))
        assert await asyncio.to_thread(process.wait, LONGEST_WAIT_S) == 0
    before = len(store.output)
    with store.running():
        await asyncio.to_thread(assert_kept, store.address, ledger)
    assert "log_replay" not in store.output[before:]
