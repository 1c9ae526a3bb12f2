"""`runstore tenants`: workspaces, the organisations that they belong to, and their limits."""

from typing import TYPE_CHECKING, Annotated

import typer

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import Organization, Tenant
from runstore.domain.rate_limits import Measure, RateLimits, TenantLimits
from runstore.runtime.cli_keys import with_catalog
from runstore.runtime.cli_output import echo_table

if TYPE_CHECKING:
    from runstore.catalog import Catalog

_Rate = Annotated[float | None, typer.Option(metavar="PER_SECOND", min=0, show_default=False)]

app = typer.Typer(
    no_args_is_help=True, help="Lists tenants (workspaces), puts them into organisations, limits them."
)


@app.command(name="list")
def list_() -> None:
    """Lists every tenant: its id, name and organisation."""

    async def run(catalog: "Catalog") -> tuple[list[Tenant], list[Organization]]:
        return await catalog.keys.list_tenants(), await catalog.keys.list_organizations()

    tenants, organizations = with_catalog(run)
    names = {organization.id: organization.name for organization in organizations}
    rows = [(tenant.id, tenant.name, names.get(tenant.organization_id or "", "-")) for tenant in tenants]
    echo_table([("ID", "NAME", "ORGANIZATION"), *rows])


@app.command()
def move(
    tenant: Annotated[str, typer.Argument(metavar="NAME", help="Its name; made when there is none.")],
    organization: Annotated[
        str,
        typer.Option(metavar="NAME", help="Organisation, made if need be; empty for none."),
    ],
) -> None:
    """Puts a tenant into an organisation. Keys of organisations open it, or cease to, within seconds.

    Example:  runstore tenants move research --organization acme
    """

    async def run(catalog: "Catalog") -> Tenant:
        owner = await _organization_id(catalog, organization) if organization else None
        found = next((each for each in await catalog.keys.list_tenants() if each.name == tenant), None)
        found = found or await catalog.keys.create_tenant(tenant)
        return await catalog.keys.move_tenant(found.id, owner)

    moved = with_catalog(run)
    place = f"in the organisation {organization}" if organization else "in no organisation"
    typer.echo(f"The tenant {moved.name} ({moved.id}) is {place}.")


@app.command()
def limits(
    tenant: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    *,
    key_runs: _Rate = None,
    key_bytes: _Rate = None,
    key_queries: _Rate = None,
    tenant_runs: _Rate = None,
    tenant_bytes: _Rate = None,
    tenant_queries: _Rate = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take away what was set before.")] = False,
) -> None:
    """Limits what one tenant and each of its keys may do in a second, and shows it. 0 lifts a limit.

    What is not given stays as it is, or as RUNSTORE_KEY_…_PER_S and RUNSTORE_TENANT_…_PER_S say. It holds
    within seconds.

    Example:  runstore tenants limits research --tenant-runs 500 --key-queries 10
    """
    given = TenantLimits(
        key=RateLimits(runs=key_runs, bytes=key_bytes, queries=key_queries),
        tenant=RateLimits(runs=tenant_runs, bytes=tenant_bytes, queries=tenant_queries),
    )

    async def run(catalog: "Catalog") -> TenantLimits:
        found = next((each for each in await catalog.keys.list_tenants() if each.name == tenant), None)
        if found is None:
            raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no tenant named {tenant}")
        before = await catalog.tenant_limits.of(found.id)
        after = given.over(TenantLimits() if clear else before)
        if after != before:
            await catalog.tenant_limits.set(found.id, after)
        return after

    held = with_catalog(run)
    rows = [
        (f"{scope} {measure}", _shown(getattr(getattr(held, scope), measure)))
        for scope in ("key", "tenant")
        for measure in Measure
    ]
    echo_table([("LIMIT", "PER SECOND"), *rows])


def _shown(rate: float | None) -> str:
    if rate is None:
        return "as set for all"
    return f"{rate:g}" if rate else "none"


async def _organization_id(catalog: "Catalog", name: str) -> str:
    for organization in await catalog.keys.list_organizations():
        if organization.name == name:
            return organization.id
    try:
        return (await catalog.keys.create_organization(name)).id
    except RunstoreError as error:
        if error.reason is not ErrorReason.ALREADY_EXISTS:
            raise
        return await _organization_id(catalog, name)  # Another process was first.
