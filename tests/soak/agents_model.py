"""What may have become of the runs of a thread: written from the contract, knowing nothing of the store.

Which of a run's possible ends came about depends on moments that no client sees. But each end has its
conditions, and all traces of a run (its row, the thread's log, its checkpoints, its webhook) must tell of the
same one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

LETTERS = "abcd"


@dataclass(slots=True)
class Asked:
    """What was asked of a thread: a run, and cancels of it."""

    tag: str
    strategy: str
    fails: bool
    run_id: str | None = None
    """None when it was refused."""
    cancels: set[str] = field(default_factory=set)
    """Actions of the cancels that were accepted."""


@dataclass(slots=True)
class Found:
    """What is there of a thread in the end."""

    rows: dict[str, dict[str, Any]]
    """By run id."""
    log: list[str]
    status: str
    checkpointed: set[str]
    """Ids of the runs that checkpoints are of."""
    webhooks: dict[str, list[dict[str, Any]]]
    """Bodies that the receiver has taken, by tag."""


def judge(story: Sequence[Asked], found: Found) -> Iterator[str]:
    """What cannot be, in words; nothing when all is well."""
    for place, asked in enumerate(story):
        for problem in _judge_run(story, place, found):
            yield f"{asked.tag} ({asked.strategy}, {asked.run_id}): {problem}"
    expected = [entry for asked in story for entry in found.log if entry.startswith(f"{asked.tag}:")]
    if found.log != expected:
        yield f"the log is not in the order of the runs: {found.log}"
    yield from _judge_thread(story, found)


def ended_as(asked: Asked, found: Found) -> str:
    """`refused`, `gone`, or the status of the row."""
    if asked.run_id is None:
        return "refused"
    row = found.rows.get(asked.run_id)
    return "gone" if row is None else str(row["status"])


def _judge_run(story: Sequence[Asked], place: int, found: Found) -> Iterator[str]:
    asked, later = story[place], story[place + 1 :]
    end = ended_as(asked, found)
    letters = "".join(entry[-1] for entry in found.log if entry.startswith(f"{asked.tag}:"))
    told = found.webhooks.get(asked.tag, [])
    if not LETTERS.startswith(letters):
        yield f"committed {letters}"
    if end == "refused":
        if asked.strategy != "reject" or letters or told:
            yield f"refused, but left {letters!r} and {len(told)} calls"
        return
    reasons = asked.cancels | {other.strategy for other in later if other.run_id is not None}
    if _was_given_up(asked, end, told):
        # Its worker was killed whenever it was begun: nobody could say what it had left.
        yield from _judge_superseded(asked, end, later, found)
        return
    if not _is_possible(asked, end, reasons, letters, len(told)) or (
        end == "gone" and asked.run_id in found.checkpointed
    ):
        yield f"{end}, with reasons {reasons} to stop, letters {letters!r} and {len(told)} calls"
    for body in told:
        yield from _judge_webhook(asked, end, letters, body)
    yield from _judge_superseded(asked, end, later, found)


def _was_given_up(asked: Asked, end: str, told: Sequence[dict[str, Any]]) -> bool:
    """Whether a run ended because three workers in turn were lost with it."""
    errors = [body.get("error", {}).get("error") for body in told]
    return end == "error" and errors == ["WorkerLost"] and not asked.cancels


def _is_possible(asked: Asked, end: str, reasons: set[str], letters: str, calls: int) -> bool:
    """Whether a run may have ended like that: what for, what it leaves, how often it is told."""
    if end == "success":
        return letters == LETTERS and not asked.fails and not asked.cancels and calls == 1
    if end == "error":
        return letters == "a" and asked.fails and not asked.cancels and calls == 1
    if end == "interrupted":  # One that no worker had is not told of.
        return "interrupt" in reasons and calls <= 1 and (not letters or calls == 1)
    return end == "gone" and "rollback" in reasons and not letters and calls <= 1


def _judge_webhook(asked: Asked, end: str, letters: str, body: dict[str, Any]) -> Iterator[str]:
    status = {"gone": "rollback"}.get(end, end)
    if (body["status"], body["run_id"]) != (status, asked.run_id):
        yield f"told to be {body['status']}"
    log = (body["values"] or {}).get("log", [])
    if end != "gone" and "".join(e[-1] for e in log if e.startswith(f"{asked.tag}:")) != letters:
        yield f"told to have left {log}"
    if ("error" in body) != (end != "success"):
        yield "told with an error that it does not have, or without the one it has"


def _judge_superseded(asked: Asked, end: str, later: Sequence[Asked], found: Found) -> Iterator[str]:
    """A run that ended by itself had done so before what would have stopped it, or forbidden the later."""
    row = found.rows.get(asked.run_id or "")
    if row is None or end not in ("success", "error"):
        return
    for other in later:
        other_row = found.rows.get(other.run_id or "")
        if other.strategy != "enqueue" and other_row and row["updated_at"] > other_row["created_at"]:
            yield f"ended by itself at {row['updated_at']}, after {other.tag} ({other.strategy}) had come"


def _judge_thread(story: Sequence[Asked], found: Found) -> Iterator[str]:
    ends = [end for asked in story if (end := ended_as(asked, found)) not in ("refused", "gone")]
    if found.status not in ("idle", "interrupted", "error"):
        yield f"the thread is {found.status}"
    known = {asked.run_id for asked in story}
    if strangers := set(found.rows) - known:
        yield f"runs that nobody asked for: {strangers}"
    was_rolled_back = ended_as(story[-1], found) == "gone"
    expected = {"success": "idle", "error": "error"}.get(ends[-1]) if ends and not was_rolled_back else None
    if expected is not None and ended_as(story[-1], found) != "refused" and found.status != expected:
        yield f"the thread is {found.status} after {ends[-1]}"
