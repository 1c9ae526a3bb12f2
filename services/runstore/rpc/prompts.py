"""Serves `PromptService`."""

from typing import Any, Final, Literal, TypeAlias

import grpc
import msgspec

from runstore.catalog.prompt_commits import PromptCommitCatalog
from runstore.catalog.prompts import PromptCatalog
from runstore.domain.errors import invalid
from runstore.domain.manifests import check_manifest, without_model
from runstore.domain.prompts import (
    LATEST,
    MAX_PROMPT_PAGE,
    NewPrompt,
    Prompt,
    PromptCommit,
    PromptFilter,
    PromptKind,
    PromptOrder,
    PromptPatch,
    PromptTag,
    Viewer,
)
from runstore.rpc.authentication import current_principal
from runstore.rpc.mapping import set_time
from runstore.v1 import prompt_service_pb2 as pb
from runstore.v1 import prompt_service_pb2_grpc

_DEFAULT_PAGE_SIZE: Final = 100
_KINDS: Final = {
    pb.PROMPT_KIND_PROMPT: PromptKind.PROMPT,
    pb.PROMPT_KIND_AGENT: PromptKind.AGENT,
    pb.PROMPT_KIND_SKILL: PromptKind.SKILL,
}
_KIND_NUMBERS: Final = {kind: number for number, kind in _KINDS.items()}
_ORDERS: Final = {
    pb.PROMPT_ORDER_NUM_LIKES: PromptOrder.NUM_LIKES,
    pb.PROMPT_ORDER_NUM_DOWNLOADS: PromptOrder.NUM_DOWNLOADS,
    pb.PROMPT_ORDER_NUM_VIEWS: PromptOrder.NUM_VIEWS,
}
_PLAIN: Final = (
    *("id", "tenant_id", "owner", "handle", "description", "readme", "tags", "is_public", "is_archived"),
    *("num_likes", "num_downloads", "num_views", "num_commits", "last_commit_hash", "is_liked"),
)

_Changeable: TypeAlias = Literal["description", "readme", "is_public", "is_archived"]
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class PromptServicer(prompt_service_pb2_grpc.PromptServiceServicer):
    """Maps calls to the catalog."""

    def __init__(self, prompts: PromptCatalog, commits: PromptCommitCatalog) -> None:
        self._prompts = prompts
        self._commits = commits

    async def CreatePrompt(
        self, request: pb.CreatePromptRequest, context: _Context
    ) -> pb.CreatePromptResponse:
        prompt = NewPrompt(
            handle=request.handle,
            kind=_KINDS.get(request.kind, PromptKind.PROMPT),
            description=request.description,
            readme=request.readme,
            tags=tuple(request.tags),
            is_public=request.is_public,
        )
        return pb.CreatePromptResponse(prompt=_message(await self._prompts.create(_viewer(), prompt)))

    async def GetPrompt(self, request: pb.GetPromptRequest, context: _Context) -> pb.GetPromptResponse:
        prompt = await self._prompts.get(_viewer(), *_name(request))
        await self._prompts.count_view(prompt)
        return pb.GetPromptResponse(prompt=_message(prompt))

    async def ListPrompts(self, request: pb.ListPromptsRequest, context: _Context) -> pb.ListPromptsResponse:
        condition = PromptFilter(
            kind=_KINDS.get(request.kind, PromptKind.PROMPT),
            is_public=request.is_public if request.HasField("is_public") else None,
            is_archived=request.is_archived if request.HasField("is_archived") else None,
            query=request.query if request.HasField("query") else None,
            is_prefix=request.is_prefix,
            tags=tuple(request.tags),
            order=_ORDERS.get(request.order, PromptOrder.UPDATED_AT),
            descending=not request.ascending,
            offset=_not_negative(request, "offset"),
            limit=_limit(request),
        )
        prompts, total = await self._prompts.list(_viewer(), condition)
        return pb.ListPromptsResponse(prompts=map(_message, prompts), total=total)

    async def UpdatePrompt(
        self, request: pb.UpdatePromptRequest, context: _Context
    ) -> pb.UpdatePromptResponse:
        fields: tuple[_Changeable, ...] = ("description", "readme", "is_public", "is_archived")
        patch = PromptPatch(
            **{field: getattr(request, field) for field in fields if request.HasField(field)},
            tags=tuple(request.tags.names) if request.HasField("tags") else None,
        )
        updated = await self._prompts.update(_viewer(), *_name(request), patch)
        return pb.UpdatePromptResponse(prompt=_message(updated))

    async def DeletePrompt(
        self, request: pb.DeletePromptRequest, context: _Context
    ) -> pb.DeletePromptResponse:
        await self._prompts.delete(_viewer(), *_name(request))
        return pb.DeletePromptResponse()

    async def LikePrompt(self, request: pb.LikePromptRequest, context: _Context) -> pb.LikePromptResponse:
        count = await self._prompts.like(_viewer(), *_name(request), is_liked=request.is_liked)
        return pb.LikePromptResponse(num_likes=count)

    async def CreatePromptCommit(
        self, request: pb.CreatePromptCommitRequest, context: _Context
    ) -> pb.CreatePromptCommitResponse:
        check_manifest(request.manifest)
        commit = await self._commits.create(
            _viewer(),
            *_name(request),
            parent=request.parent,
            manifest=request.manifest,
            description=request.description if request.HasField("description") else None,
        )
        return pb.CreatePromptCommitResponse(commit=_commit_message(commit))

    async def CreateDirectoryCommit(
        self, request: pb.CreateDirectoryCommitRequest, context: _Context
    ) -> pb.CreateDirectoryCommitResponse:
        commit = await self._commits.create_directory(
            _viewer(), *_name(request), parent=request.parent or LATEST, files=_files(request.files)
        )
        return pb.CreateDirectoryCommitResponse(commit=_commit_message(commit))

    async def GetPromptCommit(
        self, request: pb.GetPromptCommitRequest, context: _Context
    ) -> pb.GetPromptCommitResponse:
        prompt, commit = await self._commits.get(
            _viewer(), *_name(request), request.reference, _KINDS.get(request.kind)
        )
        await self._commits.count_download(commit)
        message = _commit_message(commit)
        if request.without_model and prompt.kind is PromptKind.PROMPT:
            message.manifest = without_model(message.manifest)
        return pb.GetPromptCommitResponse(commit=message)

    async def ListPromptCommits(
        self, request: pb.ListPromptCommitsRequest, context: _Context
    ) -> pb.ListPromptCommitsResponse:
        commits, total = await self._commits.page(
            _viewer(), *_name(request), offset=_not_negative(request, "offset"), limit=_limit(request)
        )
        return pb.ListPromptCommitsResponse(commits=map(_commit_message, commits), total=total)

    async def SetPromptTag(
        self, request: pb.SetPromptTagRequest, context: _Context
    ) -> pb.SetPromptTagResponse:
        tag = await self._commits.set_tag(
            _viewer(), *_name(request), request.tag, request.commit, must_exist=request.must_exist
        )
        return pb.SetPromptTagResponse(tag=_tag_message(tag))

    async def ListPromptTags(
        self, request: pb.ListPromptTagsRequest, context: _Context
    ) -> pb.ListPromptTagsResponse:
        tags = await self._commits.tags(_viewer(), *_name(request))
        return pb.ListPromptTagsResponse(tags=map(_tag_message, tags))

    async def DeletePromptTag(
        self, request: pb.DeletePromptTagRequest, context: _Context
    ) -> pb.DeletePromptTagResponse:
        await self._commits.delete_tag(_viewer(), *_name(request), request.tag)
        return pb.DeletePromptTagResponse()


