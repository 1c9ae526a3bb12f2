"""What holds for every test: how it logs, where it runs, its patience, the PostgreSQL that it may ask for.

Warnings and worse are logged as plain lines, to standard error: structlog's own default draws a traceback
with the variables of every frame, which takes seconds where a flush is in one of them.
"""

import functools
import gc
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
import pytest
import structlog
from structlog.typing import EventDict, WrappedLogger

from . import data_folder
from .postgres import Postgres, running_postgres


def _worse_than_info(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Drop what only tests of logging look at; they put processors of their own in place."""
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


# Thousands of tests, and what they import, stay to the end: walking them time and again finds no garbage.
gc.set_threshold(100_000, 20, 50)
# A busy machine is no reason to fail.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")
# Nor is it for httpx, whose calls give up after five seconds unless told otherwise.
for _phase in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _phase, 60.0)
# Each of its clients, and each call without one, would read the certificates of all authorities anew: 30 ms.
httpx._transports.default.create_ssl_context = functools.cache(  # type: ignore[attr-defined]  # imported there
    httpx.create_ssl_context
)

structlog.configure(
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    processors=[
        _worse_than_info,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ],
)


@pytest.fixture(scope="session", autouse=True)
def _prepared_data(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Servers copy the tables that the first one of them has made."""
    data_folder.keep_in(pytestconfig, tmp_path_factory)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all tests of a process that ask for it."""
    with running_postgres() as server:
        yield server


def pytest_collection_finish() -> None:
    """See above."""
    gc.collect()
    gc.freeze()


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
