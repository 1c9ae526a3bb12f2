"""JSON Schemas that the examples of a dataset satisfy."""

from functools import lru_cache
from typing import Any, Final

import jsonschema_rs
import msgspec

from runstore.domain.errors import invalid

# References lead inside of the schema alone: the server asks no address that a schema names. Patterns run in
# an engine whose time is linear in the text.
_OPTIONS: Final[dict[str, Any]] = {
    "offline": True,
    "pattern_options": jsonschema_rs.RegexOptions(),
    "validate_formats": True,
}
_MAX_SHOWN_CHARS: Final = 300


def check_schema(field: str, schema: bytes) -> None:
    """Raises INVALID_ARGUMENT unless `schema` is a JSON Schema that can be used."""
    _validator(field, schema)


def check_against(field: str, schema: bytes | None, document: bytes) -> None:
    """Raises INVALID_ARGUMENT, naming the place, unless the JSON satisfies the schema, if there is one."""
    if schema is None:
        return
    try:
        _validator(f"{field}_schema", schema).validate(msgspec.json.decode(document))
    except jsonschema_rs.ValidationError as error:
        place = ".".join(map(str, error.instance_path))
        message = f"does not satisfy the dataset's schema: {error.message[:_MAX_SHOWN_CHARS]}"
        raise invalid(f"{field}.{place}" if place else field, message) from error


@lru_cache(maxsize=256)
def _validator(field: str, schema: bytes) -> Any:
    try:
        return jsonschema_rs.validator_for(msgspec.json.decode(schema, type=dict[str, Any]), **_OPTIONS)
    except (ValueError, jsonschema_rs.ReferencingError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:_MAX_SHOWN_CHARS]
        raise invalid(field, f"not a JSON Schema that can be used: {reason}") from error
