"""Broken requests to every route of agents: each is refused decently, whatever is wrong with it.

Bodies begin as the SDK writes them; then one value, wherever it stands, is replaced by something odd.
"""

import copy
import json
import random
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.contract.servers import Server

SEED = 20261121
REQUESTS = 400

UNKNOWN = str(uuid.UUID(int=7))
STEPS = "01d10e59-d4b4-51ec-8e94-9b2716b34de8"
RUN: dict[str, Any] = {
    "assistant_id": "double",
    "input": {"n": 1},
    "command": {"resume": 1, "update": {"n": 2}, "goto": ["a"]},
    "metadata": {"a": "b"},
    "config": {"tags": ["t"], "recursion_limit": 5, "configurable": {"x": 1}, "metadata": {"m": 1}},
    "checkpoint": {"checkpoint_id": UNKNOWN, "checkpoint_ns": "", "checkpoint_map": {}},
    "checkpoint_during": False,
    "durability": "exit",
    "interrupt_before": ["a"],
    "interrupt_after": "*",
    "webhook": "http://127.0.0.1:9/",
    "multitask_strategy": "enqueue",
    "if_not_exists": "create",
    "on_completion": "delete",
    "after_seconds": 100_000,
    "langsmith_tracer": {"project_name": "p", "example_id": UNKNOWN},
    "stream_mode": ["values"],
    "stream_resumable": True,
    "feedback_keys": ["k"],
}
CRON = {"schedule": "0 0 29 2 *", "timezone": "UTC", "end_time": "2050-01-01T00:00:00Z", "enabled": False}
SEARCH = {"metadata": {"a": {"b": [1]}}, "limit": 5, "offset": 0, "sort_order": "asc", "select": ["metadata"]}
ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/runs", RUN),
    ("POST", "/runs/batch", [RUN]),
    ("POST", "/threads/{thread}/runs", RUN),
    ("POST", "/runs/cancel", {"thread_id": UNKNOWN, "run_ids": [UNKNOWN]}),
    ("POST", "/runs/crons", {**RUN, **CRON}),
    ("POST", "/threads/{thread}/runs/crons", {**RUN, **CRON}),
    ("PATCH", "/runs/crons/{cron}", {**RUN, **CRON}),
    (
        "POST",
        "/runs/crons/search",
        {**SEARCH, "sort_by": "end_time", "assistant_id": STEPS, "thread_id": UNKNOWN},
    ),
    ("POST", "/runs/crons/count", {"assistant_id": "steps", "metadata": {}}),
    (
        "POST",
        "/assistants",
        {"graph_id": "steps", "config": {"configurable": {}}, "name": "n", "metadata": {"a": 1}},
    ),
    ("PATCH", "/assistants/{assistant}", {"graph_id": "steps", "context": {"a": 1}, "description": "d"}),
    ("POST", "/assistants/search", {**SEARCH, "graph_id": "steps", "name": "x", "sort_by": "name"}),
    ("POST", "/assistants/count", {"metadata": {"a": 1}}),
    ("POST", "/assistants/{assistant}/versions", {"metadata": {}, "limit": 1, "offset": 0}),
    ("POST", "/assistants/{assistant}/latest", {"version": 1}),
    (
        "POST",
        "/threads",
        {"thread_id": UNKNOWN, "metadata": {"a": 1}, "if_exists": "do_nothing", "ttl": {"ttl": 1}},
    ),
    ("PATCH", "/threads/{thread}", {"metadata": {"a": 1}, "ttl": {"ttl": 1, "strategy": "delete"}}),
    ("POST", "/threads/search", {**SEARCH, "values": {"a": 1}, "ids": [UNKNOWN], "status": "idle"}),
    ("POST", "/threads/count", {"metadata": {"a": 1}, "values": {}, "status": "busy"}),
    ("POST", "/threads/prune", {"thread_ids": [UNKNOWN], "strategy": "keep_latest"}),
    ("POST", "/threads/{thread}/state", {"values": {"n": 1}, "as_node": "a", "checkpoint_id": UNKNOWN}),
    ("POST", "/threads/{thread}/history", {"limit": 3, "before": {"checkpoint_id": UNKNOWN}, "metadata": {}}),
    ("PUT", "/store/items", {"namespace": ["a"], "key": "k", "value": {"a": [1]}, "index": ["a"], "ttl": 5}),
    ("DELETE", "/store/items", {"namespace": ["a"], "key": "k"}),
    (
        "POST",
        "/store/items/search",
        {"namespace_prefix": ["a"], "filter": {"a": {"$gt": 1}}, "limit": 3, "query": "q"},
    ),
    ("POST", "/store/namespaces", {"prefix": ["*"], "suffix": ["a"], "max_depth": 2, "limit": 3}),
]
ODD: list[Any] = [
    *(None, True, False, 0, -1, 2**31, 2**63, 2**64, 10**400, 0.5, 1e308),
    *(
        "",
        " ",
        "x",
        "x" * 70_000,
        "\0",
        "a\0b",
        "\ud83d",
        "é" * 600,
        "'; DROP TABLE tenants; --",
        "../../etc",
    ),
    *(
        "../../etc",
        "{{7*7}}",
        "%00",
        "*",
        "a.b",
        "$gt",
        STEPS.upper(),
        "00000000-0000-0000-0000-00000000000g",
    ),
    *([], [[]], [None], ["x"] * 2_000, {}, {"": {}}, {"$gt": {}}, {"a\0": 1}, {"\ud83d": 1}),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values within a body, its own included."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def broken(chance: random.Random, body: Any) -> str:
    """The body with one odd value; as JSON, now and then cut off."""
    body = copy.deepcopy(body)
    path = chance.choice(list(places(body)))
    odd = copy.deepcopy(chance.choice(ODD))
    if not path:
        body = odd
    else:
        parent = body
        for step in path[:-1]:
            parent = parent[step]
        parent[path[-1]] = odd
    text = json.dumps(body)
    return text[: chance.randrange(len(text))] if chance.random() < 0.03 else text


@pytest.fixture(scope="module")
def ids(server: Server) -> dict[str, str]:
    """A thread with a graph, a cron and an assistant."""
    with httpx.Client(base_url=server.url, timeout=30) as http:
        thread = http.post("/threads", json={}).json()["thread_id"]
        http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "steps", "input": {"n": 1}})
        cron = http.post("/runs/crons", json={"assistant_id": "steps", **CRON}).json()["cron_id"]
        assistant = http.post("/assistants", json={"graph_id": "steps"}).json()["assistant_id"]
    return {"thread": thread, "cron": cron, "assistant": assistant}


def test_broken_requests_are_refused_decently(server: Server, ids: dict[str, str]) -> None:
    """No answer is a 5xx but 501; refusals have one sentence, which shows nothing of the server's inside."""
    chance = random.Random(SEED)
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for number in range(REQUESTS):
            method, path, body = ROUTES[number % len(ROUTES)]
            sent = broken(chance, body)
            answer = http.request(method, path.format(**ids), content=sent)
            told = f"{method} {path} {sent[:2_000]}\n{answer.status_code} {answer.text[:500]}"
            assert answer.status_code < 500 or answer.status_code == 501, told
            for inside in ("Traceback", "site-packages", '.py"', "sqlite", "grpc", "sqlalchemy"):
                assert inside not in answer.text, told
            if answer.status_code >= 400:
                assert answer.json().get("detail") or answer.json().get("error"), told
        assert http.get("/ok").json()["ok"] is True
