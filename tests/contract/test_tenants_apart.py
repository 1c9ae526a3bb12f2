"""What one tenant has, another cannot find: every route with the ids of somebody else, and Schemathesis."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok

from runstore.domain.access import WITHOUT_CREDENTIAL
from runstore.domain.access_table import ROUTES

from .servers import Server

MARK = f"secret-{uuid4().hex}"
"""In every name and payload of the tenant that is looked for."""


@dataclass(frozen=True)
class Belongings:
    """What a tenant has: ids by the name of the path's parameter, and how it looks to the tenant itself."""

    ids: dict[str, str]
    http: httpx.Client

    def seen(self) -> dict[str, Any]:
        """What the tenant itself reads."""
        paths = [f"/runs/{self.ids['run_id']}", f"/sessions/{self.ids['session_id']}"]
        paths += [f"/datasets/{self.ids['dataset_id']}", f"/examples/{self.ids['example_id']}"]
        paths += [f"/feedback/{self.ids['feedback_id']}", f"/annotation-queues/{self.ids['queue_id']}"]
        paths += [f"/threads/{self.ids['thread_id']}"]
        found = {}
        for path in paths:
            answer = self.http.get(path)
            assert answer.status_code == 200, (path, answer.text)
            found[path] = answer.json()
        return found


@pytest.fixture(scope="module")
def theirs(guarded: Server, foreign_key: str) -> Iterator[Belongings]:
    with httpx.Client(base_url=guarded.url, headers={"x-api-key": foreign_key}, timeout=60) as http:

        def make(path: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = http.post(path, json=body)
            assert answer.status_code in (200, 201), (path, answer.text)
            made: dict[str, Any] = answer.json()
            return made

        run_id = str(uuid4())
        session = make("/sessions", {"name": MARK})
        run = {"id": run_id, "name": MARK, "run_type": "llm", "session_id": session["id"]}
        times = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:01Z"}
        written = http.post("/runs", json={**run, **times, "inputs": {"q": MARK}, "outputs": {"a": MARK}})
        assert written.status_code == 202, written.text
        dataset = make("/datasets", {"name": MARK, "data_type": "kv"})
        example = make("/examples", {"dataset_id": dataset["id"], "inputs": {"q": MARK}})
        feedback = make("/feedback", {"run_id": run_id, "key": MARK, "score": 1})
        queue = make("/annotation-queues", {"name": MARK})
        thread = make("/threads", {"metadata": {"mark": MARK}})
        yield Belongings(
            {
                "run_id": run_id,
                "trace_id": run_id,
                "queue_run_id": run_id,
                "item_id": run_id,
                "session_id": session["id"],
                "dataset_id": dataset["id"],
                "example_id": example["id"],
                "feedback_id": feedback["id"],
                "queue_id": queue["id"],
                "thread_id": thread["thread_id"],
            },
            http,
        )


def test_ids_of_others_lead_nowhere(guarded: Server, key: str, theirs: Belongings) -> None:
    """No route that names a thing finds another tenant's, shows a word of it, or changes it."""
    before = theirs.seen()
    found = []
    body = {"session": [theirs.ids["session_id"]], "dataset_id": theirs.ids["dataset_id"]}
    with httpx.Client(base_url=guarded.url, headers={"x-api-key": key}, timeout=60) as http:
        for line, access in ROUTES.items():
            method, path = line.split()
            if access in WITHOUT_CREDENTIAL or "{" not in path or method == "*":
                continue
            filled = re.sub(r"{(\w+)[^}]*}", lambda name: theirs.ids.get(name[1], str(uuid4())), path)
            sent = None if method in ("GET", "DELETE") else body
            answer = http.request(method, filled, json=sent)
            if (answer.status_code >= 500 and answer.status_code != 501) or MARK in answer.text:
                found.append(f"{line}: {answer.status_code} {answer.text[:100]}")
        for path in ("/sessions", "/datasets", "/annotation-queues", "/feedback", "/repos", "/agents"):
            assert MARK not in http.get(path).text, path
    assert found == []
    assert theirs.seen() == before


@pytest.mark.parametrize(
    ("every", "examples"), [(12, 2), pytest.param(1, 40, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_schemathesis_finds_nothing(
    guarded: Server, key: str, theirs: Belongings, every: int, examples: int
) -> None:
    """Whatever the OpenAPI allows to ask, also with another tenant's ids: no defect, no word of its data."""
    schema = schemathesis.openapi.from_dict(httpx.get(f"{guarded.url}/openapi.json", timeout=60).json())
    schema.config.update(base_url=guarded.url)
    before = theirs.seen()
    operations = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    assert len(operations) > 150
    ids = list(theirs.ids.values())
    with httpx.Client(base_url=guarded.url, headers={"x-api-key": key}, timeout=60) as http:
        for operation in operations[::every]:
            if operation.path.startswith(("/threads/{thread_id}/stream", "/runs/stream", "/runs/wait")):
                continue

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(), chosen=st.randoms(use_true_random=False))
            def ask(case: Any, chosen: Any) -> None:
                for name in case.path_parameters or {}:
                    if chosen.random() < 0.7:
                        case.path_parameters[name] = theirs.ids.get(name, chosen.choice(ids))
                sent = case.as_transport_kwargs()
                answer = http.request(
                    sent["method"],
                    sent["url"],
                    params=sent.get("params"),
                    content=json.dumps(sent["json"], default=str) if "json" in sent else None,
                    headers={"content-type": "application/json"} if "json" in sent else None,
                )
                what = f"{sent['method']} {sent['url']}: {answer.status_code} {answer.text[:300]}"
                assert answer.status_code < 500 or answer.status_code == 501, what
                assert MARK not in answer.text, what

            ask()
    assert theirs.seen() == before
