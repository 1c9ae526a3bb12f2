"""Limits of one tenant: 429 in the contract's dialect, nothing lost by SDKs, nobody else concerned."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2, status_pb2
from langsmith import Client
from tests.contract.servers import Server
from tests.contract.wire import run_json
from tests.waiting import until

from runstore.v1 import project_service_pb2, project_service_pb2_grpc

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def limited_key(guarded: Server) -> str:
    """A key of a tenant that may write ten runs and ask two questions in a second."""
    key = guarded.create_key("limited")
    guarded.command("tenants", "limits", "limited", "--tenant-runs", "10", "--key-queries", "2")
    return key


def test_the_command_adds_to_what_was_set(guarded: Server, limited_key: str) -> None:
    """It shows what holds; 0 is no limit; what was not given stays."""
    shown = guarded.command("tenants", "limits", "limited", "--key-runs", "0").stdout.splitlines()
    assert [line.split()[-1] for line in shown[1:]] == ["none", "all", "2", "10", "all", "all"]


def test_sdks_send_again_what_came_too_early(guarded: Server, limited_key: str) -> None:
    """Batches above the limit are refused for a second, and in the end all runs are there."""
    client = Client(guarded.url, api_key=limited_key)
    names = [f"run {number}" for number in range(25)]
    for name in names:
        client.create_run(name, {"a": 1}, "chain", id=uuid4(), project_name="limited")
        if name.endswith("9"):
            client.flush()
    client.flush()

    def found() -> bool:
        with httpx.Client(headers={"x-api-key": limited_key}) as http:
            answer = http.get(f"{guarded.url}/sessions", params={"name": "limited", "include_stats": "true"})
        return answer.status_code == 200 and answer.json()[0]["run_count"] == len(names)

    until(found, "all runs are there")
    client.close()


def test_refusals_in_the_contracts_dialect(guarded: Server, limited_key: str, key: str) -> None:
    """429 and Retry-After for a batch and for questions; another tenant is answered meanwhile."""
    batch = {"post": [run_json(uuid4(), "limited batches") for _ in range(300)]}
    with httpx.Client(base_url=guarded.url, headers={"x-api-key": limited_key}, timeout=60) as http:

        def until_refused(ask: Callable[[], httpx.Response]) -> httpx.Response:
            """However slow this machine is: there may be time for some that are let in."""
            [answer] = until(
                lambda: [] if (found := ask()).is_success else [found], "a call that is not let in"
            )
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            return answer

        # What a batch overdraws, the next one waits for: half a minute.
        write = until_refused(lambda: http.post("/runs/batch", json=batch))
        with ThreadPoolExecutor(8) as threads:
            questions = until_refused(
                lambda: max(threads.map(http.get, ["/sessions"] * 8), key=lambda each: each.status_code)
            )
        others = http.get("/sessions", headers={"x-api-key": key})
    assert others.status_code == 200
    assert "10 runs per second of this tenant" in write.text
    assert "2 queries per second" in questions.text


def test_grpc_tells_when_to_try_again(guarded: Server, limited_key: str) -> None:
    """RESOURCE_EXHAUSTED carries a `google.rpc.RetryInfo`."""
    metadata = (("x-api-key", limited_key),)
    with grpc.insecure_channel(guarded.grpc) as channel:
        stub = project_service_pb2_grpc.ProjectServiceStub(channel)

        def ask() -> None:
            for _ in range(50):
                stub.ListProjects(project_service_pb2.ListProjectsRequest(), metadata=metadata, timeout=60)

        with pytest.raises(grpc.RpcError) as refused:
            ask()
    error: Any = refused.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.seconds >= 1
