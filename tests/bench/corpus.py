"""What the runs say: seeded traces of ten runs, of about 2 kB of JSON each, as an agent's tracer makes them.

Texts are words drawn by Zipf's law from a large vocabulary, so that they compress as prose does. There
are enough different traces that no compression block of the engine holds the same one twice.
"""

import itertools
import random
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

RUNS_PER_TRACE = 10
DISTINCT_TRACES = 500
ERROR_SHARE = 0.01
RARE_TAG = "escalated"
"""Tag of one root in `DISTINCT_TRACES` traces, hence of one run in 5,000."""
PHRASE_SLOT = "~" * 24
"""Stands for words that vary from trace to trace, not only from template to template."""

_VOCABULARY = 8_000
_WORD = re.compile(r"\w+")
_SYLLABLES = [
    head + tail
    for head in _WORD.findall("b c d f g l m n p r s t v st tr pl")
    for tail in _WORD.findall("a e i o u an er in ou")
]
_COMMON = _WORD.findall(
    "the of and to in is you that it for on are with as they be at this from have or by one had not but what "
    "all were when we there can an your which their said if do will each about how up out them then she many "
    "so these would other into has more her two like him see time could no make than first been its who now"
)
_MODELS = [("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("anthropic", "claude-3-5-sonnet-20241022")]
_RUNTIME = {
    "sdk": "langsmith-py",
    "sdk_version": "0.14.17",
    "library": "langsmith",
    "platform": "Linux-6.1.0-25-amd64-x86_64-with-glibc2.36",
    "runtime": "python",
    "py_implementation": "CPython",
    "runtime_version": "3.11.9",
    "langchain_version": None,
    "langchain_core_version": None,
}

# name, run type, parent, start and duration as parts of the trace's time
_SHAPE = (
    ("support_agent", "chain", None, 0.00, 1.00),
    ("search_docs", "retriever", 0, 0.01, 0.12),
    ("compose_prompt", "prompt", 0, 0.14, 0.01),
    ("ChatModel", "llm", 0, 0.16, 0.30),
    ("parse_answer", "parser", 0, 0.47, 0.01),
    ("lookup_order", "tool", 0, 0.49, 0.08),
    ("refine", "chain", 0, 0.58, 0.30),
    ("ChatModel", "llm", 6, 0.59, 0.20),
    ("check_policy", "tool", 6, 0.80, 0.07),
    ("ChatModel", "llm", 0, 0.89, 0.10),
)


@dataclass(frozen=True, slots=True)
class RunTemplate:
    """One run of a trace, with everything that does not vary from one copy of the trace to the next."""

    name: str
    run_type: str
    parent: int | None
    offset_us: int
    duration_us: int
    tags: tuple[str, ...]
    inputs: bytes
    outputs: bytes | None
    error: str | None
    extra: bytes
    """As the creation sends it."""
    final_extra: bytes
    """As the update sends it: with the usage."""
    serialized: bytes | None

    @property
    def depth(self) -> int:
        """Runs above this one."""
        return 0 if self.parent is None else 1 if self.parent == 0 else 2


@dataclass(frozen=True, slots=True)
class TraceTemplate:
    """A trace; runs are in the order of their starts."""

    runs: tuple[RunTemplate, ...]
    timeline: tuple[tuple[str, int], ...] = field(init=False)
    """Its operations as they happen: ("create" or "update", index of the run)."""

    def __post_init__(self) -> None:
        moments = [
            moment
            for index, run in enumerate(self.runs)
            for moment in (
                (run.offset_us, "create", index),
                (run.offset_us + run.duration_us, "update", index),
            )
        ]
        object.__setattr__(self, "timeline", tuple((kind, index) for _, kind, index in sorted(moments)))


def traces(seed: int, count: int = DISTINCT_TRACES) -> list[TraceTemplate]:
    """Templates of `count` traces; the same seed makes the same ones."""
    writer = _Writer(seed)
    return [_trace(writer, is_rare=number == 0) for number in range(count)]


def phrases(seed: int, count: int = 4_096) -> list[bytes]:
    """Words of exactly the length of `PHRASE_SLOT`."""
    writer = _Writer(seed)
    width = len(PHRASE_SLOT)
    return [writer.text(2 * width)[:width].encode() for _ in range(count)]


class _Writer:
    """Writes texts of words that are as unevenly common as those of a language."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        words = dict.fromkeys(_COMMON)
        while len(words) < _VOCABULARY:
            words["".join(self.random.choices(_SYLLABLES, k=self.random.randint(2, 4)))] = None
        self._words = list(words)
        self._weights = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(_VOCABULARY)))

    def text(self, chars: int) -> str:
        """About `chars` characters of prose: at least as many, up to a word more."""
        words = self.random.choices(self._words, cum_weights=self._weights, k=chars // 4 + 4)
        for position in range(0, len(words), 11):
            words[position] = words[position].capitalize()
            if position:
                words[position - 1] += "."
        text = " ".join(words)
        end = text.find(" ", chars)
        return text[:end] if end > 0 else text

    def vary(self, chars: int) -> str:
        """Prose of about `chars` characters, from half to one and a half times."""
        return self.text(self.random.randint(chars // 2, 3 * chars // 2))


def _trace(writer: _Writer, *, is_rare: bool) -> TraceTemplate:
    duration_us = writer.random.randint(800_000, 9_000_000)
    thread = f"thread-{writer.random.getrandbits(48):012x}"
    runs = []
    for name, run_type, parent, start, share in _SHAPE:
        inputs, outputs = _payloads(writer, run_type, is_root=parent is None)
        metadata: dict[str, Any] = {
            "ls_method": "traceable",
            "thread_id": thread,
            "customer": f"c-{writer.random.randint(0, 9_999):04d}",
            "release": f"2026.{writer.random.randint(1, 12)}.{writer.random.randint(0, 30)}",
        }
        final = dict(metadata)
        if run_type == "llm":
            provider, model = writer.random.choice(_MODELS)
            metadata |= {"ls_provider": provider, "ls_model_name": model, "ls_model_type": "chat"}
            final = {**metadata, "usage_metadata": outputs["usage_metadata"]}
        is_failed = writer.random.random() < ERROR_SHARE
        tags = ["production", writer.random.choice(["eu", "us", "apac"])]
        runs.append(
            RunTemplate(
                name=name,
                run_type=run_type,
                parent=parent,
                offset_us=int(start * duration_us),
                duration_us=int(share * duration_us),
                tags=(*tags, RARE_TAG) if is_rare and parent is None else tuple(tags),
                inputs=msgspec.json.encode(inputs),
                outputs=None if is_failed else msgspec.json.encode(outputs),
                error=_error(writer) if is_failed else None,
                extra=msgspec.json.encode({"metadata": metadata, "runtime": _RUNTIME}),
                final_extra=msgspec.json.encode({"metadata": final, "runtime": _RUNTIME}),
                serialized=msgspec.json.encode({"name": name}) if run_type in ("llm", "prompt") else None,
            )
        )
    return TraceTemplate(tuple(runs))


def _payloads(writer: _Writer, run_type: str, *, is_root: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    text = writer.vary
    if is_root:
        return {"question": f"{PHRASE_SLOT} {text(220)}", "locale": "en"}, {"answer": text(500), "sources": 3}
    if run_type == "retriever":
        documents = [
            {"page_content": text(270), "type": "Document", "metadata": {"source": f"kb/{n}/{text(12)}.md"}}
            for n in range(3)
        ]
        return {"query": text(60)}, {"documents": documents}
    if run_type == "llm":
        roles = ("system", "user", "assistant", "user")
        messages = [{"role": role, "content": text(190)} for role in roles]
        answer = text(420)
        tokens = {"input_tokens": writer.random.randint(200, 900), "output_tokens": len(answer) // 4}
        usage = {**tokens, "total_tokens": sum(tokens.values())}
        message = {"role": "assistant", "content": answer}
        return {"messages": messages}, {
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage_metadata": usage,
        }
    if run_type == "tool":
        call = {"order": f"o-{writer.random.getrandbits(32):08x}", "reason": text(80)}
        return call, {"status": "shipped", "notes": text(520)}
    return {"text": text(300)}, {"text": text(360)}


def _error(writer: _Writer) -> str:
    frames = "".join(
        f'  File "/app/agent/{writer.text(8).split()[0].lower()}.py", '
        f"line {writer.random.randint(10, 400)}, in call\n    {writer.text(30)}\n"
        for _ in range(4)
    )
    return f"TimeoutError('{writer.text(40)}')Traceback (most recent call last):\n{frames}"
