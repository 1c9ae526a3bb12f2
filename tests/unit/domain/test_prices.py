"""Prices: finding them in the shipped data, and the arithmetic of costs."""

import socket
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal

import pytest
from genai_prices import types as library
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runstore.domain.prices import BASE, Cost, Price, PriceBook, cost
from runstore.domain.usage import Usage

PRICE = Price(
    "00000000-0000-5000-8000-000000000000",
    {BASE: Decimal("2e-6"), "cache_read": Decimal("1e-6"), "cache_creation": Decimal("3e-6")},
    {BASE: Decimal("8e-6"), "audio": Decimal("9e-6")},
)
DAY_US = 86_400_000_000


def at(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[arg-type, misc]  # y, m, d


NOW_US = at(2026, 1, 1)


@pytest.fixture(scope="module")
def book() -> PriceBook:
    """The data is loaded once; loading takes most of a second."""
    return PriceBook()


def book_of(listed: library.ModelPrice | list[library.ConditionalPrice]) -> PriceBook:
    """A book with one model `m` of a provider `p`."""
    book = PriceBook()
    model = library.ModelInfo(id="m", match=library.ClauseEquals("m"), prices=listed)
    book._providers = [library.Provider(id="p", name="P", api_pattern="", models=[model])]
    return book


def mtok(dollars: str) -> library.ModelPrice:
    return library.ModelPrice(input_mtok=Decimal(dollars))


def base(price: Price | None) -> Decimal | None:
    return None if price is None else price.prompt[BASE] * 1_000_000


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o", "openai"),
        ("GPT-4o-2024-08-06", "azure"),
        ("gpt-4o", "azure_openai"),
        ("claude-sonnet-4-20250514", "anthropic"),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", "amazon_bedrock"),
        ("gemini-2.5-pro", "google_genai"),
        ("models/gemini-2.5-pro", "google_vertexai"),
        ("claude-sonnet-4-5", "google_anthropic_vertex"),
        ("mistral-large-latest", "mistralai"),
        ("llama-3.3-70b-versatile", "groq"),
        ("grok-4", "xai"),
        ("deepseek-chat", "deepseek"),
        ("anthropic/claude-sonnet-4", "litellm"),
    ],
)
def test_names_of_langsmith_are_known(book: PriceBook, model: str, provider: str) -> None:
    """The provider names that LangChain and the SDK write lead to prices of both directions."""
    price = book.find(model, provider, NOW_US)
    assert price is not None
    assert price.prompt[BASE] > 0
    assert price.completion[BASE] > 0


def test_a_published_price(book: PriceBook) -> None:
    """GPT-4o: 2.50, 1.25 cached and 10 dollars per million tokens, exactly."""
    price = book.find("gpt-4o", "openai", NOW_US)
    assert price is not None
    assert price.prompt[BASE] == Decimal("0.0000025")
    assert price.prompt["cache_read"] == Decimal("0.00000125")
    assert price.completion == {BASE: Decimal("0.00001")}


def test_cache_categories_of_anthropic(book: PriceBook) -> None:
    """Writing for five minutes costs what writing costs; an hour has its own price."""
    price = book.find("claude-sonnet-4-20250514", "anthropic", NOW_US)
    assert price is not None
    assert (
        price.prompt["cache_creation"] == price.prompt["ephemeral_5m_input_tokens"] == Decimal("0.00000375")
    )
    assert price.prompt["ephemeral_1h_input_tokens"] == Decimal("0.000006")


def test_an_unknown_provider_leaves_the_model_to_decide(book: PriceBook) -> None:
    """A proxy's own name, or none, is priced as the maker of the model does."""
    known = book.find("gpt-4o", "openai", NOW_US)
    assert known is not None
    assert book.find("gpt-4o", "my-proxy", NOW_US) == book.find("gpt-4o", "", NOW_US) == known


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("", "openai"),
        ("no-such-model", "openai"),
        ("no-such-model", ""),
        ("deepseek-chat", "openai"),
        ("gpt-4o", "ollama"),
        ("gpt-4o" * 100, "openai"),
        ("gpt-4o", "openai" * 100),
    ],
)
def test_what_is_not_sold_has_no_price(book: PriceBook, model: str, provider: str) -> None:
    """Unknown models, a provider that does not offer the model, and models on one's own machine."""
    assert book.find(model, provider, NOW_US) is None


