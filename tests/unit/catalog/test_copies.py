"""Copies of whole catalogs, from either database into either."""

from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect
from tests.postgres import Postgres

from runstore.catalog import SchemaTooNew, copies, open_catalog
from runstore.catalog.tables import SCHEMA_VERSION, metadata
from runstore.domain.principals import DEFAULT_TENANT_ID


@pytest.fixture(params=["sqlite", pytest.param("postgresql", id="postgresql")])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Of two empty databases of a kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'a' / 'c.sqlite'}", f"sqlite:///{tmp_path / 'b' / 'c.sqlite'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.create_database(), postgres.create_database()


async def test_catalog_comes_back(urls: tuple[str, str], tmp_path: Path) -> None:
    """Out of one database into a file, and into another: projects, keys and the server's own secrets."""
    source, target = urls
    file = tmp_path / "copy.sqlite"
    async with open_catalog(source) as catalog:
        project = await catalog.projects.resolve(DEFAULT_TENANT_ID, "ünïcode \U0001f600")
        secret = await catalog.secret("page_tokens")
        _, key = await catalog.keys.create_key(DEFAULT_TENANT_ID, "name")
        await catalog.stores.register("of a data directory", 1)
        await copies.copy_out(source, file)
        await catalog.projects.resolve(DEFAULT_TENANT_ID, "too late")
    assert {path.name for path in tmp_path.iterdir()} <= {"copy.sqlite", "a"}  # noqa: ASYNC240 - a test
    assert copies.schema_version(file) == SCHEMA_VERSION
    assert await copies.is_empty(target)
    await copies.copy_in(file, target)
    assert not await copies.is_empty(target)
    async with open_catalog(target) as catalog:
        assert await catalog.projects.get(DEFAULT_TENANT_ID, project.id) == project
        assert await catalog.secret("page_tokens") == secret
        assert await catalog.keys.authenticate(key)
        assert await catalog.stores.positions() == {}
    await copies.remove(target)
    assert await copies.is_empty(target)


async def test_every_table_is_copied(tmp_path: Path) -> None:
    """What migrations have made is what copies know."""
    url = f"sqlite:///{tmp_path / 'c.sqlite'}"
    async with open_catalog(url):
        pass
    engine = create_engine(url)
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, "alembic_version"}
    engine.dispose()


async def test_copy_of_a_later_version_is_refused(tmp_path: Path) -> None:
    """And the target stays empty."""
    url, target = (f"sqlite:///{tmp_path / name}" for name in ("a.sqlite", "b.sqlite"))
    async with open_catalog(url):
        pass
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(SchemaTooNew, match="9999"):
        await copies.copy_in(tmp_path / "a.sqlite", target)
    assert await copies.is_empty(target)
