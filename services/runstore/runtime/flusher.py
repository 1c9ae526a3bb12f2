"""The flusher process, put together: the log's reader, placing and deriving, and the link to the store."""

import asyncio
import signal
import socket

from runstore.domain.prices import PriceBook
from runstore.ingest.flusher import Flusher, persistently
from runstore.ingest.link import FlusherEnd
from runstore.ingest.log import LogReader
from runstore.ingest.offload import Offload
from runstore.ingest.placement import Placer
from runstore.ingest.tail import Demand, FlushLimits, Tail
from runstore.runtime.process import spare_the_collector
from runstore.runtime.settings import Settings
from runstore.storage.blobs import open_blob_store
from runstore.storage.clickhouse.blocks import BlockBuilder


async def run_flusher(settings: Settings, store: socket.socket) -> None:
    """Store what the log holds until the store process wants no more of it, or is gone."""
    # It ends when its store does, and stores everything first if the store has the time.
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    link = await FlusherEnd.open(store, BlockBuilder(settings.block_dir))
    demand = Demand()
    following = asyncio.create_task(link.follow(demand))
    tailing = asyncio.create_task(_tail(settings, link, demand))
    done, pending = await asyncio.wait((following, tailing), return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()


async def _tail(settings: Settings, link: FlusherEnd, demand: Demand) -> None:
    flusher = Flusher(
        link,
        Placer(link, await persistently(link.retrying, link.moved_runs)),
        PriceBook(),
        await persistently(link.retrying, link.awaited_runs),
        Offload(
            open_blob_store(settings.blob_location, endpoint=settings.blob_endpoint),
            payload_bytes=settings.inline_payload_bytes,
            attachment_bytes=settings.inline_attachment_bytes,
        ),
        link.purge_deleted,
        link.retrying,
        is_shared=settings.is_shared,
    )
    limits = FlushLimits(settings.flush_interval_ms, settings.flush_max_runs, settings.flush_max_bytes)
    spare_the_collector()
    await Tail(LogReader(settings.log_dir), demand, flusher, limits, link.stored).run()
