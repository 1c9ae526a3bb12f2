"""Traces of runstore itself: sends the spans of a process to where the settings say, if they do."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from runstore.runtime import spans
from runstore.runtime.failures import CannotStart
from runstore.runtime.settings import Settings

if TYPE_CHECKING:
    import grpc


@contextmanager
def telemetry(settings: Settings, process: str) -> Iterator[None]:
    """Record the spans of this process, `store` or `gateway-1`; without a receiver nothing is even imported.

    Raises CannotStart when the packages are missing or the authorities cannot be read.
    """
    if not settings.telemetry_url:
        yield
        return
    try:
        from runstore.runtime.span_recorder import SpanRecorder
    except ModuleNotFoundError as error:
        raise CannotStart(
            f"telemetry_url (RUNSTORE_TELEMETRY_URL): {error.name} is missing: "
            "pip install 'runstore[telemetry]'"
        ) from error
    recorder = SpanRecorder(
        settings.telemetry_url,
        ratio=settings.telemetry_ratio,
        headers=settings.telemetry_metadata,
        credentials=_credentials(settings),
        resource={
            "service.name": f"runstore-{process.partition('-')[0]}",
            "service.version": version("runstore"),
            "service.instance.id": f"{process}@{socket.gethostname()}",
            "process.pid": os.getpid(),
        },
    )
    spans.record_with(recorder)
    try:
        yield
    finally:
        spans.record_with(None)
        recorder.close()


def _credentials(settings: Settings) -> "grpc.ChannelCredentials | None":
    """For a receiver whose certificate an authority of the operator's has signed."""
    import grpc

    if settings.telemetry_ca is None:
        return None
    try:
        return grpc.ssl_channel_credentials(settings.telemetry_ca.read_bytes())
    except OSError as error:
        raise CannotStart(
            f"telemetry_ca (RUNSTORE_TELEMETRY_CA): {settings.telemetry_ca}: {error.strerror}"
        ) from error
