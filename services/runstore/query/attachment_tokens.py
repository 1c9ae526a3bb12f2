"""Tokens that let their bearer read one attachment for a while, without another credential."""

import base64
import hmac
from hashlib import sha256
from typing import Final

import msgspec

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.runs import AttachmentRef, RunKey
from runstore.runtime.clock import Clock

LIFETIME_S: Final = 24 * 3_600
_VERSION: Final = 1
_MAC_BYTES: Final = 16


class _Body(msgspec.Struct, array_like=True):
    version: int
    expires_us: int
    tenant_id: str
    project_id: str
    start_time_us: int
    run_id: str
    name: str


class AttachmentTokens:
    """Signs and reads tokens; the secret outlives the process."""

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    def encode(self, tenant_id: str, key: RunKey, name: str) -> str:
        """A URL-safe token that expires in a day."""
        expires_us = self._clock.now_us() + LIFETIME_S * 1_000_000
        body = _Body(_VERSION, expires_us, tenant_id, key.project_id, key.start_time_us, key.run_id, name)
        packed = msgspec.msgpack.encode(body)
        return base64.urlsafe_b64encode(self._mac(packed) + packed).rstrip(b"=").decode()

    def decode(self, token: str) -> AttachmentRef:
        """What the token names. Raises NOT_FOUND for a forged or expired one, as for a missing file."""
        refused = RunstoreError(ErrorReason.NOT_FOUND, "the attachment token is not valid, or not any more")
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            mac, packed = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(packed)):
                raise refused
            body = msgspec.msgpack.decode(packed, type=_Body)
        except (ValueError, msgspec.DecodeError) as error:
            raise refused from error
        if body.version != _VERSION or body.expires_us < self._clock.now_us():
            raise refused
        key = RunKey(body.project_id, body.start_time_us, body.run_id)
        return AttachmentRef(body.tenant_id, key, body.name)

    def _mac(self, packed: bytes) -> bytes:
        return hmac.digest(self._secret, packed, sha256)[:_MAC_BYTES]
