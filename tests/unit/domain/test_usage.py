"""Usage: each place and shape, exact costs, and indifference to nonsense."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstore.domain.errors import RunstoreError
from runstore.domain.usage import MAX_COST, MAX_TOKENS, Usage, usage_from_metadata, usage_from_outputs

STANDARD = {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}
KEYS = st.sampled_from(["usage_metadata", "usage", "generations", "message", "kwargs", "llm_output"])
KEYS |= st.sampled_from(["token_usage", "input_tokens", "output_tokens", "prompt_tokens", "total_tokens"])
KEYS |= st.sampled_from(["input_token_details", "input_cost", "total_cost", "input_cost_details"])
KEYS |= st.sampled_from(["cache_creation", "cache_read_input_tokens", "prompt_tokens_details"])
NUMBERS = st.integers(-5, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.just(10**400)
WEIRD = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=3) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


def read(outputs: object) -> Usage | None:
    return usage_from_outputs(json.dumps(outputs).encode())


def generation(usage: object, *, wrapped: bool = True) -> dict[str, object]:
    message: dict[str, object] = {"usage_metadata": usage}
    return {"text": "x", "message": {"lc": 1, "kwargs": message} if wrapped else message}


def test_standard_usage_is_read_with_all_its_details() -> None:
    """`outputs.usage_metadata`: arbitrary categories are kept, costs are exact."""
    usage = usage_from_outputs(
        b'{"usage_metadata":{"input_tokens":20,"output_tokens":5,"total_tokens":26,'
        b'"input_token_details":{"cache_read":5,"foo":1},"output_token_details":{"reasoning":2},'
        b'"input_cost":1e-6,"output_cost":0.10,"input_cost_details":{"foo":0.12345678901234567890123},'
        b'"output_cost_details":{"reasoning":3}}}'
    )
    assert usage == Usage(
        rank=5,
        prompt_tokens=20,
        completion_tokens=5,
        total_tokens=26,
        prompt_token_details={"cache_read": 5, "foo": 1},
        completion_token_details={"reasoning": 2},
        prompt_cost=Decimal("0.000001"),
        completion_cost=Decimal("0.1"),
        total_cost=Decimal("0.100001"),
        prompt_cost_details={"foo": Decimal("0.12345678901234567890123")},
        completion_cost_details={"reasoning": Decimal(3)},
    )


def test_totals_are_completed_but_not_overruled() -> None:
    """A missing total is the sum; a total that was told stays, even when it differs."""
    assert read({"usage_metadata": {"input_tokens": 2, "output_tokens": 3}}) == Usage(5, 2, 3, 5)
    assert read({"usage_metadata": {"total_tokens": 9}}) == Usage(5, 0, 0, 9)
    told = usage_from_metadata(b'{"input_cost":1,"output_cost":2,"total_cost":5}')
    assert told is not None
    assert told.total_cost == 5
    free = usage_from_metadata(b'{"total_cost":0}')
    assert free is not None
    assert free.total_cost == 0


def test_metadata_usage_has_its_own_rank() -> None:
    """The same shape in `extra.metadata` ranks below the outputs'."""
    assert usage_from_metadata(json.dumps(STANDARD).encode()) == Usage(4, 10, 4, 14)


def test_langchain_generations_are_summed() -> None:
    """Each message tells its own share, in `kwargs` or directly; categories add up."""
    one = STANDARD | {"input_token_details": {"cache_read": 3}, "input_cost": 0.1}
    two = STANDARD | {"input_token_details": {"cache_read": 4, "audio": 1}, "input_cost": 0.2}
    usage = read({"generations": [[generation(one)], [generation(two, wrapped=False)]]})
    assert usage is not None
    assert (usage.rank, usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 20, 8, 28)
    assert usage.prompt_token_details == {"cache_read": 7, "audio": 1}
    assert usage.prompt_cost == usage.total_cost == Decimal("0.3")


def test_odd_generations_do_not_spoil_the_others() -> None:
    """One level of lists is enough, and items that are no generations are passed over."""
    odd = [None, "usage_metadata", {"message": "x"}, [generation(STANDARD), 5], generation(STANDARD)]
    assert read({"generations": odd}) == Usage(3, 20, 8, 28)


def test_llm_output_is_read() -> None:
    """LangChain's legacy place."""
    tokens = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert read({"llm_output": {"token_usage": tokens, "model_name": "m"}}) == Usage(2, 7, 2, 9)


def test_openai_usage_is_read() -> None:
    """Both of its APIs; the categories get their usual names."""
    chat = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 1},
        "completion_tokens_details": {
            "reasoning_tokens": 2,
            "audio_tokens": 1,
            "accepted_prediction_tokens": 1,
        },
    }
    completion = {"reasoning": 2, "audio": 1, "accepted_prediction_tokens": 1}
    assert read({"usage": chat}) == Usage(1, 10, 5, 15, {"cache_read": 3, "audio": 1}, completion)
    responses = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    assert read({"usage": responses}) == Usage(1, 10, 5, 15, {"cache_read": 3}, {"reasoning": 2})


