"""Prices the tokens of a run by the model prices that ship inside the `genai-prices` package.

The rule of contract runs-v1, section 10: costs that the client told win; otherwise tokens of a
category with a price of its own are priced first, and the remainder at the base price.

The library is imported when the first price is looked for: that takes a tenth of a process's start, and only
flushers look.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from runstore.domain.times import EPOCH
from runstore.domain.usage import EXACT, Usage, sum_costs

if TYPE_CHECKING:
    from genai_prices import types as library

BASE: Final = ""
"""The category of the base price."""

# No real model name comes near; the library matches names by regular expressions.
_MAX_NAME_CHARS: Final = 256
_CACHED_MODELS: Final = 4_096
_DAY_US: Final = 86_400_000_000
_SCALE: Final = -6  # The library's prices are dollars per million tokens.
_PRICE_IDS: Final = uuid.uuid5(uuid.NAMESPACE_OID, "runstore.prices")

# `ls_provider` as LangChain and the SDK write it -> id in the library. Names that the library knows
# itself (openai, anthropic, groq, ...) are not repeated.
_PROVIDERS: Final[Mapping[str, str]] = {
    "amazon_bedrock": "aws",
    "anthropic_bedrock": "aws",
    "anthropic_vertex": "google",
    "aws_bedrock": "aws",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "azureopenai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "google_anthropic_vertex": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "together_ai": "together",
    "togetherai": "together",
    "vertexai": "google",
    "xai": "x-ai",
}
# Models that run on the user's own machine have famous names but no price.
_OWN_MACHINE: Final = frozenset({"fake", "llamacpp", "lmstudio", "mlx", "ollama", "vllm"})
# Gateways that put the provider before the model's name: "anthropic/claude-...".
_GATEWAYS: Final = frozenset({"litellm", "litellm_proxy"})

# Category of a detail -> the library's prices for it, first that exists. The order is that of pricing:
# the parts of `cache_creation` before the whole.
_PROMPT_PRICES: Final[Mapping[str, Sequence[str]]] = {
    BASE: ("input_mtok",),
    "cache_read": ("cache_read_mtok",),
    "cache_read_over_200k": ("cache_read_mtok",),
    "ephemeral_5m_input_tokens": ("cache_write_5m_mtok", "cache_write_mtok"),
    "ephemeral_1h_input_tokens": ("cache_write_1h_mtok", "cache_write_mtok"),
    "ephemeral_1hr_input_tokens": ("cache_write_1h_mtok", "cache_write_mtok"),
    "cache_creation": ("cache_write_mtok",),
    "audio": ("input_audio_mtok",),
    "image": ("input_image_mtok",),
    "video": ("input_video_mtok",),
}
_COMPLETION_PRICES: Final[Mapping[str, Sequence[str]]] = {
    BASE: ("output_mtok",),
    "audio": ("output_audio_mtok",),
    "image": ("output_image_mtok",),
    "video": ("output_video_mtok",),
    "reasoning": ("output_reasoning_mtok",),
}
_PRICED_ORDER: Final = tuple(category for category in {**_PROMPT_PRICES, **_COMPLETION_PRICES} if category)
_CACHE_LIFETIMES: Final = tuple(category for category in _PROMPT_PRICES if category.startswith("ephemeral_"))


class Price(msgspec.Struct, frozen=True, gc=False):
    """US dollars per token, exact, by category; `BASE` is for tokens of no priced category."""

    price_model_id: str
    """UUID; the same for a model of a provider in one period of validity, on every machine."""
    prompt: Mapping[str, Decimal]
    completion: Mapping[str, Decimal]


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What one run cost in US dollars, exact; None where nobody knows."""

    prompt_cost: Decimal | None = None
    completion_cost: Decimal | None = None
    total_cost: Decimal | None = None
    """As told, else the sum of those known."""
    prompt_cost_details: dict[str, Decimal] = msgspec.field(default_factory=dict)
    """Only of categories with tokens and a price of their own; part of `prompt_cost`."""
    completion_cost_details: dict[str, Decimal] = msgspec.field(default_factory=dict)
    price_model_id: str = ""
    """The price used; "" when the client told the costs or no price was found."""


