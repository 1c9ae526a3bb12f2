"""What holds for every test: logs as plain lines.

structlog's own default draws a traceback with the variables of every frame, which takes seconds
where a flush is in one of them.
"""

import structlog

structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
