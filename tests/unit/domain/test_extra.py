"""Extra: facts read from metadata, and merging of old with new."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstore.domain.errors import RunstoreError
from runstore.domain.extra import ExtraFacts, merge_extra, read_extra
from runstore.domain.json_text import replace_lone_surrogates
from runstore.domain.usage import Usage

LEAVES = st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.text(max_size=4) | st.just("\ud800")
KEYS = st.sampled_from(["a", "b", "metadata", "session_id", "thread_id", "ls_model_name", "usage_metadata"])
KEYS |= st.sampled_from(["invocation_params", "model", "model_name", "input_tokens"])
JSON_VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
EXTRAS = (
    st.none()
    | st.integers()
    | st.dictionaries(KEYS, JSON_VALUES | st.dictionaries(KEYS, JSON_VALUES, max_size=4), max_size=4)
)


def raw(value: object) -> bytes:
    return json.dumps(value).encode()


def meta(**metadata: object) -> ExtraFacts:
    return read_extra(raw({"metadata": metadata}))


def merged(*extras: object) -> Any:
    result = raw(extras[0])
    for extra in extras[1:]:
        result = merge_extra(result, raw(extra))
    return json.loads(result)


def test_metadata_is_kept_as_normalised_json() -> None:
    """Values become compact JSON in UTF-8; numbers stay as written."""
    facts = read_extra(b'{"metadata": {"s": "\\u00e9", "n": 1.50, "o": {"a" : [1, "\\u00fc"]}, "z": null}}')
    assert facts.metadata == {"s": '"é"', "n": "1.50", "o": '{"a":[1,"ü"]}'}


@pytest.mark.parametrize(
    "extra", [{}, None, [], "x", 5, {"metadata": None}, {"metadata": [1]}, {"metadata": "x"}]
)
def test_other_shapes_have_no_facts(extra: object) -> None:
    """Without an object of metadata there is nothing to derive."""
    assert read_extra(raw(extra)) == ExtraFacts()


@pytest.mark.parametrize(
    ("metadata", "thread"),
    [
        ({"session_id": "s", "conversation_id": "c", "thread_id": "t"}, ("s", 3)),
        ({"session_id": None, "conversation_id": "c", "thread_id": "t"}, ("c", 2)),
        ({"session_id": "", "conversation_id": 5, "thread_id": "t"}, ("t", 1)),
        ({"thread_id": "\ud83d"}, ("\ufffd", 1)),
        ({"session_id": ["s"], "thread_id": {}}, ("", 0)),
        ({}, ("", 0)),
    ],
)
def test_the_thread_is_the_first_string(metadata: dict[str, object], thread: tuple[str, int]) -> None:
    """Null, empty and anything but a string are skipped in the order of the three keys."""
    facts = meta(**metadata)
    assert (facts.thread_id, facts.thread_rank) == thread


def test_usage_and_names_come_from_metadata() -> None:
    """Usage with its rank, model, provider and user."""
    facts = meta(usage_metadata={"input_tokens": 1}, ls_model_name="m", ls_provider="p", ls_user_id="u")
    assert facts.usage == Usage(4, 1, 0, 1)
    assert (facts.model, facts.provider, facts.ls_user_id) == ("m", "p", "u")


@pytest.mark.parametrize(
    ("params", "model"),
    [
        ({"model": "a", "model_name": "b"}, "a"),
        ({"model": 5, "model_name": "b"}, "b"),
        ({"model": "", "model_name": "b"}, "b"),
        ({}, ""),
        (None, ""),
        (["model"], ""),
    ],
)
def test_the_model_falls_back_to_the_invocation(params: object, model: str) -> None:
    """Without ls_model_name the parameters of the call say the model; nonsense does not."""
    assert read_extra(raw({"metadata": {"ls_model_name": None}, "invocation_params": params})).model == model
    assert read_extra(raw({"metadata": {"ls_model_name": "x"}, "invocation_params": params})).model == "x"


@pytest.mark.parametrize(
    "broken", [b"", b"{", b'{"metadata":{}', b'{"metadata":{"a":"\xff"}}', b'{"a":' * 99_999]
)
def test_malformed_extra_is_refused(broken: bytes) -> None:
    """By reading and by merging, on either side."""
    for act in (
        lambda: read_extra(broken),
        lambda: merge_extra(b"{}", broken),
        lambda: merge_extra(broken, b"{}"),
    ):
        with pytest.raises(RunstoreError) as refusal:
            act()
        assert refusal.value.field == "extra"


def test_new_keys_win_and_old_ones_stay() -> None:
    """Top-level keys replace each other whole; those of metadata one by one, and no deeper."""
    old = {"runtime": {"a": 1, "b": 2}, "metadata": {"k": {"x": 1}, "l": 1, "m": 1}, "only": 1}
    new = {"runtime": {"a": 3}, "metadata": {"k": {"y": 2}, "l": 2, "n": 3}}
    assert merged(old, new) == {
        "runtime": {"a": 3},
        "metadata": {"k": {"y": 2}, "l": 2, "m": 1, "n": 3},
        "only": 1,
    }


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": None}, {"a": 1}),
        ({"metadata": {"a": 1}}, {"metadata": {"a": None, "b": None}}, {"metadata": {"a": 1, "b": None}}),
        ({"metadata": {"a": 1}}, {"metadata": None}, {"metadata": {"a": 1}}),
        ({"metadata": None}, {"metadata": {"a": 1}}, {"metadata": {"a": 1}}),
        ({"metadata": {"a": 1}}, {"metadata": "x"}, {"metadata": {"a": 1}}),
        ({"metadata": "x"}, {"metadata": "y"}, {"metadata": "y"}),
        ({"a": 1}, None, {"a": 1}),
        ({"a": 1}, [2], {"a": 1}),
        (None, {"a": 1}, {"a": 1}),
        ([1], {"a": 1}, {"a": 1}),
        ([1], None, [1]),
        ([1], [2], [2]),
    ],
)
def test_null_and_odd_shapes_erase_nothing(old: object, new: object, expected: object) -> None:
    """Null says nothing; what is no object cannot replace an object."""
    assert merged(old, new) == expected


def test_values_keep_their_bytes() -> None:
    """What is not merged is passed through as the client wrote it."""
    old = b'{"r": {"n" : 1.50, "s":"\\u00e9"}, "metadata": {"m" : [1,  2]}}'
    result = merge_extra(old, b'{"metadata": {"k": 1e400}}')
    assert b'{"n" : 1.50, "s":"\\u00e9"}' in result
    assert b"[1,  2]" in result
    assert b"1e400" in result


def test_equal_extras_are_not_rewritten() -> None:
    """The usual update repeats what the create said."""
    old = b'{"a": 1}'
    assert merge_extra(old, bytes(bytearray(old))) is old


@given(EXTRAS, EXTRAS)
def test_merging_again_changes_nothing(old: object, new: object) -> None:
    """An operation applied twice is applied once."""
    once = merge_extra(raw(old), raw(new))
    assert json.loads(merge_extra(once, raw(new))) == json.loads(once)


@given(EXTRAS, EXTRAS, EXTRAS)
def test_merging_is_associative(one: object, two: object, three: object) -> None:
    """Operations may be merged among themselves before they meet the stored run."""
    left = merge_extra(merge_extra(raw(one), raw(two)), raw(three))
    right = merge_extra(raw(one), merge_extra(raw(two), raw(three)))
    # Only what went through a merge has its lone surrogates replaced.
    assert json.loads(replace_lone_surrogates(left)) == json.loads(replace_lone_surrogates(right))


@given(JSON_VALUES)
def test_any_json_is_read(value: object) -> None:
    """Whatever the shape, facts come out, and their metadata is JSON."""
    facts = read_extra(raw({"metadata": value, "invocation_params": value}))
    for text in facts.metadata.values():
        json.loads(text)
    read_extra(raw(value))
