"""Candidates: rows by which the engine finds the runs that meet a condition, before it merges any.

A condition on a merged run implies one on some row that is stored of it: a merged value is that of one
partial row, a word of a payload is in a row of the payload table. Such a row condition has no false
negatives, and the merged run is tested again, so candidates make a list fast and cannot make it wrong.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from itertools import chain

import msgspec

from runstore.domain.conditions import (
    AllOf,
    Always,
    AnyOf,
    Compare,
    Condition,
    Contains,
    DetailsEntry,
    DetailsField,
    JsonLeaf,
    Like,
    ListField,
    ListHas,
    ListHasLike,
    ListNotEmpty,
    MetadataContains,
    MetadataPath,
    Not,
    OneOf,
    Operand,
    Present,
    Relation,
    RowFamily,
    RowPart,
    ScalarField,
    SomeRow,
    TextField,
)
from runstore.storage.clickhouse.columns import METADATA_TERM_CHARS, METADATA_TERMS
from runstore.storage.clickhouse.columns import Present as Bit
from runstore.storage.clickhouse.filter_sql import ConditionWriter, spelled
from runstore.storage.clickhouse.operands import ROW_SCALARS, TEXT_BITS


class Rank(IntEnum):
    """How few rows a candidate has, as a rule."""

    RUN = 0
    TRACE = 1
    EXAMPLE = 2
    FEEDBACK = 3
    THREAD = 4
    WORD = 5
    METADATA = 6
    FILE = 7
    TAG = 8
    NAME = 9
    ERROR = 10
    FIGURE = 11
    KIND = 12


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of one table."""

    table: str
    where: str
    """Condition on its rows; the runs are those that the rows' keys name."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Every run that meets the condition has a row in one of the sources."""

    rank: Rank
    sources: tuple[Source, ...]


_RANKS: Mapping[Operand, Rank] = {
    ScalarField.RUN_ID: Rank.RUN,
    ScalarField.TRACE_ID: Rank.TRACE,
    ScalarField.PARENT_RUN_ID: Rank.TRACE,
    ScalarField.REFERENCE_EXAMPLE_ID: Rank.EXAMPLE,
    ScalarField.THREAD_ID: Rank.THREAD,
    ScalarField.NAME: Rank.NAME,
    ScalarField.LS_USER_ID: Rank.NAME,
    ScalarField.RUN_TYPE: Rank.KIND,
    ScalarField.IS_ROOT: Rank.KIND,
}
_STATUS_BITS = {"error": Bit.ERROR, "success": Bit.END_TIME}
_COUNTS = (DetailsField.PROMPT_TOKEN_DETAILS, DetailsField.COMPLETION_TOKEN_DETAILS)
# The engine looks up no shorter ones in an index of words.
_MIN_PIECE_LENGTH = 4
_PIECE = re.compile(rf"[A-Za-z0-9]{{{_MIN_PIECE_LENGTH},}}")
_WILDCARD = re.compile(r"\\.|[%_]", re.DOTALL)


