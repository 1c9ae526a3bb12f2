"""Honest clients: each keeps a connection, sends a trace now and then, or asks for its last one."""

import asyncio
import json
import random
import ssl
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

_PATIENCE_S: Final = 60.0
_RUNS: Final = 3
_SHARE_OF_QUESTIONS: Final = 0.2
_INPUT: Final = "lorem ipsum dolor sit amet " * 20


@dataclass(slots=True)
class Times:
    """How long calls took, in milliseconds, and what went wrong."""

    writes: list[float] = field(default_factory=list)
    questions: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class HonestClient:
    """One connection, which is opened again should the server close it."""

    def __init__(self, port: int, key: str, tls: ssl.SSLContext, seed: str) -> None:
        self._port = port
        self._key = key
        self._tls = tls
        self._chance = random.Random(seed)
        self._trace_id = ""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        """Opens the connection, with all of TLS done."""
        self._streams = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)

    async def run(self, pause_s: float, times: "Phases", stop: asyncio.Event) -> None:
        """Calls until told to stop, with pauses of this length on average."""
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), self._chance.expovariate(1 / pause_s))
            except TimeoutError:
                await self._call(times)

    def close(self) -> None:
        """Hangs up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _call(self, phases: "Phases") -> None:
        is_question = bool(self._trace_id) and self._chance.random() < _SHARE_OF_QUESTIONS
        request = self._request(*(self._question() if is_question else self._trace()))
        times = phases.current
        started_s = time.perf_counter()
        try:
            status = await asyncio.wait_for(self._exchange_patiently(request), _PATIENCE_S)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.close()
            times.failures.append(type(error).__name__)
            return
        elapsed_ms = (time.perf_counter() - started_s) * 1e3
        if status not in (200, 202):
            times.failures.append(str(status))
        else:  # A call belongs to the phase in which it began, however long it takes.
            (times.questions if is_question else times.writes).append(elapsed_ms)

    async def _exchange_patiently(self, request: bytes) -> int:
        """As SDKs do: the server may just have closed a connection that was idle for long."""
        try:
            return await self._exchange(request)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
            return await self._exchange(request)

    async def _exchange(self, request: bytes) -> int:
        if self._streams is None or self._streams[1].is_closing():
            await self.connect()
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        return int(head[9:12])

    def _request(self, path: str, body: bytes) -> bytes:
        return (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    def _question(self) -> tuple[str, bytes]:
        return "/runs/query", json.dumps({"trace": self._trace_id, "select": ["id", "name"]}).encode()

    def _trace(self) -> tuple[str, bytes]:
        now = datetime.now(UTC)
        stamp = now.strftime("%Y%m%dT%H%M%S%fZ")
        self._trace_id = trace_id = str(uuid.uuid4())
        runs = []
        for number in range(_RUNS):
            run_id = trace_id if number == 0 else str(uuid.uuid4())
            order = f"{stamp}{trace_id}"
            runs.append(
                {
                    "id": run_id,
                    "trace_id": trace_id,
                    "parent_run_id": None if number == 0 else trace_id,
                    "dotted_order": order if number == 0 else f"{order}.{stamp}{run_id}",
                    "name": "answer",
                    "run_type": "chain" if number == 0 else "llm",
                    "start_time": now.isoformat(),
                    "end_time": now.isoformat(),
                    "inputs": {"question": _INPUT},
                    "outputs": {"answer": _INPUT},
                    "session_name": "honest",
                }
            )
        return "/runs/batch", json.dumps({"post": runs}).encode()


class Phases:
    """Where the times of the present phase go; None between two."""

    def __init__(self) -> None:
        self.current = Times()
