"""What text the catalog accepts for names, descriptions and JSON objects, on either database."""

import msgspec

from runstore.domain.errors import invalid

MAX_NAME_CHARACTERS = 512
"""Below the length of a PostgreSQL index entry in any script."""

_MAX_DESCRIPTION_CHARACTERS = 65_536


def check_name(field: str, name: str) -> None:
    """Raises RunstoreError INVALID_ARGUMENT unless `name` can name something."""
    if not name:
        raise invalid(field, f"{field} is empty")
    _check_text(field, name, MAX_NAME_CHARACTERS)


def check_description(field: str, description: str | None) -> None:
    """Raises RunstoreError INVALID_ARGUMENT when the text is too long or cannot be stored."""
    if description is not None:
        _check_text(field, description, _MAX_DESCRIPTION_CHARACTERS)


def json_object(field: str, document: bytes | str) -> dict[str, object]:
    """Decodes a JSON object. Raises RunstoreError INVALID_ARGUMENT for anything else."""
    try:
        return msgspec.json.decode(document, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, UnicodeEncodeError, RecursionError) as error:
        raise invalid(field, f"{field} is not a JSON object") from error


def _check_text(field: str, text: str, max_characters: int) -> None:
    if len(text) > max_characters:
        raise invalid(field, f"{field} has {len(text)} characters, above the limit of {max_characters}")
    # PostgreSQL cannot store NUL, and neither database half of a surrogate pair.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise invalid(field, f"{field} holds a character that cannot be stored (NUL or a lone surrogate)")
