"""Tokens and configurations of feedback in the catalog."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, and_, delete, insert, select, update

from runstore.catalog import tables
from runstore.catalog.database import Conflict, Database
from runstore.catalog.text_search import has_part
from runstore.catalog.texts import check_name, json_object
from runstore.domain.errors import ErrorReason, RunstoreError, invalid
from runstore.domain.feedback_setup import (
    MAX_CONFIG_PAGE,
    FeedbackConfig,
    FeedbackConfigPatch,
    FeedbackToken,
)
from runstore.runtime.clock import Clock

MAX_KEY_CHARACTERS = 180
_TYPES = ("continuous", "categorical", "freeform")
_tokens = tables.feedback_tokens.c
_configs = tables.feedback_configs.c


class FeedbackTokenCatalog:
    """Reads and writes tokens. Every method may raise RunstoreError UNAVAILABLE."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, tokens: Sequence[FeedbackToken]) -> None:
        """Stores all or none. Raises ALREADY_EXISTS when an id is taken, INVALID_ARGUMENT for a bad key."""
        for token in tokens:
            _check_key(token.feedback_key)
        try:
            async with self._database.write() as connection:
                rows = [dataclasses.asdict(token) for token in tokens]
                await connection.execute(insert(tables.feedback_tokens), rows)
        except Conflict as error:
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS, "a token of this id already exists", field="id"
            ) from error

    async def find(self, token_id: str) -> FeedbackToken:
        """The token, of any tenant. Raises NOT_FOUND for one that was never made or has expired."""
        is_good = and_(_tokens.id == token_id, _tokens.expires_at_us > self._clock.now_us())
        async with self._database.read() as connection:
            query = select(tables.feedback_tokens).where(is_good)
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, "the feedback token is unknown, or has expired")
        return FeedbackToken(**row._mapping)

    async def list(self, tenant_id: str, run_id: str, *, offset: int, limit: int) -> list[FeedbackToken]:
        """The tokens of a run that have not expired, the last made first."""
        query = (
            select(tables.feedback_tokens)
            .where(
                _tokens.tenant_id == tenant_id,
                _tokens.run_id == run_id,
                _tokens.expires_at_us > self._clock.now_us(),
            )
            .order_by(_tokens.created_at_us.desc(), _tokens.id)
        )
        async with self._database.read() as connection:
            rows = await connection.execute(query.offset(offset).limit(limit))
            return [FeedbackToken(**row._mapping) for row in rows]


class FeedbackConfigCatalog:
    """Reads and writes configurations, always inside one tenant. Every method may raise UNAVAILABLE."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, config: FeedbackConfig) -> FeedbackConfig:
        """Stores the configuration, or returns the one of its key if that has the same `config`.

        Raises ALREADY_EXISTS when the key has another, INVALID_ARGUMENT for a bad key or `config`.
        """
        _check_key(config.feedback_key)
        wanted = _checked(config.config)
        try:
            async with self._database.write() as connection:
                row = dataclasses.asdict(config)
                await connection.execute(insert(tables.feedback_configs).values(row))
        except Conflict as error:
            present = await self._get(config.tenant_id, config.feedback_key)
            if msgspec.json.decode(present.config) == wanted:
                return present
            raise RunstoreError(
                ErrorReason.ALREADY_EXISTS,
                f"the feedback key {config.feedback_key!r} has another configuration",
                field="feedback_key",
            ) from error
        return config

    async def _get(self, tenant_id: str, key: str) -> FeedbackConfig:
        async with self._database.read() as connection:
            query = select(tables.feedback_configs).where(_is(tenant_id, key))
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise _not_found(key)
        return _config(row)

    async def list(
        self, tenant_id: str, *, keys: Sequence[str], name_contains: str | None, offset: int, limit: int
    ) -> list[FeedbackConfig]:
        """A page of configurations, by key."""
        query = select(tables.feedback_configs).where(_configs.tenant_id == tenant_id)
        if keys:
            query = query.where(_configs.feedback_key.in_(keys))
        if name_contains is not None:
            query = query.where(has_part(_configs.feedback_key, name_contains))
        page = query.order_by(_configs.feedback_key).offset(offset).limit(min(limit, MAX_CONFIG_PAGE))
        async with self._database.read() as connection:
            return [_config(row) for row in await connection.execute(page)]

    async def update(self, tenant_id: str, key: str, patch: FeedbackConfigPatch) -> FeedbackConfig:
        """Applies what `patch` sets and returns the result. Raises NOT_FOUND, INVALID_ARGUMENT."""
        if patch.config is not None:
            _checked(patch.config)
        changes = {name: value for name, value in dataclasses.asdict(patch).items() if value is not None}
        statement = update(tables.feedback_configs).where(_is(tenant_id, key))
        async with self._database.write() as connection:
            await connection.execute(statement.values(**changes, modified_at_us=self._clock.now_us()))
        return await self._get(tenant_id, key)

    async def delete(self, tenant_id: str, key: str) -> None:
        """Removes the configuration. Raises NOT_FOUND."""
        async with self._database.write() as connection:
            statement = delete(tables.feedback_configs).where(_is(tenant_id, key))
            deleted = (await connection.execute(statement)).rowcount
        if not deleted:
            raise _not_found(key)


def _is(tenant_id: str, key: str) -> Any:
    return and_(_configs.tenant_id == tenant_id, _configs.feedback_key == key)


def _check_key(key: str) -> None:
    check_name("feedback_key", key)
    if len(key) > MAX_KEY_CHARACTERS:
        raise invalid("feedback_key", f"longer than {MAX_KEY_CHARACTERS} characters")


def _checked(config: bytes) -> dict[str, object]:
    decoded = json_object("feedback_config", config)
    if decoded.get("type") not in _TYPES:
        raise invalid("feedback_config.type", f"must be one of {', '.join(_TYPES)}")
    return decoded


def _config(row: Row[Any]) -> FeedbackConfig:
    return FeedbackConfig(**row._mapping)


def _not_found(key: str) -> RunstoreError:
    return RunstoreError(
        ErrorReason.NOT_FOUND, f"the feedback key {key!r} has no configuration", field="feedback_key"
    )
