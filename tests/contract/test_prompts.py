"""Prompts through the SDKs: prompts, commits, tags, likes, and the directories of agents and skills."""

import concurrent.futures
import uuid
from typing import Any

import httpx
import pytest
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langsmith import AsyncClient, Client
from langsmith.schemas import AgentEntry, FileEntry, PromptSortField
from langsmith.utils import LangSmithConflictError, LangSmithError, LangSmithNotFoundError

from .servers import Server

pytestmark = pytest.mark.both_catalogs(slow=True)


@pytest.fixture
def name() -> str:
    """A name of a prompt that no other test uses."""
    return f"prompt-{uuid.uuid4().hex}"


def template(text: str) -> ChatPromptTemplate:
    return ChatPromptTemplate.from_messages([("system", text), ("human", "{question}")])


def test_prompt_is_created_read_changed_and_deleted(client: Client, name: str) -> None:
    """`create_prompt`, `get_`, `update_` and `delete_prompt`: each sees what the one before has done."""
    made = client.create_prompt(name, description="d", readme="# r", tags=["a", "b"], is_public=False)
    assert (made.repo_handle, made.description, made.readme, made.tags) == (name, "d", "# r", ["a", "b"])
    assert made.full_name == f"{made.owner}/{name}"
    with pytest.raises(LangSmithConflictError):
        client.create_prompt(name)
    client.update_prompt(name, description="new", is_archived=True)
    read = client.get_prompt(name)
    assert read is not None
    assert (read.description, read.readme, read.is_archived, read.num_commits) == ("new", "# r", True, 0)
    assert read.updated_at > read.created_at
    client.update_prompt(name, tags=[], is_public=True, is_archived=False)
    read = client.get_prompt(f"{made.owner}/{name}")
    assert read is not None
    assert (read.tags, read.is_public, read.is_archived) == ([], True, False)
    client.delete_prompt(name)
    assert client.get_prompt(name) is None
    with pytest.raises(LangSmithNotFoundError):
        client.delete_prompt(name)


def test_pushed_prompt_is_pulled(client: Client, name: str) -> None:
    """`push_prompt` makes prompt and commit; `pull_prompt` and `pull_prompt_commit` give it back."""
    url = client.push_prompt(name, object=template("Be brief."), description="d", commit_description="first")
    commit = client.pull_prompt_commit(name)
    assert commit.commit_hash[:8] in url
    assert len(commit.commit_hash) == 64
    assert (commit.description, commit.examples) == ("first", [])
    pulled = client.pull_prompt(name)
    assert pulled.messages == template("Be brief.").messages
    client.push_prompt(name, object=template("Be long."))
    assert client.pull_prompt(name, skip_cache=True).messages == template("Be long.").messages
    assert client.pull_prompt(f"{name}:{commit.commit_hash}").messages == template("Be brief.").messages
    assert client.pull_prompt(f"{name}:{commit.commit_hash[:8]}").messages == template("Be brief.").messages
    read = client.get_prompt(name)
    assert read is not None
    assert (read.num_commits, read.num_downloads > 0) == (2, True)


def test_commits_are_listed_newest_first(client: Client, name: str) -> None:
    """Commits know their parents; more than a page are listed, each once."""
    client.create_prompt(name)
    for number in range(3):
        client.create_commit(name, template(f"{number}"))
    commits = list(client.list_prompt_commits(name))
    assert len(commits) == 3
    assert [commit.parent_commit_hash for commit in commits] == [
        commits[1].commit_hash,
        commits[2].commit_hash,
        None,
    ]
    assert [commit.id for commit in client.list_prompt_commits(name, limit=1, offset=1)] == [commits[1].id]


def test_stale_parent_is_a_conflict(client: Client, name: str) -> None:
    """A commit on what is no longer the latest is refused, and changes nothing."""
    client.create_prompt(name)
    client.create_commit(name, template("1"))
    first = client.pull_prompt_commit(name).commit_hash
    client.create_commit(name, template("2"), parent_commit_hash=first)
    with pytest.raises(LangSmithConflictError):
        client.create_commit(name, template("3"), parent_commit_hash=first)
    with pytest.raises(LangSmithNotFoundError):
        client.create_commit(name, template("3"), parent_commit_hash="0" * 64)
    assert len(list(client.list_prompt_commits(name))) == 2


