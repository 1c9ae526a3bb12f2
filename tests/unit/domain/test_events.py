"""The time of the first token."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstore.domain.errors import RunstoreError
from runstore.domain.events import first_token_time
from runstore.domain.times import format_utc

TIME_US = 1_714_351_752_090_000
TIME = format_utc(TIME_US)
LATER = format_utc(TIME_US + 1)


def raw(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "events",
    [
        [{"name": "new_token", "time": TIME}],
        [{"name": "start", "time": LATER}, {"name": "new_token", "time": TIME}, {"name": "end"}],
        [{"time": TIME, "name": "new_token"}, {"name": "new_token", "time": LATER}],
        [{"name": "new_token", "kwargs": {"token": "}", "chunk": {}}, "time": TIME}],
        [{"name": "start", "note": "new_token"}, {"name": "new_token", "time": TIME}],
        [{"kwargs": {"name": "new_token", "time": LATER}}, {"name": "new_token", "time": TIME}],
        [None, 1, "new_token", [], {"name": 5}, {"name": "new_token", "time": TIME}],
        [{"name": "x", "text": "\ud83d"}, {"name": "new_token", "time": TIME}],
    ],
)
def test_the_first_new_token_counts(events: list[object]) -> None:
    """Wherever the event stands and whatever stands around it, its own time is returned."""
    assert first_token_time(raw(events)) == TIME_US


@pytest.mark.parametrize(
    "events",
    [
        [],
        {},
        None,
        "new_token",
        {"name": "new_token", "time": TIME},
        [[{"name": "new_token", "time": TIME}]],
        [{"name": "start", "time": TIME}],
        [{"name": "new_token"}],
        [{"name": "new_token", "time": None}],
        [{"name": "new_token", "time": 1714351752}],
        [{"name": "new_token", "time": "soon"}],
        [{"name": "new_token", "time": "1066-10-14"}],
        [{"name": "new_token", "time": "soon"}, {"name": "new_token", "time": TIME}],
    ],
)
def test_nothing_is_guessed(events: object) -> None:
    """No such event, another shape, or a first event without a readable time: None."""
    assert first_token_time(raw(events)) is None


@pytest.mark.parametrize(
    "broken", [b"", b"[", b'[{"name":"new_token","time":"2024"}', b'["\xff"]', b"[" * 99_999]
)
def test_malformed_json_is_refused(broken: bytes) -> None:
    """Even behind a complete first event, the rest has to be JSON."""
    with pytest.raises(RunstoreError) as refusal:
        first_token_time(broken)
    assert refusal.value.field == "events"


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["new_token", "start"]) | st.none(),
                "time": st.sampled_from([TIME, LATER, "x"]) | st.integers(),
                "kwargs": st.dictionaries(
                    st.sampled_from(["}", "]", "new_token", "name"]), st.text(), max_size=2
                ),
            },
        ),
        max_size=6,
    )
)
def test_the_shortcut_agrees_with_reading_everything(events: list[dict[str, object]]) -> None:
    """Stopping behind the first event finds what a full reading finds."""
    first = next((event for event in events if event.get("name") == "new_token"), {})
    known: dict[object, int] = {TIME: TIME_US, LATER: TIME_US + 1}
    assert first_token_time(raw(events)) == known.get(first.get("time"))
