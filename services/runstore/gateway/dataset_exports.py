"""The examples of a dataset as files: CSV, JSON Lines, and conversations as OpenAI fine-tunes on them."""

import csv
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import msgspec

from runstore.gateway.store_client import Credentials, StoreClient
from runstore.v1 import blob_service_pb2 as blobs
from runstore.v1 import dataset_service_pb2 as datasets_pb
from runstore.v1 import example_service_pb2 as pb

_PAGE_SIZE: Final = 100
_ROLES: Final = {
    "human": "user",
    "humanmessage": "user",
    "humanmessagechunk": "user",
    "ai": "assistant",
    "aimessage": "assistant",
    "aimessagechunk": "assistant",
    "system": "system",
    "systemmessage": "system",
    "tool": "tool",
    "toolmessage": "tool",
    "function": "function",
    "functionmessage": "function",
}
"""LangChain's names of messages, in lower case → OpenAI's roles."""


class DatasetExport:
    """Reads one version of a dataset, whatever is written meanwhile."""

    def __init__(
        self, store: StoreClient, credentials: Credentials, dataset_id: str, version: datasets_pb.VersionName
    ) -> None:
        self._store = store
        self._credentials = credentials
        self._dataset_id = dataset_id
        self._version = version

    async def csv(self) -> AsyncIterator[bytes]:
        """A column for each key of inputs and outputs; what is no text is JSON."""
        inputs: dict[str, None] = {}
        outputs: dict[str, None] = {}
        async for example in self._examples():
            inputs.update(dict.fromkeys(example["inputs"]))
            outputs.update(dict.fromkeys(example["outputs"] or {}))
        # A key of both has two columns.
        header = ["id", *inputs, *(f"output_{key}" if key in inputs else key for key in outputs)]
        yield _csv_line(header)
        async for example in self._examples():
            wanted = example["outputs"] or {}
            cells = [_cell(example["inputs"], key) for key in inputs] + [
                _cell(wanted, key) for key in outputs
            ]
            yield _csv_line([example["id"], *cells])

    async def json_lines(self) -> AsyncIterator[bytes]:
        """An object with id, inputs, outputs and metadata a line."""
        async for example in self._examples():
            yield msgspec.json.encode(example) + b"\n"

    async def conversations(self) -> AsyncIterator[bytes]:
        """`{"messages": […]}` a line: the messages of the inputs, then those of the outputs."""
        async for example in self._examples():
            messages = [*_messages(example["inputs"], "user"), *_messages(example["outputs"], "assistant")]
            yield msgspec.json.encode({"messages": messages}) + b"\n"

    async def _examples(self) -> AsyncIterator[dict[str, Any]]:
        request = pb.ListExamplesRequest(
            dataset_id=self._dataset_id, version=self._version, page_size=_PAGE_SIZE
        )
        while True:
            page = await self._store.ask(self._store.examples.ListExamples, request, self._credentials)
            for example in page.examples:
                yield {
                    "id": example.id,
                    "inputs": await self._payload(example, "inputs"),
                    "outputs": await self._payload(example, "outputs"),
                    "metadata": msgspec.json.decode(example.metadata),
                }
            if len(page.examples) < _PAGE_SIZE:
                return
            request.offset += _PAGE_SIZE

    async def _payload(self, example: pb.Example, field: str) -> Any:
        if field in example.large_payloads:
            token = example.large_payloads[field].read_token
            blob = await self._store.read_blob(blobs.ReadBlobRequest(read_token=token))
            return msgspec.json.decode(b"".join([chunk async for chunk in blob.chunks()]))
        raw: bytes = getattr(example, field)
        return msgspec.json.decode(raw) if raw else None


def _cell(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key, "")
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _csv_line(cells: list[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def _messages(content: Any, role: str) -> Iterator[dict[str, Any]]:
    """The messages in inputs or outputs; without any, one of `role` that holds their text or JSON."""
    if not content:
        return
    found = list(_found(content))
    if found:
        yield from found
        return
    values = list(content.values()) if isinstance(content, dict) else [content]
    text = values[0] if len(values) == 1 and isinstance(values[0], str) else None
    yield {"role": role, "content": msgspec.json.encode(content).decode() if text is None else text}


def _found(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, list):
        for each in content:
            yield from _found(each)
    elif isinstance(content, dict):
        message = _message(content)
        if message is not None:
            yield message
        else:
            for each in content.values():
                if isinstance(each, list | dict):
                    yield from _found(each)


def _message(content: dict[str, Any]) -> dict[str, Any] | None:
    """A message of OpenAI as it is; one of LangChain, in each of its JSON forms, as one of OpenAI."""
    if isinstance(content.get("role"), str) and ("content" in content or "tool_calls" in content):
        return content
    fields, kind = content, content.get("type")
    if isinstance(content.get("kwargs"), dict) and isinstance(content.get("id"), list) and content["id"]:
        fields, kind = content["kwargs"], content["id"][-1]
    elif isinstance(content.get("data"), dict):
        fields = content["data"]
    role = _ROLES.get(str(kind).lower())
    if role is None or "content" not in fields:
        return None
    more = fields.get("additional_kwargs")
    kept = (
        {key: more[key] for key in ("function_call", "tool_calls") if key in more}
        if isinstance(more, dict)
        else {}
    )
    if role == "tool" and "tool_call_id" in fields:
        kept["tool_call_id"] = fields["tool_call_id"]
    return {"role": role, "content": fields["content"], **kept}
