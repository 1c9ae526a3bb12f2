"""The table of dead letters."""

import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from runstore.domain.dead_letters import DeadLetter
from runstore.domain.feedback import FeedbackPatch
from runstore.domain.runs import RunPatch
from runstore.storage.clickhouse.columns import NIL_UUID
from runstore.storage.clickhouse.engine import Engine

# An operation on feedback stands in a list, which tells it from one on a run.
_OPERATION: Final = msgspec.msgpack.Decoder(RunPatch | list[FeedbackPatch])

# A letter that was refused again has a row for each time, until the engine merges them.
_LETTER = (
    "toString(tenant_id), toString(run_id) AS run, seq, argMax(reason, buried_at), "
    "argMax(length(operation), buried_at), toUnixTimestamp64Micro(max(buried_at)), "
    "groupUniqArray(toString(burial))"
)
_GROUPS = "GROUP BY tenant_id, run_id, seq ORDER BY seq, run"
_ID = "concat(leftPad(lower(hex(seq)), 16, '0'), '-', substring(toString(run_id), 1, 8))"


class ClickHouseDeadLetters:
    """`DeadLetterStore` in ClickHouse."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def bury(self, patches: Sequence[RunPatch | FeedbackPatch], reason: str, /) -> None:
        now = datetime.now(UTC)
        values = [
            [
                patch.tenant_id,
                patch.run_id or NIL_UUID,
                patch.sequence,
                reason,
                msgspec.msgpack.encode([patch] if isinstance(patch, FeedbackPatch) else patch),
                uuid.uuid4(),
                now,
            ]
            for patch in patches
        ]
        names = ["tenant_id", "run_id", "seq", "reason", "operation", "burial", "buried_at"]
        await self._engine.write(lambda client: client.insert("dead_letters", values, names))

    async def page(self, after: str, limit: int, /) -> list[DeadLetter]:
        text = f"SELECT {_LETTER} FROM dead_letters WHERE {_ID} > {{after:String}} {_GROUPS} LIMIT {limit:d}"
        return [_letter(row) for row in await self._rows(text, {"after": after})]

    async def find(self, ids: Collection[str], /) -> list[DeadLetter]:
        text = f"SELECT {_LETTER} FROM dead_letters WHERE {_ID} IN {{ids:Array(String)}} {_GROUPS}"
        return [_letter(row) for row in await self._rows(text, {"ids": list(ids)})]

    async def open(self, letter_id: str, /) -> DeadLetter | None:
        text = (
            f"SELECT {_LETTER}, argMax(operation, buried_at) FROM dead_letters WHERE {_ID} = {{id:String}} "
            f"{_GROUPS}"
        )
        rows = await self._rows(text, {"id": letter_id})
        return _letter(rows[0][:-1], _patch(rows[0][-1])) if rows else None

    async def forget(self, letters: Collection[DeadLetter], /) -> None:
        if not letters:
            return
        parameters = {
            "sequences": [letter.sequence for letter in letters],
            "burials": sorted({burial for letter in letters for burial in letter.burials}),
        }
        statement = (
            "DELETE FROM dead_letters WHERE seq IN {sequences:Array(UInt64)} "
            "AND burial IN {burials:Array(UUID)}"
        )
        await self._engine.write(lambda client: client.command(statement, parameters=parameters))

    async def _rows(self, text: str, parameters: dict[str, Any]) -> Sequence[Sequence[Any]]:
        """Strings come as bytes: an operation is not text."""
        return await self._engine.read(
            lambda client: (
                client.query(text, parameters=parameters, query_formats={"String": "bytes"}).result_rows
            )
        )


def _letter(row: Sequence[Any], patch: RunPatch | FeedbackPatch | None = None) -> DeadLetter:
    tenant_id, run_id, sequence, reason, size_bytes, buried_at_us, burials = row
    return DeadLetter(
        tenant_id=_text(tenant_id),
        run_id=_text(run_id),
        sequence=sequence,
        reason=_text(reason),
        size_bytes=size_bytes,
        buried_at_us=buried_at_us,
        burials=frozenset(_text(burial) for burial in burials),
        patch=patch,
    )


def _patch(operation: bytes) -> RunPatch | FeedbackPatch | None:
    try:
        decoded: RunPatch | list[FeedbackPatch] = _OPERATION.decode(operation)
    except msgspec.DecodeError:  # Of another version.
        return None
    return decoded[0] if isinstance(decoded, list) else decoded


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
