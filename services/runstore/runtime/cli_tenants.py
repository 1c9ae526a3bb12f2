"""`runstore tenants`: workspaces, the organisations that they belong to, and their limits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import Organization, Tenant
from runstore.domain.rate_limits import Measure
from runstore.runtime.cli_keys import with_catalog
from runstore.runtime.cli_output import echo_table
from runstore.runtime.cli_start import failures_as_sentences, start

if TYPE_CHECKING:
    from runstore.catalog import Catalog
    from runstore.runtime.admin_client import AdminClient
    from runstore.v1 import admin_service_pb2 as admin_pb
    from runstore.v1 import tenant_service_pb2 as pb


def _rate(explanation: str) -> Any:
    return typer.Option(metavar="PER_SECOND", min=0, show_default=False, help=explanation)


app = typer.Typer(
    no_args_is_help=True,
    help="Lists tenants (workspaces), puts them into organisations, limits and deletes them.",
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
    tenant: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Its name; without one, every tenant with limits of its own."),
    ] = None,
    *,
    key_runs: Annotated[float | None, _rate("Runs and feedback that each of its keys may write.")] = None,
    key_bytes: Annotated[
        float | None, _rate("Bytes of runs and files that each of its keys may send.")
    ] = None,
    key_queries: Annotated[float | None, _rate("Calls that each of its keys may read with.")] = None,
    tenant_runs: Annotated[
        float | None, _rate("Runs and feedback that all of its keys together may write.")
    ] = None,
    tenant_bytes: Annotated[
        float | None, _rate("Bytes of runs and files that all of its keys together may send.")
    ] = None,
    tenant_queries: Annotated[
        float | None, _rate("Calls that all of its keys together may read with.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take away what was set before.")] = False,
) -> None:
    """Limits what one tenant and each of its keys may do in a second, and shows it. 0 lifts a limit.

    What is not given stays as it is, or as RUNSTORE_KEY_…_PER_S and RUNSTORE_TENANT_…_PER_S say. Asks the
    running store, where it holds at once; in others it does within seconds.

    Example:  runstore tenants limits research --tenant-runs 500 --key-queries 10
    """
    from runstore.v1 import tenant_service_pb2 as pb

    key = pb.RateLimits(runs_per_s=key_runs, bytes_per_s=key_bytes, queries_per_s=key_queries)
    whole = pb.RateLimits(runs_per_s=tenant_runs, bytes_per_s=tenant_bytes, queries_per_s=tenant_queries)
    given = pb.TenantLimits(key=key, tenant=whole)
    with _client() as client:
        if tenant is None:
            _show_all(client.all_limits())
            return
        tenant_id = client.tenant_id(tenant)
        before = client.limits(tenant_id)
        after = pb.TenantLimits()
        if not clear:
            after.CopyFrom(before)
        after.MergeFrom(given)
        if after != before:
            client.set_limits(tenant_id, after)
    rows = [
        (f"{scope} {measure}", _shown(getattr(after, scope), measure))
        for scope in ("key", "tenant")
        for measure in Measure
    ]
    echo_table([("LIMIT", "PER SECOND"), *rows])


@app.command()
def delete(
    tenant: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for the name again.")] = False,
) -> None:
    """Deletes a tenant with everything it has, for good: its keys stop working, and nobody sees it any more.

    The running store removes what there is in the background; runstore status shows how far it is.

    Example:  runstore tenants delete research
    """
    with _client() as client:
        tenant_id = client.tenant_id(tenant)
        if not yes:
            typer.echo(
                f"All runs, datasets, prompts and agents of {tenant} ({tenant_id}) are lost.", err=True
            )
            if typer.prompt("Type its name to go on", err=True) != tenant:
                raise typer.Abort
        client.delete_tenant(tenant_id, tenant)
    typer.echo(f"The tenant {tenant} ({tenant_id}) is deleted; runstore status shows what is left to remove.")


@contextmanager
def _client() -> "Iterator[AdminClient]":
    from runstore.runtime.admin_client import admin_client

    with failures_as_sentences(), admin_client(start("tenants")) as client:
        yield client


def _show_all(limited: "Sequence[admin_pb.LimitedTenant]") -> None:
    columns = [(scope, measure) for scope in ("key", "tenant") for measure in Measure]
    rows = [("TENANT", *(f"{scope} {measure}".upper() for scope, measure in columns))]
    rows += [
        (each.name, *(_shown(getattr(each.limits, scope), measure) for scope, measure in columns))
        for each in limited
    ]
    echo_table(rows)


def _shown(rates: "pb.RateLimits", measure: Measure) -> str:
    name = f"{measure}_per_s"
    if not rates.HasField(name):  # type: ignore[arg-type]  # their names, made
        return "as set for all"
    rate = getattr(rates, name)
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
