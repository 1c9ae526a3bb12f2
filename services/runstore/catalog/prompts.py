"""Prompts in the catalog; their commits and tags are `prompt_commits`' part."""

import dataclasses
import uuid
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.keyed_pages import rows_of_page
from runstore.catalog.tenant_handles import TenantHandles
from runstore.catalog.text_search import has_part
from runstore.catalog.texts import check_description, check_name
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.prompts import (
    MAX_HANDLE_CHARACTERS,
    MAX_PROMPT_PAGE,
    OWN,
    NewPrompt,
    Prompt,
    PromptFilter,
    PromptKind,
    PromptPatch,
    Viewer,
    is_handle,
)
from runstore.runtime.clock import Clock

_MAX_TAGS = 100
_prompts = tables.prompts.c
_handles = tables.tenant_handles.c
_likes = tables.prompt_likes.c


class PromptCatalog:
    """Reads and writes prompts. What a viewer may not see is NOT_FOUND; public prompts are read by everybody.

    Every method may raise RunstoreError UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, handles: TenantHandles, clock: Clock) -> None:
        self._database = database
        self._handles = handles
        self._clock = clock

    async def create(self, viewer: Viewer, prompt: NewPrompt) -> Prompt:
        """A prompt without commits. Raises ALREADY_EXISTS, and INVALID_ARGUMENT for what cannot be stored."""
        if not is_handle(prompt.handle):
            raise invalid("repo_handle", "lower-case letters, digits, - and _, a letter first, at most 128")
        _check(prompt)
        await self._handles.of(viewer.tenant_id)
        now_us = self._clock.now_us()
        row = {
            **dataclasses.asdict(prompt),
            "id": str(uuid.uuid4()),
            "tenant_id": viewer.tenant_id,
            "tags": _encoded(prompt.tags),
            "is_archived": False,
            "created_at_us": now_us,
            "updated_at_us": now_us,
            **dict.fromkeys(("num_likes", "num_downloads", "num_views", "num_commits"), 0),
        }
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(tables.prompts).values(row))
        except Conflict as error:
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS, f"{prompt.handle} already exists", field="repo_handle"
            ) from error
        return await self.get(viewer, OWN, prompt.handle)

    async def get(self, viewer: Viewer, owner: str, handle: str) -> Prompt:
        """Raises NOT_FOUND."""
        async with self._database.read() as connection:
            return await find_prompt(connection, viewer, owner, handle)

    async def count_view(self, prompt: Prompt) -> None:
        """One more has looked at it. The count is for people: it is lost when the database cannot write."""
        statement = (
            update(tables.prompts).where(_prompts.id == prompt.id).values(num_views=_prompts.num_views + 1)
        )
        try:
            async with self._database.write() as connection:
                await connection.execute(statement)
        except RunstoreError as error:
            if error.reason is not ErrorReason.UNAVAILABLE:
                raise

    async def list(self, viewer: Viewer, condition: PromptFilter) -> tuple[list[Prompt], int]:
        """The page `offset`, `limit` of the prompts that meet `condition`, and how many do."""
        where = _where(viewer, condition)
        order = _prompts[condition.order.value]
        ordering = (order.desc(), _prompts.id.desc()) if condition.descending else (order, _prompts.id)
        ordered = select(_prompts.id).where(where).order_by(*ordering)
        limit = min(condition.limit, MAX_PROMPT_PAGE)
        async with self._database.read() as connection:
            total = (
                await connection.execute(select(func.count()).select_from(tables.prompts).where(where))
            ).scalar_one()
            rows = await rows_of_page(
                connection, ordered, _selected(viewer), _prompts.id, condition.offset, limit
            )
            return [_prompt(row) for row in rows], int(total)

    async def update(self, viewer: Viewer, owner: str, handle: str, patch: PromptPatch) -> Prompt:
        """Applies what `patch` sets. Raises NOT_FOUND unless the prompt is the viewer's own."""
        _check(patch)
        changes = {key: value for key, value in dataclasses.asdict(patch).items() if value is not None}
        if patch.tags is not None:
            changes["tags"] = _encoded(patch.tags)
        async with self._database.write() as connection:
            prompt = await find_prompt(connection, viewer, owner, handle, own=True)
            statement = update(tables.prompts).where(_prompts.id == prompt.id)
            await connection.execute(statement.values(**changes, updated_at_us=self._clock.now_us()))
            return await find_prompt(connection, viewer, owner, handle)

    async def delete(self, viewer: Viewer, owner: str, handle: str) -> None:
        """Removes the prompt with its commits. Raises NOT_FOUND unless it is the viewer's own."""
        async with self._database.write() as connection:
            prompt = await find_prompt(connection, viewer, owner, handle, own=True)
            await connection.execute(delete(tables.prompts).where(_prompts.id == prompt.id))

    async def like(self, viewer: Viewer, owner: str, handle: str, *, is_liked: bool) -> int:
        """The viewer likes the prompt from now on, or not; says how many do. Raises NOT_FOUND."""
        try:
            async with self._database.write() as connection:
                # Locked, because each counts the others' likes.
                prompt = await find_prompt(connection, viewer, owner, handle, lock=True)
                if is_liked and not prompt.is_liked:
                    row = {"prompt_id": prompt.id, "user": viewer.user}
                    await connection.execute(insert(tables.prompt_likes).values(row))
                elif not is_liked:
                    mine = and_(_likes.prompt_id == prompt.id, _likes.user == viewer.user)
                    await connection.execute(delete(tables.prompt_likes).where(mine))
                counting = select(func.count()).where(_likes.prompt_id == prompt.id)
                count = int((await connection.execute(counting)).scalar_one())
                statement = update(tables.prompts).where(_prompts.id == prompt.id)
                await connection.execute(statement.values(num_likes=count))
                return count
        except Conflict:  # The same viewer in two places at once, or the prompt is gone: look again.
            return await self.like(viewer, owner, handle, is_liked=is_liked)


