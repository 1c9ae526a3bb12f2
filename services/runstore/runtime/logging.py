"""Structured logs on standard error: for people on a terminal, one JSON object per line otherwise.

Libraries that use the standard `logging` module (uvicorn, grpc, alembic, sqlalchemy) go the same
way. Bodies, keys and SQL parameters are never logged: no local variables in tracebacks, no
statement logs.
"""

import logging
import sys
from typing import Any, Literal, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, Processor

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# Loggers whose lower levels repeat what runstore logs itself, or print what callers sent.
_QUIET_LOGGERS = ("uvicorn.access", "sqlalchemy", "alembic", "aiosqlite", "grpc", "asyncio")


def configure_logging(
    *,
    process: str,
    level: Literal["debug", "info", "warning", "error"],
    log_format: Literal["auto", "console", "json"],
    stream: TextIO | None = None,
) -> None:
    """Sets up structlog and the standard library for this process; each line carries `process`."""
    output = stream or sys.stderr
    console = log_format == "console" or (log_format == "auto" and output.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _adding(process),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_console(colours=output.isatty()) if console else _json()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    # An answer that breaks off is logged there with a traceback, and raised as well: the engine is away.
    logging.getLogger("clickhouse_connect.driver.httputil").setLevel(logging.ERROR)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.captureWarnings(capture=True)


def _adding(process: str) -> Processor:
    def add_process(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return add_process


def _console(*, colours: bool) -> list[Processor]:
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)]


def _json() -> list[Processor]:
    # A traceback's local variables would be the caller's payloads.
    traceback = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))
    return [traceback, structlog.processors.JSONRenderer()]
