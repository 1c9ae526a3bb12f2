"""Makes the calls of the outbox: three attempts each, across restarts."""

import asyncio
import ipaddress
import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

import httpx
import msgspec
import structlog

from runstore.domain.errors import RunstoreError
from runstore.domain.times import format_time
from runstore.domain.webhooks import Address, Webhook, WebhookPolicy
from runstore.runtime.clock import Clock

MAX_ATTEMPTS: Final = 3

_POLL_S: Final = 1.0
_MAX_CONCURRENT: Final = 20
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
# One attempt with all its redirects. The lease is longer, so that nobody else tries meanwhile.
_ATTEMPT_TIMEOUT_S: Final = 45.0
_LEASE_S: Final = 60.0
_MAX_REDIRECTS: Final = 5
_FIRST_DELAY_S: Final = 2.0
_LARGEST_JITTER_S: Final = 1.0

_KEEPING_REDIRECTS: Final = (HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT)
_HEADERS: Final[Mapping[str, str]] = {"Content-Type": "application/json", "User-Agent": "runstore"}

logger = structlog.get_logger(__name__)


class Outbox(Protocol):
    """Where the calls are; `WebhookOutbox` describes its methods."""

    async def claim(self, limit: int, lease_s: float) -> list[Webhook]: ...

    async def remove(self, webhook: Webhook) -> None: ...

    async def put_off(self, webhook: Webhook, delay_s: float) -> None: ...

    async def give_back(self, webhook: Webhook) -> None: ...


class _Failed(Exception):
    """The receiver did not take the call."""

    def __init__(self, problem: str, *, is_final: bool) -> None:
        super().__init__(problem)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class _Request:
    """A call, by the name of its receiver."""

    method: str
    url: httpx.URL
    content: bytes
    headers: Mapping[str, str]

    def redirected(self, response: httpx.Response) -> "_Request":
        """The call that `response` asks for instead."""
        url = self.url.join(response.headers["location"])
        # Headers may hold secrets, which are for the host that was configured.
        headers = self.headers if url.host == self.url.host else {}
        if response.status_code in _KEEPING_REDIRECTS:
            return _Request(self.method, url, self.content, headers)
        return _Request("GET", url, b"", headers)

    def to(self, client: httpx.AsyncClient, address: Address) -> httpx.Request:
        """As it is sent to one of the receiver's addresses."""
        return client.build_request(
            self.method,
            self.url.copy_with(host=str(address)),
            content=self.content,
            headers={**_HEADERS, **self.headers, "Host": self.url.netloc.decode("ascii")},
            extensions={"sni_hostname": self.url.raw_host.decode("ascii")},
        )