async def find_prompt(
    connection: AsyncConnection,
    viewer: Viewer,
    owner: str,
    handle: str,
    *,
    own: bool = False,
    lock: bool = False,
) -> Prompt:
    """The prompt, if the viewer may see it, or if it is the viewer's `own`. Raises NOT_FOUND.

    With `lock`, and if it must be the viewer's own, nobody else changes it until the transaction ends.
    """
    query = _selected(viewer).where(_prompts.handle == handle)
    is_own = _prompts.tenant_id == viewer.tenant_id
    query = query.where(is_own if owner == OWN else _handles.handle == owner)
    query = query.where(is_own if own else or_(is_own, _prompts.is_public))
    if own or lock:
        query = query.with_for_update(of=tables.prompts)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no {owner}/{handle}", field="repo")
    return _prompt(row)


def _selected(viewer: Viewer) -> Select[Any]:
    mine = exists().where(_likes.prompt_id == _prompts.id, _likes.user == viewer.user)
    columns = (*_prompts, _handles.handle.label("owner"), mine.label("is_liked"))
    joined = tables.prompts.join(tables.tenant_handles, _handles.tenant_id == _prompts.tenant_id)
    return select(*columns).select_from(joined)


def _where(viewer: Viewer, condition: PromptFilter) -> ColumnElement[bool]:
    conditions = [_prompts.kind == condition.kind.value]
    if condition.is_public:
        conditions.append(_prompts.is_public)
    else:
        conditions.append(_prompts.tenant_id == viewer.tenant_id if viewer.tenant_id else false())
    if condition.is_public is False:
        conditions.append(_prompts.is_public.is_(False))
    if condition.is_archived is not None:
        conditions.append(_prompts.is_archived.is_(condition.is_archived))
    if condition.query and condition.is_prefix:
        # Beyond the length of a handle, nothing begins so; the databases limit patterns, too.
        is_possible = len(condition.query) <= MAX_HANDLE_CHARACTERS
        begins = _prompts.handle.istartswith(condition.query, autoescape=True)
        conditions.append(begins if is_possible else false())
    elif condition.query:
        texts = (_prompts.handle, _prompts.description, _prompts.readme)
        conditions.append(or_(*(has_part(text, condition.query) for text in texts)))
    for tag in condition.tags:
        # Inside the JSON array that the column holds.
        encoded = msgspec.json.encode(tag).decode()
        conditions.append(has_part(_prompts.tags, encoded))
    return and_(*conditions)


def _check(prompt: NewPrompt | PromptPatch) -> None:
    check_description("description", prompt.description)
    check_description("readme", prompt.readme)
    if len(prompt.tags or ()) > _MAX_TAGS:
        raise invalid("tags", f"more than {_MAX_TAGS}")
    for tag in prompt.tags or ():
        check_name("tags", tag)


def _encoded(tags: tuple[str, ...]) -> str:
    return msgspec.json.encode(list(dict.fromkeys(tags))).decode()


def _prompt(row: Row[Any]) -> Prompt:
    values = dict(row._mapping)
    values["tags"] = tuple(msgspec.json.decode(values["tags"], type=list[str]))
    values["kind"] = PromptKind(values["kind"])
    values["is_liked"] = bool(values["is_liked"])
    return Prompt(**values)
