"""Projects in the catalog: created by hand or by the first run that names them."""

import dataclasses
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Result, Row, Select, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from runstore.catalog import tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.keyed_pages import rows_of_page
from runstore.catalog.resource_tags import check_tags, is_tagged, put_tags, remove_tags
from runstore.catalog.text_search import has_part
from runstore.catalog.texts import check_description, check_name, json_object
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.expiring import ExpiringMap
from runstore.domain.projects import (
    DEFAULT_PROJECT_NAME,
    MAX_PROJECT_PAGE,
    Project,
    ProjectFilter,
    ProjectPatch,
)
from runstore.domain.times import parse_time
from runstore.runtime.clock import Clock

_MAX_CACHED_PROJECTS = 50_000
# Another store's rename or deletion (several stores on one PostgreSQL) is seen within this time, for which
# both wait: `ingest.peers.REMEMBERED_S`.
_CACHE_TTL_S = 2.0

_projects = tables.projects.c


class ProjectCatalog:
    """Reads and writes projects, always inside one tenant.

    Ids are canonical UUID text; one that is not simply names no project. Every method may raise
    RunstoreError UNAVAILABLE when the database does not answer.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._ids: ExpiringMap[tuple[str, str], str] = _cache(clock, "project_names")
        self._known: ExpiringMap[tuple[str, str], bool] = _cache(clock, "project_ids")

    def cached_id(self, tenant_id: str, name: str) -> str | None:
        """The id of the project `name` when memory has it; else None: await `resolve`. Never blocks."""
        return self._ids.get((tenant_id, name))

    def is_cached(self, tenant_id: str, project_id: str) -> bool:
        """True when the project is known to exist; False means unknown: await `exists`. Never blocks."""
        return self._known.get((tenant_id, project_id)) is not None

    async def exists(self, tenant_id: str, project_id: str) -> bool:
        """Whether the tenant has this project; positive answers are remembered for some seconds."""
        if self.is_cached(tenant_id, project_id):
            return True
        ticket = self._known.ticket()
        async with self._database.read() as connection:
            found = await _row(connection, _by_id(tenant_id, project_id)) is not None
        if found:
            self._known.put((tenant_id, project_id), True, ticket)
        return found

    async def resolve(self, tenant_id: str, name: str) -> Project:
        """The project `name`, created now when there is none. Concurrent callers get the same one.

        Raises INVALID_ARGUMENT for a name that cannot be stored.
        """
        check_name("name", name)
        ticket = self._ids.ticket()
        async with self._database.read() as connection:
            row = await _row(connection, _by_name(tenant_id, name))
        if row is None:
            project = await self.create(self.new(tenant_id, name), upsert=True)
        else:
            project = _project(row)
        self._ids.put((tenant_id, name), project.id, ticket)
        return project

    def new(self, tenant_id: str, name: str) -> Project:
        """A project with a fresh id that starts now; not stored. Replace fields, then `create` it."""
        now_us = self._clock.now_us()
        return Project(
            id=str(uuid.uuid4()),
            tenant_id=tenant_id,
            name=name,
            start_time_us=now_us,
            created_at_us=now_us,
            modified_at_us=now_us,
        )

    async def create(
        self, project: Project, *, upsert: bool = False, tag_value_ids: Sequence[str] = ()
    ) -> Project:
        """Stores `project` as given and returns it; with `upsert`, returns the one that has its name.

        `tag_value_ids`: distinct ids of the values of tags that it gets when it is new.

        Raises ALREADY_EXISTS when the id, or without `upsert` the name, is taken; NOT_FOUND for an
        unknown tenant; INVALID_ARGUMENT for a name, description or `extra` that cannot be stored.
        """
        check_name("name", project.name)
        check_description("description", project.description)
        json_object("extra", project.extra)
        check_tags(tag_value_ids)
        try:
            async with self._database.write() as connection:
                await connection.execute(insert(tables.projects).values(dataclasses.asdict(project)))
                await put_tags(connection, project.tenant_id, project.id, tag_value_ids)
        except Conflict as error:
            return await self._after_conflict(project, error, upsert=upsert)
        return project

    async def _after_conflict(self, project: Project, error: Conflict, *, upsert: bool) -> Project:
        """Finds out what refused the insert, name, id or tenant; each driver says it in its own way."""
        async with self._database.read() as connection:
            named = await _row(connection, _by_name(project.tenant_id, project.name))
            same_id = await _row(connection, select(_projects.id).where(_projects.id == project.id))
        if named is not None and upsert:
            return _project(named)
        if named is not None:
            raise _name_taken(project.name) from error
        if same_id is not None:
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS, f"a project with id {project.id} already exists", field="id"
            ) from error
        raise RunstoreError(ErrorReason.NOT_FOUND, "no such tenant", field="tenant_id") from error

    async def ensure_default(self, tenant_id: str) -> Project:
        """The tenant's project named `default`, created when missing."""
        return await self.resolve(tenant_id, DEFAULT_PROJECT_NAME)

    async def get(self, tenant_id: str, project_id: str) -> Project:
        """Raises NOT_FOUND when the tenant has no such project."""
        async with self._database.read() as connection:
            row = await _row(connection, _by_id(tenant_id, project_id))
        if row is None:
            raise _not_found(project_id)
        return _project(row)

    async def named(self, tenant_id: str, names: Sequence[str]) -> dict[str, str]:
        """The ids of those of the projects `names` that exist, by name."""
        query = select(_projects.name, _projects.id).where(
            _projects.tenant_id == tenant_id, _projects.name.in_(names)
        )
        async with self._database.read() as connection:
            return {row.name: row.id for row in await connection.execute(query)}

    async def list(self, tenant_id: str, condition: ProjectFilter) -> list[Project]:
        """The page `offset`, `limit` of the projects that meet `condition`; [] beyond the end.

        Raises INVALID_ARGUMENT for a negative offset or limit, or metadata that is no JSON object.
        """
        if condition.offset < 0:
            raise invalid("offset", "offset is negative")
        if condition.limit < 0:
            raise invalid("limit", "limit is negative")
        limit = min(condition.limit, MAX_PROJECT_PAGE)
        query = _listing(tenant_id, condition)
        async with self._database.read() as connection:
            if condition.metadata is not None or condition.dataset_version is not None:
                return await _page_with_metadata(
                    connection, query, _metadata_test(condition), condition, limit
                )
            rows = await rows_of_page(
                connection, query, select(tables.projects), _projects.id, condition.offset, limit
            )
            return [_project(row) for row in rows]

    async def update(self, tenant_id: str, project_id: str, patch: ProjectPatch) -> Project:
        """Applies the fields that `patch` sets and returns the result.

        Raises NOT_FOUND; ALREADY_EXISTS when the new name is taken; INVALID_ARGUMENT like `create`.
        """
        if patch.name is not None:
            check_name("name", patch.name)
        check_description("description", patch.description)
        if patch.extra is not None:
            json_object("extra", patch.extra)
        changes = {key: value for key, value in dataclasses.asdict(patch).items() if value is not None}
        statement = (
            update(tables.projects)
            .where(_is(tenant_id, project_id))
            .values(**changes, modified_at_us=self._clock.now_us())
        )
        try:
            async with self._database.write() as connection:
                changed = (await connection.execute(statement)).rowcount
                row = await _row(connection, _by_id(tenant_id, project_id))
        except Conflict as error:
            raise _name_taken(patch.name or "") from error
        finally:
            self._forget(tenant_id, project_id)
        if not changed or row is None:
            raise _not_found(project_id)
        return _project(row)

    async def delete(self, tenant_id: str, project_id: str) -> None:
        """Removes the project; its runs are the caller's to remove. Raises NOT_FOUND."""
        statement = delete(tables.projects).where(_is(tenant_id, project_id))
        try:
            async with self._database.write() as connection:
                deleted = (await connection.execute(statement)).rowcount
                await remove_tags(connection, tenant_id, project_id)
        finally:
            self._forget(tenant_id, project_id)
        if not deleted:
            raise _not_found(project_id)

    def _forget(self, tenant_id: str, project_id: str) -> None:
        self._known.forget((tenant_id, project_id))
        # Renaming and deleting are rare, and the map is keyed by name: start afresh.
        self._ids.forget_all()


