"""Reads and merges `extra`, where clients put metadata, invocation parameters and their runtime.

Facts: contract runs-v1, sections 4.3 (merging), 10 (model names) and 11 (threads).
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from runstore.domain import json_text
from runstore.domain.usage import Usage, usage_from_metadata

_ABSENT: Final = msgspec.Raw()
_NULL: Final = msgspec.Raw(b"null")
_THREAD_KEYS: Final = (("session_id", 3), ("conversation_id", 2), ("thread_id", 1))
_QUOTE: Final = ord('"')


class _Extra(msgspec.Struct):
    metadata: msgspec.Raw = _ABSENT
    invocation_params: msgspec.Raw = _ABSENT


class _InvocationParams(msgspec.Struct):
    model: msgspec.Raw = _ABSENT
    model_name: msgspec.Raw = _ABSENT


_EXTRA: Final = msgspec.json.Decoder(_Extra)
_INVOCATION_PARAMS: Final = msgspec.json.Decoder(_InvocationParams)
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING: Final = msgspec.json.Decoder(str)


class ExtraFacts(msgspec.Struct, frozen=True, gc=False):
    """What filters, threads and prices need to know of `extra`; "" where it does not say."""

    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    """Top-level keys of `extra.metadata`, but for nulls, which say nothing; values as compact JSON."""
    thread_id: str = ""
    thread_rank: int = 0
    """3: from session_id, 2: conversation_id, 1: thread_id, 0: none; the higher rank holds."""
    usage: Usage | None = None
    model: str = ""
    """`metadata.ls_model_name`, else the model in `invocation_params`."""
    provider: str = ""
    """`metadata.ls_provider`."""
    ls_user_id: str = ""


def read_extra(raw: bytes) -> ExtraFacts:
    """The facts in a run's `extra` (JSON).

    Raises `invalid("extra", ...)` for malformed JSON. JSON of another shape has no facts.
    """
    extra = json_text.decode(_EXTRA, "extra", raw)
    if extra is None:
        return ExtraFacts()
    metadata = {} if extra.metadata is _ABSENT else json_text.decode_part(_OBJECT, extra.metadata) or {}
    thread_id, thread_rank = _thread(metadata)
    usage = metadata.get("usage_metadata")
    return ExtraFacts(
        metadata={key: json_text.compact(value) for key, value in metadata.items() if value != _NULL},
        thread_id=thread_id,
        thread_rank=thread_rank,
        usage=None if usage is None else usage_from_metadata(usage),
        model=_string(metadata.get("ls_model_name")) or _invoked_model(extra.invocation_params),
        provider=_string(metadata.get("ls_provider")),
        ls_user_id=_string(metadata.get("ls_user_id")),
    )


def merge_extra(old: bytes, new: bytes) -> bytes:
    """`old` with the keys of `new` over it, those inside `metadata` one by one; both are JSON.

    A null never replaces anything, and nothing but an object replaces an object, so that merging
    is associative and applying `new` again changes nothing. Values keep their bytes, except that
    lone surrogates become U+FFFD. Raises `invalid("extra", ...)` for malformed JSON.
    """
    if old == new:
        return old
    new_keys = json_text.decode(_OBJECT, "extra", new)
    old_keys = json_text.decode(_OBJECT, "extra", old)
    if new_keys is None or old_keys is None:
        old_holds = old_keys is not None or (new_keys is None and new.strip() == b"null")
        return old if old_holds else new
    old_metadata, new_metadata = old_keys.get("metadata"), new_keys.get("metadata")
    merged = _overlay(old_keys, new_keys)
    if old_metadata is not None and new_metadata is not None:
        merged["metadata"] = _merge_metadata(old_metadata, new_metadata)
    return msgspec.json.encode(merged)


def metadata_of(raw: bytes) -> bytes | None:
    """The JSON of `extra.metadata`, byte for byte; None when there is none."""
    extra = json_text.decode(_EXTRA, "extra", raw)
    if extra is None or extra.metadata is _ABSENT:
        return None
    return bytes(extra.metadata)


def _merge_metadata(old: msgspec.Raw, new: msgspec.Raw) -> msgspec.Raw:
    old_keys, new_keys = json_text.decode_part(_OBJECT, old), json_text.decode_part(_OBJECT, new)
    if old_keys is None or new_keys is None:
        return old if old_keys is not None or (new_keys is None and new == _NULL) else new
    return msgspec.Raw(msgspec.json.encode(_overlay(old_keys, new_keys)))


def _overlay(old: Mapping[str, msgspec.Raw], new: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    merged = dict(old)
    for key, value in new.items():
        if value != _NULL or key not in merged:
            merged[key] = value
    return merged


def _thread(metadata: Mapping[str, msgspec.Raw]) -> tuple[str, int]:
    for key, rank in _THREAD_KEYS:
        thread_id = _string(metadata.get(key))
        if thread_id:
            return thread_id, rank
    return "", 0


def _invoked_model(raw: msgspec.Raw) -> str:
    params = None if raw is _ABSENT else json_text.decode_part(_INVOCATION_PARAMS, raw)
    return "" if params is None else _string(params.model) or _string(params.model_name)


def _string(value: msgspec.Raw | None) -> str:
    """The string that `value` is; "" for every other value."""
    if value is None or value is _ABSENT or memoryview(value)[0] != _QUOTE:
        return ""
    return _STRING.decode(value)
