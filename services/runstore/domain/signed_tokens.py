"""Tokens that we hand out and recognise again: signed, so that nobody else can make one, and expiring."""

import base64
import hmac
from hashlib import sha256
from typing import Final, Generic, TypeVar

import msgspec

from runstore.runtime.clock import Clock

_MAC_BYTES: Final = 16

T = TypeVar("T")


class SignedTokens(Generic[T]):
    """Tokens about things of one msgspec type (a tagged union of several, too).

    A token can be read by its bearer, but not changed. The secret outlives the process.
    """

    def __init__(self, secret: bytes, content: type[T], clock: Clock, *, lifetime_s: int) -> None:
        """`secret` belongs to tokens of this type alone."""
        self._secret = secret
        self._content = msgspec.msgpack.Decoder(tuple[int, content])  # type: ignore[valid-type]
        self._clock = clock
        self._lifetime_us = lifetime_s * 1_000_000

    def encode(self, content: T) -> str:
        """A URL-safe token."""
        packed = msgspec.msgpack.encode((self.expires_us(), content))
        return base64.urlsafe_b64encode(self._mac(packed) + packed).rstrip(b"=").decode()

    def expires_us(self) -> int:
        """When a token that is made now expires, in microseconds since the epoch."""
        return self._clock.now_us() + self._lifetime_us

    def decode(self, token: str) -> T | None:
        """What the token is about; None for one that is forged, altered or has expired."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            mac, packed = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(packed)):
                return None
            expires_us, content = self._content.decode(packed)
        except (ValueError, msgspec.DecodeError):
            return None
        return content if expires_us >= self._clock.now_us() else None

    def _mac(self, packed: bytes) -> bytes:
        return hmac.digest(self._secret, packed, sha256)[:_MAC_BYTES]
