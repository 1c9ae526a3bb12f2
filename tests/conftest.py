"""What holds for every test: warnings and worse are logged as plain lines, to standard error.

structlog's own default draws a traceback with the variables of every frame, which takes seconds
where a flush is in one of them.
"""

import logging
import sys

import structlog

structlog.configure(
    wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