def _viewer() -> Viewer:
    principal = current_principal.get()
    return Viewer(principal.tenant_id, principal.key_id or principal.tenant_id)


def _name(request: Any) -> tuple[str, str]:
    return request.name.owner, request.name.handle


def _not_negative(request: Any, field: str) -> int:
    value: int = getattr(request, field)
    if value < 0:
        raise invalid(field, "must not be negative")
    return value


def _limit(request: Any) -> int:
    return min(_not_negative(request, "page_size") or _DEFAULT_PAGE_SIZE, MAX_PROMPT_PAGE)


class _Entry(msgspec.Struct):
    type: str
    content: str | None = None
    repo_handle: str | None = None


def _files(encoded: bytes) -> dict[str, msgspec.Raw | None]:
    """The changes of a directory. Raises INVALID_ARGUMENT naming the path of a broken one."""
    try:
        entries = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid("files", "must be a JSON object of entries by path") from error
    files: dict[str, msgspec.Raw | None] = {}
    for path, raw in entries.items():
        if bytes(raw) == b"null":
            files[path] = None
            continue
        try:
            entry = msgspec.json.decode(raw, type=_Entry)
        except (msgspec.DecodeError, RecursionError) as error:
            raise invalid(f"files.{path}", "must be an entry or null") from error
        is_file = entry.type == "file" and entry.content is not None
        is_link = entry.type in (PromptKind.AGENT, PromptKind.SKILL) and bool(entry.repo_handle)
        if not (is_file or is_link):
            raise invalid(f"files.{path}", "a file has content, an agent or a skill repo_handle")
        files[path] = raw.copy()
    return files


def _message(prompt: Prompt) -> pb.Prompt:
    message = pb.Prompt(
        kind=_KIND_NUMBERS[prompt.kind], **{field: getattr(prompt, field) for field in _PLAIN}
    )
    set_time(message.create_time, prompt.created_at_us)
    set_time(message.update_time, prompt.updated_at_us)
    return message


def _commit_message(commit: PromptCommit) -> pb.PromptCommit:
    plain = (
        "id",
        "prompt_id",
        "hash",
        "parent_id",
        "parent_hash",
        "manifest",
        "description",
        "num_downloads",
    )
    message = pb.PromptCommit(**{field: getattr(commit, field) for field in plain})
    set_time(message.create_time, commit.created_at_us)
    return message


def _tag_message(tag: PromptTag) -> pb.PromptTag:
    message = pb.PromptTag(name=tag.name, commit_id=tag.commit_id, commit_hash=tag.commit_hash)
    set_time(message.create_time, tag.created_at_us)
    set_time(message.update_time, tag.updated_at_us)
    return message
