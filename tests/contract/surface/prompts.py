"""Prompts, agents and skills of the handwritten clients."""

from typing import Any

from langchain_core.prompts import PromptTemplate
from langsmith.schemas import FileEntry

from .scenarios import BOTH, World, shows


@shows(
    BOTH,
    *("create_prompt", "get_prompt", "update_prompt", "list_prompts", "like_prompt", "unlike_prompt"),
    "delete_prompt",
)
def prompts(sdk: Any, world: World) -> None:
    name = world.name()
    sdk.create_prompt(name, description="d")
    sdk.update_prompt(name, tags=["t"])
    assert sdk.get_prompt(name).tags == ["t"]
    assert [repo.repo_handle for repo in sdk.list_prompts(query=name).repos] == [name]
    assert (sdk.like_prompt(name)["likes"], sdk.unlike_prompt(name)["likes"]) == (1, 0)
    sdk.delete_prompt(name)
    assert sdk.get_prompt(name) is None


@shows(BOTH, "create_commit", "push_prompt", "pull_prompt", "pull_prompt_commit", "list_prompt_commits")
def commits(sdk: Any, world: World) -> None:
    name = world.name()
    sdk.push_prompt(name, object=PromptTemplate.from_template("{a} first"))
    sdk.create_commit(name, PromptTemplate.from_template("{a} second"))
    commits = list(sdk.list_prompt_commits(name))
    assert len(commits) == 2
    assert sdk.pull_prompt_commit(name).commit_hash == commits[0].commit_hash
    assert sdk.pull_prompt(name).template == "{a} second"


@shows(
    BOTH,
    *("push_agent", "pull_agent", "agent_exists", "list_agents", "delete_agent"),
    *("push_skill", "pull_skill", "skill_exists", "list_skills", "delete_skill"),
)
def directories(sdk: Any, world: World) -> None:
    for kind in ("agent", "skill"):
        name = world.name()
        push, pull, exists, delete = (
            getattr(sdk, each)
            for each in (f"push_{kind}", f"pull_{kind}", f"{kind}_exists", f"delete_{kind}")
        )
        push(name, files={"a.md": FileEntry(content="x")})
        assert pull(name).files["a.md"].content == "x"
        assert exists(name)
        assert [repo.repo_handle for repo in getattr(sdk, f"list_{kind}s")(query=name).repos] == [name]
        delete(name)
        assert not exists(name)