@dataclass(frozen=True, slots=True)
class _Period:
    """The prices of a model from a day on, or in some hours of each day."""

    start_us: int
    daily_us: tuple[int, int] | None
    """From (inclusive) and to (exclusive) since midnight UTC; from > to spans midnight."""
    tiers: tuple[tuple[int, Price], ...]
    """By size of prompt, largest first: each holds for more prompt tokens than its number."""

    def covers(self, at_us: int) -> bool:
        if at_us < self.start_us:
            return False
        if self.daily_us is None:
            return True
        start, end, moment = *self.daily_us, at_us % _DAY_US
        return start <= moment < end if start <= end else moment >= start or moment < end


class PriceBook:
    """Finds prices; safe to share between threads, and never reaches for the network."""

    def __init__(self) -> None:
        # By name alone, misses included: a period is chosen among a few on each call, so times do
        # not multiply the entries. (The library's own caches have no bound.)
        self._periods = lru_cache(maxsize=_CACHED_MODELS)(self._read_periods)

    @cached_property
    def _providers(self) -> "list[library.Provider]":
        from genai_prices import data_snapshot

        return data_snapshot.get_snapshot().providers

    def find(self, model: str, provider: str, at_us: int, *, prompt_tokens: int = 0) -> Price | None:
        """The price of `model` (`ls_model_name`) at `provider` (`ls_provider`) at a time, or None.

        `at_us` counts microseconds since the epoch, UTC. Some models cost more for large prompts:
        `prompt_tokens` chooses, 0 is the smallest. A provider that is unknown (or "") leaves the
        search to the model's name; a known one that does not offer the model has no price for it.
        """
        if not model or len(model) > _MAX_NAME_CHARS or len(provider) > _MAX_NAME_CHARS:
            return None
        periods = self._periods(model, provider)
        if not periods:
            return None
        # As in the library: the first listed price also holds before its time.
        period = next((period for period in periods if period.covers(at_us)), periods[-1])
        return next((price for above, price in period.tiers if prompt_tokens > above), period.tiers[-1][1])

    def _read_periods(self, model: str, provider: str) -> tuple[_Period, ...]:
        """The periods of a model, those that take precedence first; () when it is unknown."""
        from genai_prices import types as library

        name = model.strip().lower().removeprefix("models/")  # Google's resource name
        found = self._find_model(name, provider.strip().lower())
        if found is None:
            return ()
        seller, info = found
        offer = f"{seller.id}/{info.id}"
        if isinstance(info.prices, library.ModelPrice):
            return (_read_period(offer, None, info.prices),)
        return tuple(
            _read_period(offer, priced.constraint, priced.prices) for priced in reversed(info.prices)
        )

    def _find_model(self, model: str, provider: str) -> "tuple[library.Provider, library.ModelInfo] | None":
        if provider in _OWN_MACHINE:
            return None
        if provider in _GATEWAYS:
            provider, _, model = model.rpartition("/")
        seller = self._find_provider(provider)
        if seller is not None:
            info = seller.find_model(model, all_providers=self._providers)
            return None if info is None else (seller, info)
        for candidate in self._providers:
            if candidate.model_match is not None and candidate.model_match.is_match(model):
                info = candidate.find_model(model, all_providers=self._providers)
                if info is not None:
                    return candidate, info
        return None

    def _find_provider(self, provider: str) -> "library.Provider | None":
        from genai_prices import data_snapshot

        if not provider:
            return None
        return data_snapshot.find_provider_by_id(self._providers, _PROVIDERS.get(provider, provider))


