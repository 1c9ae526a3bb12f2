"""The `runstore` command. Heavy modules are imported inside commands, so that `--help` stays instant."""

import asyncio
import gc
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runstore.runtime.cli_backup import backup, restore
from runstore.runtime.cli_dead_letters import app as dead_letters_app
from runstore.runtime.cli_health import health
from runstore.runtime.cli_keys import app as keys_app
from runstore.runtime.cli_retention import app as retention_app
from runstore.runtime.cli_start import failures_as_sentences, start
from runstore.runtime.cli_status import status
from runstore.runtime.cli_stores import app as stores_app
from runstore.runtime.cli_tenants import app as tenants_app
from runstore.runtime.cli_transfer import export, import_
from runstore.runtime.failures import CannotStart

if TYPE_CHECKING:
    from runstore.runtime.settings import Settings

_INTERRUPTED = 130
_USUAL_COLLECTION = gc.get_threshold()

app = typer.Typer(
    name="runstore",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help=(
        "Stores and serves the runs (traces) of LLM applications, for unmodified LangSmith SDKs and gRPC.\n\n"
        "Settings come from [bold]RUNSTORE_…[/bold] variables, such as RUNSTORE_HTTP; options win."
    ),
    epilog="Start here:  [bold]runstore serve[/bold]",
)
app.add_typer(keys_app, name="keys", rich_help_panel="Administration")
app.add_typer(stores_app, name="stores", rich_help_panel="Administration")
app.add_typer(tenants_app, name="tenants", rich_help_panel="Administration")
app.add_typer(retention_app, name="retention", rich_help_panel="Administration")
app.add_typer(dead_letters_app, name="dead-letters", rich_help_panel="Administration")
app.command(rich_help_panel="Administration")(status)
app.command(rich_help_panel="Administration")(health)
app.command(rich_help_panel="Administration")(backup)
app.command(rich_help_panel="Administration")(restore)
app.command(rich_help_panel="Runs")(export)
app.command("import", rich_help_panel="Runs")(import_)

_RUN, _PARTS, _ADMINISTRATION = "Run", "Run parts apart", "Administration"

DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder that holds everything (RUNSTORE_DATA_DIR).", show_default="./data"),
]
Http = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="HTTP address (RUNSTORE_HTTP).", show_default="127.0.0.1:1984"),
]
Grpc = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="gRPC address (RUNSTORE_GRPC).", show_default="127.0.0.1:1985"),
]
StoreAddress = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="HOST:PORT|unix:PATH",
        help="Where the store answers gRPC (RUNSTORE_STORE_ADDRESS).",
        show_default="its socket in the data directory",
    ),
]
SupervisorFd = Annotated[int | None, typer.Option(hidden=True)]


@app.command(rich_help_panel=_RUN)
def serve(
    data_dir: DataDir = None,
    http: Http = None,
    grpc: Grpc = None,
    agents: Annotated[
        Path | None,
        typer.Option(metavar="LANGGRAPH.JSON", help="Run the graphs of this file too (RUNSTORE_AGENTS)."),
    ] = None,
) -> None:
    """Starts everything: the store and its gateways, supervised. Ctrl-C drains and stops.

    Example:  runstore serve --data-dir /var/lib/runstore --http 127.0.0.1:8080
    """
    from runstore.runtime import serve as serving

    with failures_as_sentences():
        settings = start("supervisor", data_dir=data_dir, http=http, grpc=grpc, agents=agents)
        drained = serving.serve(settings)
    if not drained:
        raise typer.Exit(_INTERRUPTED)


@app.command(rich_help_panel=_PARTS)
def store(data_dir: DataDir = None, grpc: Grpc = None, supervisor_fd: SupervisorFd = None) -> None:
    """Starts the store alone: it owns the data directory and answers gRPC.

    Example:  runstore store --grpc 127.0.0.1:1985
    """
    from runstore.runtime.data_dir import check_whole, owned_data_dir
    from runstore.runtime.process import run_process
    from runstore.runtime.sockets import check_free

    with failures_as_sentences():
        settings = start("store", is_child=supervisor_fd is not None, data_dir=data_dir, grpc=grpc)
        with owned_data_dir(settings.data_dir):
            check_whole(settings.data_dir)
            from runstore.runtime.store import run_store
            from runstore.runtime.telemetry import telemetry
            from runstore.runtime.tls import warn_of_plain_text

            check_free(settings.grpc, "grpc (RUNSTORE_GRPC)")
            if supervisor_fd is None:
                warn_of_plain_text(settings, "grpc")
            body = partial(run_store, settings)
            with telemetry(settings, "store"):
                run_process(body, drain_timeout_s=settings.drain_timeout_s, supervisor_fd=supervisor_fd)


@app.command(hidden=True)
def flusher(fd: Annotated[int, typer.Option()]) -> None:
    """Stores what a store process has accepted; that process starts it."""
    import socket

    with failures_as_sentences():
        settings = start("flusher", is_child=True)
        from runstore.runtime.flusher import run_flusher
        from runstore.runtime.telemetry import telemetry

        with telemetry(settings, "flusher"):
            asyncio.run(run_flusher(settings, socket.socket(fileno=fd)))


