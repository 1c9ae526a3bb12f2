"""Finds rows by a part of a text."""

from typing import Any, Final

from sqlalchemy import ColumnElement, Text, false, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

# SQLite takes patterns of 50,000 bytes; escaping may double them.
_MAX_PART_BYTES: Final = 20_000
_ESCAPE: Final = "/"


def has_part(column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
    """Whether a text has a part, in any case. A part longer than 20,000 bytes is in none."""
    if len(part.encode()) > _MAX_PART_BYTES:
        return false()
    for special in (_ESCAPE, "%", "_"):
        part = part.replace(special, _ESCAPE + special)
    return _Folded(column).like(_Folded(literal(f"%{part}%", Text)), escape=_ESCAPE)


class _Folded(FunctionElement[str]):
    """A text of which LIKE does not see the case."""

    inherit_cache = True
    type = Text()


@compiles(_Folded)
def _in_lower_case(folded: _Folded, compiler: SQLCompiler, **options: Any) -> str:
    return f"lower({compiler.process(folded.clauses, **options)})"


@compiles(_Folded, "sqlite")
def _as_it_is(folded: _Folded, compiler: SQLCompiler, **options: Any) -> str:
    """SQLite's LIKE does not see the case of ASCII, nor does its `lower`, which would double the time."""
    return compiler.process(folded.clauses, **options)
