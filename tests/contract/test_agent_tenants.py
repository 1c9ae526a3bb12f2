"""Threads and runs of graphs on a server that wants API keys. What they do is tested in tests/agents."""

import httpx

from .servers import Server


def test_runs_and_threads_of_others_are_not_there(guarded: Server, key: str, foreign_key: str) -> None:
    """Contract agents, section 6, H6 to H8: no key, no answer; another tenant's thread is not found."""
    nobody = {"assistant_id": "00000000-0000-4000-8000-000000000000"}
    mine, other = {"x-api-key": key}, {"x-api-key": foreign_key}
    with httpx.Client(base_url=guarded.url, timeout=60) as http:
        assert http.post("/threads", json={}).status_code == 401
        assert http.post("/runs/wait", json=nobody).status_code == 401
        assert http.post("/runs", json=nobody).status_code == 401
        assert [http.get(path).status_code for path in ("/ok", "/info")] == [200, 200]
        path = f"/threads/{http.post('/threads', json={}, headers=mine).json()['thread_id']}"
        for headers, status in ((mine, 200), (other, 404)):
            for read in (path, f"{path}/runs"):
                assert http.get(read, headers=headers).status_code == status, read
        for act in ("runs/wait", "runs", "runs/stream", "state", "history", "copy"):
            refused = http.post(f"{path}/{act}", json=nobody, headers=other)
            assert refused.status_code in (404, 409), act
        assert http.delete(path, headers=other).status_code == 404
        assert http.get(path, headers=mine).status_code == 200
