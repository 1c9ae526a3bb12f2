"""Sends traces to the store, in batches and from a thread of its own: a run never waits for its trace."""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import grpc
import structlog

from runstore.v1 import run_ingest_service_pb2 as ingest

# Long enough for a short run to travel with its end: one call, and nothing that the store has to merge later.
_LINGER_S: Final = 0.2
_MAX_BATCH_OPERATIONS: Final = 1_000
_MAX_BATCH_BYTES: Final = 16 * 1024 * 1024
_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
# Beyond this much that no store takes, newer traces are dropped, and said to be.
_MAX_QUEUE_BYTES: Final = 256 * 1024 * 1024
_TIMEOUT_S: Final = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_TRY_AGAIN: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)

Write = Callable[[ingest.WriteRunsRequest, float], Any]
"""Sends a batch within the seconds given. Raises grpc.RpcError."""

_log = structlog.get_logger(__name__)


class TraceWriter:
    """A bounded queue of operations, and the thread that empties it. Any thread may use it."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._queue: list[ingest.RunOperation] = []
        self._queue_bytes = 0
        self._dropped = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._send_all, name="trace-writer", daemon=True)
        self._thread.start()

    def put(self, operation: ingest.RunOperation) -> None:
        """Takes an operation to send, in order; drops it when the queue is full."""
        size = operation.ByteSize()
        with self._changed:
            if self._queue_bytes + size > _MAX_QUEUE_BYTES or size > _MAX_MESSAGE_BYTES:
                self._drop(1)
                return
            self._queue.append(operation)
            self._queue_bytes += size
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Sends what is queued, as far as `timeout_s` allows, and ends."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _log.warning("traces were not sent in time", operations=len(self._queue))

    def _send_all(self) -> None:
        while batch := self._next_batch():
            self._send(batch)

    def _next_batch(self) -> list[ingest.RunOperation]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, timeout=_LINGER_S)
            count, size = 0, 0
            while count < min(len(self._queue), _MAX_BATCH_OPERATIONS):
                size += self._queue[count].ByteSize()
                if count and size > _MAX_BATCH_BYTES:
                    break
                count += 1
            batch, self._queue = self._queue[:count], self._queue[count:]
            self._queue_bytes -= sum(operation.ByteSize() for operation in batch)
            return batch

    def _send(self, batch: list[ingest.RunOperation]) -> None:
        request = ingest.WriteRunsRequest(operations=batch)
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                response = self._write(request, _TIMEOUT_S)
            except grpc.RpcError as error:
                if error.code() not in _TRY_AGAIN:
                    _log.error("traces were refused", operations=len(batch), code=str(error.code()))
                    return
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                if response.errors:
                    _log.warning("parts of a trace were refused", operations=len(response.errors))
                return

    def _drop(self, operations: int) -> None:
        if self._dropped == 0:
            _log.error("traces are dropped: the store does not take them, or they are too large")
        self._dropped += operations
