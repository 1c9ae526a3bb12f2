"""Copies of a text that differ in a few places of fixed length: filled in without building it again."""

import re
from collections.abc import Mapping, Sequence


class Stencil:
    """A text with slots. Filling one costs little more than copying the text."""

    def __init__(self, text: bytes, markers: Mapping[bytes, int]) -> None:
        """`markers`: what stands for each value in `text`, and which value it stands for.

        Longer markers go first, so that one may contain another. A value must have its marker's length.
        """
        longest_first = sorted(markers, key=len, reverse=True)
        pieces = re.split(b"(" + b"|".join(map(re.escape, longest_first)) + b")", text)
        self._pieces = pieces
        self._slots = [markers[marker] for marker in pieces[1::2]]
        self.size_bytes = len(text)

    def fill(self, values: Sequence[bytes]) -> bytes:
        """The text with `values` in its slots."""
        pieces = self._pieces.copy()
        pieces[1::2] = [values[slot] for slot in self._slots]
        return b"".join(pieces)
