"""`runstore keys`: API keys, made and revoked in the catalog, also while the server runs."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from runstore.domain.principals import DEFAULT_TENANT_NAME, ApiKey, Tenant
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
        str, typer.Option(metavar="NAME", help="Workspace the key opens; made when there is none.")
    ] = DEFAULT_TENANT_NAME,
    expires_in: Annotated[
        float | None,
        typer.Option(metavar="DAYS", help="Days until it stops working.", min=0, show_default="never"),
    ] = None,
) -> None:
    """Makes a key and prints its secret, once. Servers accept it at once.

    Example:  runstore keys create --name ci --tenant research --expires-in 90
    """
    expires_at_us = None if expires_in is None else _now_us() + round(expires_in * _US_PER_DAY)

    async def run(catalog: "Catalog") -> tuple[ApiKey, str]:
        owner = await _tenant_named(catalog, tenant)
        return await catalog.keys.create_key(owner.id, name, expires_at_us)

    key, secret = _with_catalog(run)
    typer.echo(secret)
    until = "never expires" if key.expires_at_us is None else f"expires {_shown(key.expires_at_us)}"
    typer.echo(f"Key {key.id} of tenant {tenant}, {until}. Keep the secret: it is not shown again.", err=True)


@app.command(name="list")
def list_() -> None:
    """Lists every key: its id, tenant, name, state and last use. Secrets are not kept."""

    async def run(catalog: "Catalog") -> tuple[list[ApiKey], list[Tenant]]:
        return await catalog.keys.list_keys(), await catalog.keys.list_tenants()

    keys, tenants = _with_catalog(run)
    tenant_names = {tenant.id: tenant.name for tenant in tenants}
    rows = [("ID", "TENANT", "NAME", "STARTS WITH", "STATE", "CREATED", "LAST USED")]
    rows += [
        (
            key.id,
            tenant_names[key.tenant_id],
            key.name,
            key.prefix,
            _state(key),
            _shown(key.created_at_us),
            "never" if key.last_used_at_us is None else _shown(key.last_used_at_us),
        )
        for key in keys
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `runstore keys list` shows it.")],
) -> None:
    """Makes a key useless; running servers refuse it within seconds."""

    async def run(catalog: "Catalog") -> ApiKey:
        return await catalog.keys.revoke_key(key_id)

    key = _with_catalog(run)
    typer.echo(f"Revoked {key.id} ({key.name}).")


@app.command()
def operator() -> None:
    """Prints the operator's key, which opens metrics, status and dead letters of all tenants.

    Whoever can open the catalog can have it. It is no API key: it neither reads nor writes runs.

    Example:  runstore keys operator > /etc/prometheus/runstore.key
    """

    async def run(catalog: "Catalog") -> str:
        return await catalog.operator_key()

    typer.echo(_with_catalog(run))


def _with_catalog(run: "Callable[[Catalog], Awaitable[T]]") -> T:
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