def _cache(clock: Clock, name: str) -> ExpiringMap[tuple[str, str], Any]:
    return ExpiringMap(clock, max_entries=_MAX_CACHED_PROJECTS, ttl_s=_CACHE_TTL_S, name=name)


def _is(tenant_id: str, project_id: str) -> Any:
    return and_(_projects.tenant_id == tenant_id, _projects.id == project_id)


def _by_id(tenant_id: str, project_id: str) -> Select[Any]:
    return select(tables.projects).where(_is(tenant_id, project_id))


def _by_name(tenant_id: str, name: str) -> Select[Any]:
    return select(tables.projects).where(_projects.tenant_id == tenant_id, _projects.name == name)


def _listing(tenant_id: str, condition: ProjectFilter) -> Select[Any]:
    query = select(tables.projects).where(_projects.tenant_id == tenant_id)
    if condition.ids:
        query = query.where(_projects.id.in_(condition.ids))
    if condition.name is not None:
        query = query.where(_projects.name == condition.name)
    if condition.name_contains is not None:
        query = query.where(has_part(_projects.name, condition.name_contains))
    if condition.reference_dataset_ids:
        query = query.where(_projects.reference_dataset_id.in_(condition.reference_dataset_ids))
    if condition.reference_free is not None:
        reference = _projects.reference_dataset_id
        query = query.where(reference.is_(None) if condition.reference_free else reference.is_not(None))
    query = query.where(*is_tagged(tenant_id, _projects.id, condition.tag_value_ids))
    order = [func.lower(_projects.name) if condition.by_name else _projects.start_time_us, _projects.id]
    return query.order_by(*([each.desc() for each in order] if condition.descending else order))