def test_of_concurrent_commits_on_one_parent_one_is_made(server: Server, client: Client, name: str) -> None:
    """Eight writers on one parent: one commit, seven conflicts."""
    client.push_prompt(name, object=template("start"))
    parent = client.pull_prompt_commit(name).commit_hash
    manifest: dict[str, Any] = {"lc": 1, "type": "constructor", "id": ["langchain", "PromptTemplate"]}

    def commit(number: int) -> int:
        body = {"parent_commit": parent, "manifest": {**manifest, "kwargs": {"number": number}}}
        return httpx.post(f"{server.url}/commits/-/{name}", json=body, timeout=30).status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(commit, range(8))) == [201] + [409] * 7
    assert len(list(client.list_prompt_commits(name))) == 2


def test_concurrent_creations_make_one_prompt(server: Server, client: Client, name: str) -> None:
    """Eight writers of one name: one prompt, seven conflicts."""

    def create(_: int) -> int:
        return httpx.post(f"{server.url}/repos/", json={"repo_handle": name}, timeout=30).status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(create, range(8))) == [200] + [409] * 7
    assert client.list_prompts(query=name).total == 1


def test_tags_name_commits_and_move(client: Client, name: str) -> None:
    """A commit is pulled by its tag; a tag that is pushed again leaves its old commit."""
    client.push_prompt(name, object=template("1"), commit_tags=["prod", "v-1.0"])
    first = client.pull_prompt_commit(f"{name}:prod").commit_hash
    client.push_prompt(name, object=template("2"), commit_tags="prod")
    assert client.pull_prompt_commit(f"{name}:prod", skip_cache=True).commit_hash != first
    assert client.pull_prompt_commit(f"{name}:v-1.0").commit_hash == first
    with pytest.raises(LangSmithNotFoundError):
        client.pull_prompt_commit(f"{name}:staging")


def test_tags_are_managed(server: Server, client: Client, name: str) -> None:
    """The routes of tags: listed by name, read, moved, deleted; `latest` is nobody's."""
    client.push_prompt(name, object=template("1"), commit_tags=["b", "a"])
    client.push_prompt(name, object=template("2"))
    newest = client.pull_prompt_commit(name).commit_hash
    url = f"{server.url}/repos/-/{name}/tags"
    assert [tag["tag_name"] for tag in httpx.get(url).json()] == ["a", "b"]
    assert httpx.patch(f"{url}/a", json={"commit_id": newest}).json()["commit_hash"] == newest
    assert httpx.get(f"{url}/a").json()["commit_hash"] == newest
    assert httpx.delete(f"{url}/a").status_code == 200
    assert httpx.delete(f"{url}/a").status_code == 404
    assert httpx.get(f"{url}/a").status_code == 404
    assert httpx.patch(f"{url}/a", json={"commit_id": newest}).status_code == 404
    refused = httpx.post(url, json={"tag_name": "latest", "commit_id": newest})
    assert (refused.status_code, "tag_name" in refused.text) == (422, True)
    assert httpx.post(url, json={"tag_name": "x", "commit_id": str(uuid.uuid4())}).status_code == 404


def test_likes_count_once(client: Client, name: str) -> None:
    """Liking twice is one like; unliking twice is none."""
    client.create_prompt(name)
    assert [client.like_prompt(name)["likes"] for _ in range(2)] == [1, 1]
    read = client.get_prompt(name)
    assert read is not None
    assert (read.num_likes, read.liked_by_auth_user) == (1, True)
    assert [client.unlike_prompt(name)["likes"] for _ in range(2)] == [0, 0]
    with pytest.raises(LangSmithError):
        client.like_prompt(f"{name}-absent")


