"""Derives the token usage and explicit costs of a run from what its client sent.

Places and key names: contract runs-v1, section 10. Input reads as prompt, output as completion.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from decimal import Context, Decimal
from typing import Any, Final, TypeGuard

import msgspec

from runstore.domain import json_text

RANK_OUTPUTS: Final = 5
"""`outputs.usage_metadata`."""
RANK_METADATA: Final = 4
"""`extra.metadata.usage_metadata`."""
RANK_GENERATIONS: Final = 3
"""`usage_metadata` of LangChain messages, summed over `outputs.generations`."""
RANK_LLM_OUTPUT: Final = 2
"""`outputs.llm_output.token_usage`."""
RANK_RAW: Final = 1
"""`outputs.usage` as OpenAI and Anthropic answer."""

MAX_TOKENS: Final = 2**53 - 1
"""Largest count taken for one: every JSON reader keeps it exactly, and sums stay within Int64."""
MAX_COST: Final = Decimal(10) ** 18
"""Costs from here on are taken for garbage (dollars)."""
COST_DECIMALS: Final = 38
"""Digits after the point that a cost keeps; further ones are rounded half to even."""

EXACT: Final = Context(prec=100)
"""Enough digits for any product or sum of costs within these bounds; the default's 28 would round."""

# Beyond these a value is no usage, and decoding it would only cost memory.
_MAX_USAGE_BYTES: Final = 1 << 16
_MAX_GENERATION_COMMAS: Final = 500_000
_SMALLEST_COST: Final = Decimal(1).scaleb(-COST_DECIMALS)

_OPENAI_CATEGORIES: Final = {
    "cached_tokens": "cache_read",
    "audio_tokens": "audio",
    "reasoning_tokens": "reasoning",
}
_COST_KEYS: Final = frozenset(
    {"input_cost", "output_cost", "total_cost", "input_cost_details", "output_cost_details"}
)
_Costs = tuple[Decimal | None, Decimal | None, Decimal | None, dict[str, Decimal], dict[str, Decimal]]
_NO_COSTS: Final[_Costs] = (None, None, None, {}, {})
_LIFETIMES: Final = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")

_ABSENT: Final = msgspec.Raw()


class _Outputs(msgspec.Struct):
    usage_metadata: msgspec.Raw = _ABSENT
    generations: msgspec.Raw = _ABSENT
    llm_output: msgspec.Raw = _ABSENT
    usage: msgspec.Raw = _ABSENT


class _LlmOutput(msgspec.Struct):
    token_usage: msgspec.Raw = _ABSENT


class _Message(msgspec.Struct):
    """Also the `kwargs` of one: LangChain's serialisation puts the message's own fields there."""

    kwargs: msgspec.Raw = _ABSENT
    usage_metadata: msgspec.Raw = _ABSENT


class _Generation(msgspec.Struct):
    message: _Message | None = None


