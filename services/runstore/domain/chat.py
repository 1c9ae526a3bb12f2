"""Talking to a language model."""

from dataclasses import dataclass
from typing import Literal


class ModelUnavailable(Exception):
    """The model cannot be asked, or its answer cannot be read; the text is for operators."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str