def _metadata_test(condition: ProjectFilter) -> Callable[[object], bool]:
    """Whether a project's metadata meets the condition."""
    wanted = {} if condition.metadata is None else json_object("metadata", condition.metadata)
    version = condition.dataset_version

    def meets(metadata: object) -> bool:
        if not isinstance(metadata, dict):
            return False
        return contains(metadata, wanted) and (
            version is None or _is_same_version(metadata.get("dataset_version"), version)
        )

    return meets


def _is_same_version(value: object, wanted: str) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return value == wanted or parse_time("", value) == parse_time("", wanted)
    except RunstoreError:
        return False


async def _page_with_metadata(
    connection: AsyncConnection,
    query: Select[Any],
    meets: Callable[[object], bool],
    condition: ProjectFilter,
    limit: int,
) -> list[Project]:
    """Metadata is checked here, row by row: SQLite has no operator for containment, and projects are few."""
    page: list[Project] = []
    offset = condition.offset
    async with connection.stream(query) as rows:
        async for row in rows:
            if len(page) == limit:
                break
            if not meets(json_object("extra", row.extra).get("metadata")):
                continue
            if offset:
                offset -= 1
            else:
                page.append(_project(row))
    return page


def contains(value: object, wanted: object) -> bool:
    """Whether `value` contains `wanted` as PostgreSQL's `jsonb @>` defines it, for decoded JSON."""
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            return False
        return all(key in value and contains(value[key], part) for key, part in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return False
        return all(any(contains(element, part) for element in value) for part in wanted)
    # In Python True equals 1, in JSON it does not.
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


async def _row(connection: AsyncConnection, query: Select[Any]) -> Row[Any] | None:
    result: Result[Any] = await connection.execute(query)
    return result.one_or_none()


def _project(row: Row[Any]) -> Project:
    return Project(**row._mapping)


def _not_found(project_id: str) -> RunstoreError:
    return RunstoreError(ErrorReason.NOT_FOUND, f"no project with id {project_id}", field="id")


def _name_taken(name: str) -> RunstoreError:
    return RunstoreError(ErrorReason.ALREADY_EXISTS, f"a project named {name!r} already exists", field="name")