def cost(usage: Usage, price: Price | None) -> Cost:
    """What `usage` cost: as its client told if it told any cost, else by `price`."""
    told = (usage.prompt_cost, usage.completion_cost, usage.total_cost)
    if price is None or any(amount is not None for amount in told):
        return Cost(*told, dict(usage.prompt_cost_details), dict(usage.completion_cost_details))
    prompt_cost, prompt_details = _price(usage.prompt_tokens, usage.prompt_token_details, price.prompt)
    completion_cost, completion_details = _price(
        usage.completion_tokens, usage.completion_token_details, price.completion
    )
    return Cost(
        prompt_cost=prompt_cost,
        completion_cost=completion_cost,
        total_cost=sum_costs((prompt_cost, completion_cost)),
        prompt_cost_details=prompt_details | usage.prompt_cost_details,
        completion_cost_details=completion_details | usage.completion_cost_details,
        price_model_id=price.price_model_id,
    )


def _price(
    tokens: int, details: Mapping[str, int], prices: Mapping[str, Decimal]
) -> tuple[Decimal | None, dict[str, Decimal]]:
    """The cost of `tokens` and of their priced categories; None when a price is missing.

    Categories never price more tokens than there are.
    """
    rest = tokens
    total = Decimal(0)
    priced: dict[str, Decimal] = {}
    for category in _PRICED_ORDER if details else ():
        if category in details and category in prices:
            count = min(_own_tokens(category, details), rest)
            if count > 0:
                rest -= count
                priced[category] = EXACT.multiply(prices[category], Decimal(count))
                total = EXACT.add(total, priced[category])
    if rest == 0:
        return total, priced
    base = prices.get(BASE)
    if base is None:
        return None, priced
    return EXACT.add(total, EXACT.multiply(base, Decimal(rest))), priced


def _own_tokens(category: str, details: Mapping[str, int]) -> int:
    """Tokens of a category less those that a finer category counts again."""
    count = details.get(category, 0)
    if category == "cache_creation" and count:
        count -= sum(details.get(lifetime, 0) for lifetime in _CACHE_LIFETIMES)
    return count


def _read_period(
    offer: str,
    constraint: "library.StartDateConstraint | library.TimeOfDateConstraint | None",
    prices: "library.ModelPrice",
) -> _Period:
    from genai_prices import types as library

    start_us, daily_us, validity = -(2**63), None, ""
    if isinstance(constraint, library.StartDateConstraint):
        start_us = (datetime.combine(constraint.start_date, time(), UTC) - EPOCH).days * _DAY_US
        validity = constraint.start_date.isoformat()
    elif constraint is not None:
        daily_us = _since_midnight_us(constraint.start_time), _since_midnight_us(constraint.end_time)
        validity = f"{daily_us[0]}-{daily_us[1]}"
    return _Period(
        start_us, daily_us, _read_tiers(str(uuid.uuid5(_PRICE_IDS, f"{offer}@{validity}")), prices)
    )


def _since_midnight_us(moment: time) -> int:
    offset = moment.utcoffset()
    since_us = ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1_000_000 + moment.microsecond
    return (since_us - (0 if offset is None else offset.seconds * 1_000_000)) % _DAY_US


def _read_tiers(price_model_id: str, prices: "library.ModelPrice") -> tuple[tuple[int, Price], ...]:
    """One price per size of prompt at which any category changes its price."""
    starts = {tier.start for listed in vars(prices).values() for tier in getattr(listed, "tiers", ())}
    tiers: list[tuple[int, Price]] = []
    for above in (*sorted(starts, reverse=True), -1):
        prompt = _side(prices, _PROMPT_PRICES, above)
        completion = _side(prices, _COMPLETION_PRICES, above)
        tiers.append((above, Price(price_model_id, prompt, completion)))
    return tuple(tiers)


def _side(
    prices: "library.ModelPrice", categories: Mapping[str, Sequence[str]], above: int
) -> Mapping[str, Decimal]:
    from genai_prices import types as library

    side: dict[str, Decimal] = {}
    for category, keys in categories.items():
        listed = next((vars(prices)[key] for key in keys if vars(prices).get(key) is not None), None)
        if isinstance(listed, library.TieredPrices):
            reached = (tier.price for tier in reversed(listed.tiers) if tier.start <= above)
            listed = next(reached, listed.base)
        if isinstance(listed, Decimal):
            side[category] = listed.scaleb(_SCALE)
    return MappingProxyType(side)
