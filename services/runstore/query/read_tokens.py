"""Tokens that let their bearer read one attachment or one large payload for a day, without a credential."""

from typing import Final, NamedTuple

import msgspec

from runstore.domain.blob_refs import BlobRef
from runstore.domain.runs import AttachmentRef, RunKey
from runstore.domain.signed_tokens import SignedTokens
from runstore.runtime.clock import Clock

LIFETIME_S: Final = 24 * 3_600


class _Attachment(msgspec.Struct, array_like=True, tag=1):
    tenant_id: str
    project_id: str
    start_time_us: int
    run_id: str
    name: str


class _Payload(msgspec.Struct, array_like=True, tag=2):
    key: str
    size_bytes: int


class _File(msgspec.Struct, array_like=True, tag=3):
    key: str
    size_bytes: int
    mime_type: str


class FileRef(NamedTuple):
    """A file in the blob store."""

    mime_type: str
    blob: BlobRef


class ReadTokens:
    """Makes and reads tokens."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._tokens: SignedTokens[_Attachment | _Payload | _File] = SignedTokens(
            secret,
            _Attachment | _Payload | _File,  # type: ignore[arg-type]  # a union is no type to mypy
            clock,
            lifetime_s=LIFETIME_S,
        )

    def of_attachment(self, tenant_id: str, key: RunKey, name: str) -> str:
        """A token for whatever the run has by that name when it is read."""
        return self._tokens.encode(
            _Attachment(tenant_id, key.project_id, key.start_time_us, key.run_id, name)
        )

    def of_payload(self, ref: BlobRef) -> str:
        """A token for a payload in the blob store."""
        return self._tokens.encode(_Payload(ref.key, ref.size_bytes))

    def of_file(self, file: FileRef) -> str:
        """A token for a file in the blob store."""
        return self._tokens.encode(_File(file.blob.key, file.blob.size_bytes, file.mime_type))

    def decode(self, token: str) -> AttachmentRef | BlobRef | FileRef | None:
        """What the token names; None for one that is forged or has expired."""
        found = self._tokens.decode(token)
        if isinstance(found, _Attachment):
            key = RunKey(found.project_id, found.start_time_us, found.run_id)
            return AttachmentRef(found.tenant_id, key, found.name)
        if isinstance(found, _File):
            return FileRef(found.mime_type, BlobRef(found.key, found.size_bytes))
        return BlobRef(found.key, found.size_bytes) if found is not None else None
