"""The routes of prompts, their commits and tags (contract resources, section 7)."""

from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.times import format_time
from runstore.gateway.dialects import json_response
from runstore.gateway.guarded_routes import GuardedRouter
from runstore.gateway.models import Detail
from runstore.gateway.prompt_json import (
    KINDS,
    CommitCreate,
    DirectoryCommitCreate,
    KindName,
    PromptCreate,
    PromptUpdate,
    show_commit,
    show_listed_commit,
    show_prompt,
    show_tag,
)
from runstore.gateway.store_client import StoreClient, credentials_of
from runstore.gateway.time_fields import to_time_us
from runstore.v1 import prompt_service_pb2 as pb

_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Detail}}
_TAKEN: Final[dict[int | str, dict[str, Any]]] = {
    409: {"model": Detail, "description": "The handle is taken."}
}
_STALE: Final[dict[int | str, dict[str, Any]]] = {
    409: {"description": "The parent is not the latest commit."}
}
_ORDERS: Final = {
    "updated_at": pb.PROMPT_ORDER_UPDATE_TIME,
    "num_likes": pb.PROMPT_ORDER_NUM_LIKES,
    "num_downloads": pb.PROMPT_ORDER_NUM_DOWNLOADS,
    "num_views": pb.PROMPT_ORDER_NUM_VIEWS,
}


class _ListQuery(BaseModel):
    """Query parameters of the list; all conditions hold together."""

    repo_type: KindName = "prompt"
    is_public: bool | None = Field(None, description="Public ones of all tenants, or own ones that are not.")
    is_archived: bool | None = None
    query: str | None = Field(None, description="Text in handle, description or readme, in any case.")
    match_prefix: bool = Field(default=False, description="Look at the beginning of the handle alone.")
    tags: list[str] = Field(default=[], description="With all of these.")
    sort_field: Literal["updated_at", "num_likes", "num_downloads", "num_views"] = "updated_at"
    sort_direction: Literal["asc", "desc"] = "desc"
    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)


class _Page(BaseModel):
    """Query parameters of the list of commits."""

    offset: int = Field(0, ge=0, le=2**31 - 1)
    limit: int = Field(100, ge=1, le=100)
    include_model: bool | None = Field(None, description="Without effect: lists hold no manifests.")


class _Like(BaseModel):
    like: bool


class _Tag(BaseModel):
    tag_name: str
    commit_id: str = Field(description="Id or hash of the commit.")


class _TagMove(BaseModel):
    commit_id: str = Field(description="Id or hash of the commit.")


def prompt_routes(store: StoreClient) -> GuardedRouter:
    """The routes, on the prompts of `store`."""
    router = GuardedRouter(tags=["Prompts"])
    _add_prompt_routes(router, store)
    _add_commit_routes(router, store)
    _add_tag_routes(router, store)
    _add_directory_routes(router, store)
    return router


