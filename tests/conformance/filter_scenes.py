"""Random runs with everything that filters ask about, stored operation by operation, and random filters."""

import json
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from runstore.domain.feedback import FeedbackAction, FeedbackPatch
from runstore.domain.runs import Attachment, RunField, RunPatch, RunType
from runstore.domain.times import EPOCH, MICROSECOND

from .filter_oracle import Feedback, Run
from .oracle import expected_runs
from .pipeline import FIRST_SEQUENCE, Pipeline
from .test_operations import T0_US, Sender

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
EXAMPLES = tuple(str(UUID(int=number, version=4)) for number in range(1, 3))


@dataclass(frozen=True)
class Scene:
    """Runs of one tenant in two projects."""

    tenant_id: str
    project_ids: tuple[str, ...]
    runs: tuple[Run, ...]


async def plant(pipeline: Pipeline, seed: int, trees: int) -> Scene:
    """Store random trees in a random order of operations, and feedback on them."""
    chance = random.Random(seed)
    gardener = _Gardener(chance, str(uuid.UUID(int=chance.getrandbits(128), version=4)))
    operations = [step for _ in range(trees) for step in gardener.tree()]
    chance.shuffle(operations)
    size = chance.choice([7, 25, 100])
    flushes = [operations[start : start + size] for start in range(0, len(operations), size)]
    return await store_scene(pipeline, flushes, gardener.feedback, are_merged=chance.random() < 0.3)


async def store_scene(
    pipeline: Pipeline,
    flushes: Sequence[Sequence[RunPatch]],
    feedback_on: Callable[[Sequence[str]], list[FeedbackPatch]],
    *,
    are_merged: bool = False,
) -> Scene:
    """Store operations of one tenant, and then feedback on the runs that these have made."""
    before = len(pipeline.operations)
    for operations in flushes:
        await pipeline.flush(operations)
    if are_merged:
        await pipeline.merge_parts()
    stored = expected_runs(pipeline.operations[before:])
    feedback = feedback_on(sorted(stored))
    if feedback:
        await pipeline.store.append_feedback(feedback)
    records = _records(feedback)
    runs = tuple(_run(fields, records.get(run_id, ())) for run_id, fields in stored.items())
    projects = sorted({str(run.project_id) for run in runs})
    return Scene(flushes[0][0].tenant_id, tuple(projects), runs)


