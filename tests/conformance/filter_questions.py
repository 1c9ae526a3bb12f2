"""Random questions about a scene, each of which a seed fixes and which can be made smaller."""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Self
from uuid import UUID

from runstore.domain.runs import Position, RunField, RunQuery, RunType
from runstore.domain.times import EPOCH, MICROSECOND
from runstore.query.binding import parse_condition
from runstore.query.feedback_window import FeedbackWindow

from .filter_oracle import Run
from .filter_scenes import (
    EXAMPLES,
    FEEDBACK_KEYS,
    FILES,
    KEYS,
    LEAF_KEYS,
    NAMES,
    TAGS,
    USERS,
    VALUES,
    WORDS,
    Scene,
)

FILTERS = {"filter": 0.9, "trace_filter": 0.1, "tree_filter": 0.1}
"""With the share of the questions that have each."""
_DEPTHS = {"filter": (16, 8, 1), "trace_filter": (16, 4, 1), "tree_filter": (16, 4, 1)}
"""How often a filter is at most 0, 1 and 2 levels deep. Statements for deep ones take ten times as long."""
PLAIN = 0.1
"""Share of the questions that have none."""


class Way(StrEnum):
    """How to ask."""

    PAGE = "page"
    """For one page, the first or a later one."""
    AGAIN = "again"
    """For the first page, and once more: the finder knows by then where it is."""
    WALK = "walk"
    """For every page, one after the other."""
    TOGETHER = "together"
    """For all runs at once, as statistics do."""


_WAYS = {Way.PAGE: 80, Way.AGAIN: 8, Way.WALK: 5, Way.TOGETHER: 7}


@dataclass(frozen=True)
class Expression:
    """A filter: a comparison, or `and`, `or`, `not` of others."""

    head: str
    parts: tuple["Expression", ...] = ()

    def __str__(self) -> str:
        return f"{self.head}({', '.join(map(str, self.parts))})" if self.parts else self.head

    def smaller(self) -> Iterator["Expression"]:
        """What is left when something is taken away, the smallest first."""
        yield from self.parts
        for index, part in enumerate(self.parts):
            before, behind = self.parts[:index], self.parts[index + 1 :]
            if len(self.parts) > 1:
                yield Expression(self.head, before + behind)
            for less in part.smaller():
                yield Expression(self.head, (*before, less, *behind))


@dataclass(frozen=True)
class Question:
    """A question about a scene: filters, and what else is given by name."""

    scene: Scene = field(repr=False)
    filters: Mapping[str, Expression]
    parts: Mapping[str, Any]

    NEEDED: ClassVar[frozenset[str]] = frozenset()
    """Parts that cannot be left out."""

    def smaller(self) -> Iterator[Self]:
        """Questions with less in them, the smallest first."""
        for name, expression in self.filters.items():
            others = {other: text for other, text in self.filters.items() if other != name}
            yield replace(self, filters=others)
            for less in expression.smaller():
                yield replace(self, filters=others | {name: less})
        for name in self.parts:
            if name not in self.NEEDED:
                others = {other: value for other, value in self.parts.items() if other != name}
                yield replace(self, parts=others)

    def __str__(self) -> str:
        filters = {name: str(expression) for name, expression in self.filters.items()}
        return f"{type(self).__name__} {filters} {dict(self.parts)}"


FEEDBACK_WINDOW = ("min_feedback_modified_at", "max_feedback_modified_at")
_SCOPES = ("run_ids", "trace_id", "parent_run_id", "reference_example_ids")
"""Parts with which a question need not name projects."""


