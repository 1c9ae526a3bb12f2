"""Random runs with everything that filters ask about, stored operation by operation."""

import json
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.runs import Attachment, RunField, RunPatch, RunType
from runstore.domain.times import EPOCH, MICROSECOND

from .filter_oracle import Feedback, Run
from .oracle import expected_runs
from .pipeline import FIRST_SEQUENCE, Pipeline
from .test_operations import T0_US, Sender
from .thread_oracle import id_order

WORDS = (
    "Refund", "refunds", "quokka", "QUOKKAS", "naïve", "ÉCOLE", "foo-bar42", 'say"so', "back\\slash",
    "line\nbreak", "xylotheque", "42", "ok", "100%", "under_score", "{brace}", "it's",
)  # fmt: skip
NAMES = ("agent", "Agent", "ChatOpenAI", "Retrieve Docs", "naïve", "a_b")
TAGS = ("prod", "beta", "ünï", "it's", "a", "")
KEYS = ("env", "user", "a.b", "session_id", "n", "")
VALUES: tuple[Any, ...] = ("prod", "dev", 5, 5.5, -1, True, "5", {"x": "y"}, ["a"], None, "", "quokka", "é")
LEAF_KEYS = ("question", "messages.content", "messages.role", "docs.page_content", "n", "deep.a.b", "x.y")
FEEDBACK_KEYS = ("correctness", "user_score", "ünï")
FILES = ("image", "Scan 2")
USERS = ("anna", "Ben")
_FIRST_TOKEN = b'[{"name": "new_token", "time": "2026-11-20T12:00:00.00%dZ"}]'
THREADS = ("prod", "é", 'say "it\'s"')
EXAMPLES = tuple(str(UUID(int=number, version=4)) for number in range(1, 3))


@dataclass(frozen=True)
class Scene:
    """Runs of one tenant, planted ones in two projects."""

    tenant_id: str
    project_ids: tuple[str, ...]
    runs: tuple[Run, ...]
    """In the order of lists, the oldest first."""
    fields: Mapping[str, Mapping[RunField, Any]]
    """What the store should show of each run, by id."""


async def plant(pipeline: Pipeline, seed: int, trees: int) -> Scene:
    """Store random trees in a random order of operations, and feedback on them; then move and delete some."""
    chance = random.Random(seed)
    gardener = _Gardener(chance, str(uuid.UUID(int=chance.getrandbits(128), version=4)))
    operations = [step for _ in range(trees) for step in gardener.tree()]
    chance.shuffle(operations)
    # An update may find its run, not so a creation that comes after the run has moved.
    operations += gardener.moves
    size = chance.choice([7, 25, 100])
    flushes = [operations[start : start + size] for start in range(0, len(operations), size)]
    return await store_scene(
        pipeline,
        flushes,
        gardener.feedback,
        gardener.doomed,
        are_replayed=chance.random() < 0.2,
        are_merged=chance.random() < 0.3,
    )


async def store_scene(
    pipeline: Pipeline,
    flushes: Sequence[Sequence[RunPatch]],
    feedback_on: Callable[[Sequence[str]], list[FeedbackPatch]],
    doomed: Callable[[Sequence[str]], Sequence[str]] = lambda _: (),
    *,
    are_replayed: bool = False,
    are_merged: bool = False,
) -> Scene:
    """Store operations of one tenant, then feedback on the runs that these make, and delete the doomed."""
    before = len(pipeline.operations)
    tenant_id = flushes[0][0].tenant_id
    for operations in flushes:
        await pipeline.flush(operations)
    if are_replayed:
        await pipeline.replay(pipeline.operations[before:], flush_size=len(flushes[0]) + 1)
    if are_merged:
        await pipeline.merge_parts()
    stored = expected_runs(pipeline.operations[before:])
    feedback = feedback_on(sorted(stored))
    if feedback:
        await pipeline.store.append_feedback(feedback)
    deleted = doomed(sorted(stored))
    if deleted:
        await pipeline.delete(tenant_id, run_ids=tuple(deleted))
    records = _records(feedback)
    left = {run_id: fields for run_id, fields in stored.items() if run_id not in deleted}
    runs = sorted((_run(fields, records.get(run_id, ())) for run_id, fields in left.items()), key=place)
    projects = sorted({str(run.project_id) for run in runs})
    return Scene(tenant_id, tuple(projects), tuple(runs), left)


def place(run: Run) -> tuple[datetime, tuple[int, int]]:
    """What lists are in the order of; of runs that start together it is the engine's choice."""
    return run.start_time, id_order(str(run.run_id))


