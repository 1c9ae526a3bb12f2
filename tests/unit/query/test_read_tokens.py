"""Tokens that read attachments and payloads: nobody else makes one, and none lives longer than a day."""

from runstore.domain.blob_refs import BlobRef
from runstore.domain.runs import AttachmentRef, RunKey
from runstore.query.read_tokens import LIFETIME_S, ReadTokens

KEY = RunKey("project", 5, "run")


class FakeClock:
    def __init__(self) -> None:
        self.us = 1_800_000_000_000_000

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.us / 1e6


def test_tokens_name_what_they_were_made_for() -> None:
    """Of both kinds, safe in a URL."""
    tokens = ReadTokens(b"secret", FakeClock())
    of_attachment, of_payload = tokens.of_attachment("t", KEY, "f"), tokens.of_payload(BlobRef("t/aa/k", 9))
    assert tokens.decode(of_attachment) == AttachmentRef("t", KEY, "f")
    assert tokens.decode(of_payload) == BlobRef("t/aa/k", 9)
    assert all(char.isalnum() or char in "-_" for char in of_attachment + of_payload)


def test_altered_and_foreign_tokens_are_not_recognised() -> None:
    """Any character changed, another secret, nonsense."""
    tokens = ReadTokens(b"secret", FakeClock())
    token = tokens.of_payload(BlobRef("t/aa/k", 9))
    # Not the last one: its lowest bits are padding.
    for index, char in enumerate(token[:-1]):
        altered = token[:index] + ("A" if char != "A" else "B") + token[index + 1 :]
        assert tokens.decode(altered) is None
    assert ReadTokens(b"other", FakeClock()).decode(token) is None
    for nonsense in ("", "x", "é", "=" * 50, token[:-2]):
        assert tokens.decode(nonsense) is None


def test_tokens_expire() -> None:
    """After a day."""
    clock = FakeClock()
    tokens = ReadTokens(b"secret", clock)
    token = tokens.of_payload(BlobRef("t/aa/k", 9))
    clock.us += LIFETIME_S * 1_000_000
    assert tokens.decode(token) is not None
    clock.us += 1
    assert tokens.decode(token) is None