class _Gardener:
    """Makes operations."""

    def __init__(self, chance: random.Random, tenant_id: str) -> None:
        self._chance = chance
        self._tenant_id = tenant_id
        self.project_ids = (self._new_id(), self._new_id())

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
            sender.project_id = parent.project_id if parent else chance.choice(self.project_ids)
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
        return operations

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
        }
        return {name: make() for name, (share, make) in makers.items() if chance.random() < share}

    def _metadata(self) -> dict[str, Any]:
        metadata = {key: self._chance.choice(VALUES) for key in self._chance.sample(KEYS, 2)}
        if "session_id" in metadata:
            # A thread that a number replaces stays (`ExtraFacts.thread_rank`): no matter of filters.
            metadata["session_id"] = self._chance.choice(["prod", "quokka", "é"])
        if self._chance.random() < 0.3:
            metadata["usage_metadata"] = {"input_tokens": self._chance.choice([5, 5_000]), "output_tokens": 7}
        return metadata

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
            number = FIRST_SEQUENCE + len(patches)
            patches.append(
                FeedbackPatch(
                    self._tenant_id, feedback_id, run_id, action, number, modified_at_us=T0_US, **fields
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
        RunField.PROMPT_TOKEN_DETAILS, RunField.COMPLETION_TOKEN_DETAILS,
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
        inputs=text(RunField.INPUTS),
        outputs=text(RunField.OUTPUTS),
        attachments=tuple(fields.get(RunField.ATTACHMENTS) or ()),
        feedback=feedback,
        **{field.value: fields[field] for field in same if field in fields},
    )


# ---------------------------------------------------------------- filters


class Asker:
    """Writes random filters, from the words that the runs are made of."""

    def __init__(self, chance: random.Random, scene: Scene) -> None:
        self._chance = chance
        self._scene = scene

    def filter(self, depth: int = 2) -> str:
        """A filter of any shape."""
        chance = self._chance
        shape = chance.random()
        if depth == 0 or shape < 0.4:
            return self._comparison()
        if shape < 0.5:
            return f"not({self.filter(depth - 1)})"
        if shape < 0.65:
            family = chance.choice(["metadata", "input", "output", "feedback"])
            return f"and({', '.join(self._row_test(family) for _ in range(2))})"
        parts = ", ".join(self.filter(depth - 1) for _ in range(chance.randrange(1, 4)))
        return f"{'and' if shape < 0.85 else 'or'}({parts})"

    def _comparison(self) -> str:
        run = self._chance.choice(self._scene.runs)
        makers = (
            self._word, self._word, self._pattern, self._column, self._column, self._list, self._metadata,
        )  # fmt: skip
        if self._chance.random() < 0.35:
            return self._row_test(self._chance.choice(["metadata", "input", "output", "feedback"]))
        return self._chance.choice(makers)(run)

    def _quoted(self, text: str) -> str:
        return json.dumps(text)

    def _equal(self) -> str:
        return self._chance.choice(["eq", "eq", "neq"])

    def _piece(self) -> str:
        """A word or a part of one, in some case of letters."""
        word = self._chance.choice(WORDS)
        begin = self._chance.randrange(3)
        part = word[begin : begin + self._chance.randrange(3, 12)] or word
        return self._chance.choice([word, part, part.lower(), part.upper()])

    def _word(self, run: Run) -> str:
        words = self._quoted(" ".join(self._piece() for _ in range(self._chance.randrange(1, 3))))
        field = self._chance.choice(["", "", "name, ", "inputs, ", "output, ", "error, "])
        return f"search({field}{words})"

    def _pattern(self, run: Run) -> str:
        field = self._chance.choice(["inputs", "outputs", "error", "name", "tags", "attachments", "app_path"])
        pattern = self._piece() if self._chance.random() < 0.4 else f"%{self._piece()}%"
        return f"{self._chance.choice(['like', 'notlike'])}({field}, {self._quoted(pattern)})"

    def _column(self, run: Run) -> str:
        chance = self._chance
        start = self._quoted(run.start_time.isoformat())
        order = chance.choice(["gt", "gte", "lt", "lte", "eq"])
        return chance.choice(
            [
                f"{self._equal()}(name, {self._quoted(chance.choice(NAMES))})",
                f'{self._equal()}(run_type, "{run.run_type}")',
                f'{self._equal()}(status, "{run.status}")',
                f"eq(is_root, {chance.choice(['true', 'false'])})",
                f"{self._equal()}(error, null)",
                f"{self._equal()}({chance.choice(['inputs', 'output', 'thread_id'])}, null)",
                f'{self._equal()}(id, "{run.run_id}")',
                f'in(trace_id, ["{run.trace_id}", "{chance.choice(self._scene.runs).trace_id}"])',
                f'{self._equal()}(parent_run_id, "{run.trace_id}")',
                f'eq(session_id, "{run.project_id}")',
                f'{self._equal()}(reference_example_id, "{chance.choice(EXAMPLES)}")',
                f"{self._equal()}(thread_id, {self._quoted(run.thread_id or 'prod')})",
                f"{order}(start_time, {start})",
                f"{order}(latency, {chance.choice(['2', '0', self._quoted('5s')])})",
                f"{order}(total_tokens, {chance.choice([12, 100])})",
                f"{self._equal()}(app_path, {self._quoted(run.app_path)})",
            ]
        )

    def _list(self, run: Run) -> str:
        field, values = self._chance.choice([("tags", TAGS), ("attachments", FILES)])
        value = self._quoted(self._chance.choice(values))
        ancestors = f'has(parent_run_ids, "{run.trace_id}")'
        return self._chance.choice(
            [f"has({field}, {value})", f"neq({field}, {value})", f"exists({field})", ancestors]
        )

    def _metadata(self, run: Run) -> str:
        chance = self._chance
        key, value = chance.choice(KEYS), chance.choice(VALUES)
        document = self._quoted(json.dumps({key: value}))
        return chance.choice(
            [
                f"has(metadata, {document})",
                f"exists(metadata, {self._quoted(key)})",
                f"{self._equal()}(metadata.{key or 'n'}, {self._literal(value)})",
                f"gt(metadata.{key or 'n'}, 4)",
            ]
        )

    def _literal(self, value: Any) -> str:
        """A value of metadata or of a payload as filters write it."""
        if isinstance(value, bool | int | float):
            return json.dumps(value)
        return self._quoted(value if isinstance(value, str) else "prod")

    def _row_test(self, family: str) -> str:
        chance = self._chance
        keys = {"metadata": KEYS, "feedback": FEEDBACK_KEYS}.get(family, LEAF_KEYS)
        if chance.random() < 0.5:
            if chance.random() < 0.2:
                listed = ", ".join(map(self._quoted, chance.sample(keys, 2)))
                return f"in({family}_key, [{listed}])"
            return f"{self._equal()}({family}_key, {self._quoted(chance.choice(keys))})"
        if family == "feedback" and chance.random() < 0.7:
            return chance.choice(
                [
                    f"{chance.choice(['gt', 'lte'])}(feedback_score, {chance.choice([0.5, 1])})",
                    f"{self._equal()}(feedback_score, {chance.choice(['0.5', '1.0', 'true'])})",
                    f'{self._equal()}(feedback_comment, "Very good")',
                    f"{chance.choice(['like', 'notlike'])}(feedback_comment, {self._quoted('%NAÏ%')})",
                    f'{self._equal()}(feedback_source, "model")',
                    f"{self._equal()}(feedback_error, true)",
                ]
            )
        texts = (
            ("toxic", "5") if family == "feedback" else VALUES if family == "metadata" else (*VALUES, *WORDS)
        )
        value = self._literal(chance.choice(texts))
        return chance.choice(
            [
                f"{self._equal()}({family}_value, {value})",
                f"{chance.choice(['like', 'notlike'])}({family}_value, {self._quoted(f'%{self._piece()}%')})",
                f"{chance.choice(['gt', 'lt'])}({family}_value, 4)",
                f"in({family}_value, [{value}, {self._quoted(chance.choice(WORDS))}])",
            ]
        )
