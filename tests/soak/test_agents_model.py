"""The model of the soak of agents finds what it is there to find."""

from dataclasses import replace
from typing import Any

import pytest
from tests.soak.agents_model import Asked, Found, judge


def row(run_id: str, status: str, second: int) -> dict[str, Any]:
    return {"run_id": run_id, "status": status, "created_at": f"{second}", "updated_at": f"{second}"}


def told(run_id: str, status: str, log: list[str]) -> list[dict[str, Any]]:
    body: dict[str, Any] = {"run_id": run_id, "status": status, "values": {"log": log}}
    return [body if status == "success" else {**body, "error": {}}]


STORY = [
    Asked("r0", "enqueue", fails=False, run_id="0"),
    Asked("r1", "enqueue", fails=True, run_id="1"),
    Asked("r2", "enqueue", fails=False, run_id="2"),
    Asked("r3", "interrupt", fails=False, run_id="3", cancels={"rollback"}),
    Asked("r4", "reject", fails=False),
    Asked("r5", "enqueue", fails=False, run_id="5"),
]
LOG = ["r0:a", "r0:b", "r0:c", "r0:d", "r1:a", "r2:a", "r2:b", "r5:a", "r5:b", "r5:c", "r5:d"]
FOUND = Found(
    rows={
        "0": row("0", "success", 0),
        "1": row("1", "error", 1),
        "2": row("2", "interrupted", 3),
        "5": row("5", "success", 5),
    },
    log=LOG,
    status="idle",
    checkpointed={"0", "1", "2", "5"},
    webhooks={
        "r0": told("0", "success", LOG[:4]),
        "r1": told("1", "error", LOG[:5]),
        "r2": told("2", "interrupted", LOG[:7]),
        "r3": told("3", "rollback", LOG[:7]),
        "r5": told("5", "success", LOG),
    },
)


def test_what_may_be_is_not_wrong() -> None:
    """A story with every kind of end."""
    assert list(judge(STORY, FOUND)) == []


def test_a_run_may_be_given_up() -> None:
    """Three workers were lost with it, and what the last one had to say; but not when it is cancelled."""
    lost = {"run_id": "5", "status": "error", "values": {"log": LOG[:7]}, "error": {"error": "WorkerLost"}}
    found = replace(
        FOUND,
        rows={**FOUND.rows, "5": row("5", "error", 5)},
        webhooks={**FOUND.webhooks, "r5": [lost]},
        status="error",
    )
    assert list(judge(STORY, found)) == []
    assert list(judge([*STORY[:-1], replace(STORY[-1], cancels={"interrupt"})], found))


@pytest.mark.parametrize(
    "changes",
    [
        {"log": LOG[:-1]},
        {"log": [*LOG, "r5:d"]},
        {"log": [LOG[1], LOG[0], *LOG[2:]]},
        {"log": [*LOG[4:], *LOG[:4]]},
        {"log": [*LOG, "r3:a"]},
        {"status": "busy"},
        {"status": "error"},
        {"checkpointed": {"3"}},
        {"rows": {**FOUND.rows, "5": row("5", "running", 5)}},
        {"rows": {**FOUND.rows, "5": row("5", "interrupted", 5)}},
        {"rows": {**FOUND.rows, "3": row("3", "success", 3)}},
        {"rows": {**FOUND.rows, "9": row("9", "success", 3)}},
        {"rows": {key: value for key, value in FOUND.rows.items() if key != "5"}},
        {"webhooks": {**FOUND.webhooks, "r0": []}},
        {"webhooks": {**FOUND.webhooks, "r0": FOUND.webhooks["r0"] * 2}},
        {"webhooks": {**FOUND.webhooks, "r2": []}},
        {"webhooks": {**FOUND.webhooks, "r2": told("2", "success", LOG[:7])}},
        {"webhooks": {**FOUND.webhooks, "r5": told("5", "success", LOG[:-1])}},
        {"webhooks": {**FOUND.webhooks, "r4": told("4", "error", [])}},
    ],
)
def test_what_cannot_be_is_found(changes: dict[str, Any]) -> None:
    """Steps lost, repeated, swapped or left over; ends without reason; webhooks missing, repeated, wrong."""
    assert list(judge(STORY, replace(FOUND, **changes)))


def test_a_run_that_should_have_been_stopped_is_found() -> None:
    """A success that ends after a run with `interrupt` had come."""
    later = {**FOUND.rows, "3": row("3", "success", 3), "2": row("2", "success", 4)}
    story = [*STORY[:3], replace(STORY[3], cancels=set())]
    log = [*LOG[:5], *(f"r{n}:{letter}" for n in (2, 3) for letter in "abcd")]
    webhooks = {
        **FOUND.webhooks,
        "r2": told("2", "success", log[:9]),
        "r3": told("3", "success", log),
    }
    rows = {key: later[key] for key in ("0", "1", "2", "3")}
    problems = list(judge(story, replace(FOUND, rows=rows, log=log, webhooks=webhooks)))
    assert len(problems) == 1
    assert "after r3 (interrupt) had come" in problems[0]