@dataclass(frozen=True)
class RunQuestion(Question):
    """A question about runs; its parts are those of a `RunQuery`, and bounds of feedback."""

    way: Way

    NEEDED = frozenset({"project_ids", *_SCOPES})

    @property
    def feedback_window(self) -> tuple[datetime | None, datetime | None]:
        """When feedback that filters look at was modified: from the first, before the second."""
        return self.parts.get(FEEDBACK_WINDOW[0]), self.parts.get(FEEDBACK_WINDOW[1])

    @property
    def query(self) -> RunQuery:
        bounds = [None if time is None else (time - EPOCH) // MICROSECOND for time in self.feedback_window]
        window = FeedbackWindow(*bounds)
        parts: dict[str, Any] = {n: value for n, value in self.parts.items() if n not in FEEDBACK_WINDOW}
        for name, text in self.filters.items():
            parts[name] = window.narrow(parse_condition(str(text), name))
        return RunQuery(self.scene.tenant_id, frozenset({RunField.ID}), **parts)

    def __str__(self) -> str:
        return f"{self.way}: {super().__str__()}"


def question(scene: Scene, chance: random.Random) -> RunQuestion:
    """Any question."""
    asker = Asker(chance, scene)
    is_plain = chance.random() < PLAIN
    filters = {
        name: asker.filter(chance.choices((0, 1, 2), _DEPTHS[name])[0])
        for name, share in FILTERS.items()
        if not is_plain and chance.random() < share
    }
    way = chance.choices(list(_WAYS), list(_WAYS.values()))[0]
    parts = asker.parts(is_plain=is_plain, way=way)
    if "feedback_" in str(filters) and chance.random() < 0.3:
        parts |= some_feedback_window(scene, chance)
    return RunQuestion(scene, filters, parts, way)


def some_feedback_window(scene: Scene, chance: random.Random) -> dict[str, datetime]:
    """Bounds at or right behind changes of feedback."""
    times = [record.modified_at for run in scene.runs for record in run.feedback]
    return {
        name: chance.choice(times) + chance.randrange(2) * MICROSECOND
        for name in FEEDBACK_WINDOW
        if times and chance.random() < 0.7
    }


class Asker:
    """Writes random filters and the rest of questions, from what the runs are made of."""

    families: tuple[str, ...] = ("metadata", "input", "output", "feedback")
    """Of rows."""

    def __init__(self, chance: random.Random, scene: Scene) -> None:
        self._chance = chance
        self._scene = scene

    def parts(self, *, is_plain: bool, way: Way) -> dict[str, Any]:
        """Of a `RunQuery`, all but the filters."""
        chance, runs = self._chance, self._scene.runs
        run = chance.choice(runs)
        common = 0.3 if is_plain else 0.05
        every: Mapping[str, tuple[float, Any]] = {
            "run_ids": (0.04, (str(run.run_id), *(str(each.run_id) for each in chance.choices(runs, k=9)))),
            "trace_id": (0.04, str(run.trace_id)),
            "parent_run_id": (0.03, str(run.parent_run_ids[-1] if run.parent_run_ids else run.run_id)),
            "reference_example_ids": (0.03, (chance.choice(EXAMPLES),)),
            "run_type": (common, RunType(run.run_type)),
            "is_root": (common, chance.random() < 0.5),
            "has_error": (0.04, chance.random() < 0.5),
            "min_start_time_us": (0.12, _time_us(run) + chance.randrange(2)),
            "max_start_time_us": (0.12, _time_us(chance.choice(runs)) - chance.randrange(2)),
        }
        parts = {name: value for name, (share, value) in every.items() if chance.random() < share}
        if chance.random() < 0.5 or not parts.keys() & set(_SCOPES):
            projects = self._scene.project_ids
            parts["project_ids"] = projects if chance.random() < 0.5 else (chance.choice(projects),)
        parts["descending"] = chance.random() < 0.5
        parts["limit"] = chance.choice([7, 30, 100] if way is Way.WALK else [1, 3, 7, 30, 100])
        if way is Way.PAGE and chance.random() < 0.4:
            parts["after"] = self._after()
        return parts

    def _after(self) -> Position:
        """The place of a run, which may not be among those asked for, or one without a run."""
        run = self._chance.choice(self._scene.runs)
        if self._chance.random() < 0.8:
            return Position(_time_us(run), str(run.run_id))
        return Position(_time_us(run), str(UUID(int=self._chance.getrandbits(128), version=4)))

    def filter(self, depth: int) -> Expression:
        """A filter of any shape."""
        chance = self._chance
        shape = chance.random()
        if depth == 0 or shape < 0.4:
            return Expression(self._comparison())
        if shape < 0.5:
            return Expression("not", (self.filter(depth - 1),))
        if shape < 0.65:
            family = chance.choice(self.families)
            return Expression("and", tuple(Expression(self._row_test(family)) for _ in range(2)))
        parts = tuple(self.filter(depth - 1) for _ in range(chance.randrange(1, 4)))
        return Expression("and" if shape < 0.85 else "or", parts)

    def _comparison(self) -> str:
        run = self._chance.choice(self._scene.runs)
        makers = (
            self._word, self._word, self._pattern, self._column, self._column, self._figure, self._list,
            self._metadata,
        )  # fmt: skip
        if self._chance.random() < 0.35:
            return self._row_test(self._chance.choice(self.families))
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
                f'{self._equal()}(trace_id, "{run.trace_id}")',
                f'eq(session_id, "{run.project_id}")',
                f'{self._equal()}(reference_example_id, "{chance.choice(EXAMPLES)}")',
                f"{self._equal()}(thread_id, {self._quoted(run.thread_id or 'prod')})",
                f"{order}(start_time, {start})",
                f"in(name, [{self._quoted(chance.choice(NAMES))}, {self._quoted(run.name)}])",
                f'in(run_type, ["{run.run_type}", "parser"])',
                f'in(status, ["{run.status}", "error"])',
                f"{self._equal()}(ls_user_id, {self._quoted(chance.choice(USERS))})",
                f"{self._equal()}(app_path, {self._quoted(run.app_path)})",
            ]
        )

    def _figure(self, run: Run) -> str:
        """A comparison of something that has an order, or a question whether it is there."""
        chance = self._chance
        end = self._quoted((run.end_time or run.start_time).isoformat())
        token = self._quoted((run.first_token_time or run.start_time).isoformat())
        figure, values = chance.choice(
            [
                ("latency", ["2", "0", "0.000005", '"5s"', '"2000ms"']),
                ("total_tokens", ["12", "100", "5007"]),
                ("prompt_tokens", ["5", "4999.5"]),
                ("completion_tokens", ["7"]),
                ("total_cost", ["0.35", "0.01", "0"]),
                ("prompt_cost", ["0.1", "0.0000125"]),
                ("prompt_token_details.cache_read", ["0", "3"]),
                ("completion_cost_details.reasoning", ["0"]),
                ("end_time", [end]),
                ("first_token_time", [token]),
            ]
        )
        if chance.random() < 0.15:
            return chance.choice([f"exists({figure})", f"eq({figure}, null)", f"neq({figure}, null)"])
        order = chance.choice(["gt", "gte", "lt", "lte", "eq", "neq"])
        return f"{order}({figure}, {chance.choice(values)})"

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

    def _judgements(self) -> list[str]:
        """Tests of feedback beside its key and value."""
        chance = self._chance
        return [
            f"{chance.choice(['gt', 'lte'])}(feedback_score, {chance.choice([0.5, 1])})",
            f"{self._equal()}(feedback_score, {chance.choice(['0.5', '1.0', 'true'])})",
            f'{self._equal()}(feedback_comment, "Very good")',
            f"{chance.choice(['like', 'notlike'])}(feedback_comment, {self._quoted('%NAÏ%')})",
            f'{self._equal()}(feedback_source, "model")',
            f"{self._equal()}(feedback_error, true)",
        ]

    def _row_test(self, family: str) -> str:
        chance = self._chance
        keys = {"metadata": KEYS, "feedback": FEEDBACK_KEYS}.get(family, LEAF_KEYS)
        if chance.random() < 0.5:
            if chance.random() < 0.2:
                listed = ", ".join(map(self._quoted, chance.sample(keys, 2)))
                return f"in({family}_key, [{listed}])"
            return f"{self._equal()}({family}_key, {self._quoted(chance.choice(keys))})"
        if family == "feedback" and chance.random() < 0.7:
            return chance.choice(self._judgements())
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


def _time_us(run: Run) -> int:
    return (run.start_time - EPOCH) // MICROSECOND