def _add_prompt_routes(router: GuardedRouter, store: StoreClient) -> None:
    prompts = store.prompts

    @router.get("/repos")
    async def list_prompts(request: Request, query: Annotated[_ListQuery, Query()]) -> Response:
        """Lists prompts, the last updated first unless told."""
        message = pb.ListPromptsRequest(
            kind=KINDS[query.repo_type],
            is_public=query.is_public,
            is_archived=query.is_archived,
            query=query.query,
            is_prefix=query.match_prefix,
            tags=query.tags,
            order=_ORDERS[query.sort_field],
            ascending=query.sort_direction == "asc",
            offset=query.offset,
            page_size=query.limit,
        )
        answer = await store.ask(prompts.ListPrompts, message, credentials_of(request.headers))
        return json_response({"repos": list(map(show_prompt, answer.prompts)), "total": answer.total})

    @router.post("/repos", responses=_TAKEN)
    async def create_prompt(request: Request, body: PromptCreate) -> Response:
        """Creates a prompt, agent or skill without commits."""
        message = pb.CreatePromptRequest(
            handle=body.repo_handle,
            kind=KINDS[body.repo_type],
            description=body.description or "",
            readme=body.readme or "",
            tags=body.tags or (),
            is_public=body.is_public,
        )
        answer = await store.ask(prompts.CreatePrompt, message, credentials_of(request.headers))
        return json_response({"repo": show_prompt(answer.prompt)})

    @router.get("/repos/{owner}/{repo}", responses=_NOT_FOUND)
    async def read_prompt(request: Request, owner: str, repo: str) -> Response:
        """Reads a prompt; a public one needs no credentials."""
        message = pb.GetPromptRequest(name=_name(owner, repo))
        answer = await store.ask(prompts.GetPrompt, message, credentials_of(request.headers))
        return json_response({"repo": show_prompt(answer.prompt)})

    @router.patch("/repos/{owner}/{repo}", responses=_NOT_FOUND)
    async def update_prompt(request: Request, owner: str, repo: str, body: PromptUpdate) -> Response:
        """Changes a prompt; null and absent keys keep what is there."""
        message = pb.UpdatePromptRequest(
            name=_name(owner, repo),
            description=body.description,
            readme=body.readme,
            tags=None if body.tags is None else pb.PromptTagNames(names=body.tags),
            is_public=body.is_public,
            is_archived=body.is_archived,
        )
        answer = await store.ask(prompts.UpdatePrompt, message, credentials_of(request.headers))
        return json_response({"repo": show_prompt(answer.prompt)})

    @router.delete("/repos/{owner}/{repo}", responses=_NOT_FOUND)
    async def delete_prompt(request: Request, owner: str, repo: str) -> Response:
        """Deletes a prompt with its commits."""
        message = pb.DeletePromptRequest(name=_name(owner, repo))
        await store.ask(prompts.DeletePrompt, message, credentials_of(request.headers))
        return json_response({"message": "Deleted"})

    @router.post("/likes/{owner}/{repo}", responses=_NOT_FOUND)
    async def like_prompt(request: Request, owner: str, repo: str, body: _Like) -> Response:
        """Likes a prompt, or no longer."""
        message = pb.LikePromptRequest(name=_name(owner, repo), is_liked=body.like)
        answer = await store.ask(prompts.LikePrompt, message, credentials_of(request.headers))
        return json_response({"likes": answer.num_likes})


def _add_commit_routes(router: GuardedRouter, store: StoreClient) -> None:
    prompts = store.prompts

    @router.get("/commits/{owner}/{repo}", responses=_NOT_FOUND)
    async def list_commits(
        request: Request, owner: str, repo: str, page: Annotated[_Page, Query()]
    ) -> Response:
        """Lists commits without their manifests, the last made first."""
        message = pb.ListPromptCommitsRequest(
            name=_name(owner, repo), offset=page.offset, page_size=page.limit
        )
        answer = await store.ask(prompts.ListPromptCommits, message, credentials_of(request.headers))
        return json_response(
            {"commits": list(map(show_listed_commit, answer.commits)), "total": answer.total}
        )

    @router.post("/commits/{owner}/{repo}", status_code=201, responses={**_NOT_FOUND, **_STALE})
    async def create_commit(request: Request, owner: str, repo: str, body: CommitCreate) -> Response:
        """Adds a commit behind the latest."""
        message = pb.CreatePromptCommitRequest(
            name=_name(owner, repo),
            parent=body.parent,
            manifest=msgspec.json.encode(body.manifest),
            description=body.description,
        )
        answer = await store.ask(prompts.CreatePromptCommit, message, credentials_of(request.headers))
        return json_response({"commit": show_listed_commit(answer.commit)}, 201)

    @router.get("/commits/{owner}/{repo}/{reference}", responses=_NOT_FOUND)
    async def read_commit(
        request: Request,
        owner: str,
        repo: str,
        reference: str,
        include_model: bool = False,  # noqa: FBT001, FBT002 - a query parameter
    ) -> Response:
        """Reads a commit by `latest`, a tag, a hash or its beginning; a public one without credentials."""
        message = pb.GetPromptCommitRequest(
            name=_name(owner, repo), reference=reference, without_model=not include_model
        )
        answer = await store.ask(prompts.GetPromptCommit, message, credentials_of(request.headers))
        return json_response(show_commit(answer.commit))


