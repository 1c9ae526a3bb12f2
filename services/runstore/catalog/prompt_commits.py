"""Commits of prompts, agents and skills, and the tags that name them."""

import re
import uuid
from typing import Any, Final

import msgspec
from sqlalchemy import Row, Select, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.prompts import find_prompt
from runstore.catalog.texts import check_description
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.prompts import (
    LATEST,
    MAX_PROMPT_PAGE,
    MIN_HASH_CHARACTERS,
    Prompt,
    PromptCommit,
    PromptKind,
    PromptTag,
    Viewer,
    commit_hash,
)
from runstore.runtime.clock import Clock

MAX_MANIFEST_BYTES: Final = 16 * 1024 * 1024
_MAX_DESCRIPTION_CHARACTERS: Final = 1_000
_MAX_PATH_CHARACTERS: Final = 1_024
_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HASH_PREFIX: Final = re.compile(rf"[0-9a-f]{{{MIN_HASH_CHARACTERS},64}}")

_prompts = tables.prompts.c
_commits = tables.prompt_commits.c
_tags = tables.prompt_tags.c
_WITHOUT_MANIFEST = [column for column in _commits if column.name != "manifest"]


class PromptCommitCatalog:
    """Reads and writes commits and tags. Raises NOT_FOUND for what the viewer may not see, or not change.

    Every method may raise RunstoreError UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self,
        viewer: Viewer,
        owner: str,
        handle: str,
        *,
        parent: str,
        manifest: bytes,
        description: str | None = None,
    ) -> PromptCommit:
        """A commit behind the latest, which `parent` must name: by hash, by `latest`, or by "" for none.

        Raises ALREADY_EXISTS when it names another, NOT_FOUND when it names none at all.
        """
        check_description("description", description)
        if description is not None and len(description) > _MAX_DESCRIPTION_CHARACTERS:
            raise invalid("description", f"longer than {_MAX_DESCRIPTION_CHARACTERS} characters")
        try:
            async with self._database.write() as connection:
                prompt = await find_prompt(connection, viewer, owner, handle, own=True)
                if prompt.kind is not PromptKind.PROMPT:
                    raise invalid("manifest", f"{handle} is a directory of files")
                await _check_parent(connection, prompt, parent)
                return await self._append(connection, prompt, manifest, description)
        except Conflict as error:
            raise _stale() from error

    async def create_directory(
        self, viewer: Viewer, owner: str, handle: str, *, parent: str, files: dict[str, msgspec.Raw | None]
    ) -> PromptCommit:
        """A commit with the files of the latest, changed by `files`; None removes one. As `create`."""
        for path in files:
            if not path or len(path) > _MAX_PATH_CHARACTERS:
                raise invalid("files", f"paths have 1 to {_MAX_PATH_CHARACTERS} characters")
        try:
            async with self._database.write() as connection:
                prompt = await find_prompt(connection, viewer, owner, handle, own=True)
                if prompt.kind is PromptKind.PROMPT:
                    raise invalid("files", f"{handle} is a prompt, no directory of files")
                await _check_parent(connection, prompt, parent)
                present: dict[str, msgspec.Raw] = {}
                if prompt.last_commit_id is not None:
                    query = select(_commits.manifest).where(_commits.id == prompt.last_commit_id)
                    stored = (await connection.execute(query)).scalar_one()
                    present = msgspec.json.decode(stored, type=dict[str, msgspec.Raw])
                merged = {**present, **files}
                left = {path: entry for path, entry in sorted(merged.items()) if entry is not None}
                return await self._append(connection, prompt, msgspec.json.encode(left), None)
        except Conflict as error:
            raise _stale() from error

    async def _append(
        self, connection: AsyncConnection, prompt: Prompt, manifest: bytes, description: str | None
    ) -> PromptCommit:
        if len(manifest) > MAX_MANIFEST_BYTES:
            raise RunstoreError(
                ErrorReason.TOO_LARGE, f"a commit holds at most {MAX_MANIFEST_BYTES} bytes", field="manifest"
            )
        now_us = self._clock.now_us()
        row = {
            "id": str(uuid.uuid4()),
            "prompt_id": prompt.id,
            "number": prompt.num_commits + 1,
            "hash": commit_hash(prompt.last_commit_hash, manifest),
            "parent_id": prompt.last_commit_id,
            "parent_hash": prompt.last_commit_hash,
            "manifest": manifest,
            "description": description,
            "num_downloads": 0,
            "created_at_us": now_us,
        }
        await connection.execute(insert(tables.prompt_commits).values(row))
        await connection.execute(
            update(tables.prompts)
            .where(_prompts.id == prompt.id)
            .values(
                num_commits=prompt.num_commits + 1,
                last_commit_id=row["id"],
                last_commit_hash=row["hash"],
                updated_at_us=now_us,
            )
        )
        return PromptCommit(**{**row, "manifest": None})  # type: ignore[arg-type]  # the row's values differ

    async def get(
        self, viewer: Viewer, owner: str, handle: str, reference: str, kind: PromptKind | None = None
    ) -> tuple[Prompt, PromptCommit]:
        """The commit that `reference` names (`latest`, a hash or its beginning, a tag) with its manifest."""
        async with self._database.read() as connection:
            prompt = await find_prompt(connection, viewer, owner, handle)
            if kind is not None and prompt.kind is not kind:
                raise RunstoreError(ErrorReason.NOT_FOUND, f"{owner}/{handle} is no {kind}", field="repo")
            commit_id = await _commit_id(connection, prompt, reference)
            query = select(tables.prompt_commits).where(_commits.id == commit_id)
            return prompt, _commit((await connection.execute(query)).one())

    async def page(
        self, viewer: Viewer, owner: str, handle: str, *, offset: int, limit: int
    ) -> tuple[list[PromptCommit], int]:
        """The newest commits first, without their manifests, and how many there are."""
        async with self._database.read() as connection:
            prompt = await find_prompt(connection, viewer, owner, handle)
            query = select(*_WITHOUT_MANIFEST).where(_commits.prompt_id == prompt.id)
            page = query.order_by(_commits.number.desc()).offset(offset).limit(min(limit, MAX_PROMPT_PAGE))
            return [_commit(row) for row in await connection.execute(page)], prompt.num_commits

    async def count_download(self, commit: PromptCommit) -> None:
        """One more has read it. The count is for people: it is lost when the database cannot write."""
        statement = (
            update(tables.prompt_commits)
            .where(_commits.id == commit.id)
            .values(num_downloads=_commits.num_downloads + 1)
        )
        counting = (
            update(tables.prompts)
            .where(_prompts.id == commit.prompt_id)
            .values(num_downloads=_prompts.num_downloads + 1)
        )
        try:
            async with self._database.write() as connection:
                await connection.execute(statement)
                await connection.execute(counting)
        except RunstoreError as error:
            if error.reason is not ErrorReason.UNAVAILABLE:
                raise

    async def set_tag(
        self, viewer: Viewer, owner: str, handle: str, tag: str, commit: str, *, must_exist: bool = False
    ) -> PromptTag:
        """Gives the tag to a commit, by its id or hash; it leaves the one that had it."""
        if _TAG.fullmatch(tag) is None or tag == LATEST:
            raise invalid("tag_name", "letters, digits, . _ and -, at most 128, and not latest")
        now_us = self._clock.now_us()
        try:
            async with self._database.write() as connection:
                prompt = await find_prompt(connection, viewer, owner, handle, own=True)
                is_meant = or_(_commits.id == commit, _commits.hash == commit)
                query = select(_commits.id).where(_commits.prompt_id == prompt.id, is_meant)
                commit_id = (await connection.execute(query)).scalar_one_or_none()
                if commit_id is None:
                    raise _no_commit(commit)
                mine = (_tags.prompt_id == prompt.id) & (_tags.name == tag)
                change = {"commit_id": commit_id, "updated_at_us": now_us}
                moved = await connection.execute(update(tables.prompt_tags).where(mine).values(change))
                if not moved.rowcount and must_exist:
                    raise _no_tag(tag)
                if not moved.rowcount:
                    row = {"prompt_id": prompt.id, "name": tag, "created_at_us": now_us, **change}
                    await connection.execute(insert(tables.prompt_tags).values(row))
                return _tag((await connection.execute(_tagged(prompt).where(_tags.name == tag))).one())
        except Conflict:  # Somebody else has just made the tag; the last one wins.
            return await self.set_tag(viewer, owner, handle, tag, commit, must_exist=must_exist)

    async def tags(self, viewer: Viewer, owner: str, handle: str) -> list[PromptTag]:
        """All tags, by name."""
        async with self._database.read() as connection:
            prompt = await find_prompt(connection, viewer, owner, handle)
            rows = await connection.execute(_tagged(prompt).order_by(_tags.name))
            return [_tag(row) for row in rows]

    async def delete_tag(self, viewer: Viewer, owner: str, handle: str, tag: str) -> None:
        """Raises NOT_FOUND when there is none of that name."""
        async with self._database.write() as connection:
            prompt = await find_prompt(connection, viewer, owner, handle, own=True)
            statement = delete(tables.prompt_tags).where(_tags.prompt_id == prompt.id, _tags.name == tag)
            if not (await connection.execute(statement)).rowcount:
                raise _no_tag(tag)


async def _check_parent(connection: AsyncConnection, prompt: Prompt, parent: str) -> None:
    if parent in (LATEST, prompt.last_commit_hash or ""):
        return
    if not parent:
        raise _stale()
    if await _commit_id(connection, prompt, parent) != prompt.last_commit_id:
        raise _stale()


async def _commit_id(connection: AsyncConnection, prompt: Prompt, reference: str) -> str:
    if reference == LATEST and prompt.last_commit_id is not None:
        return prompt.last_commit_id
    if _HASH_PREFIX.fullmatch(reference):
        query = select(_commits.id).where(
            _commits.prompt_id == prompt.id, _commits.hash.startswith(reference, autoescape=True)
        )
        found = (await connection.execute(query.limit(2))).scalars().all()
        if len(found) == 1:
            return str(found[0])
    query = select(_tags.commit_id).where(_tags.prompt_id == prompt.id, _tags.name == reference)
    tagged = (await connection.execute(query)).scalar_one_or_none()
    if tagged is None:
        raise _no_commit(reference)
    return str(tagged)


def _tagged(prompt: Prompt) -> Select[Any]:
    columns = (_tags.name, _tags.commit_id, _commits.hash, _tags.created_at_us, _tags.updated_at_us)
    joined = tables.prompt_tags.join(tables.prompt_commits, _commits.id == _tags.commit_id)
    return select(*columns).select_from(joined).where(_tags.prompt_id == prompt.id)


def _commit(row: Row[Any]) -> PromptCommit:
    return PromptCommit(**{"manifest": None, **row._mapping})


def _tag(row: Row[Any]) -> PromptTag:
    return PromptTag(row.name, row.commit_id, row.hash, row.created_at_us, row.updated_at_us)


def _stale() -> RunstoreError:
    return RunstoreError(
        ErrorReason.ALREADY_EXISTS,
        "the parent is not the latest commit: pull, then push",
        field="parent_commit",
    )


def _no_commit(reference: str) -> RunstoreError:
    return RunstoreError(ErrorReason.NOT_FOUND, f"there is no commit {reference!r}", field="commit")


def _no_tag(tag: str) -> RunstoreError:
    return RunstoreError(ErrorReason.NOT_FOUND, f"there is no tag {tag!r}", field="tag_name")
