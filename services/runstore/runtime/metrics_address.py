"""The address at which Prometheus can read the metrics of a process without a key."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import prometheus_client
from prometheus_client.registry import Collector

from runstore.runtime.address import Address
from runstore.runtime.failures import CannotStart


@contextmanager
def metrics_served(address: Address | None, registry: Collector) -> Iterator[None]:
    """Serves `registry` over HTTP at an address of its own, from a thread; does nothing without one.

    Raises CannotStart when the address cannot be bound.
    """
    if address is None:
        yield
        return
    try:
        server, thread = prometheus_client.start_http_server(address.port, address.host, registry)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CannotStart(f"metrics (RUNSTORE_METRICS): cannot listen on {address}: {reason}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
