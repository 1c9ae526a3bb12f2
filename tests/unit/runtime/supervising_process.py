"""A supervisor of two fake children as a process of its own, for tests that kill it.

Usage: supervising_process.py JOURNAL
"""

import asyncio
import os
import sys
from pathlib import Path

from runstore.runtime.child import Backoff, Child, ChildSpec
from runstore.runtime.clock import SystemClock
from runstore.runtime.logging import configure_logging
from runstore.runtime.supervisor import Supervisor

_FAKE = str(Path(__file__).with_name("fake_child.py"))


def _child(name: str) -> Child:
    spec = ChildSpec(name, (sys.executable, _FAKE, name, sys.argv[1], "serves"), os.environ)
    return Child(spec, SystemClock(), Backoff())


async def _main() -> None:
    supervisor = Supervisor(_child("store"), [_child("gateway")], drain_timeout_s=60)
    await supervisor.run(
        stop=asyncio.Event(), force=asyncio.Event(), on_ready=lambda: print("ready", flush=True)
    )


configure_logging(process="supervisor", level="error", log_format="json")
asyncio.run(_main())
