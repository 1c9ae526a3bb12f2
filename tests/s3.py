"""A service that speaks S3, in this process: moto's, with one bucket."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "runstore"
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@contextmanager
def s3_service() -> Iterator[str]:
    """Its address. Processes that are started inside have credentials for it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        httpx.put(f"{endpoint}/{BUCKET}").raise_for_status()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in _CREDENTIALS.items():
                patch.setenv(name, value)
            yield endpoint
    finally:
        server.stop()