def test_large_prompts_have_their_price(book: PriceBook) -> None:
    """The tier is entered by more tokens than its border, and changes all categories together."""
    small, border, large = (
        book.find("gemini-2.5-pro", "google_genai", NOW_US, prompt_tokens=tokens)
        for tokens in (0, 200_000, 200_001)
    )
    assert small is not None
    assert large is not None
    assert border == small
    assert large.prompt[BASE] == 2 * small.prompt[BASE]
    assert large.prompt["cache_read"] == 2 * small.prompt["cache_read"]
    assert large.completion[BASE] > small.completion[BASE]


def test_tiers_of_different_categories() -> None:
    """Each category follows its own borders."""
    tiered = library.ModelPrice(
        input_mtok=library.TieredPrices(
            Decimal(1), [library.Tier(100, Decimal(2)), library.Tier(300, Decimal(3))]
        ),
        output_mtok=library.TieredPrices(Decimal(5), [library.Tier(200, Decimal(6))]),
    )
    book = book_of(tiered)
    seen = []
    for tokens in (100, 101, 201, 301):
        price = book.find("m", "p", NOW_US, prompt_tokens=tokens)
        assert price is not None
        seen.append((price.prompt[BASE] * 10**6, price.completion[BASE] * 10**6))
    assert seen == [tuple(map(Decimal, pair)) for pair in ((1, 5), (2, 5), (2, 6), (3, 6))]


def test_prices_follow_the_time_of_the_run() -> None:
    """A price begins at midnight UTC of its day; before the first of all, the first holds."""
    listed = [
        library.ConditionalPrice(library.StartDateConstraint(date(2025, 1, 1)), prices=mtok("4")),
        library.ConditionalPrice(library.StartDateConstraint(date(2025, 6, 1)), prices=mtok("2")),
    ]
    book = book_of(listed)
    moments = (at(2024, 1, 1), at(2025, 1, 1), at(2025, 6, 1) - 1, at(2025, 6, 1))
    found = [book.find("m", "p", moment) for moment in moments]
    assert [base(price) for price in found] == [4, 4, 4, 2]
    ids = {price.price_model_id for price in found if price is not None}
    assert len(ids) == 2
    assert all(uuid.UUID(price_model_id).version == 5 for price_model_id in ids)


@pytest.mark.parametrize(("start", "end", "cheap"), [(8, 16, {8, 15}), (16, 8, {0, 7, 16, 23})])
def test_prices_follow_the_hour(start: int, end: int, cheap: set[int]) -> None:
    """Off-peak hours are a daily interval, which may span midnight; its end is not part of it."""
    off_peak = library.TimeOfDateConstraint(time(start, tzinfo=UTC), time(end, tzinfo=UTC))
    book = book_of(
        [library.ConditionalPrice(prices=mtok("4")), library.ConditionalPrice(off_peak, prices=mtok("1"))]
    )
    hours = {0, 7, 8, 15, 16, 23}
    found = {hour for hour in hours if base(book.find("m", "p", NOW_US + hour * 3_600_000_000)) == 1}
    assert found == cheap


