"""What people have looked at stays for the long period: through the SDK, with runs that began long ago."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import grpc
import httpx
import pytest
from langsmith import Client
from tests.waiting import until

from runstore.v1 import retention_service_pb2 as pb
from runstore.v1 import retention_service_pb2_grpc

from .servers import Server
from .wire import dotted_order

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:Creating feedback for a run without session_id"),
]


class Rules:
    """The rule of one tenant."""

    def __init__(self, channel: grpc.Channel, key: str) -> None:
        self._stub = retention_service_pb2_grpc.RetentionServiceStub(channel)
        self._metadata = (("x-api-key", key),)

    def set(self, short_days: int | None = None, long_days: int | None = None) -> None:
        rule = pb.RetentionRule(short_days=short_days, long_days=long_days)
        request = pb.SetRetentionRequest(rule=rule)
        self._stub.SetRetention(request, metadata=self._metadata, timeout=30)


@pytest.fixture
def key(guarded: Server) -> str:
    return guarded.create_key("reviewed", "admin")


@pytest.fixture
def rules(guarded: Server, key: str) -> Iterator[Rules]:
    """Without any in the end, so that nothing is swept any more."""
    with grpc.insecure_channel(guarded.grpc) as channel:
        rules = Rules(channel, key)
        yield rules
        rules.set()


def send(client: Client, name: str) -> UUID:
    """A trace of two runs that ended twenty days ago; the id of its child."""
    root, child = uuid4(), uuid4()
    at = datetime.now(UTC) - timedelta(days=20)
    for run_id, path in ((root, (root,)), (child, (root, child))):
        client.create_run(
            name,
            {"a": 1},
            "chain",
            id=run_id,
            trace_id=root,
            parent_run_id=None if run_id == root else root,
            dotted_order=dotted_order(*path, at=at),
            start_time=at,
            end_time=at,
            outputs={"b": 1},
            project_name="reviewed",
        )
    client.flush()
    return child


def test_what_keeps_a_trace(guarded: Server, key: str, rules: Rules) -> None:
    """Feedback, a queue and an example keep theirs beyond the short period; the long one ends them all."""
    client = Client(guarded.url, api_key=key)
    plain, judged, queued, learned = (send(client, name) for name in ("plain", "judged", "queued", "learned"))
    client.create_feedback(judged, "k", score=1)
    client.flush()
    queue = client.create_annotation_queue(name="reviews")
    client.add_runs_to_annotation_queue(queue.id, run_ids=[queued])
    dataset = client.create_dataset("learned")
    client.create_example(inputs={"a": 1}, dataset_id=dataset.id, source_run_id=learned)
    with httpx.Client(base_url=guarded.url, headers={"x-api-key": key}, timeout=60) as http:

        def there() -> list[bool]:
            return [http.get(f"/runs/{run}").status_code == 200 for run in (plain, judged, queued, learned)]

        def shown() -> set[tuple[object, object]]:
            runs = http.post("/runs/query", json={"id": [str(run) for run in (judged, queued, learned)]})
            return {(run["trace_tier"], run["ttl_seconds"]) for run in runs.json()["runs"]}

        assert there() == [True] * 4
        rules.set(short_days=7, long_days=400)
        until(lambda: not there()[0], "the plain trace is swept")
        assert there() == [False, True, True, True]
        assert shown() == {("longlived", 400 * 86_400)}
        rules.set(short_days=7, long_days=19)
        until(lambda: there() == [False] * 4, "all are swept")
        # What was made of them stays.
        assert http.get(f"/examples?dataset={dataset.id}").json()[0]["inputs"] == {"a": 1}
    client.close()
