"""Manifests of prompts: LangChain's serialized objects, as far as their outermost shape matters."""

from typing import Any, Final

import msgspec

from runstore.domain.errors import ErrorReason, RunstoreError

_SEQUENCE: Final = "RunnableSequence"

SUPPORTED_TYPES: Final = frozenset(
    {
        *("PromptTemplate", "ChatPromptTemplate", "StructuredPrompt", "FewShotPromptTemplate"),
        *("FewShotPromptWithTemplates", "FewShotChatMessagePromptTemplate", "PipelinePromptTemplate"),
        *(
            "ImagePromptTemplate",
            "DictPromptTemplate",
            "AIMessagePromptTemplate",
            "ChatMessagePromptTemplate",
        ),
        *("HumanMessagePromptTemplate", "SystemMessagePromptTemplate", "MessagesPlaceholder"),
        *(_SEQUENCE, "RunnableBinding", "PromptPlayground"),
    }
)
"""Last elements of the `id` of what can be a prompt."""


class _Manifest(msgspec.Struct):
    id: list[str] | None = None
    kwargs: msgspec.Raw = msgspec.Raw(b"{}")


class _Steps(msgspec.Struct):
    first: msgspec.Raw = msgspec.Raw(b"")


def check_manifest(manifest: bytes) -> None:
    """Raises MALFORMED_BODY unless it is the manifest of a prompt; SDKs look for these very texts."""
    try:
        decoded: dict[str, Any] = msgspec.json.decode(manifest, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed("Manifest is not a JSON object") from error
    identity = decoded.get("id")
    if not isinstance(identity, list) or not identity or not all(isinstance(part, str) for part in identity):
        raise _malformed("Manifest must have an id field")
    if identity[-1] not in SUPPORTED_TYPES:
        raise _malformed(f"Manifest type {identity[-1][:100]} is not supported")


def without_model(manifest: bytes) -> bytes:
    """The prompt alone of one that was committed together with a model; any other as it is."""
    outer = msgspec.json.decode(manifest, type=_Manifest)
    if outer.id and outer.id[-1] == _SEQUENCE:
        return bytes(msgspec.json.decode(outer.kwargs, type=_Steps).first) or manifest
    return manifest


def _malformed(message: str) -> RunstoreError:
    return RunstoreError(ErrorReason.MALFORMED_BODY, message)
