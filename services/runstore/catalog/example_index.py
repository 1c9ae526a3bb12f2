"""A ranked text index (BM25) of the inputs of examples, in memory; who searches it brings it up to date."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import tantivy

from runstore.domain.blob_refs import is_reference, unpack

# The tokenizer drops longer words; and more than a few hundred words make no search better.
_MAX_WORD_BYTES: Final = 40
_MAX_QUERY_WORDS: Final = 256
_WRITER_BYTES: Final = 15_000_000
_WORD: Final = re.compile(r"[^\W_]+")


class ExampleIndex:
    """The words of the inputs of a dataset's examples in one version."""

    def __init__(self) -> None:
        fields = tantivy.SchemaBuilder()
        fields.add_text_field("id", stored=True, tokenizer_name="raw")
        fields.add_text_field("text")
        self._schema = fields.build()
        self._index = tantivy.Index(self._schema)
        self.version_us: int | None = None
        """The version that it holds; None while it is empty."""

    def __len__(self) -> int:
        """Examples in it."""
        count: int = self._index.searcher().num_docs
        return count

    def apply(
        self, gone: Sequence[str], written: Sequence[tuple[str, bytes]], version_us: int | None
    ) -> None:
        """Takes examples out and puts others, with their inputs, in or in the place of their old ones."""
        writer = self._index.writer(_WRITER_BYTES, 1)
        for example_id in (*gone, *(example_id for example_id, _ in written)):
            writer.delete_documents("id", example_id)
        for example_id, inputs in written:
            writer.add_document(tantivy.Document(id=example_id, text=" ".join(_words(inputs))))
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()
        self.version_us = version_us

    def search(self, inputs: bytes, limit: int) -> list[str]:
        """Ids of the examples that share words with `inputs`, the best match first."""
        words = [word for word in dict.fromkeys(_words(inputs)) if len(word.encode()) <= _MAX_WORD_BYTES][
            :_MAX_QUERY_WORDS
        ]
        if not words:
            return []
        terms = [
            (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "text", word)) for word in words
        ]
        searcher = self._index.searcher()
        hits = searcher.search(tantivy.Query.boolean_query(terms), limit).hits
        return [searcher.doc(address)["id"][0] for _, address in hits]


def _words(inputs: bytes) -> Iterator[str]:
    if is_reference(inputs):
        # The beginning of what is in the blob store; no JSON any more.
        texts: Iterator[str] = iter([unpack(inputs)[1].decode(errors="replace")])
    else:
        texts = _texts(msgspec.json.decode(inputs))
    for text in texts:
        yield from (word.lower() for word in _WORD.findall(text))


def _texts(value: Any) -> Iterator[str]:
    """Every text and number in the JSON, but for keys."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
