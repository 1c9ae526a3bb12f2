"""What holds for every test: how it logs, where it runs, its patience, the PostgreSQL that it may ask for.

Warnings and worse are logged as plain lines, to standard error: structlog's own default draws a traceback
with the variables of every frame, which takes seconds where a flush is in one of them.
"""

import sys
from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import pytest
import structlog
from structlog.typing import EventDict, WrappedLogger

from .postgres import Postgres, running_postgres


def _worse_than_info(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Drop what only tests of logging look at; they put processors of their own in place."""
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


# A busy machine is no reason to fail.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
# Nor is it for httpx, whose calls give up after five seconds unless told otherwise.
httpx._config.DEFAULT_TIMEOUT_CONFIG.connect = httpx._config.DEFAULT_TIMEOUT_CONFIG.read = 60.0

structlog.configure(
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    processors=[
        _worse_than_info,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ],
)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all tests of a process that ask for it."""
    with running_postgres() as server:
        yield server


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """`--dist loadfile`, but one process has the tests on PostgreSQL of all files, and one those of agents:
    what these need is started once."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class OneOfEach(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            if "[" in nodeid and "postgresql" in nodeid.rpartition("[")[2]:
                return "postgresql"
            return "agents" if nodeid.startswith("tests/agents/") else super()._split_scope(nodeid)

    return OneOfEach(config, log)
