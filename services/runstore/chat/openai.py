"""A language model behind any endpoint that speaks OpenAI's chat completions."""

from collections.abc import Sequence
from typing import Final

import httpx
import msgspec

from runstore.domain.chat import ChatMessage, ModelUnavailable

_MAX_ANSWER_BYTES: Final = 256 * 1024
# The caller has a deadline for everything; this one only finds out that nobody is there.
_CONNECT_TIMEOUT_S: Final = 5.0


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


_DECODER: Final = msgspec.json.Decoder(_Completion)


class OpenAIChat:
    """`POST {url}/chat/completions`; nothing else of the API is used."""

    def __init__(self, url: str, model: str, api_key: str) -> None:
        """`url` is the API's base, such as `https://api.openai.com/v1`; no key is sent when it is empty."""
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._model = model
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    async def complete(self, messages: Sequence[ChatMessage]) -> str:
        """The model's next message. Raises ModelUnavailable."""
        conversation = [{"role": message.role, "content": message.content} for message in messages]
        request = {"model": self._model, "messages": conversation}
        try:
            # A connection for each question: they are rare, and the client need not be closed by anybody.
            async with (
                httpx.AsyncClient(timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S)) as client,
                client.stream("POST", self._url, json=request, headers=self._headers) as response,
            ):
                body = await _read(response)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModelUnavailable(f"{type(error).__name__}: {error}") from error
        if response.status_code != httpx.codes.OK:
            raise ModelUnavailable(f"the endpoint answers {response.status_code}")
        try:
            [choice, *_] = _DECODER.decode(body).choices
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ModelUnavailable("the endpoint's answer is no chat completion") from error
        return choice.message.content or ""


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise ModelUnavailable(f"the endpoint's answer is longer than {_MAX_ANSWER_BYTES} bytes")
    return bytes(body)
