"""API keys: recognised, expired, revoked; their secrets are nowhere but with their holder."""

from pathlib import Path

import pytest

from runstore.catalog import Catalog, open_catalog
from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_ID, Grant, Role

DAY_S = 86_400


async def test_secret_authenticates_as_its_tenant(catalog: Catalog) -> None:
    """A secret opens the tenant it was made for, and says which key was used."""
    tenant = await catalog.keys.create_tenant("research")
    key, secret = await catalog.keys.create_key(tenant.id, "ci")
    assert await catalog.keys.authenticate(secret) == Grant(
        key_id=key.id, role=Role.EDITOR, tenant_id=tenant.id, organization_id=None
    )


@pytest.mark.parametrize(
    "secret", ["", "rsk_", "rsk_" + "A" * 43, "rsk_" + "A" * 44, "lsv2_pt_x", "rsk_é" * 9, "\ud800"]
)
async def test_other_secrets_authenticate_nobody(catalog: Catalog, secret: str) -> None:
    """Unknown, malformed and unencodable secrets are all simply unknown."""
    await catalog.keys.create_key(DEFAULT_TENANT_ID, "ci")
    assert await catalog.keys.authenticate(secret) is None


async def test_new_key_works_in_a_running_server(catalog: Catalog, other: Catalog) -> None:
    """A key made by another process is recognised without a restart."""
    _, secret = await other.keys.create_key(DEFAULT_TENANT_ID, "ci")
    assert await catalog.keys.authenticate(secret) is not None


async def test_revocation_takes_effect_at_once_here_and_within_seconds_elsewhere(
    catalog: Catalog, other: Catalog, clock
) -> None:
    """A process that has the key in memory forgets it after three seconds."""
    key, secret = await catalog.keys.create_key(DEFAULT_TENANT_ID, "ci")
    assert await catalog.keys.authenticate(secret)
    assert await other.keys.authenticate(secret)
    revoked = await catalog.keys.revoke_key(key.id)
    assert revoked.revoked_at_us == clock.now_us()
    assert await catalog.keys.authenticate(secret) is None
    clock.advance(3)
    assert await other.keys.authenticate(secret) is None
    assert (await other.keys.revoke_key(key.id)).revoked_at_us == revoked.revoked_at_us


async def test_expired_key_is_refused_even_when_remembered(catalog: Catalog, clock) -> None:
    """Expiry counts to the microsecond, not to the end of a cache entry."""
    _, secret = await catalog.keys.create_key(DEFAULT_TENANT_ID, "ci", clock.now_us() + 1_000_000)
    assert await catalog.keys.authenticate(secret)
    clock.advance(1)
    assert await catalog.keys.authenticate(secret) is None


async def test_last_use_is_noted_once_a_minute(catalog: Catalog, clock) -> None:
    """The list shows when a key was last used without a write for every call."""

    async def last_used_at_us() -> int | None:
        [key] = await catalog.keys.list_keys(DEFAULT_TENANT_ID)
        return key.last_used_at_us

    _, secret = await catalog.keys.create_key(DEFAULT_TENANT_ID, "ci")
    assert await last_used_at_us() is None
    await catalog.keys.authenticate(secret)
    first_us = clock.now_us()
    clock.advance(10)
    await catalog.keys.authenticate(secret)
    assert await last_used_at_us() == first_us
    clock.advance(DAY_S)
    await catalog.keys.authenticate(secret)
    assert await last_used_at_us() == clock.now_us()


async def test_secret_is_not_on_disk(sqlite_url: str, tmp_path: Path) -> None:
    """Who reads the database's files cannot use the keys in it."""
    async with open_catalog(sqlite_url) as catalog:
        key, secret = await catalog.keys.create_key(DEFAULT_TENANT_ID, "ci")
        await catalog.keys.authenticate(secret)
        assert secret.startswith(key.prefix)
        files = [path.read_bytes() for path in (tmp_path / "data").iterdir()]
    assert any(key.id.encode() in content for content in files)
    assert not any(secret[len(key.prefix) :].encode() in content for content in files)


async def test_unknown_tenant_or_key_is_not_found(catalog: Catalog) -> None:
    """Neither a key for nobody nor the revocation of nothing succeeds silently."""
    with pytest.raises(RunstoreError) as refused:
        await catalog.keys.create_key("00000000-0000-0000-0000-000000000001", "ci")
    assert refused.value.reason is ErrorReason.NOT_FOUND
    with pytest.raises(RunstoreError) as refused:
        await catalog.keys.revoke_key("nothing")
    assert refused.value.reason is ErrorReason.NOT_FOUND


async def test_tenant_names_are_unique(catalog: Catalog) -> None:
    """Two tenants of one name would be one to `keys create --tenant`."""
    await catalog.keys.create_tenant("research")
    with pytest.raises(RunstoreError) as refused:
        await catalog.keys.create_tenant("research")
    assert refused.value.reason is ErrorReason.ALREADY_EXISTS
    assert [tenant.name for tenant in await catalog.keys.list_tenants()] == ["default", "research"]
