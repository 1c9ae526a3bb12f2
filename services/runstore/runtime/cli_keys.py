"""`runstore keys`: API keys, made and revoked in the catalog, also while the server runs."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_NAME, ApiKey, Organization, Role, Tenant
from runstore.runtime.cli_output import echo_table
from runstore.runtime.cli_start import failures_as_sentences, start
from runstore.runtime.clock import SystemClock

if TYPE_CHECKING:
    from runstore.catalog import Catalog

T = TypeVar("T")

_US_PER_S = 1_000_000
_US_PER_DAY = 86_400 * _US_PER_S

app = typer.Typer(no_args_is_help=True, help="Makes, lists and revokes API keys, also while the server runs.")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for; shown in lists.")],
    tenant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Workspace the key opens; made when there is none.",
            show_default=DEFAULT_TENANT_NAME,
        ),
    ] = None,
    organization: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Organisation it opens instead."),
    ] = None,
    role: Annotated[Role, typer.Option(help="What it may do there.")] = Role.EDITOR,
    expires_in: Annotated[
        float | None,
        typer.Option(metavar="DAYS", help="Days until it stops working.", min=0, show_default="never"),
    ] = None,
) -> None:
    """Makes a key and prints its secret, once. Servers accept it at once.

    Example:  runstore keys create --name ci --tenant research --role ingest-only --expires-in 90
    """
    if tenant is not None and organization is not None:
        raise typer.BadParameter("a key opens either --tenant or --organization")
    if expires_in == 0:
        raise typer.BadParameter(
            "--expires-in 0 makes a key that never works; without it a key never expires"
        )
    expires_at_us = None if expires_in is None else _now_us() + round(expires_in * _US_PER_DAY)

    async def run(catalog: "Catalog") -> tuple[ApiKey, str]:
        tenant_id = organization_id = None
        if organization is None:
            tenant_id = (await _tenant_named(catalog, tenant or DEFAULT_TENANT_NAME)).id
        else:
            organization_id = (await _organization_named(catalog, organization)).id
        return await catalog.keys.create_key(
            tenant_id, name, expires_at_us, role=role, organization_id=organization_id
        )

    key, secret = with_catalog(run)
    typer.echo(secret)
    until = "never expires" if key.expires_at_us is None else f"expires {_shown(key.expires_at_us)}"
    scope = f"organisation {organization}" if organization else f"tenant {tenant or DEFAULT_TENANT_NAME}"
    typer.echo(
        f"Key {key.id} of {scope}, {key.role}, {until}. Keep the secret: it is not shown again.", err=True
    )


@app.command(name="list")
def list_() -> None:
    """Lists every key: its id, tenant, role, name, state and last use. Secrets are not kept."""

    async def run(catalog: "Catalog") -> tuple[list[ApiKey], dict[str, str]]:
        names = {each.id: each.name for each in await catalog.keys.list_tenants()}
        names |= {each.id: f"{each.name} (all)" for each in await catalog.keys.list_organizations()}
        return await catalog.keys.list_keys(), names

    keys, names = with_catalog(run)
    rows = [("ID", "TENANT", "NAME", "ROLE", "STARTS WITH", "STATE", "CREATED", "LAST USED")]
    rows += [
        (
            key.id,
            names[key.tenant_id or key.organization_id or ""],
            key.name,
            key.role.value,
            key.prefix,
            _state(key),
            _shown(key.created_at_us),
            "never" if key.last_used_at_us is None else _shown(key.last_used_at_us),
        )
        for key in keys
    ]
    echo_table(rows)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `runstore keys list` shows it.")],
) -> None:
    """Makes a key useless; running servers refuse it within seconds."""

    async def run(catalog: "Catalog") -> ApiKey:
        return await catalog.keys.revoke_key(key_id)

    key = with_catalog(run)
    typer.echo(f"Revoked {key.id} ({key.name}).")


@app.command()
def operator() -> None:
    """Prints the operator's key, which opens metrics, status and dead letters of all tenants.

    Whoever can open the catalog can have it. It is no API key: it neither reads nor writes runs.

    Example:  runstore keys operator > /etc/prometheus/runstore.key
    """

    async def run(catalog: "Catalog") -> str:
        return await catalog.operator_key()

    typer.echo(with_catalog(run))


def with_catalog(run: "Callable[[Catalog], Awaitable[T]]") -> T:
    """The result of `run` on the catalog that the settings lead to; failures end the command in sentences."""
    from runstore.catalog import open_catalog

    with failures_as_sentences():
        settings = start("keys")

        async def opened() -> T:
            async with open_catalog(settings.catalog_location) as catalog:
                return await run(catalog)

        return asyncio.run(opened())


async def _tenant_named(catalog: "Catalog", name: str) -> Tenant:
    for tenant in await catalog.keys.list_tenants():
        if tenant.name == name:
            return tenant
    made = await catalog.keys.create_tenant(name)
    typer.echo(f"Made the tenant {name} ({made.id}).", err=True)
    return made


async def _organization_named(catalog: "Catalog", name: str) -> Organization:
    for organization in await catalog.keys.list_organizations():
        if organization.name == name:
            return organization
    raise RunstoreError(
        ErrorReason.NOT_FOUND,
        f"no organisation is named {name!r}: runstore tenants move puts tenants into one",
    )


def _state(key: ApiKey) -> str:
    if key.revoked_at_us is not None:
        return f"revoked {_shown(key.revoked_at_us)}"
    if key.expires_at_us is None:
        return "active"
    verb = "expired" if key.expires_at_us <= _now_us() else "expires"
    return f"{verb} {_shown(key.expires_at_us)}"


def _shown(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / _US_PER_S, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _now_us() -> int:
    return SystemClock().now_us()