class WebhookSender:
    """Sends what is due, several calls at once. `run` until it is cancelled."""

    def __init__(
        self,
        outbox: Outbox,
        policy: WebhookPolicy,
        clock: Clock,
        *,
        poll_s: float = _POLL_S,
    ) -> None:
        """Looks for calls every `poll_s`, and whenever one has ended."""
        self._outbox = outbox
        self._policy = policy
        self._clock = clock
        self._poll_s = poll_s
        self._woken = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Sends until it is cancelled; what is under way then is given back."""
        async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client:
            try:
                while True:
                    self._woken.clear()
                    await self._send_due(client)
                    # Not `wait_for`: in Python 3.11 it may lose a cancellation that comes with the event.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._poll_s):
                            await self._woken.wait()
            finally:
                for task in self._sending:
                    task.cancel()
                await asyncio.gather(*self._sending, return_exceptions=True)

    async def _send_due(self, client: httpx.AsyncClient) -> None:
        free = _MAX_CONCURRENT - len(self._sending)
        if free <= 0:
            return
        try:
            due = await self._outbox.claim(free, _LEASE_S)
        except RunstoreError as error:
            logger.warning("webhooks_not_read", reason=error.reason.name)
            return
        for webhook in due:
            task = asyncio.create_task(self._send(client, webhook))
            self._sending.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._sending.discard(task)
        self._woken.set()

    async def _send(self, client: httpx.AsyncClient, webhook: Webhook) -> None:
        """One attempt, and what follows from it. When the outbox is away, its lease brings the call back."""
        try:
            await self._attempt(client, webhook)
        except asyncio.CancelledError:
            await asyncio.shield(self._outbox.give_back(webhook))
            raise
        except RunstoreError as error:
            logger.warning("webhook_outbox_away", run_id=webhook.run_id, reason=error.reason.name)
        except Exception:
            logger.exception("webhook_failed", run_id=webhook.run_id)

    async def _attempt(self, client: httpx.AsyncClient, webhook: Webhook) -> None:
        if webhook.attempts > MAX_ATTEMPTS:  # Whoever made the last ones has not lived to say how they ended.
            failure: _Failed | None = _Failed("unknown", is_final=True)
        else:
            failure = await self._failure(client, webhook)
        if failure is None:
            await self._outbox.remove(webhook)
            return
        told = {"run_id": webhook.run_id, "attempts": webhook.attempts, "problem": str(failure)}
        if failure.is_final or webhook.attempts >= MAX_ATTEMPTS:
            logger.warning("webhook_given_up", **told)
            await self._outbox.remove(webhook)
            return
        delay_s = _FIRST_DELAY_S * 2 ** (webhook.attempts - 1)
        jitter_s = random.uniform(0, min(delay_s / 2, _LARGEST_JITTER_S))  # noqa: S311 - spreads load
        logger.info("webhook_put_off", **told)
        await self._outbox.put_off(webhook, delay_s + jitter_s)

    async def _failure(self, client: httpx.AsyncClient, webhook: Webhook) -> _Failed | None:
        try:
            async with asyncio.timeout(_ATTEMPT_TIMEOUT_S):
                await self._call(client, webhook)
        except _Failed as error:
            return error
        except TimeoutError:
            return _Failed("timeout", is_final=False)
        except (httpx.InvalidURL, ValueError):  # What else URLs and names of hosts may not be.
            return _Failed("not a URL that can be called", is_final=True)
        return None

    async def _call(self, client: httpx.AsyncClient, webhook: Webhook) -> None:
        """Raises _Failed unless the receiver has answered 2xx."""
        request = _Request("POST", httpx.URL(webhook.url), self._body(webhook), self._policy.headers)
        for _ in range(_MAX_REDIRECTS + 1):
            response = await self._answer(client, request)
            if response.is_success:
                return
            if not response.has_redirect_location:
                status = response.status_code
                is_passing = status == HTTPStatus.TOO_MANY_REQUESTS or response.is_server_error
                raise _Failed(f"status {status}", is_final=not is_passing)
            request = request.redirected(response)
        raise _Failed(f"more than {_MAX_REDIRECTS} redirects", is_final=True)

    async def _answer(self, client: httpx.AsyncClient, request: "_Request") -> httpx.Response:
        """What is answered, without its body, which nobody reads. Raises _Failed."""
        try:
            addresses = await self._addresses(request.url)
        except RunstoreError as error:
            raise _Failed(error.message, is_final=True) from error
        except OSError as error:
            raise _Failed("its host is not known", is_final=False) from error
        problem: Exception | None = None
        for address in addresses:
            try:
                response = await client.send(request.to(client, address), stream=True)
                await response.aclose()
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                problem = error
            except httpx.HTTPError as error:
                raise _Failed(type(error).__name__, is_final=False) from error
            else:
                return response
        raise _Failed("no connection", is_final=False) from problem

    async def _addresses(self, url: httpx.URL) -> list[Address]:
        """Where to connect to: looked up once, checked, then used. A second look-up might answer otherwise.

        Raises INVALID_ARGUMENT for what must not be called, OSError when there is no such host.
        """
        self._policy.check_url(str(url))
        found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
        for address in addresses:
            self._policy.check_address(address)
        return addresses

    def _body(self, webhook: Webhook) -> bytes:
        body: dict[str, Any] = msgspec.json.decode(webhook.body, type=dict[str, msgspec.Raw])
        sent_at = {"webhook_sent_at": format_time(self._clock.now_us())}
        return msgspec.json.encode(self._policy.visible({**body, **sent_at}))
