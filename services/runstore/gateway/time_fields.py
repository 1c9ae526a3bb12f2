"""Times on their way between JSON, protobuf and microseconds since the epoch."""

from typing import Annotated, Any

from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from runstore.domain.errors import RunstoreError
from runstore.domain.times import parse_time


def _validated(value: Any) -> Any:
    if not isinstance(value, str):
        raise PydanticCustomError("datetime_parsing", "must be an ISO 8601 time")
    try:
        return parse_time("", value)
    except RunstoreError as error:
        raise PydanticCustomError("datetime_parsing", "{message}", {"message": error.message}) from error


TimeUs = Annotated[
    int, BeforeValidator(_validated), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""For pydantic models: an ISO 8601 time in JSON (naive is UTC), microseconds in Python."""


def to_timestamp(time_us: int) -> Timestamp:
    """The protobuf form of microseconds since the epoch."""
    seconds, micros = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1_000)


def to_time_us(timestamp: Timestamp) -> int:
    """Microseconds since the epoch of a protobuf time."""
    return timestamp.seconds * 1_000_000 + timestamp.nanos // 1_000