def test_all_shipped_prices_agree_with_the_library(book: PriceBook) -> None:
    """Each model that sells tokens costs at base what the library itself would charge."""
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    checked = 0
    for provider in book._providers:
        for model in provider.models:
            listed = model.get_prices(moment).input_mtok
            if listed is None:
                continue
            offers = [
                book.find(model.id, provider.id, NOW_US + DAY_US // 2, prompt_tokens=n) for n in (0, 10**7)
            ]
            known = provider.find_model(model.id, all_providers=book._providers)
            if known is not model:
                continue  # Its id alone names another model, in the library as here.
            last = listed.tiers[-1].price if isinstance(listed, library.TieredPrices) else listed
            first = listed.base if isinstance(listed, library.TieredPrices) else listed
            assert [base(price) for price in offers] == [first, last], f"{provider.id}/{model.id}"
            checked += 1
    assert checked > 1000


def test_times_and_sizes_share_one_cache_entry() -> None:
    """A stream of runs searches once for each model, known or not."""
    book = PriceBook()
    for moment in range(100):
        book.find("gpt-4o", "openai", NOW_US + moment * DAY_US, prompt_tokens=moment)
        book.find("no-such-model", "openai", NOW_US + moment)
    assert book._periods.cache_info().misses == 2
    assert book._periods.cache_info().maxsize == 4096


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices are those of the installed package: no socket is opened."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert PriceBook().find("gpt-4o", "openai", NOW_US) is not None


def test_categories_are_priced_before_the_remainder() -> None:
    """20 tokens of which 5 cached: 5 at 1 and 15 at 2 dollars per million."""
    spent = cost(Usage(5, 20, 0, 20, {"cache_read": 5}), PRICE)
    assert spent == Cost(
        prompt_cost=Decimal("0.000035"),
        completion_cost=Decimal(0),
        total_cost=Decimal("0.000035"),
        prompt_cost_details={"cache_read": Decimal("0.000005")},
        price_model_id=PRICE.price_model_id,
    )


def test_categories_without_a_price_cost_the_base() -> None:
    """They are part of the remainder and are not listed."""
    spent = cost(Usage(5, 20, 10, 30, {"foo": 5}, {"reasoning": 4, "audio": 1}), PRICE)
    assert spent.prompt_cost == Decimal("0.00004")
    assert spent.completion_cost == Decimal("0.000081")
    assert (spent.prompt_cost_details, spent.completion_cost_details) == ({}, {"audio": Decimal("0.000009")})


def test_details_never_price_more_than_there_was() -> None:
    """Details need not add up; the total of tokens bounds what is charged."""
    spent = cost(Usage(5, 4, 0, 4, {"cache_creation": 9, "cache_read": 3}), PRICE)
    assert spent.prompt_cost == Decimal("0.000006")  # 3 read, and 1 of 9 created


def test_lifetimes_are_parts_of_created_tokens() -> None:
    """Tokens that a finer category counts again are charged once."""
    price = replace(PRICE, prompt={**PRICE.prompt, "ephemeral_1h_input_tokens": Decimal("6e-6")})
    spent = cost(Usage(5, 10, 0, 10, {"cache_creation": 5, "ephemeral_1h_input_tokens": 4}), price)
    assert spent.prompt_cost == Decimal("0.000037")  # 4 at 6, 1 at 3, 5 at 2


def test_told_costs_win_whole() -> None:
    """A client that tells any cost is believed, and nothing is added to it."""
    told = Usage(5, 20, 5, 25, prompt_cost=Decimal("1e-6"), total_cost=Decimal("1e-6"))
    assert cost(told, PRICE) == Cost(Decimal("0.000001"), None, Decimal("0.000001"))
    details = Usage(5, 20, 5, 25, total_cost=Decimal(3), completion_cost_details={"x": Decimal(1)})
    assert cost(details, PRICE) == Cost(None, None, Decimal(3), {}, {"x": Decimal(1)})


def test_no_price_no_cost() -> None:
    """Neither told nor priced: nobody knows. A side without a price is unknown unless it is empty."""
    assert cost(Usage(5, 20, 5, 25), None) == Cost()
    one_sided = replace(PRICE, completion={})
    assert cost(Usage(5, 20, 5, 25), one_sided).completion_cost is None
    assert cost(Usage(5, 20, 5, 25), one_sided).total_cost == Decimal("0.00004")
    assert cost(Usage(5, 20, 0, 20), one_sided).completion_cost == 0


@given(
    st.integers(0, 2**53 - 1),
    st.dictionaries(st.sampled_from(["cache_read", "cache_creation", "foo"]), st.integers(0, 2**53 - 1)),
)
def test_costs_lie_between_the_cheapest_and_the_dearest(tokens: int, details: dict[str, int]) -> None:
    """Every token is charged once, at one of the prices, without rounding."""
    spent = cost(Usage(5, tokens, 0, tokens, details), PRICE)
    assert spent.prompt_cost is not None
    assert tokens <= spent.prompt_cost * 10**6 <= 3 * tokens
    assert spent.prompt_cost * 10**6 == int(spent.prompt_cost * 10**6)