_OUTPUTS: Final = msgspec.json.Decoder(_Outputs)
_LLM_OUTPUT: Final = msgspec.json.Decoder(_LlmOutput)
_GENERATION: Final = msgspec.json.Decoder(_Generation)
_GENERATIONS: Final = msgspec.json.Decoder(list[list[_Generation]])
_MESSAGE: Final = msgspec.json.Decoder(_Message)
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
# The hook sees a number's text, so a cost never passes through a binary float.
_USAGE: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens and costs of one run as its client told them; 0, {} and None where it did not."""

    rank: int
    """The place that this came from (`RANK_...`); of two usages of a run the higher rank holds."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    """As told, else the sum of the two."""
    prompt_token_details: dict[str, int] = msgspec.field(default_factory=dict)
    """Tokens by category (`cache_read`, `audio`, any other); need not add up to `prompt_tokens`."""
    completion_token_details: dict[str, int] = msgspec.field(default_factory=dict)
    prompt_cost: Decimal | None = None
    """US dollars, exact, at least 0 and below `MAX_COST`."""
    completion_cost: Decimal | None = None
    total_cost: Decimal | None = None
    """As told, else the sum of the two that were."""
    prompt_cost_details: dict[str, Decimal] = msgspec.field(default_factory=dict)
    completion_cost_details: dict[str, Decimal] = msgspec.field(default_factory=dict)


def usage_from_outputs(raw: bytes) -> Usage | None:
    """The usage in a run's `outputs` (JSON), from the highest-ranking place that has any.

    Raises `invalid("outputs", ...)` for malformed JSON. JSON of another shape has no usage.
    """
    # One pass, which also checks the syntax; searching for "usage" first would take longer.
    outputs = json_text.decode(_OUTPUTS, "outputs", raw)
    if outputs is None:
        return None
    return (
        _standard(outputs.usage_metadata, RANK_OUTPUTS)
        or _from_generations(outputs.generations)
        or _from_llm_output(outputs.llm_output)
        or _provider(outputs.usage, RANK_RAW)
    )


def usage_from_metadata(raw_usage: bytes | msgspec.Raw) -> Usage | None:
    """The usage in the value of `extra.metadata.usage_metadata`, well-formed JSON; None if it has none."""
    return _standard(raw_usage, RANK_METADATA)


def _standard(raw: bytes | msgspec.Raw, rank: int) -> Usage | None:
    """Reads the `usage_metadata` shape (LangChain's, which the SDK writes too)."""
    told = _decode_usage(raw)
    if told is None:
        return None
    return _usage(
        rank,
        told,
        prompt=_tokens(told.get("input_tokens")),
        completion=_tokens(told.get("output_tokens")),
        prompt_details=_token_details(told.get("input_token_details")),
        completion_details=_token_details(told.get("output_token_details")),
    )


def _provider(raw: bytes | msgspec.Raw, rank: int) -> Usage | None:
    """Reads the raw `usage` of OpenAI (both of its APIs) or Anthropic, and LangChain's `token_usage`."""
    told = _decode_usage(raw)
    if told is None:
        return None
    prompt = _tokens(told.get("prompt_tokens"))
    if prompt is None:
        prompt = _tokens(told.get("input_tokens"))
    completion = _tokens(told.get("completion_tokens"))
    if completion is None:
        completion = _tokens(told.get("output_tokens"))
    prompt_details = _openai_details(told, "prompt_tokens_details", "input_tokens_details")
    completion_details = _openai_details(told, "completion_tokens_details", "output_tokens_details")
    cached, cache_tokens = _anthropic_cache(told)
    if cached:
        prompt_details |= cached
        prompt = min((prompt or 0) + cache_tokens, MAX_TOKENS)
    return _usage(rank, told, prompt, completion, prompt_details, completion_details)


def _anthropic_cache(told: Mapping[str, Any]) -> tuple[dict[str, int], int]:
    """Tokens by cache category, and how many Anthropic left out of `input_tokens` for them.

    The lifetimes in `cache_creation` split `cache_creation_input_tokens`: the categories returned
    count each token once.
    """
    details: dict[str, int] = {}
    read = _tokens(told.get("cache_read_input_tokens"))
    created = _tokens(told.get("cache_creation_input_tokens"))
    by_lifetime = _token_details(told.get("cache_creation"))
    if read is not None:
        details["cache_read"] = read
    lifetimes = {key: by_lifetime.get(key, 0) for key in _LIFETIMES}
    details |= {key: tokens for key, tokens in lifetimes.items() if tokens}
    split = sum(lifetimes.values())
    if created is not None and (created > split or not split):
        details["cache_creation"] = created - split
    return details, sum(details.values())


def _from_generations(raw: msgspec.Raw) -> Usage | None:
    """The sum over `generations[..][..]` of what each message tells; one level of lists also does."""
    text = bytes(raw)
    if b'"usage_metadata"' not in text or text.count(b",") > _MAX_GENERATION_COMMAS:
        return None
    total: Usage | None = None
    for generation in _generations(raw):
        usage = None if generation.message is None else _from_message(generation.message)
        if usage is not None:
            total = usage if total is None else _sum(total, usage)
    return total


def _generations(raw: msgspec.Raw) -> Iterator[_Generation]:
    nested = json_text.decode_part(_GENERATIONS, raw)
    if nested is not None:
        yield from itertools.chain.from_iterable(nested)
        return
    # Not all as LangChain writes it: take what can be read, one by one.
    for outer in json_text.decode_part(_ITEMS, raw) or ():
        for inner in json_text.decode_part(_ITEMS, outer) or (outer,):
            generation = json_text.decode_part(_GENERATION, inner)
            if generation is not None:
                yield generation


def _from_message(message: _Message) -> Usage | None:
    if _has(message.kwargs):
        kwargs = json_text.decode_part(_MESSAGE, message.kwargs)
        usage = None if kwargs is None else _standard(kwargs.usage_metadata, RANK_GENERATIONS)
        if usage is not None:
            return usage
    return _standard(message.usage_metadata, RANK_GENERATIONS)


def _from_llm_output(raw: msgspec.Raw) -> Usage | None:
    llm_output = json_text.decode_part(_LLM_OUTPUT, raw) if _has(raw) else None
    return None if llm_output is None else _provider(llm_output.token_usage, RANK_LLM_OUTPUT)


def _has(raw: msgspec.Raw) -> bool:
    return raw is not _ABSENT


def _decode_usage(raw: bytes | msgspec.Raw) -> dict[str, Any] | None:
    if raw is _ABSENT or memoryview(raw).nbytes > _MAX_USAGE_BYTES:
        return None
    return json_text.decode_part(_USAGE, raw)


def _usage(
    rank: int,
    told: Mapping[str, Any],
    prompt: int | None,
    completion: int | None,
    prompt_details: dict[str, int],
    completion_details: dict[str, int],
) -> Usage | None:
    """Puts a usage together; None when nothing in `told` was one."""
    total = _tokens(told.get("total_tokens"))
    costs = _read_costs(told)
    has_tokens = prompt is not None or completion is not None or total is not None
    if not has_tokens and not prompt_details and not completion_details and costs == _NO_COSTS:
        return None
    return Usage(
        rank,
        prompt or 0,
        completion or 0,
        (prompt or 0) + (completion or 0) if total is None else total,
        prompt_details,
        completion_details,
        *costs,
    )


def _read_costs(told: Mapping[str, Any]) -> _Costs:
    """The last five fields of `Usage`."""
    if _COST_KEYS.isdisjoint(told):
        return None, None, None, {}, {}
    prompt, completion = _cost(told.get("input_cost")), _cost(told.get("output_cost"))
    total = _cost(told.get("total_cost"))
    return (
        prompt,
        completion,
        sum_costs((prompt, completion)) if total is None else total,
        _cost_details(told.get("input_cost_details")),
        _cost_details(told.get("output_cost_details")),
    )


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        rank=one.rank,
        prompt_tokens=min(one.prompt_tokens + other.prompt_tokens, MAX_TOKENS),
        completion_tokens=min(one.completion_tokens + other.completion_tokens, MAX_TOKENS),
        total_tokens=min(one.total_tokens + other.total_tokens, 2 * MAX_TOKENS),
        prompt_token_details=_sum_tokens(one.prompt_token_details, other.prompt_token_details),
        completion_token_details=_sum_tokens(one.completion_token_details, other.completion_token_details),
        prompt_cost=sum_costs((one.prompt_cost, other.prompt_cost)),
        completion_cost=sum_costs((one.completion_cost, other.completion_cost)),
        total_cost=sum_costs((one.total_cost, other.total_cost)),
        prompt_cost_details=_sum_details(one.prompt_cost_details, other.prompt_cost_details),
        completion_cost_details=_sum_details(one.completion_cost_details, other.completion_cost_details),
    )


