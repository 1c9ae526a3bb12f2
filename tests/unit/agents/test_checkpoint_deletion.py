"""Checkpoints of threads are deleted without a worker, in both kinds of databases."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from tests.postgres import Postgres

from runstore.agents.checkpoint_deletion import delete_checkpoints
from runstore.agents.checkpoints import Checkpoints, WriteKey, open_checkpoints

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/checkpoints.sqlite"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.create_database()


async def write(checkpoints: Checkpoints, thread_id: str) -> "RunnableConfig":
    """Give a thread a checkpoint with a write, and the note of it; where it is."""
    config: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    checkpoint = {**empty_checkpoint(), "channel_values": {"a": "x"}, "channel_versions": {"a": "1"}}
    stored = await checkpoints.saver.aput(config, checkpoint, {}, {"a": "1"})  # type: ignore[arg-type]  # as graphs do
    await checkpoints.saver.aput_writes(stored, [("a", "y")], "task")
    checkpoint_id = stored["configurable"]["checkpoint_id"]
    await checkpoints.note_writes(thread_id, "run", [WriteKey("", checkpoint_id, "task", 0)])
    return config


async def test_threads_that_are_named_lose_all(location: str) -> None:
    """Others keep everything; where there is no database, or nothing left, nothing happens."""
    await delete_checkpoints(location, ["gone"])
    async with open_checkpoints(location) as checkpoints:
        gone, kept = await write(checkpoints, "gone"), await write(checkpoints, "kept")
        for _ in range(2):
            await delete_checkpoints(location, ["gone", "unknown"])
        assert await checkpoints.saver.aget_tuple(gone) is None
        found = await checkpoints.saver.aget_tuple(kept)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"a": "x"}
        assert [value for _, _, value in found.pending_writes or ()] == ["y"]


async def test_database_that_does_not_answer(tmp_path: Path) -> None:
    """Says so, and is asked again later."""
    (tmp_path / "checkpoints.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(OSError, match=r"checkpoints\.sqlite"):
        await delete_checkpoints(f"sqlite:///{tmp_path}/checkpoints.sqlite", ["gone"])
