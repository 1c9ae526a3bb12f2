"""Sharing through the SDKs: links to runs and threads that everybody can read, until they are taken back."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from langsmith import AsyncClient, Client
from langsmith._exceptions import NotFoundError
from langsmith.utils import LangSmithConflictError, LangSmithError, LangSmithNotFoundError

from .servers import Server

pytestmark = pytest.mark.both_catalogs(slow=True)

START = datetime.now(UTC) - timedelta(minutes=5)


def given_trace(client: Client, project: str, **fields: Any) -> list[uuid.UUID]:
    """A root with a child, its grandchild, and another child."""
    ids = [uuid.uuid4() for _ in range(4)]
    orders: list[str] = []
    for number, (run_id, parent) in enumerate(zip(ids, (None, 0, 1, 0), strict=True)):
        start = START + timedelta(seconds=number)
        own = f"{start:%Y%m%dT%H%M%S%fZ}{run_id}"
        orders.append(own if parent is None else f"{orders[parent]}.{own}")
        client.create_run(
            f"run {number}",
            {"secret": number},
            "chain",
            id=run_id,
            trace_id=ids[0],
            parent_run_id=None if parent is None else ids[parent],
            dotted_order=orders[-1],
            start_time=start,
            project_name=project,
            **fields,
        )
    client.flush()
    return ids


def token_of(link: str) -> str:
    return link.split("/")[-2]


def test_shared_run_is_read_by_everybody_until_it_is_unshared(client: Client, project: str) -> None:
    """`share_run`, `run_is_shared`, `read_run_shared_link`, `read_shared_run`, `unshare_run`."""
    ids = given_trace(client, project)
    other = given_trace(client, project)
    assert not client.run_is_shared(ids[0])
    assert client.read_run_shared_link(ids[0]) is None
    link = client.share_run(ids[0])
    assert client.run_is_shared(ids[0])
    assert client.read_run_shared_link(ids[0]) == link
    assert client.share_run(ids[0], share_id=str(uuid.uuid4())) == link
    token = token_of(link)
    query = {"id": [str(run_id) for run_id in ids], "select": ["share_token"]}
    listed = client.request_with_retries("POST", "/runs/query", json=query).json()["runs"]
    assert {run["id"]: run["share_token"] for run in listed} == {
        str(run_id): token if run_id == ids[0] else None for run_id in ids
    }
    assert client.read_shared_run(token).inputs == {"secret": 0}
    assert client.read_shared_run(token, run_id=ids[2]).name == "run 2"
    assert [run.id for run in client.list_shared_runs(token)] == ids
    assert [run.id for run in client.list_shared_runs(token, run_ids=[str(ids[1])])] == [ids[1]]
    with pytest.raises(LangSmithNotFoundError):
        client.read_shared_run(token, run_id=other[0])
    assert list(client.list_shared_runs(token, run_ids=[str(other[0])])) == []
    client.unshare_run(ids[0])
    client.unshare_run(ids[0])
    assert not client.run_is_shared(ids[0])
    with pytest.raises(LangSmithNotFoundError):
        client.read_shared_run(token)
    with pytest.raises(LangSmithNotFoundError):
        list(client.list_shared_runs(token))
    assert client.share_run(ids[0]) != link


def test_shared_child_shows_what_is_below_it_alone(client: Client, project: str) -> None:
    """A token of a child covers the child and its children, neither its parent nor its siblings."""
    ids = given_trace(client, project)
    token = token_of(client.share_run(ids[1]))
    assert client.read_shared_run(token).id == ids[1]
    assert [run.id for run in client.list_shared_runs(token)] == ids[1:3]
    for hidden in (ids[0], ids[3]):
        with pytest.raises(LangSmithNotFoundError):
            client.read_shared_run(token, run_id=hidden)
    assert not client.run_is_shared(ids[0])


def test_proposed_tokens_are_unique(client: Client, project: str) -> None:
    """A token stands for one run; of an unknown run there is none."""
    ids = given_trace(client, project)
    token = str(uuid.uuid4())
    assert token_of(client.share_run(ids[0], share_id=token)) == token
    with pytest.raises(LangSmithConflictError):
        client.share_run(ids[1], share_id=token)
    with pytest.raises(LangSmithNotFoundError):
        client.share_run(uuid.uuid4())


def test_public_reads_need_no_key_and_sharing_does(
    guarded: Server, key: str, foreign_key: str, project: str
) -> None:
    """Without credentials the link is read, nothing else; another tenant cannot share or unshare."""
    mine, theirs = Client(guarded.url, api_key=key), Client(guarded.url, api_key=foreign_key)
    ids = given_trace(mine, project)
    with pytest.raises(LangSmithNotFoundError):
        theirs.share_run(ids[0])
    token = token_of(mine.share_run(ids[0]))
    theirs.unshare_run(ids[0])
    assert theirs.read_run_shared_link(ids[0]) is None
    with httpx.Client(base_url=guarded.url) as http:
        assert http.get(f"/public/{token}/run").json()["inputs"] == {"secret": 0}
        listed = http.post(f"/public/{token}/runs/query", json={}).json()
        assert [run["id"] for run in listed["runs"]] == list(map(str, ids))
        assert http.get(f"/runs/{ids[0]}").status_code == 401
        assert http.put(f"/runs/{ids[0]}/share", json={}).status_code == 401
        assert http.get(f"/public/{uuid.uuid4()}/run").status_code == 404
        assert http.get("/public/x/run").status_code == 422
    mine.close()
    theirs.close()


async def test_v2_shares_traces(client: Client, server: Server, project: str) -> None:
    """The generated resources: sharing and unsharing twice is safe; a listed start time finds the run."""
    ids = given_trace(client, project)
    project_id = str(client.read_project(project_name=project).id)
    trace_id = str(ids[0])
    shares = client.runs.share
    read = await client.runs.retrieve(trace_id, project_id=project_id, selects=["SHARE_URL"])
    assert read.share_url is None
    shared = await shares.create(str(ids[2]), session_id=project_id, trace_id=trace_id)
    again = await shares.create(trace_id, session_id=project_id, trace_id=trace_id)
    token = shared.share_token
    assert token is not None
    assert again.share_token == token
    read = await client.runs.retrieve(trace_id, project_id=project_id, selects=["SHARE_URL"])
    assert read.share_url == f"{server.url}/public/{token}/r"
    selects: Any = ["ID", "START_TIME", "PARENT_RUN_ID", "NAME"]
    page = await client.public.runs.query(token, selects=selects)
    assert page.items is not None
    assert [run.id for run in page.items] == list(map(str, ids))
    async with httpx.AsyncClient(base_url=server.url) as http:
        body = {"selects": [*selects, "INPUTS", "ERROR"]}
        answer = await http.post(f"/api/v2/public/{token}/runs/query", json=body)
    raw = answer.json()["items"]
    assert [run["parent_run_id"] for run in raw] == [None, str(ids[0]), str(ids[1]), str(ids[0])]
    assert "inputs" not in raw[0]
    start = raw[2]["start_time"]
    found = await client.public.runs.retrieve(
        str(ids[2]), share_token=token, selects=["NAME"], start_time=start
    )
    assert found.name == "run 2"
    with pytest.raises(NotFoundError):
        await client.public.runs.retrieve(
            str(ids[2]), share_token=token, selects=["NAME"], start_time=raw[0]["start_time"]
        )
    for _ in range(2):
        await shares.delete(trace_id, session_id=project_id)
    with pytest.raises(NotFoundError):
        await client.public.runs.query(token, selects=selects)
    with pytest.raises(NotFoundError):
        await shares.create(trace_id, session_id=str(uuid.uuid4()), trace_id=trace_id)


async def test_v2_shares_threads(client: Client, project: str) -> None:
    """A token of a thread covers its runs, later ones too, and no others of the project."""
    thread = f"t-{uuid.uuid4()}/ü"
    metadata = {"metadata": {"thread_id": thread}}
    ids = given_trace(client, project, extra=metadata)
    given_trace(client, project)
    project_id = str(client.read_project(project_name=project).id)
    shares = client.threads.share
    assert (await shares.retrieve(thread, project_id=project_id)).share_token is None
    token = (await shares.create(thread, project_id=project_id)).share_token
    assert token is not None
    assert (await shares.create(thread, project_id=project_id)).share_token == token
    assert (await shares.retrieve(thread, project_id=project_id)).share_token == token
    assert [run.id for run in client.list_shared_runs(token)] == ids
    later = given_trace(client, project, extra=metadata)
    assert {run.id for run in client.list_shared_runs(token)} == {*ids, *later}
    with pytest.raises(LangSmithNotFoundError):
        client.read_shared_run(token)
    for _ in range(2):
        await shares.delete(thread, project_id=project_id)
    with pytest.raises(LangSmithError):
        list(client.list_shared_runs(token))


def test_long_trace_is_shared_whole(client: Client, project: str) -> None:
    """Shared runs come in pages; a child at the end of a long trace is found behind pages of others."""
    root = uuid.uuid4()
    start = START
    root_order = f"{start:%Y%m%dT%H%M%S%fZ}{root}"
    client.create_run(
        "r",
        {},
        "chain",
        id=root,
        trace_id=root,
        dotted_order=root_order,
        start_time=start,
        project_name=project,
    )
    ids = [root]
    for number in range(150):
        run_id = uuid.uuid4()
        at = start + timedelta(milliseconds=number + 1)
        order = f"{root_order}.{at:%Y%m%dT%H%M%S%fZ}{run_id}"
        client.create_run(
            "c", {}, "tool", id=run_id, trace_id=root, parent_run_id=root, dotted_order=order, start_time=at,
            project_name=project,
        )  # fmt: skip
        ids.append(run_id)
    client.flush()
    token = token_of(client.share_run(root))
    assert [run.id for run in client.list_shared_runs(token)] == ids
    last = token_of(client.share_run(ids[-1]))
    assert [run.id for run in client.list_shared_runs(last)] == ids[-1:]


async def test_async_client_shares_runs(async_client: AsyncClient, project: str) -> None:
    """`share_run`, `run_is_shared` and `read_run_shared_link` of the asynchronous client."""
    run_id = uuid.uuid4()
    await async_client.create_run("r", {"a": 1}, "tool", id=run_id, project_name=project)
    assert not await async_client.run_is_shared(run_id)
    link = await async_client.share_run(run_id)
    assert await async_client.run_is_shared(run_id)
    assert await async_client.read_run_shared_link(run_id) == link
    with pytest.raises(LangSmithNotFoundError):
        await async_client.share_run(uuid.uuid4())