def test_list_takes_each_filter_and_order(client: Client, name: str) -> None:
    """Text, publicity, archive, order and paging; a commit puts a prompt in front."""
    for suffix, public in (("a", True), ("b", False), ("c", True)):
        client.create_prompt(f"{name}-{suffix}", is_public=public, description=f"about {name}")
    client.update_prompt(f"{name}-c", is_archived=True)
    client.create_commit(f"{name}-a", template("x"))
    client.like_prompt(f"{name}-b")

    def listed(**conditions: Any) -> list[str]:
        found = client.list_prompts(query=name, **conditions)
        return [prompt.repo_handle.removeprefix(f"{name}-") for prompt in found.repos]

    assert listed() == ["a", "b"]
    assert listed(is_archived=True) == ["c"]
    assert listed(is_public=True) == ["a"]
    assert listed(is_public=False) == ["b"]
    assert listed(limit=1) == ["a"]
    assert listed(limit=1, offset=1) == ["b"]
    assert listed(sort_field=PromptSortField.num_likes) == ["b", "a"]
    assert listed(sort_direction="asc") == ["b", "a"]
    assert client.list_prompts(query="%" + name).total == 0
    # SDKs look at the beginning of names only.
    text = {"query": f"ABOUT {name}", "limit": 1}
    found = client.request_with_retries("GET", "/repos", params=text).json()
    assert (len(found["repos"]), found["total"]) == (1, 3)


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        ({"hello": "hi"}, "Manifest must have an id field"),
        ({"id": ["hi"], "kwargs": {"hi": "hi"}}, "Manifest type hi is not supported"),
        (["list"], "Manifest is not a JSON object"),
    ],
)
def test_bad_manifest_is_refused(client: Client, name: str, manifest: Any, text: str) -> None:
    """400 with the texts that SDKs look for, in the dialect of the commits."""
    client.create_prompt(name)
    with pytest.raises(LangSmithError, match=text) as refused:
        client.request_with_retries("POST", f"/commits/-/{name}", json={"manifest": manifest})
    assert "400 Client Error" in str(refused.value)
    assert '{"error":' in str(refused.value)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/repos/", {"description": "no name"}, 422, "repo_handle"),
        ("POST", "/repos/", {"repo_handle": "Capital"}, 422, "repo_handle"),
        ("POST", "/repos/", {"repo_handle": "x", "repo_type": "cat"}, 422, "repo_type"),
        ("GET", "/repos/?sort_field=name", None, 422, "sort_field"),
        ("GET", "/repos/?limit=101", None, 422, "limit"),
        ("GET", "/repos/-/no-such-prompt", None, 404, "no-such-prompt"),
        ("GET", "/commits/-/no-such-prompt/latest", None, 404, "no-such-prompt"),
        ("POST", "/likes/-/no-such-prompt", {"like": True}, 404, "no-such-prompt"),
        ("POST", "/settings/handle", {"tenant_handle": "No!"}, 422, "tenant_handle"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_and_named(
    server: Server, method: str, path: str, body: Any, status: int, field: str
) -> None:
    """The contract's status, and what is at fault in the answer."""
    answer = httpx.request(method, server.url + path, json=body)
    assert answer.status_code == status
    assert field in answer.text


def test_public_prompts_are_read_by_everybody(guarded: Server, key: str, foreign_key: str, name: str) -> None:
    """Others, with a key or without, read public prompts and nothing else, and change nothing."""
    mine, theirs = Client(guarded.url, api_key=key), Client(guarded.url, api_key=foreign_key)
    mine.push_prompt(f"{name}-open", object=template("1"), is_public=True, commit_tags="prod")
    mine.push_prompt(f"{name}-closed", object=template("2"))
    prompt = mine.get_prompt(f"{name}-open")
    assert prompt is not None
    opened, closed = f"{prompt.owner}/{name}-open", f"{prompt.owner}/{name}-closed"
    commit = theirs.pull_prompt_commit(f"{opened}:prod", dangerously_pull_public_prompt=True)
    assert commit.manifest == mine.pull_prompt_commit(f"{name}-open").manifest
    assert theirs.get_prompt(closed) is None
    assert theirs.get_prompt(f"{name}-open") is None
    with pytest.raises(LangSmithNotFoundError):
        theirs.pull_prompt_commit(closed, dangerously_pull_public_prompt=True)
    assert theirs.list_prompts(query=name).total == 0
    assert [found.repo_handle for found in theirs.list_prompts(query=name, is_public=True).repos] == [
        f"{name}-open"
    ]
    assert httpx.get(f"{guarded.url}/commits/{opened}/latest").status_code == 200
    assert httpx.get(f"{guarded.url}/repos/{closed}").status_code == 404
    assert httpx.get(f"{guarded.url}/repos", params={"query": name}).json()["total"] == 0
    assert httpx.get(f"{guarded.url}/repos/{opened}", headers={"x-api-key": "wrong"}).status_code == 401
    assert httpx.delete(f"{guarded.url}/repos/{opened}").status_code == 401
    with httpx.Client(base_url=guarded.url, headers={"x-api-key": foreign_key}) as http:
        assert http.patch(f"/repos/{opened}", json={"description": "x"}).status_code == 404
        assert http.delete(f"/repos/{opened}").status_code == 404
        assert http.post(f"/commits/{opened}", json={"manifest": commit.manifest}).status_code == 404
        assert http.post(f"/likes/{opened}", json={"like": True}).json() == {"likes": 1}
    mine.close()
    theirs.close()


def test_handle_of_a_workspace_is_changed(guarded: Server, name: str) -> None:
    """A workspace has a handle from the start; one that another has is a conflict."""
    handle = name[:40]
    with httpx.Client(
        headers={"x-api-key": guarded.create_key(f"Team {name}", "admin")}, base_url=guarded.url
    ) as http:
        settings = http.get("/settings").json()
        assert settings["display_name"] == f"Team {name}"
        assert settings["tenant_handle"] == f"team-{name}"
        assert http.post("/settings/handle", json={"tenant_handle": handle}).json()["tenant_handle"] == handle
        assert http.get("/settings").json()["tenant_handle"] == handle
    other = {"x-api-key": guarded.create_key(f"Other {name}", "admin")}
    taken = httpx.post(f"{guarded.url}/settings/handle", json={"tenant_handle": handle}, headers=other)
    assert taken.status_code == 409


def test_agents_and_skills_are_directories_of_files(client: Client, name: str) -> None:
    """Pushing puts and removes files and keeps the others; listed by kind, deleted whole."""
    files: Any = {"AGENTS.md": FileEntry(content="be good"), "tools.json": FileEntry(content="{}")}
    url = client.push_agent(name, files=files, description="d")
    first = client.pull_agent(name)
    assert first.commit_hash[:8] in url
    assert {path: entry.content for path, entry in first.files.items() if isinstance(entry, FileEntry)} == {
        "AGENTS.md": "be good",
        "tools.json": "{}",
    }
    change: Any = {"tools.json": None, "other": AgentEntry(repo_handle="helper")}
    client.push_agent(name, files=change, parent_commit=first.commit_hash)
    second = client.pull_agent(name)
    assert sorted(second.files) == ["AGENTS.md", "other"]
    assert sorted(client.pull_agent(name, version=first.commit_hash).files) == ["AGENTS.md", "tools.json"]
    with pytest.raises(LangSmithConflictError):
        client.push_agent(name, files=files, parent_commit=first.commit_hash)
    assert [repo.repo_handle for repo in client.list_agents(query=name).repos] == [name]
    assert client.list_skills(query=name).total == 0
    assert client.list_prompts(query=name).total == 0
    with pytest.raises(LangSmithNotFoundError):
        client.pull_skill(name)
    client.push_skill(f"{name}-s", files={"SKILL.md": FileEntry(content="how")})
    assert [repo.repo_handle for repo in client.list_skills(query=name).repos] == [f"{name}-s"]
    client.delete_skill(f"{name}-s")
    client.delete_agent(name)
    with pytest.raises(LangSmithNotFoundError):
        client.pull_agent(name)
    assert client.list_agents(query=name).total == 0


def test_broken_entries_of_directories_are_named(server: Server, client: Client, name: str) -> None:
    """A file without content is refused, and nothing is committed; a prompt has no files."""
    client.push_agent(name, files={"a": FileEntry(content="x")})
    path = f"{server.url}/v1/platform/hub/repos/-/{name}/directories"
    refused = httpx.post(f"{path}/commits", json={"files": {"b": {"type": "file"}}})
    assert (refused.status_code, "files.b" in refused.json()["error"]) == (422, True)
    assert list(client.pull_agent(name).files) == ["a"]
    client.create_prompt(f"{name}-p")
    path = f"{server.url}/v1/platform/hub/repos/-/{name}-p/directories"
    refused = httpx.post(f"{path}/commits", json={"files": {"b": {"type": "file", "content": ""}}})
    assert (refused.status_code, "files" in refused.json()["error"]) == (422, True)


async def test_async_client_manages_prompts(async_client: AsyncClient, name: str) -> None:
    """Each method of the asynchronous client, once around."""
    made = await async_client.create_prompt(name, description="d")
    assert made.repo_handle == name
    with pytest.raises(LangSmithConflictError):
        await async_client.create_prompt(name)
    await async_client.create_commit(name, PromptTemplate.from_template("{a}"))
    await async_client.push_prompt(name, object=template("2"), commit_tags=["prod"], tags=["x"])
    assert (await async_client.pull_prompt(f"{name}:prod")).messages == template("2").messages
    commits = [commit async for commit in async_client.list_prompt_commits(name)]
    assert (await async_client.pull_prompt_commit(name)).commit_hash == commits[0].commit_hash
    assert len(commits) == 2
    assert (await async_client.like_prompt(name))["likes"] == 1
    assert (await async_client.unlike_prompt(name))["likes"] == 0
    await async_client.update_prompt(name, description="new")
    found = await async_client.get_prompt(name)
    assert found is not None
    assert (found.description, found.tags, found.num_commits) == ("new", ["x"], 2)
    assert (await async_client.list_prompts(query=name)).total == 1
    await async_client.delete_prompt(name)
    assert await async_client.get_prompt(name) is None
    await async_client.push_agent(name, files={"a": FileEntry(content="x")})
    assert list((await async_client.pull_agent(name)).files) == ["a"]
    await async_client.delete_agent(name)
