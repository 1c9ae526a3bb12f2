"""Clients that hang up before the answer: questions are given up, and everything else is finished."""

import asyncio
import json
import socket
import threading
from urllib.parse import urlsplit

import httpx
import pytest
from tests.waiting import LONGEST_WAIT_S

from runstore.domain.errors import ErrorReason
from runstore.v1 import run_ingest_service_pb2 as ingest

from .conftest import BackgroundLoop, FakeStore, Refuse

RUN_ID = "11111111-1111-4111-8111-111111111111"
QUESTION = {"session": [RUN_ID]}


class Answering:
    """A method of the store that takes its time."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.was_cancelled = threading.Event()
        self.has_ended = threading.Event()
        self._may_end = asyncio.Event()

    async def answer(self) -> ingest.WriteRunsResponse:
        """Waits until it is cancelled, or told to end."""
        self.has_begun.set()
        try:
            await self._may_end.wait()
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise
        self.has_ended.set()
        return ingest.WriteRunsResponse()

    def end(self) -> None:
        """Let it answer; to be called on its loop."""
        self._may_end.set()


def hang_up_during(url: str, answering: Answering, request: bytes) -> None:
    """Send a request, wait until the store works on it, and close the connection."""
    address = urlsplit(url)
    place = (str(address.hostname), int(address.port or 0))
    with socket.create_connection(place, timeout=LONGEST_WAIT_S) as connection:
        connection.sendall(request)
        assert answering.has_begun.wait(timeout=LONGEST_WAIT_S)


def http_request(method: str, path: str, body: object = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(content) + content


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ListRuns", http_request("POST", "/runs/query", QUESTION)),
        ("ListRuns", http_request("POST", "/api/v2/runs/query", {"project_ids": [RUN_ID]})),
        ("GetRun", http_request("GET", f"/runs/{RUN_ID}")),
    ],
    ids=["v1", "v2", "get"],
)
def test_question_of_a_client_that_has_gone_is_cancelled(
    store: FakeStore, url: str, method: str, request_: bytes
) -> None:
    """Its call to the store is cancelled, and with it what the engine does."""
    answering = Answering()
    store.answers[method] = lambda _: answering.answer()
    hang_up_during(url, answering, request_)
    assert answering.was_cancelled.wait(timeout=LONGEST_WAIT_S)


def test_write_of_a_client_that_has_gone_is_finished(
    store: FakeStore, url: str, loop: BackgroundLoop
) -> None:
    """Runs that have arrived whole are stored, whoever waits for it."""
    answering = Answering()
    store.answers["WriteRuns"] = lambda _: answering.answer()
    hang_up_during(
        url, answering, http_request("POST", "/runs", {"id": RUN_ID, "name": "n", "run_type": "llm"})
    )
    loop.start(answering.end)
    assert answering.has_ended.wait(timeout=LONGEST_WAIT_S)
    assert not answering.was_cancelled.is_set()


@pytest.mark.parametrize(
    ("reason", "status"), [(ErrorReason.QUERY_TOO_LONG, 504), (ErrorReason.QUERY_TOO_LARGE, 400)]
)
def test_limits_of_a_query_are_said_in_both_dialects(
    store: FakeStore, http: httpx.Client, reason: ErrorReason, status: int
) -> None:
    """v1 as a detail, v2 as a problem; a client is told not to try again."""
    store.answers["ListRuns"] = Refuse(reason, "ask for less")
    v1 = http.post("/runs/query", json=QUESTION)
    v2 = http.post("/api/v2/runs/query", json={"project_ids": [RUN_ID]})
    assert (v1.status_code, v1.json()) == (status, {"detail": "ask for less"})
    assert (v2.status_code, v2.json()["detail"]) == (status, "ask for less")
    assert v2.headers["content-type"] == "application/problem+json"
    if status >= 500:
        assert {answer.headers["x-should-retry"] for answer in (v1, v2)} == {"false"}