def sum_costs(costs: Iterable[Decimal | None]) -> Decimal | None:
    """The exact sum of those given; None when none is. A sum beyond `MAX_COST` is no cost: None."""
    total: Decimal | None = None
    for cost in costs:
        if cost is not None:
            total = cost if total is None else EXACT.add(total, cost)
    return None if total is not None and total >= MAX_COST else total


def _sum_tokens(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: min(one.get(key, 0) + other.get(key, 0), MAX_TOKENS) for key in {**one, **other}}


def _sum_details(one: Mapping[str, Decimal], other: Mapping[str, Decimal]) -> dict[str, Decimal]:
    sums = {key: sum_costs((one.get(key), other.get(key))) for key in {**one, **other}}
    return {key: cost for key, cost in sums.items() if cost is not None}


def _openai_details(told: Mapping[str, Any], chat_key: str, responses_key: str) -> dict[str, int]:
    details = _token_details(told.get(chat_key) or told.get(responses_key))
    return {_OPENAI_CATEGORIES.get(key, key): tokens for key, tokens in details.items()}


def _is_tokens(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MAX_TOKENS  # not isinstance: true is no count


def _tokens(value: object) -> int | None:
    return value if _is_tokens(value) else None


def _token_details(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    return {key: tokens for key, tokens in value.items() if key and _is_tokens(tokens)}


def _cost(value: object) -> Decimal | None:
    """An amount of dollars from a JSON number, bounded; None for anything else."""
    if type(value) is int:
        return Decimal(value) if 0 <= value < MAX_COST else None
    if not isinstance(value, Decimal) or not value.is_finite() or value < 0 or value >= MAX_COST:
        return None
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -COST_DECIMALS:
        value = value.quantize(_SMALLEST_COST, context=EXACT)
    return value.copy_abs()  # -0.0 reads as 0; abs() would round to 28 digits


def _cost_details(value: object) -> dict[str, Decimal]:
    if not isinstance(value, dict):
        return {}
    costs = ((key, _cost(cost)) for key, cost in value.items() if key)
    return {key: cost for key, cost in costs if cost is not None}
