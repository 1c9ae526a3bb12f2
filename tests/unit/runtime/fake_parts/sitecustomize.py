"""Python imports this at its start when its folder is on PYTHONPATH: puts fakes where the real parts are.

The fake store writes its pid into the data directory; the fake gateway answers every HTTP request
with its own pid.
"""

import asyncio
import os
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any


async def run_store(settings: Any, *, ready: Callable[[], None], stop: asyncio.Event) -> None:
    (Path(settings.data_dir) / "pids").open("a").write(f"{os.getpid()}\n")
    ready()
    await stop.wait()


async def run_gateway(
    settings: Any, *, listen_fd: int, ready: Callable[[], None], stop: asyncio.Event, metrics: Any
) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.0 200 OK\r\n\r\n{os.getpid()}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, sock=socket.socket(fileno=listen_fd))
    async with server:
        ready()
        await stop.wait()


async def migrate(settings: Any) -> None:
    (Path(settings.data_dir) / "migrated").touch()


for _name, _parts in {"store": (run_store, migrate), "gateway": (run_gateway,)}.items():
    _module = types.ModuleType(f"runstore.runtime.{_name}")
    for _part in _parts:
        setattr(_module, _part.__name__, _part)
    sys.modules[_module.__name__] = _module
