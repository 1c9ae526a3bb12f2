"""Asks cases in several processes, each with an engine of its own: chDB allows one folder per process."""

import asyncio
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import structlog
from tests.conformance.pipeline import Pipeline
from tests.conformance.random_cases import failures

from runstore.storage.blobs import open_blob_store
from runstore.storage.clickhouse.run_store import open_run_store

_CONTEXT = multiprocessing.get_context("spawn")


class Job(NamedTuple):
    """Cases of one corpus."""

    kind: str
    seed: int
    corpus: int
    indexes: range


class Answers(NamedTuple):
    """What a job has shown."""

    cases: int
    failures: list[str]
    cpu_s: float


def ask_with_workers(jobs: Sequence[Job], workers: int) -> Iterator[Answers]:
    """The answers of each job, as they come."""
    with tempfile.TemporaryDirectory() as folder, _CONTEXT.Pool(workers, _Worker.start, (folder,)) as pool:
        yield from pool.imap_unordered(_Worker.work, jobs)


class _Worker:
    """One process; it ends with its pool, which takes no leave of the engine."""

    _runner: asyncio.Runner
    _stack: AsyncExitStack
    _pipeline: Pipeline

    @classmethod
    def start(cls, folder: str) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
        cls._runner = asyncio.Runner()
        cls._stack = AsyncExitStack()
        cls._pipeline = cls._runner.run(cls._open(f"{folder}/{os.getpid()}"))

    @classmethod
    def work(cls, job: Job) -> Answers:
        started_s = time.process_time()
        found = cls._runner.run(cls._ask(job))
        return Answers(len(job.indexes), found, time.process_time() - started_s)

    @classmethod
    async def _ask(cls, job: Job) -> list[str]:
        asked = failures(cls._pipeline, job.seed, job.corpus, job.indexes, job.kind)
        return [failure async for failure in asked]

    @classmethod
    async def _open(cls, folder: str) -> Pipeline:
        store = await cls._stack.enter_async_context(open_run_store(f"chdb://{folder}/engine"))
        return Pipeline(store, open_blob_store(f"{folder}/blobs"))
