"""Logs: one JSON object per line from every library, without anybody's payload."""

import io
import json
import logging

import pytest
import structlog

from runstore.runtime.logging import configure_logging


@pytest.fixture(autouse=True)
def _restore_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)


def configured(log_format: str = "json") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(process="store", level="info", log_format=log_format, stream=stream)  # type: ignore[arg-type]
    return stream


def test_structlog_and_libraries_log_alike() -> None:
    """Own events and those of the standard library become the same JSON with the process's name."""
    stream = configured()
    structlog.get_logger("runstore.x").info("flushed", runs=3)
    logging.getLogger("uvicorn.error").warning("slow %s", "client")
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (first["event"], first["runs"], first["level"], first["process"]) == (
        "flushed",
        3,
        "info",
        "store",
    )
    assert (second["event"], second["level"], second["process"]) == ("slow client", "warning", "store")


def test_level_and_noise_are_filtered() -> None:
    """Below the level nothing appears, and the chatter of libraries never does."""
    stream = configured()
    structlog.get_logger("runstore.x").debug("detail")
    logging.getLogger("sqlalchemy.engine").info("INSERT INTO secrets")
    logging.getLogger("uvicorn.access").info("GET /runs?api_key=secret")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_traceback_shows_no_local_variables(log_format: str) -> None:
    """What a failing function held in its variables stays out of the log."""
    stream = configured(log_format)
    payload = sum([40, 2]) * 1_000_003  # Computed, so that no line of the source shows it.
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("runstore.x").exception("failed")
    assert "broken" in stream.getvalue()
    assert str(payload) not in stream.getvalue()
