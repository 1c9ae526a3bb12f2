"""What was acknowledged, and what the runs must therefore be.

The rules are the contract's (runs-v1, section 4.3): operations merge field by field, the last value of a
field wins, `extra` and its `metadata` merge by key and attachments by name, nothing is ever erased.

An operation that was sent and not acknowledged may be applied at any later time, or never. So a field may
have the value that was acknowledged last, or one of those whose fate is not known.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from tests.soak.stories import Batch, Node, Operation

Path = tuple[str, ...]
"""A field: `("name",)`, `("extra", "runtime")`, `("extra", "metadata", "key")`, `("attachments", "a")`."""

Values = Mapping[Path, object]

_DIGEST_BYTES = 16
_LONGEST_KEPT_BYTES = 100


@dataclass(slots=True)
class Fate:
    """What is known of one field."""

    acknowledged: object = None
    is_acknowledged: bool = False
    possible: list[object] = field(default_factory=list)
    """Values of operations whose fate is not known."""

    def allows(self, value: object) -> bool:
        """Whether a reader may find the value; None for no value."""
        if value is None:
            return not self.is_acknowledged
        return (self.is_acknowledged and value == self.acknowledged) or value in self.possible


@dataclass(slots=True)
class ExpectedRun:
    """One run as its operations make it."""

    node: Node
    is_created: bool = False
    """Its creation was acknowledged, so it must be listed."""
    may_be_created: bool = False
    fields: dict[Path, Fate] = field(default_factory=dict)


@dataclass(slots=True)
class Counts:
    """What tracers did."""

    sent: int = 0
    """Operations, each time they were sent."""
    acknowledged: int = 0
    retried: int = 0
    abandoned: int = 0
    """Operations that were not acknowledged and not sent again."""
    refused: int = 0
    """Valid operations that the server refused: a failure."""
    refusals: list[str] = field(default_factory=list)


class Ledger:
    """Every operation that was sent. One event loop owns it; the operations of a run never overlap."""

    def __init__(self) -> None:
        self.runs: dict[str, ExpectedRun] = {}
        self.counts = Counts()

    def acknowledge(self, batch: Batch) -> None:
        """The server has answered that the batch is durable."""
        self.counts.acknowledged += len(batch)
        for operation in batch:
            run = self._run(operation)
            run.is_created |= operation.is_create
            for path, value in values_of(operation):
                fate = run.fields.setdefault(path, Fate())
                fate.acknowledged, fate.is_acknowledged = value, True

    def lose(self, batch: Batch) -> None:
        """The server has not answered, or has answered that it does not know."""
        for operation in batch:
            run = self._run(operation)
            run.may_be_created |= operation.is_create
            for path, value in values_of(operation):
                fate = run.fields.setdefault(path, Fate())
                if value not in fate.possible:
                    fate.possible.append(value)

    def refuse(self, batch: Batch, why: str) -> None:
        """The server has refused what it had to accept."""
        self.lose(batch)
        self.counts.refused += len(batch)
        self.counts.refusals.append(why)

    def _run(self, operation: Operation) -> ExpectedRun:
        run = self.runs.get(operation.node.run_id)
        if run is None:
            run = self.runs[operation.node.run_id] = ExpectedRun(operation.node)
        return run

    # -- comparing -----------------------------------------------------------------------------------

    def wrong_fields(self, run_id: str, stored: Values) -> Iterator[str]:
        """What is wrong with the fields of a run that was found."""
        run = self.runs[run_id]
        for path, fate in run.fields.items():
            value = stored.get(path)
            if not fate.allows(value):
                wanted = [fate.acknowledged, *fate.possible] if fate.is_acknowledged else fate.possible
                yield f"{'.'.join(path)} is {value!r}, not {' or '.join(map(repr, wanted))}"
        for path in stored.keys() - run.fields.keys():
            yield f"{'.'.join(path)} is {stored[path]!r}, which was never sent"

    def is_position_known(self, run_id: str) -> bool:
        """Whether the run and all above it were created for sure, so that its place is certain."""
        return all(
            above in self.runs and self.runs[above].is_created
            for above in (*self.runs[run_id].node.ancestors, run_id)
        )


def values_of(operation: Operation) -> Iterator[tuple[Path, object]]:
    """The fields that an operation sets."""
    for name, value in operation.told.items():
        if name == "extra":
            yield from extra_values(value)
        elif name == "attachments":
            for file, (mime_type, content) in value.items():
                yield ("attachments", file), (mime_type, len(content))
        else:
            yield (name,), kept(value)


def extra_values(extra: Mapping[str, Any]) -> Iterator[tuple[Path, object]]:
    """`extra` by key, and its `metadata` by key."""
    for key, value in extra.items():
        if key == "metadata":
            for name, metadata in value.items():
                yield ("extra", "metadata", name), kept(metadata)
        else:
            yield ("extra", key), kept(value)


def kept(value: object) -> object:
    """The value as the ledger keeps it: a digest of what is long."""
    if isinstance(value, list):
        value = tuple(value)
    elif isinstance(value, dict):
        value = msgspec.json.encode(value, order="sorted")
    if isinstance(value, bytes) and len(value) > _LONGEST_KEPT_BYTES:
        digest = hashlib.blake2b(value, digest_size=_DIGEST_BYTES).hexdigest()
        return f"{value[:60].decode(errors='replace')}… {len(value)} bytes, {digest}"
    return value


def listed_too_often(ids: Iterable[str]) -> list[str]:
    """Ids that come more than once."""
    seen: set[str] = set()
    return [run_id for run_id in ids if run_id in seen or seen.add(run_id)]  # type: ignore[func-returns-value]
