"""`runstore tenants` as far as it asks the running store: what it sends, and what it asks for first."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.runtime import cli_tenants
from runstore.v1 import admin_service_pb2 as admin
from runstore.v1 import tenant_service_pb2 as pb

TENANT = "11111111-1111-4111-8111-111111111111"


class Store:
    """A store with one tenant."""

    def __init__(self) -> None:
        self.held = pb.TenantLimits(tenant=pb.RateLimits(runs_per_s=5, queries_per_s=0))
        self.deleted: list[tuple[str, str]] = []

    def tenant_id(self, name: str) -> str:
        if name != "research":
            raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no tenant named {name}")
        return TENANT

    def delete_tenant(self, tenant_id: str, name: str) -> admin.TenantDeletion:
        self.deleted.append((tenant_id, name))
        return admin.TenantDeletion()

    def limits(self, tenant_id: str) -> pb.TenantLimits:
        return self.held

    def set_limits(self, tenant_id: str, limits: pb.TenantLimits) -> None:
        self.held = limits

    def all_limits(self) -> list[admin.LimitedTenant]:
        return [admin.LimitedTenant(tenant_id=TENANT, name="research", limits=self.held)]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()

    @contextmanager
    def client() -> Iterator[Store]:
        yield store

    monkeypatch.setattr(cli_tenants, "_client", client)
    return store


def run(*arguments: str, typed: str = "") -> tuple[int, list[str]]:
    """Status and what was printed."""
    done = CliRunner().invoke(cli_tenants.app, list(arguments), input=typed)
    return done.exit_code, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "typed", "deleted"),
    [
        ((), "research\n", True),
        (("--yes",), "", True),
        ((), "y\n", False),
        ((), "", False),
    ],
)
def test_deleting_wants_the_name_typed(
    store: Store, arguments: tuple[str, ...], typed: str, *, deleted: bool
) -> None:
    """Or --yes; anything else leaves the tenant alone and fails."""
    status, _ = run("delete", "research", *arguments, typed=typed)
    assert (status, store.deleted) == ((0, [(TENANT, "research")]) if deleted else (1, []))


def test_limits_add_to_what_was_set(store: Store) -> None:
    """0 is no limit, what was not given stays, --clear takes all away; without a name all are listed."""
    _, lines = run("limits", "research", "--key-bytes", "1.5", "--tenant-runs", "0")
    held = pb.TenantLimits(
        key=pb.RateLimits(bytes_per_s=1.5), tenant=pb.RateLimits(runs_per_s=0, queries_per_s=0)
    )
    assert store.held == held
    assert [line.split()[-1] for line in lines[1:]] == ["all", "1.5", "all", "none", "all", "none"]
    _, [heading, row] = run("limits")
    assert heading.split()[:3] == ["TENANT", "KEY", "RUNS"]
    assert row.split()[0] == "research"
    run("limits", "research", "--clear", "--key-runs", "2")
    assert store.held == pb.TenantLimits(key=pb.RateLimits(runs_per_s=2), tenant=pb.RateLimits())