def _add_tag_routes(router: GuardedRouter, store: StoreClient) -> None:
    prompts = store.prompts

    @router.get("/repos/{owner}/{repo}/tags", responses=_NOT_FOUND)
    async def list_tags(request: Request, owner: str, repo: str) -> Response:
        """Lists the tags of commits, by name."""
        message = pb.ListPromptTagsRequest(name=_name(owner, repo))
        answer = await store.ask(prompts.ListPromptTags, message, credentials_of(request.headers))
        return json_response([show_tag(tag) for tag in answer.tags])

    async def set_tag(
        request: Request, name: pb.PromptName, tag: str, commit: str, *, must_exist: bool
    ) -> Response:
        message = pb.SetPromptTagRequest(name=name, tag=tag, commit=commit, must_exist=must_exist)
        answer = await store.ask(prompts.SetPromptTag, message, credentials_of(request.headers))
        return json_response(show_tag(answer.tag))

    @router.post("/repos/{owner}/{repo}/tags", responses=_NOT_FOUND)
    async def create_tag(request: Request, owner: str, repo: str, body: _Tag) -> Response:
        """Gives a tag to a commit; it leaves the one that had it."""
        return await set_tag(request, _name(owner, repo), body.tag_name, body.commit_id, must_exist=False)

    @router.get("/repos/{owner}/{repo}/tags/{tag_name}", responses=_NOT_FOUND)
    async def read_tag(request: Request, owner: str, repo: str, tag_name: str) -> Response:
        """Reads a tag."""
        message = pb.ListPromptTagsRequest(name=_name(owner, repo))
        answer = await store.ask(prompts.ListPromptTags, message, credentials_of(request.headers))
        for tag in answer.tags:
            if tag.name == tag_name:
                return json_response(show_tag(tag))
        raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no tag {tag_name!r}", field="tag_name")

    @router.patch("/repos/{owner}/{repo}/tags/{tag_name}", responses=_NOT_FOUND)
    async def move_tag(request: Request, owner: str, repo: str, tag_name: str, body: _TagMove) -> Response:
        """Gives a tag that exists to another commit."""
        return await set_tag(request, _name(owner, repo), tag_name, body.commit_id, must_exist=True)

    @router.delete("/repos/{owner}/{repo}/tags/{tag_name}", responses=_NOT_FOUND)
    async def delete_tag(request: Request, owner: str, repo: str, tag_name: str) -> Response:
        """Deletes a tag; the commit stays."""
        message = pb.DeletePromptTagRequest(name=_name(owner, repo), tag=tag_name)
        await store.ask(prompts.DeletePromptTag, message, credentials_of(request.headers))
        return json_response({"message": "Deleted"})


def _add_directory_routes(router: GuardedRouter, store: StoreClient) -> None:
    prompts = store.prompts
    path = "/v1/platform/hub/repos/{owner}/{repo}/directories"

    @router.get(path)
    async def read_directory(
        request: Request,
        owner: str,
        repo: str,
        repo_type: Literal["agent", "skill"] | None = None,
        commit: str = "latest",
    ) -> Response:
        """Reads the files of an agent or a skill, as of a commit."""
        message = pb.GetPromptCommitRequest(
            name=_name(owner, repo),
            reference=commit,
            kind=pb.PROMPT_KIND_UNSPECIFIED if repo_type is None else KINDS[repo_type],
        )
        answer = await store.ask(prompts.GetPromptCommit, message, credentials_of(request.headers))
        return json_response(
            {
                "commit_id": answer.commit.id,
                "commit_hash": answer.commit.hash,
                "files": msgspec.Raw(answer.commit.manifest),
            }
        )

    @router.post(path + "/commits", status_code=201)
    async def commit_directory(
        request: Request, owner: str, repo: str, body: DirectoryCommitCreate
    ) -> Response:
        """Puts and removes files of an agent or a skill; the others stay."""
        message = pb.CreateDirectoryCommitRequest(
            name=_name(owner, repo),
            parent=body.parent_commit or "",
            files=msgspec.json.encode(body.files),
        )
        answer = await store.ask(prompts.CreateDirectoryCommit, message, credentials_of(request.headers))
        commit = answer.commit
        created_at = format_time(to_time_us(commit.create_time))
        shown = {"id": commit.id, "commit_hash": commit.hash, "created_at": created_at}
        return json_response({"commit": shown}, 201)

    @router.delete(path, status_code=204)
    async def delete_directory(request: Request, owner: str, repo: str) -> Response:
        """Deletes an agent or a skill with its commits."""
        message = pb.DeletePromptRequest(name=_name(owner, repo))
        await store.ask(prompts.DeletePrompt, message, credentials_of(request.headers))
        return Response(status_code=204)


def _name(owner: str, repo: str) -> pb.PromptName:
    return pb.PromptName(owner=owner, handle=repo)
