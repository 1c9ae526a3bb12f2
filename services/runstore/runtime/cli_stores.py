"""`runstore stores`: the stores that share a catalog, and which of them is away for good."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from runstore.runtime.cli_start import failures_as_sentences, start

if TYPE_CHECKING:
    from runstore.catalog import Catalog
    from runstore.domain.stores import StorePosition

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Lists the stores that share a catalog; forgets lost ones.")


@app.command(name="list")
def list_() -> None:
    """Lists the stores, when each said something last, and up to when all that it took is stored."""

    async def run(catalog: "Catalog") -> "Mapping[int, StorePosition]":
        return await catalog.stores.positions()

    from runstore.ingest.sequence import accepted_time_us

    typer.echo(f"{'STORE':>5}  {'LAST SEEN':<23}  STORED UP TO")
    for node, position in sorted(_with_catalog(run).items()):
        stored_us = accepted_time_us(position.stored_sequence)
        typer.echo(f"{node:>5}  {_shown(position.seen_at_us)}  {_shown(stored_us)}")


@app.command()
def forget(
    node: Annotated[int, typer.Argument(metavar="STORE", help="As `runstore stores list` shows it.")],
) -> None:
    """Waits no more for a store whose log is lost. One that comes back registers anew.

    While a store is away, nobody knows what its log has: deletions are remembered and blobs kept until then.
    """

    async def run(catalog: "Catalog") -> None:
        await catalog.stores.forget(node)

    _with_catalog(run)
    typer.echo(f"Forgot store {node}.")


def _with_catalog(run: "Callable[[Catalog], Awaitable[T]]") -> T:
    from runstore.catalog import open_catalog

    with failures_as_sentences():
        settings = start("stores")

        async def opened() -> T:
            async with open_catalog(settings.catalog_location) as catalog:
                return await run(catalog)

        return asyncio.run(opened())


def _shown(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