class CandidateWriter:
    """Finds the candidates of conditions, collecting their parameters on the way."""

    def __init__(self, prefix: str) -> None:
        self.parameters: dict[str, object] = {}
        self._rows = ConditionWriter(prefix, self.parameters, "", ROW_SCALARS)

    def candidates(self, condition: Condition) -> list[Candidate]:
        """Candidates of a condition: all of them hold together; those with the fewest rows first."""
        return sorted(self._of(condition), key=lambda candidate: candidate.rank)

    def _of(self, condition: Condition) -> Iterable[Candidate]:
        match condition:
            case AllOf(conditions):
                return chain.from_iterable(map(self._of, conditions))
            case AnyOf(conditions):
                return self._either(conditions)
            case Always(value=False):
                return (Candidate(Rank.RUN, (Source("runs", "false"),)),)
            case Not(Not(same)):
                return self._of(same)
            case SomeRow() | MetadataContains() | Present(MetadataPath()):
                return self._of_rows(condition)
            case Contains() | Like(TextField()) | Present(TextField()):
                return self._of_texts(condition)
            case _:
                return self._of_column(condition)

    def _either(self, conditions: Iterable[Condition]) -> Iterable[Candidate]:
        """The best of each; without one there is none of all."""
        each = [
            min(self._of(part), key=lambda candidate: candidate.rank, default=None) for part in conditions
        ]
        best = [candidate for candidate in each if candidate is not None]
        if len(best) < len(each):
            return
        by_table: dict[str, list[str]] = {}
        for source in chain.from_iterable(candidate.sources for candidate in best):
            by_table.setdefault(source.table, []).append(source.where)
        sources = (Source(table, f"({' OR '.join(where)})") for table, where in by_table.items())
        yield Candidate(max(candidate.rank for candidate in best), tuple(sources))

    # ------------------------------------------------------------ columns of partial rows

    def _of_column(self, condition: Condition) -> Iterable[Candidate]:
        match condition:
            case ListNotEmpty() | ListHas() | ListHasLike():
                yield from self._of_list(condition)
            case Compare(ScalarField.STATUS) | OneOf(ScalarField.STATUS):
                yield from self._of_status(condition)
            case Compare(MetadataPath((key,))) | OneOf(MetadataPath((key,))) | Like(MetadataPath((key,))):
                yield from self._of_metadata([key], _texts(condition))
            case Compare(operand) | OneOf(operand) | Like(operand):
                if operand in ROW_SCALARS or (isinstance(operand, DetailsEntry) and operand.field in _COUNTS):
                    yield self._runs(_RANKS.get(operand, Rank.FIGURE), self._rows.condition(condition))

    def _of_status(self, condition: Compare | OneOf) -> Iterable[Candidate]:
        bits = [_STATUS_BITS.get(text) for text in _texts(condition) or ("pending",)]
        if all(bits):
            rank = Rank.ERROR if bits == [Bit.ERROR] else Rank.KIND
            yield self._runs(rank, " OR ".join(f"bitAnd(present, {bit.value}) != 0" for bit in bits if bit))

    def _of_list(self, condition: ListNotEmpty | ListHas | ListHasLike) -> Iterable[Candidate]:
        if condition.field is ListField.ATTACHMENTS:
            yield Candidate(Rank.FILE, (Source("run_attachments", self._rows.file_test(condition)),))
        else:
            rank = Rank.TAG if condition.field is ListField.TAGS else Rank.TRACE
            yield self._runs(rank, self._rows.condition(condition))

    def _runs(self, rank: Rank, where: str) -> Candidate:
        return Candidate(rank, (Source("runs", f"({where})"),))

    # ------------------------------------------------------------ metadata and feedback

    def _of_rows(self, condition: SomeRow | MetadataContains | Present) -> Iterable[Candidate]:
        match condition:
            case Present(MetadataPath((key,))):
                yield from self._of_metadata([key], ())
            case MetadataContains(leaves):
                for leaf in leaves:
                    yield from self._of_leaf(leaf)
            case SomeRow(RowFamily.METADATA, test):
                keys = _compared(test, RowPart.KEY)
                if keys:
                    yield from self._of_metadata(keys, _compared(test, RowPart.VALUE))
            case SomeRow(RowFamily.FEEDBACK, test):
                if keys := _compared(test, RowPart.KEY):
                    keyed = f"key IN {self._parameter('Array(String)', list(keys))}"
                    records = f"SELECT run_id FROM feedback WHERE tenant_id = {{tenant:UUID}} AND {keyed}"
                    yield self._runs(Rank.FEEDBACK, f"run_id IN ({records})")
            case SomeRow(RowFamily.INPUTS | RowFamily.OUTPUTS as family, test):
                for part in (RowPart.VALUE, RowPart.KEY):
                    pieces = [_longest_piece(chunks) for chunks in _chunks(test, part)]
                    if pieces and all(pieces):
                        yield from self._of_pieces({TextField(family.value): pieces})
                        return

    def _of_leaf(self, leaf: JsonLeaf) -> Iterable[Candidate]:
        match leaf:
            case JsonLeaf((str(key),), str(text)):
                return self._of_metadata([key], [text])
            case JsonLeaf((str(key),), bool(value)):
                return self._of_metadata([key], ["true" if value else "false"])
            case JsonLeaf((str(key),), Decimal()):
                return self._of_metadata([key], ())
            case _:
                return ()

    def _of_metadata(self, keys: Iterable[str], texts: Iterable[str]) -> Iterable[Candidate]:
        """Rows with one of the keys and, if there are any, one of the texts for its value."""
        terms = [_metadata_term(key, value) for key in keys for text in texts for value in _spellings(text)]
        listed = self._parameter("Array(String)", terms or list(keys))
        # `hasAnyTokens` would pass over the empty key.
        yield self._runs(Rank.METADATA if terms else Rank.FIGURE, f"hasAny({METADATA_TERMS}, {listed})")

    # ------------------------------------------------------------ words

    def _of_texts(self, condition: Contains | Like | Present) -> Iterable[Candidate]:
        match condition:
            case Present(TextField() as field):
                rank = Rank.ERROR if field is TextField.ERROR else Rank.KIND
                yield self._runs(rank, f"bitAnd(present, {TEXT_BITS[field].value}) != 0")
            case Contains(texts, word) if word.isascii():
                pieces = {text: [_longest_piece([spelled(word, text)])] for text in texts}
                yield from self._of_pieces(pieces)
            case Like(TextField() as field, pattern) if pattern.isascii():
                yield from self._of_pieces({field: [_longest_piece(_WILDCARD.split(pattern))]})

    def _of_pieces(self, pieces: dict[ScalarField | TextField, list[str]]) -> Iterable[Candidate]:
        """Rows that contain one of the pieces of a text; none when a piece is too short to be looked up."""
        if not all(chain.from_iterable(pieces.values())):
            return
        sources = []
        for text, words in pieces.items():
            patterns = [self._parameter("String", f"%{word}%") for word in words]
            where = " OR ".join(f"lower({text.value}) LIKE {pattern}" for pattern in patterns)
            if text is TextField.ERROR:
                where = f"bitAnd(present, {Bit.ERROR.value}) != 0 AND ({where})"
            sources.append(Source("runs" if text is ScalarField.NAME else "run_payloads", f"({where})"))
        yield Candidate(Rank.WORD, tuple(sources))

    def _parameter(self, sql_type: str, value: object) -> str:
        return self._rows.parameter(sql_type, value)


