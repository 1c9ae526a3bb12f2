"""How workers of this machine are: each says so at a socket in the data directory, for `runstore health`.

A worker serves nobody, and what watches containers can only run a command in them.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import structlog

_SUFFIX = ".sock"
_PATIENCE_S = 5.0
_CHUNK_BYTES = 4_096

_log = structlog.get_logger(__name__)


class WorkerHealth(msgspec.Struct, frozen=True):
    """What a worker says of itself."""

    pid: int
    is_connected: bool
    """To a store, which gives it runs."""
    do_graphs_answer: bool
    """Whether the event loop of its graphs is free: it may be held up by code that does not await."""
    runs: int
    """Under way."""
    slots: int


@asynccontextmanager
async def health_shown(
    folder: Path | None, read: Callable[[], Awaitable[WorkerHealth]]
) -> AsyncIterator[None]:
    """Answers at a socket in `folder`, made when missing, what `read` says. Does nothing without a folder, or
    in one that cannot be written to."""
    listener = None if folder is None else _listener(folder)
    if listener is None:
        yield
        return

    async def show(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(msgspec.json.encode(await read()))
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    path = listener.getsockname()
    try:
        async with await asyncio.start_unix_server(show, sock=listener):
            yield
    finally:
        _forget(Path(path))


def _listener(folder: Path) -> socket.socket | None:
    path = folder / f"{os.getpid()}{_SUFFIX}"
    listener = socket.socket(socket.AF_UNIX)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Of a container before this one, whose processes had the same numbers.
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        _log.warning("worker_health_not_shown", folder=str(folder), error=error.strerror)
        listener.close()
        return None
    return listener


def _forget(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def ask_workers(folder: Path) -> dict[int, WorkerHealth | None]:
    """What the workers of this machine say, by process; None for one that does not answer in five seconds.

    One that was killed is left out: nobody listens at its socket any more.
    """
    found: dict[int, WorkerHealth | None] = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            found[int(path.stem)] = _ask(path)
        except (ConnectionRefusedError, FileNotFoundError):
            _forget(path)
        except (OSError, msgspec.DecodeError):  # Also one whose queue is full of those who asked before.
            found[int(path.stem)] = None
    return found


def _ask(path: Path) -> WorkerHealth:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE_S)
        connection.connect(str(path))
        answer = b"".join(iter(lambda: connection.recv(_CHUNK_BYTES), b""))
    return msgspec.json.decode(answer, type=WorkerHealth)
