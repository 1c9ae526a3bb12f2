"""Reads the JSON bodies of agents: typed where the server looks, as bytes where only a graph does."""

from collections.abc import Collection
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from starlette.requests import Request

from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.json_text import replace_lone_surrogates
from runstore.gateway.run_json import not_json, parse_object

_T = TypeVar("_T")

_JSON_SPACES: Final = b" \t\r\n"

AnyJson = msgspec.Raw
JsonObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]
"""An object, whatever is in it; `object_bytes` checks that it is one."""


def absent_json() -> Any:
    """The default of a key that holds JSON: reads as empty."""
    return msgspec.field(default_factory=msgspec.Raw)


class BodyOf(Generic[_T]):
    """A kind of body: how it is read, and what the OpenAPI says of it."""

    def __init__(self, kind: type[_T], schema: type) -> None:
        """`schema`: the struct that is documented, `kind` itself unless it is an array of them."""
        self._decoder = msgspec.json.Decoder(kind)
        self.openapi: Final[dict[str, Any]] = {
            "requestBody": {"content": {"application/json": {"schema": _schema(schema)}}}
        }

    async def read(self, request: Request) -> _T:
        """The body of `request`; an empty one is `{}`. Raises as `parse`."""
        return self.parse(await request.body() or b"{}")

    def parse(self, body: bytes) -> _T:
        """What is in `body`. Raises INVALID_ARGUMENT, which clients of agents expect for broken JSON, too."""
        try:
            return parse_object(self._decoder, _clean(body))
        except RunstoreError as error:
            if error.reason is ErrorReason.MALFORMED_BODY:
                raise invalid("", error.message) from error
            raise


def body_of(struct: type[_T]) -> BodyOf[_T]:
    """The kind of body that is one object."""
    return BodyOf(struct, struct)


def json_bytes(raw: msgspec.Raw) -> bytes | None:
    """JSON as it was sent; None for null and for what was not."""
    content = bytes(raw)
    return None if content in (b"", b"null") else content


def object_bytes(field: str, raw: msgspec.Raw) -> bytes | None:
    """As `json_bytes`. Raises `invalid(field, …)` unless it is an object."""
    content = json_bytes(raw)
    if content is not None and content.lstrip(_JSON_SPACES)[:1] != b"{":
        raise invalid(field, "must be an object")
    return content


def selected(content: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """The given keys of an answer; all of them when none is given."""
    return {key: value for key, value in content.items() if key in keys} if keys else content


def page_headers(offset: int, shown: int, total: int) -> dict[str, str]:
    """How much there is beside a page, and where the next one begins."""
    headers = {"X-Pagination-Total": str(total)}
    if shown and offset + shown < total:
        headers["X-Pagination-Next"] = str(offset + shown)
    return headers


def _clean(body: bytes) -> bytes:
    """`body` as graphs can read it: what is handed on as bytes is not looked into here.

    Raises MALFORMED_BODY unless it is UTF-8; halves of surrogate pairs become U+FFFD.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise not_json(error) from error
    return replace_lone_surrogates(body) if b"\\u" in body else body


def _schema(struct: type) -> dict[str, Any]:
    """The JSON Schema of a struct, with those of the structs in it in their places."""
    _, components = msgspec.json.schema_components((struct,))

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return resolved(components[part["$ref"].rsplit("/", 1)[1]])
        return {key: resolved(value) for key, value in part.items()}

    schema: dict[str, Any] = resolved(components[struct.__name__])
    return schema