def _conjuncts(test: Condition) -> tuple[Condition, ...]:
    return test.conditions if isinstance(test, AllOf) else (test,)


def _texts(condition: Condition) -> tuple[str, ...]:
    """The texts one of which the operand equals; none when it is compared in another way."""
    match condition:
        case Compare(_, Relation.EQ, str(text)):
            return (text,)
        case OneOf(_, (str(), *_) as texts):
            return tuple(text for text in texts if isinstance(text, str))
        case _:
            return ()


def _compared(test: Condition, part: RowPart) -> tuple[str, ...]:
    """As `_texts`, of one part of a row under test."""
    for condition in _conjuncts(test):
        if (
            isinstance(condition, Compare | OneOf)
            and condition.operand is part
            and (texts := _texts(condition))
        ):
            return texts
    return ()


def _chunks(test: Condition, part: RowPart) -> Sequence[Sequence[str]]:
    """What a part of the row under test contains: everything in one of these, in any case of letters."""
    if texts := _compared(test, part):
        return [[text] for text in texts]
    patterns = [each.pattern for each in _conjuncts(test) if isinstance(each, Like) and each.operand is part]
    return [_WILDCARD.split(pattern) for pattern in patterns[:1] if pattern.isascii()]


def _longest_piece(chunks: Iterable[str]) -> str:
    """The longest run of ASCII letters and digits, in lower case; "" if it is too short."""
    pieces = (piece for chunk in chunks for piece in _PIECE.findall(chunk))
    return max(pieces, key=len, default="").lower()


def _spellings(text: str) -> tuple[str, str]:
    """What metadata of this text are stored as: the JSON of a string, or of anything else."""
    return msgspec.json.encode(text).decode(), text


def _metadata_term(key: str, value: str) -> str:
    return f"{key}={value[:METADATA_TERM_CHARS]}"
