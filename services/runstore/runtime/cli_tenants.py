"""`runstore tenants`: workspaces, and the organisations that they belong to."""

from typing import TYPE_CHECKING, Annotated

import typer

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import Organization, Tenant
from runstore.runtime.cli_keys import with_catalog
from runstore.runtime.cli_output import echo_table

if TYPE_CHECKING:
    from runstore.catalog import Catalog

app = typer.Typer(no_args_is_help=True, help="Lists tenants (workspaces), and puts them into organisations.")


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
