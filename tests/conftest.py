"""What holds for every test: warnings and worse are logged as plain lines, to standard error.

structlog's own default draws a traceback with the variables of every frame, which takes seconds
where a flush is in one of them.
"""

import sys

import structlog
from structlog.typing import EventDict, WrappedLogger


def _worse_than_info(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Drop what only tests of logging look at; they put processors of their own in place."""
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


structlog.configure(
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    processors=[
        _worse_than_info,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ],
)