def test_anthropic_cache_tokens_are_added() -> None:
    """Anthropic's input_tokens leave cached ones out; lifetimes are parts of the created ones."""
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 4,
    }
    assert read({"usage": usage}) == Usage(1, 17, 5, 22, {"cache_read": 3, "cache_creation": 4})
    lifetimes = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 1}
    assert read({"usage": usage | {"cache_creation": lifetimes}}) == Usage(
        1, 17, 5, 22, {"cache_read": 3, **lifetimes}
    )
    none = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
    assert read({"usage": usage | {"cache_creation": none}}) == Usage(
        1, 17, 5, 22, {"cache_read": 3, "cache_creation": 4}
    )


def test_the_highest_place_with_any_usage_wins() -> None:
    """Places are asked in order; an empty or senseless one gives way to the next."""
    outputs: dict[str, object] = {
        "usage_metadata": {"input_tokens": 5},
        "generations": [[generation({"input_tokens": 3})]],
        "llm_output": {"token_usage": {"prompt_tokens": 2}},
        "usage": {"prompt_tokens": 1},
    }
    for key, rank in (("usage_metadata", 5), ("generations", 3), ("llm_output", 2), ("usage", 1)):
        usage = read(outputs)
        assert usage is not None
        assert (usage.rank, usage.prompt_tokens) == (rank, rank)
        outputs[key] = {"input_tokens": "many"}
    assert read(outputs) is None


@pytest.mark.parametrize(
    "told",
    [
        *("x", None, [], {}, 5, True, {"foo": 1}, {"input_tokens": None}, {"input_tokens": True}),
        *(
            {"input_tokens": -1},
            {"input_tokens": 1.0},
            {"input_tokens": "1"},
            {"input_tokens": MAX_TOKENS + 1},
        ),
        *({"input_tokens": 10**5000}, {"input_token_details": {"a": -1, "": 1, "b": {}}}),
        *({"input_cost": -0.5}, {"input_cost": "1"}, {"input_cost": 1e300}, {"input_cost": True}),
    ],
)
def test_senseless_usage_is_no_usage(told: object) -> None:
    """Other shapes, negative, fractional or huge numbers are passed over without complaint."""
    raw = (
        json.dumps(told).encode()
        if told != {"input_tokens": 10**5000}
        else b'{"input_tokens":%b}' % (b"1" * 5000)
    )
    assert usage_from_outputs(b'{"usage_metadata":%b}' % raw) is None
    assert usage_from_metadata(raw) is None


@pytest.mark.parametrize(
    ("number", "cost"),
    [
        ("1e-6", "0.000001"),
        ("0.1", "0.1"),
        ("1.2300000000000001e-06", "0.0000012300000000000001"),
        ("-0.0", "0"),
        ("7", "7"),
        ("1E+3", "1000"),
        ("1e-999999", "0"),
        ("0." + "3" * 60, "0." + "3" * 38),
        ("999999999999999999.5", "999999999999999999.5"),
        ("1e18", None),
        ("1e99999999999999999999", None),
    ],
)
def test_costs_are_exact_and_bounded(number: str, cost: str | None) -> None:
    """The text of the number counts, not a binary float; garbage beyond the bounds is dropped."""
    usage = usage_from_metadata(b'{"input_tokens":1,"total_cost":%b}' % number.encode())
    assert (None if usage is None else usage.total_cost) == (None if cost is None else Decimal(cost))


@pytest.mark.parametrize(
    "raw", [b"", b'{"usage":', b'{"usage":{}}}', b'{"usage":"\xff"}', b'{"a":NaN}', b"[" * 99_999]
)
def test_malformed_outputs_are_refused(raw: bytes) -> None:
    """Reading usage is the check of the outputs."""
    with pytest.raises(RunstoreError) as refusal:
        usage_from_outputs(raw)
    assert refusal.value.field == "outputs"


def test_usage_survives_lone_surrogates_elsewhere() -> None:
    """Half an emoji in the text does not cost the tokens."""
    assert read({"text": "\ud83d", "usage_metadata": STANDARD}) == Usage(5, 10, 4, 14)


@given(WEIRD)
def test_any_json_is_read_within_bounds(outputs: object) -> None:
    """Whatever the shape, nothing is raised, and what is derived fits Int64 and is no negative."""
    usage = read(outputs)
    if usage is None:
        return
    details = {**usage.prompt_token_details, **usage.completion_token_details}
    for tokens in (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, *details.values()):
        assert 0 <= tokens < 2**63
    for cost in (
        usage.prompt_cost,
        usage.completion_cost,
        usage.total_cost,
        *usage.prompt_cost_details.values(),
    ):
        assert cost is None or 0 <= cost < MAX_COST
