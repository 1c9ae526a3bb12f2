"""`runstore retention`: how long traces are kept, read and set in the catalog, also while the server runs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from runstore.domain.errors import ErrorReason, RunstoreError
from runstore.domain.principals import DEFAULT_TENANT_NAME
from runstore.domain.retention import (
    FOREVER,
    MAX_DAYS,
    NO_RULE,
    Retention,
    RetentionRule,
    RetentionRules,
    TraceTier,
)
from runstore.runtime.cli_start import failures_as_sentences, start

if TYPE_CHECKING:
    from runstore.catalog import Catalog

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Says how long traces are kept; see docs/retention.md.")

TenantName = Annotated[str, typer.Option(metavar="NAME", help="Workspace that is meant.")]
ProjectName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only this project.", show_default="the whole workspace")
]


@app.command("list")
def list_() -> None:
    """Lists what holds for every workspace, and for every project with a rule of its own."""
    with failures_as_sentences():
        settings = start("retention")

        async def run(catalog: "Catalog") -> list[tuple[str, str, Retention]]:
            rules = await catalog.retention.rules(settings.retention)
            rows = []
            for tenant in await catalog.keys.list_tenants():
                rows.append((tenant.name, "", rules.of(tenant.id, None)))
                rows += await _of_projects(catalog, tenant.name, tenant.id, rules)
            return rows

        found = asyncio.run(_with_catalog(settings.catalog_location, run))
    rows = [("TENANT", "PROJECT", "TIER", "TRACES", "KEPT TRACES")]
    rows += [
        (tenant, project or "(all others)", each.trace_tier.value, _days(each.days), _days(each.kept_days))
        for tenant, project, each in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(map(str.ljust, row, widths)).rstrip())


@app.command("set")
def set_(
    tenant: TenantName = DEFAULT_TENANT_NAME,
    project: ProjectName = None,
    tier: Annotated[
        TraceTier | None, typer.Option(help="Period of traces that nothing keeps.", show_default="as before")
    ] = None,
    short: Annotated[
        int | None,
        typer.Option(
            metavar="DAYS", help="Short period; 0 for ever.", min=0, max=MAX_DAYS, show_default="as before"
        ),
    ] = None,
    long: Annotated[
        int | None,
        typer.Option(
            metavar="DAYS", help="Long period; 0 for ever.", min=0, max=MAX_DAYS, show_default="as before"
        ),
    ] = None,
) -> None:
    """Sets what is given; the rest of the rule stays. The next sweep deletes by it, for good.

    Example:  runstore retention set --tenant research --project chat --short 14 --long 400
    """
    if tier is None and short is None and long is None:
        raise typer.BadParameter("nothing to set: --tier, --short or --long")

    async def run(catalog: "Catalog") -> None:
        tenant_id, project_id = await _place(catalog, tenant, project)
        rule = await catalog.retention.rule(tenant_id, project_id)
        changed = RetentionRule(
            trace_tier=tier or rule.trace_tier,
            short_days=rule.short_days if short is None else short,
            long_days=rule.long_days if long is None else long,
        )
        await catalog.retention.set_rule(tenant_id, project_id, changed)

    with failures_as_sentences():
        asyncio.run(_with_catalog(start("retention").catalog_location, run))


@app.command()
def clear(tenant: TenantName = DEFAULT_TENANT_NAME, project: ProjectName = None) -> None:
    """Removes a rule: what the workspace, or the server's settings, say holds again."""

    async def run(catalog: "Catalog") -> None:
        await catalog.retention.set_rule(*await _place(catalog, tenant, project), NO_RULE)

    with failures_as_sentences():
        asyncio.run(_with_catalog(start("retention").catalog_location, run))


async def _with_catalog(location: str, run: "Callable[[Catalog], Awaitable[T]]") -> T:
    from runstore.catalog import open_catalog

    async with open_catalog(location) as catalog:
        return await run(catalog)


async def _place(catalog: "Catalog", tenant: str, project: str | None) -> tuple[str, str | None]:
    """Ids of a workspace and a project. Raises NOT_FOUND."""
    tenant_id = next((each.id for each in await catalog.keys.list_tenants() if each.name == tenant), None)
    if tenant_id is None:
        raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no tenant {tenant}", field="tenant")
    if project is None:
        return tenant_id, None
    project_id = (await catalog.projects.named(tenant_id, [project])).get(project)
    if project_id is None:
        raise RunstoreError(ErrorReason.NOT_FOUND, f"there is no project {project}", field="project")
    return tenant_id, project_id


async def _of_projects(
    catalog: "Catalog", tenant: str, tenant_id: str, rules: RetentionRules
) -> list[tuple[str, str, Retention]]:
    found = []
    for project_id in rules.projects_of(tenant_id):
        try:
            project = await catalog.projects.get(tenant_id, project_id)
        except RunstoreError as error:
            if error.reason is not ErrorReason.NOT_FOUND:
                raise
            continue  # Deleted; its rule means nothing any more.
        found.append((tenant, project.name, rules.of(tenant_id, project_id)))
    return sorted(found, key=lambda row: row[1])


def _days(days: int) -> str:
    return "for ever" if days == FOREVER else f"{days:,} days"