class _Gardener:
    """Makes operations."""

    def __init__(self, chance: random.Random, tenant_id: str) -> None:
        self._chance = chance
        self._tenant_id = tenant_id
        self.project_ids = (self._new_id(), self._new_id())
        self.moves: list[RunPatch] = []
        """Updates of trees that change where a run belongs; they come after all others."""

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))

    def tree(self) -> list[RunPatch]:
        """Creations and updates of a trace."""
        chance = self._chance
        senders: list[Sender] = []
        for _ in range(chance.randrange(1, 6)):
            start_us = T0_US + chance.randrange(30) * 1_000
            parent = chance.choice(senders) if senders else None
            sender = Sender(self._tenant_id, start_us=start_us, parent=parent, run_id=self._new_id())
            # Most are in one project, so that its threads have several turns.
            sender.project_id = parent.project_id if parent else chance.choices(self.project_ids, (3, 1))[0]
            senders.append(sender)
        operations = []
        is_bare = chance.random() < 0.4
        for sender in senders:
            create = sender.bare_create if is_bare else sender.create
            kind = chance.choice(list(RunType)[:3]).value
            operations.append(create(name=chance.choice(NAMES), run_type=kind, **self._fields()))
            for _ in range(chance.randrange(3)):
                end_us = sender.start_us + chance.choice([5, 2_000_000, 7_000_000])
                operations.append(sender.bare_update(end_time_us=end_us, **self._fields()))
            if not is_bare and chance.random() < 0.1:
                self.moves.append(self._move(sender))
        return operations

    def _move(self, sender: Sender) -> RunPatch:
        """To another time or to another project."""
        if self._chance.random() < 0.7:
            return sender.bare_update(start_time_us=T0_US + self._chance.randrange(40) * 1_000)
        return sender.bare_update(project_id=self._chance.choice(self.project_ids))

    def doomed(self, run_ids: Sequence[str]) -> list[str]:
        """Runs to delete; in every second scene none."""
        return self._chance.sample(run_ids, self._chance.choice([0, len(run_ids) // 8]))

    def _fields(self) -> dict[str, Any]:
        """Some of the fields that any operation may set."""
        chance = self._chance
        makers: Mapping[str, tuple[float, Callable[[], Any]]] = {
            "inputs": (0.6, self._payload),
            "outputs": (0.6, self._payload),
            "error": (0.2, lambda: f"{chance.choice(WORDS)}: {chance.choice(WORDS)}"),
            "tags": (0.5, lambda: tuple(chance.sample(TAGS, chance.randrange(3)))),
            "extra": (0.6, lambda: json.dumps({"metadata": self._metadata()}).encode()),
            "reference_example_id": (0.2, lambda: chance.choice(EXAMPLES)),
            "attachments": (0.2, lambda: {chance.choice(FILES): Attachment("image/png", b"x")}),
            "events": (0.1, lambda: _FIRST_TOKEN % chance.randrange(10)),
        }
        return {name: make() for name, (share, make) in makers.items() if chance.random() < share}

    def _metadata(self) -> dict[str, Any]:
        metadata = {key: self._chance.choice(VALUES) for key in self._chance.sample(KEYS, 2)}
        if "session_id" in metadata:
            # A thread that a number replaces stays (`ExtraFacts.thread_rank`): no matter of filters.
            metadata["session_id"] = self._chance.choice(THREADS)
        if self._chance.random() < 0.6:
            metadata[self._chance.choice(["conversation_id", "thread_id"])] = self._chance.choice(THREADS)
        if self._chance.random() < 0.3:
            metadata["usage_metadata"] = self._usage()
        if self._chance.random() < 0.1:
            metadata["ls_user_id"] = self._chance.choice(USERS)
        if self._chance.random() < 0.2:
            metadata["ls_model_name"] = "gpt-4o"
        return metadata

    def _usage(self) -> dict[str, Any]:
        chance = self._chance
        usage: dict[str, Any] = {"input_tokens": chance.choice([5, 5_000]), "output_tokens": 7}
        usage["total_tokens"] = usage["input_tokens"] + 7
        if chance.random() < 0.5:
            usage["input_token_details"] = {"cache_read": chance.choice([0, 3])}
        if chance.random() < 0.3:
            usage |= {"input_cost": 0.1, "output_cost": 0.25, "total_cost": 0.35}
        return usage

    def _payload(self) -> bytes:
        """JSON of a payload, the non-ASCII letters of which stand as they are."""
        chance = self._chance
        text = " ".join(chance.choices(WORDS, k=chance.randrange(4)))
        documents: list[Any] = [
            {"question": text},
            {"messages": [{"content": text, "role": "user"}, [{"content": chance.choice(VALUES)}], {}]},
            {"docs": [{"page_content": chance.choice(WORDS)}], "n": chance.choice([5, 5.5, -1]), "e": []},
            {"deep": {"a.b": text, "a": {"b": chance.choice(VALUES)}}, "x": {"y": [[1, "prod"], None, ""]}},
            [text, {"n": True}],
            text,
        ]
        return json.dumps(chance.choice(documents), ensure_ascii=False).encode()

    def feedback(self, run_ids: Sequence[str]) -> list[FeedbackPatch]:
        """Records, some of them changed and some deleted."""
        chance = self._chance
        patches: list[FeedbackPatch] = []

        def send(feedback_id: str, run_id: str, action: FeedbackAction, **fields: Any) -> None:
            number = len(patches)
            patches.append(
                FeedbackPatch(
                    self._tenant_id,
                    feedback_id,
                    run_id,
                    action,
                    FIRST_SEQUENCE + number,
                    modified_at_us=T0_US + number * 1_000,
                    **fields,
                )
            )

        for run_id in chance.choices(run_ids, k=len(run_ids) // 2):
            feedback_id = self._new_id()
            send(
                feedback_id,
                run_id,
                FeedbackAction.CREATE,
                key=chance.choice(FEEDBACK_KEYS),
                source_type=chance.choice(["api", "model"]),
                error=chance.random() < 0.2,
                created_at_us=T0_US,
                **self._verdict(),
            )
            if chance.random() < 0.3:
                send(feedback_id, run_id, FeedbackAction.UPDATE, **self._verdict())
            if chance.random() < 0.1:
                send(feedback_id, run_id, FeedbackAction.DELETE)
        return patches

    def _verdict(self) -> dict[str, Any]:
        chance = self._chance
        verdict = {
            "score": chance.choice([None, 0.0, 0.5, 1.0, 5.0]),
            "value": chance.choice([None, b'"toxic"', b'"5"', b"5", b'{"x":"y"}', b"true"]),
            "comment": chance.choice([None, "Very good", "naïve"]),
        }
        return {name: value for name, value in verdict.items() if value is not None}


def _records(patches: Sequence[FeedbackPatch]) -> dict[str, tuple[Feedback, ...]]:
    """The records that operations make, by run."""
    made: dict[str, tuple[str, dict[str, Any]]] = {}
    for patch in patches:
        told = {
            "score": patch.score,
            "value": None if patch.value is None else json.loads(patch.value),
            "comment": patch.comment,
            "modified_at": EPOCH + patch.modified_at_us * MICROSECOND,
        }
        if patch.action is FeedbackAction.DELETE:
            del made[patch.feedback_id]
        elif patch.action is FeedbackAction.CREATE:
            assert patch.run_id is not None
            lasting = {"key": patch.key, "source": patch.source_type, "error": patch.error}
            made[patch.feedback_id] = (patch.run_id, {**told, **lasting})
        else:
            made[patch.feedback_id][1].update({k: v for k, v in told.items() if v is not None})
    by_run: dict[str, tuple[Feedback, ...]] = {}
    for run_id, fields in made.values():
        by_run[run_id] = (*by_run.get(run_id, ()), Feedback(**fields))
    return by_run


def _run(fields: Mapping[RunField, Any], feedback: tuple[Feedback, ...]) -> Run:
    """A stored run in the oracle's types."""

    def uid(field: RunField) -> UUID | None:
        return UUID(fields[field]) if fields.get(field) else None

    def time(field: RunField) -> Any:
        return EPOCH + fields[field] * MICROSECOND if field in fields else None

    def text(field: RunField) -> str | None:
        return fields[field].decode() if field in fields else None

    metadata = fields.get(RunField.METADATA)
    same = (
        RunField.NAME, RunField.RUN_TYPE, RunField.STATUS, RunField.TAGS, RunField.THREAD_ID, RunField.ERROR,
        RunField.PROMPT_TOKENS, RunField.COMPLETION_TOKENS, RunField.TOTAL_TOKENS, RunField.APP_PATH,
        RunField.PROMPT_TOKEN_DETAILS, RunField.COMPLETION_TOKEN_DETAILS, RunField.PROMPT_COST,
        RunField.COMPLETION_COST, RunField.TOTAL_COST, RunField.PROMPT_COST_DETAILS,
        RunField.COMPLETION_COST_DETAILS, RunField.LS_USER_ID,
    )  # fmt: skip
    return Run(
        run_id=UUID(fields[RunField.ID]),
        project_id=UUID(fields[RunField.PROJECT_ID]),
        trace_id=UUID(fields[RunField.TRACE_ID]),
        parent_run_ids=[UUID(each) for each in fields[RunField.PARENT_RUN_IDS]],
        start_time=time(RunField.START_TIME),
        end_time=time(RunField.END_TIME),
        first_token_time=time(RunField.FIRST_TOKEN_TIME),
        metadata={k: v for k, v in metadata.items() if v is not None} if metadata else {},
        reference_example_id=uid(RunField.REFERENCE_EXAMPLE_ID),
        price_model_id=uid(RunField.PRICE_MODEL_ID),
        inputs=text(RunField.INPUTS),
        outputs=text(RunField.OUTPUTS),
        attachments=tuple(fields.get(RunField.ATTACHMENTS) or ()),
        feedback=feedback,
        **{field.value: fields[field] for field in same if field in fields},
    )