@app.command(rich_help_panel=_PARTS)
def gateway(
    http: Http = None,
    store_address: StoreAddress = None,
    data_dir: DataDir = None,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    name: Annotated[str, typer.Option(hidden=True)] = "gateway",
    supervisor_fd: SupervisorFd = None,
) -> None:
    """Starts one HTTP gateway alone, in front of a store that runs elsewhere.

    Example:  RUNSTORE_AUTH=keys runstore gateway --http 0.0.0.0:1984 --store store.internal:1985
    """
    from runstore.runtime.process import run_process
    from runstore.runtime.sockets import listen

    with failures_as_sentences():
        # A supervised gateway is one of several behind a port; the store shows the metrics of all.
        alone = supervisor_fd is None
        settings = start(name, is_child=not alone, http=http, store_address=store_address, data_dir=data_dir)
        from runstore.gateway.metrics import GatewayMetrics
        from runstore.runtime.gateway import run_gateway
        from runstore.runtime.metrics_address import metrics_served
        from runstore.runtime.telemetry import telemetry
        from runstore.runtime.tls import warn_of_plain_text, watch_certificate

        metrics = GatewayMetrics(name, None if alone else settings.metrics_dir)
        if alone:
            warn_of_plain_text(settings, "http")
            if settings.tls_certificate is not None:
                watch_certificate(settings.tls_certificate, metrics.registry)
        if fd is None:
            listening = listen(settings.http, "http (RUNSTORE_HTTP)")
            fd = listening.detach()
        body = partial(run_gateway, settings, listen_fd=fd, metrics=metrics)
        served = metrics_served(settings.metrics if alone else None, metrics.registry)
        _collect_as_usual()
        with telemetry(settings, name), served:
            run_process(body, drain_timeout_s=settings.drain_timeout_s, supervisor_fd=supervisor_fd)


@app.command(rich_help_panel=_PARTS)
def agents(
    config: Annotated[
        Path | None,
        typer.Option(metavar="LANGGRAPH.JSON", help="File that names the graphs (RUNSTORE_AGENTS)."),
    ] = None,
    store_address: StoreAddress = None,
    slots: Annotated[
        int | None,
        typer.Option(help="Runs at once (RUNSTORE_AGENT_SLOTS).", show_default="10"),
    ] = None,
    data_dir: DataDir = None,
    supervisor_fd: SupervisorFd = None,
) -> None:
    """Starts one worker alone: it runs graphs for a store that runs elsewhere.

    Example:  runstore agents --config langgraph.json --store store.internal:1985 --slots 20
    """
    from runstore.runtime.process import run_process

    with failures_as_sentences():
        settings = start(
            "agents",
            is_child=supervisor_fd is not None,
            agents=config,
            store_address=store_address,
            agent_slots=slots,
            data_dir=data_dir,
        )
        try:
            from runstore.runtime.agents import prepare_agents, run_agents
        except ModuleNotFoundError as error:
            raise CannotStart(f"{error.name} is missing: pip install 'runstore[agents]'") from error
        prepared = prepare_agents(settings)
        body = partial(run_agents, settings, prepared)
        _collect_as_usual()
        run_process(body, drain_timeout_s=settings.drain_timeout_s, supervisor_fd=supervisor_fd)


@app.command(rich_help_panel=_ADMINISTRATION)
def migrate(data_dir: DataDir = None) -> None:
    """Brings catalog and run tables to this version's schema. The server does so at every start.

    Example:  RUNSTORE_CLICKHOUSE_DSN=https://… runstore migrate
    """
    from runstore.runtime.data_dir import check_whole, owned_data_dir

    with failures_as_sentences():
        settings = start("migrate", data_dir=data_dir)
        with owned_data_dir(settings.data_dir):
            check_whole(settings.data_dir)
            asyncio.run(_migrate(settings))
    print("Schema is up to date.")


async def _migrate(settings: "Settings") -> None:
    from runstore.catalog import open_catalog
    from runstore.runtime.store import migrate as migrate_storage

    async with open_catalog(settings.catalog_location):
        pass
    await migrate_storage(settings)


@app.command(rich_help_panel=_ADMINISTRATION)
def version() -> None:
    """Prints the version."""
    from importlib.metadata import version as version_of

    print(f"runstore {version_of('runstore')}")


def _collect_as_usual() -> None:
    """What was made up to here stays; from here on garbage is looked for as often as Python does."""
    gc.freeze()
    gc.set_threshold(*_USUAL_COLLECTION)


def main() -> None:
    """Entry point of the `runstore` command."""
    # Modules make objects that stay: looking for garbage among them time and again takes a fifth of a start.
    gc.set_threshold(50_000, 20, 50)
    app()


if __name__ == "__main__":
    main()
