"""A supervised process for tests: appends what happens to a journal, misbehaves on request.

Usage: fake_child.py NAME JOURNAL [BEHAVIOUR] --supervisor-fd N
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from runstore.runtime.logging import configure_logging
from runstore.runtime.process import run_process

_name, _journal, _behaviour = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
_supervisor_fd = int(sys.argv[sys.argv.index("--supervisor-fd") + 1])


def _note(what: str) -> None:
    # One short append is atomic, so several children may share the journal.
    with _journal.open("a") as journal:
        journal.write(f"{_name} {what} {os.getpid()}\n")


async def _body(*, ready: Callable[[], None], stop: asyncio.Event) -> None:
    _note("started")
    if _behaviour == "fails-at-start":
        sys.exit(3)
    ready()
    await stop.wait()
    _note("draining")
    if _behaviour == "never-drains":
        await asyncio.Event().wait()
    _note("drained")


configure_logging(process=_name, level="error", log_format="json")
run_process(_body, drain_timeout_s=60, supervisor_fd=_supervisor_fd)
