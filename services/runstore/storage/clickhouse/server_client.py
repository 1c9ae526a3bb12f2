"""What a server takes for no parameter, because it is too long, goes into the statement itself."""

import re
from collections.abc import Mapping
from typing import Any, Final

from clickhouse_connect.driver.binding import bind_query

from runstore.storage.clickhouse.quoting import quoted

SETTINGS: Final = {"max_query_size": 64 * 1024 * 1024}
"""For statements that hold their parameters."""

# A server refuses longer ones ("Field value too long"). It is the default of its `http_max_field_value_size`,
# which statements cannot change: https://github.com/ClickHouse/ClickHouse/issues/36783
_MAX_BYTES: Final = 128 * 1024
# Shorter lists of short texts are not measured: no element of theirs has more than 300 bytes.
_SHORT: Final = 400
_SHORT_TEXT: Final = 64
_PLACE: Final = re.compile(r"\{(\w+):([^{}]+)\}")


class ServerClient:
    """A client of the driver whose parameters may be lists of any length."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def query(self, query: str, parameters: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """As the driver's."""
        text, parameters = inlined(query, parameters or {})
        return self._client.query(text, parameters, **options)

    def command(self, cmd: str, parameters: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """As the driver's."""
        text, parameters = inlined(cmd, parameters or {})
        return self._client.command(text, parameters, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def inlined(text: str, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The statement with long lists in the places of their parameters, and the other parameters."""
    left = dict(parameters)

    def put(place: re.Match[str]) -> str:
        name, sql_type = place.groups()
        literal = _literal_of_long(place[0], name, parameters.get(name))
        if literal is None:
            return place[0]
        left.pop(name, None)
        return f"CAST({literal}, {quoted(sql_type)})"

    if not any(map(_may_be_long, parameters.values())):
        return text, left
    return _PLACE.sub(put, text), left


def _may_be_long(value: object) -> bool:
    return isinstance(value, list) and (
        len(value) > _SHORT or any(isinstance(each, str) and len(each) > _SHORT_TEXT for each in value)
    )


def _literal_of_long(place: str, name: str, value: object) -> str | None:
    """What the driver would send for a list that is too long; None for everything else."""
    if not _may_be_long(value):
        return None
    _, bound = bind_query(place, {name: value})
    sent = bound[f"param_{name}"]
    return quoted(sent) if len(sent.encode()) > _MAX_BYTES else None
