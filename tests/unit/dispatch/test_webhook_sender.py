"""The sender of webhooks, against a receiver on a socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from tests.waiting import LONGEST_WAIT_S, until_async

from runstore.dispatch.webhook_sender import WebhookSender
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.webhooks import Webhook, WebhookPolicy
from runstore.runtime.clock import SystemClock

LOOPBACK = WebhookPolicy(refuses_loopback=False, headers={"X-Secret": "s3cret"})


@dataclass
class Receiver:
    """Answers with the next of its answers, or `200 OK`; remembers what it was sent."""

    port: int = 0
    answers: list[str] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((head[0], headers, body))
        answer = self.answers.pop(0) if self.answers else "200 OK"
        if answer != "silence":
            writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()


@dataclass
class MemoryOutbox:
    """Keeps calls in memory; what is put off is due at once, and noted."""

    due: list[Webhook]
    taken: dict[str, Webhook] = field(default_factory=dict)
    delays_s: list[float] = field(default_factory=list)
    removed: list[Webhook] = field(default_factory=list)
    given_back: list[Webhook] = field(default_factory=list)
    failures: list[RunstoreError] = field(default_factory=list)

    async def claim(self, limit: int, lease_s: float) -> list[Webhook]:
        if self.failures:
            raise self.failures.pop()
        taken = [replace(webhook, attempts=webhook.attempts + 1) for webhook in self.due[:limit]]
        self.due = self.due[limit:]
        self.taken |= {webhook.id: webhook for webhook in taken}
        return taken

    async def remove(self, webhook: Webhook) -> None:
        self.removed.append(self.taken.pop(webhook.id))

    async def put_off(self, webhook: Webhook, delay_s: float) -> None:
        self.delays_s.append(delay_s)
        self.due.append(self.taken.pop(webhook.id))

    async def give_back(self, webhook: Webhook) -> None:
        self.given_back.append(self.taken.pop(webhook.id))


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    server.close()
    await server.wait_closed()


def a_webhook(url: str, number: int = 0) -> Webhook:
    return Webhook(
        id=str(number),
        tenant_id="t",
        run_id="r",
        url=url,
        body=b'{"run_id":"r","values":{"big":123456789012345678901234567890}}',
        attempts=0,
        due_at_us=0,
        created_at_us=0,
    )


@asynccontextmanager
async def sending(outbox: MemoryOutbox, policy: WebhookPolicy = LOOPBACK) -> AsyncIterator[None]:
    sender = WebhookSender(outbox, policy, SystemClock(), poll_s=0.005)
    running = asyncio.create_task(sender.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_call_is_made_once(receiver: Receiver) -> None:
    """One POST with the stored JSON, when it was sent, and the configured headers."""
    outbox = MemoryOutbox([a_webhook(f"http://localhost:{receiver.port}/hook?a=1")])
    async with sending(outbox):
        await until_async(lambda: outbox.removed, "the webhook is done with")
    ((line, headers, body),) = receiver.requests
    assert line == "POST /hook?a=1 HTTP/1.1"
    assert headers["host"] == f"localhost:{receiver.port}"
    assert headers["content-type"] == "application/json"
    assert headers["x-secret"] == "s3cret"
    sent = json.loads(body)
    assert sent.pop("webhook_sent_at").endswith("+00:00")
    assert sent == {"run_id": "r", "values": {"big": 123456789012345678901234567890}}


async def test_failures_of_the_receiver_are_tried_three_times(receiver: Receiver) -> None:
    """5xx, 429 and broken connections pass; the pauses grow; then it is given up."""
    receiver.answers = ["500 Oops", "429 Slow down", "silence"]
    outbox = MemoryOutbox([a_webhook(f"http://127.0.0.1:{receiver.port}/")])
    async with sending(outbox):
        await until_async(lambda: outbox.removed, "the webhook is done with")
    assert len(receiver.requests) == 3
    first, second = outbox.delays_s
    assert 2.0 <= first <= 3.0
    assert 4.0 <= second <= 5.0


async def test_a_receiver_that_recovers_gets_the_call(receiver: Receiver) -> None:
    """The second attempt is the last when it succeeds."""
    receiver.answers = ["503 Later"]
    outbox = MemoryOutbox([a_webhook(f"http://127.0.0.1:{receiver.port}/")])
    async with sending(outbox):
        await until_async(lambda: outbox.removed, "the webhook is done with")
    assert len(receiver.requests) == 2


@pytest.mark.parametrize("answer", ["404 Not Found", "400 Bad", "410 Gone", "304 Not Modified"])
async def test_refusals_are_final(receiver: Receiver, answer: str) -> None:
    """4xx, and what asks for nothing, is not tried again."""
    receiver.answers = [answer]
    outbox = MemoryOutbox([a_webhook(f"http://127.0.0.1:{receiver.port}/")])
    async with sending(outbox):
        await until_async(lambda: outbox.removed, "the webhook is done with")
    assert len(receiver.requests) == 1
    assert outbox.delays_s == []


async def test_redirects_are_followed(receiver: Receiver) -> None:
    """307 keeps the call as it is, 302 asks with GET; both are looked at like the first URL."""
    receiver.answers = ["307 Moved\r\nLocation: /next", "302 Found\r\nLocation: last"]
    outbox = MemoryOutbox([a_webhook(f"http://127.0.0.1:{receiver.port}/a")])
    async with sending(outbox):
        await until_async(lambda: outbox.removed, "the webhook is done with")
    assert [line for line, _, _ in receiver.requests] == [
        "POST /a HTTP/1.1",
        "POST /next HTTP/1.1",
        "GET /last HTTP/1.1",
    ]
    assert receiver.requests[0][2][:9] == receiver.requests[1][2][:9] != b""


async def test_secrets_stay_with_their_host(receiver: Receiver) -> None:
    """A redirect to another host is followed without the configured headers."""
    receiver.answers = [f"307 Moved\r\nLocation: http://localhost:{receiver.port}/"]
    outbox = MemoryOutbox([a_webhook(f"http://127.0.0.1:{receiver.port}/")])
    async with sending(outbox):
        await until_async(lambda: outbox.removed, "the webhook is done with")
    assert ["x-secret" in headers for _, headers, _ in receiver.requests] == [True, False]


@pytest.mark.parametrize("location", ["http://169.254.169.254/", "ftp://127.0.0.1/", "http://0.0.0.0/"])
async def test_redirects_are_no_way_around_the_policy(receiver: Receiver, location: str) -> None:
    """What must not be called is not called through somebody else either."""
    receiver.answers = [f"307 Moved\r\nLocation: {location}"]
    outbox = MemoryOutbox([a_webhook(f"http://127.0.0.1:{receiver.port}/")])
    async with sending(outbox):
        await until_async(lambda: outbox.removed, "the webhook is done with")
    assert len(receiver.requests) == 1


async def test_endless_redirects_are_given_up(receiver: Receiver) -> None:
    """Five redirects are followed, not six."""
    receiver.answers = ["307 Moved\r\nLocation: /"] * 10
    outbox = MemoryOutbox([a_webhook(f"http://127.0.0.1:{receiver.port}/")])
    async with sending(outbox):
        await until_async(lambda: outbox.removed, "the webhook is done with")
    assert len(receiver.requests) == 6


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]"])
async def test_this_machine_is_not_called(receiver: Receiver, host: str) -> None:
    """Whatever its name: names and odd spellings are looked up, and the address is checked before use."""
    outbox = MemoryOutbox([a_webhook(f"http://{host}:{receiver.port}/")])
    async with sending(outbox, WebhookPolicy()):
        await until_async(lambda: outbox.removed, "the webhook is done with")
    assert receiver.requests == []


@pytest.mark.parametrize("host", ["a" * 64 + ".example.com", "a..b", "xn--\u00e9", "[::1%25lo"])
async def test_names_that_cannot_be_are_given_up(host: str) -> None:
    """Whatever a URL turns out not to be, the call ends, and the sender does not."""
    outbox = MemoryOutbox([a_webhook(f"http://{host}/")])
    async with sending(outbox):
        await until_async(lambda: outbox.removed, "the webhook is done with")
    assert outbox.delays_s == []


async def test_attempts_that_nobody_lived_to_end_count(receiver: Receiver) -> None:
    """A call that was claimed three times and never came to an end is not made a fourth time."""
    outbox = MemoryOutbox([replace(a_webhook(f"http://127.0.0.1:{receiver.port}/"), attempts=3)])
    async with sending(outbox):
        await until_async(lambda: outbox.removed, "the webhook is done with")
    assert receiver.requests == []


async def test_what_is_under_way_is_given_back(receiver: Receiver) -> None:
    """A sender that stops has neither made nor lost the call."""
    arrived = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outbox = MemoryOutbox([a_webhook(f"http://127.0.0.1:{port}/")])
    async with sending(outbox):
        await asyncio.wait_for(arrived.wait(), LONGEST_WAIT_S)
    server.close()
    assert [webhook.id for webhook in outbox.given_back] == ["0"]
    assert not outbox.removed


async def test_an_outbox_that_is_away_is_asked_again(receiver: Receiver) -> None:
    """The database's failures do not end the sender; many calls go out side by side."""
    outbox = MemoryOutbox([a_webhook(f"http://127.0.0.1:{receiver.port}/", n) for n in range(50)])
    outbox.failures = [RunstoreError(ErrorReason.UNAVAILABLE, "away")] * 2
    async with sending(outbox):
        await until_async(lambda: len(outbox.removed) == 50, "all are done with")
    assert len(receiver.requests) == 50
