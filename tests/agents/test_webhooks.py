"""Webhooks, received on a socket (contract agents, section 2.14 and catalogue F)."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import UnprocessableEntityError
from langgraph_sdk.schema import CancelAction

from .steps import until, until_next


@dataclass
class Receiver:
    """Keeps the calls it gets, by path; answers with what is set for the path, else 200."""

    url: str = ""
    answers: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[str, list[tuple[dict[str, str], Any]]] = field(default_factory=dict)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        path = head[0].split()[1]
        self.calls.setdefault(path, []).append((headers, body))
        answers = self.answers.get(path)
        status = answers.pop(0) if answers else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async def call(self, path: str, count: int = 1) -> Any:
        """The last of `count` calls of a path, once they have come; there are no more."""

        async def has_come() -> bool:
            return len(self.calls.get(path, [])) >= count

        await until(has_come, f"{count} calls of {path}")
        assert len(self.calls[path]) == count
        return self.calls[path][-1][1]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield receiver
    server.close()


async def test_success(client: LangGraphClient, thread: str, receiver: Receiver) -> None:
    """F1, F10: one call with the run, its values and times; with the configured headers."""
    values = await client.runs.wait(
        thread, "steps", input={"n": 1}, webhook=f"{receiver.url}/ok", metadata={"a": 1}
    )
    told = await receiver.call("/ok")
    run = (await client.runs.list(thread))[0]
    assert (told["run_id"], told["thread_id"], told["status"]) == (run["run_id"], thread, "success")
    assert told["values"] == values
    assert told["metadata"] == run["metadata"]
    assert told["kwargs"]["input"] == {"n": 1}
    assert "error" not in told
    assert told["run_started_at"] <= told["run_ended_at"] <= told["webhook_sent_at"]
    headers, _ = receiver.calls["/ok"][0]
    assert headers["authorization"] == "Bearer s3cret"


async def test_error_and_pause(client: LangGraphClient, thread: str, receiver: Receiver) -> None:
    """F2, F3: an error comes with what was reached; a run that pauses is a success."""
    await client.runs.wait(
        thread, "steps", input={"fail": True}, webhook=f"{receiver.url}/error", raise_error=False
    )
    told = await receiver.call("/error")
    assert told["status"] == "error"
    assert told["error"] == {"error": "ValueError", "message": "boom"}
    assert told["values"]["log"] == ["a"]
    paused = (await client.threads.create())["thread_id"]
    await client.runs.wait(paused, "intr", input={}, webhook=f"{receiver.url}/paused")
    assert (await receiver.call("/paused"))["status"] == "success"


async def test_cancelled(client: LangGraphClient, thread: str, receiver: Receiver) -> None:
    """F4, F5: cancels are told with their reason; a run that no worker had is not told of at all."""
    actions: tuple[CancelAction, ...] = ("interrupt", "rollback")
    for action in actions:
        run = await client.runs.create(
            thread, "steps", input={"secs": 30}, webhook=f"{receiver.url}/{action}"
        )
        pending = await client.runs.create(thread, "steps", input={}, webhook=f"{receiver.url}/pending")
        await until_next(client, thread, "a")
        await client.runs.cancel(thread, pending["run_id"])
        await client.runs.cancel(thread, run["run_id"], action=action, wait=True)
        told = await receiver.call(f"/{action}")
        assert told["status"] == {"interrupt": "interrupted", "rollback": "rollback"}[action]
        assert told["error"]["error"] == {"interrupt": "UserInterrupt", "rollback": "UserRollback"}[action]
        thread = (await client.threads.create())["thread_id"]
    assert "/pending" not in receiver.calls


async def test_attempts(client: LangGraphClient, receiver: Receiver) -> None:
    """F6, F7: a receiver that fails is tried again, one that refuses is not."""
    receiver.answers = {"/fails": ["500 Oops"], "/refuses": ["404 Not Found"] * 3}
    await client.runs.wait(None, "steps", input={}, webhook=f"{receiver.url}/refuses")
    await client.runs.wait(None, "steps", input={}, webhook=f"{receiver.url}/fails")
    first, second = (await receiver.call("/fails", 2), receiver.calls["/fails"][0][1])
    assert first["webhook_sent_at"] != second["webhook_sent_at"]
    assert {**first, "webhook_sent_at": ""} == {**second, "webhook_sent_at": ""}
    await receiver.call("/refuses", 1)


async def test_stateless(client: LangGraphClient, receiver: Receiver) -> None:
    """F8: what `wait` answers is told, though the thread is gone."""
    values: Any = await client.runs.wait(None, "steps", input={"n": 1}, webhook=f"{receiver.url}/stateless")
    assert (await receiver.call("/stateless"))["values"] == values
    assert values["log"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "url",
    ["", "/relative", "ftp://example.com/", "http://", "http://169.254.169.254/latest", "http://[fe80::1]/"],
)
async def test_refused_urls(client: LangGraphClient, thread: str, url: str) -> None:
    """F9: refused when the run is created, so that no run comes of it. What names this machine is refused
    by default, which the tests of the policy show."""
    with pytest.raises(UnprocessableEntityError):
        await client.runs.create(thread, "steps", input={}, webhook=url)
    assert await client.runs.list(thread) == []
