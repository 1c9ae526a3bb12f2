"""`runstore serve`: one store, its gateways and a worker for graphs as child processes of this one."""

import asyncio
import signal
import sys

import structlog

from runstore.runtime.address import Address
from runstore.runtime.child import Backoff, Child, ChildSpec
from runstore.runtime.clock import SystemClock
from runstore.runtime.data_dir import owned_data_dir
from runstore.runtime.settings import AuthMode, Settings
from runstore.runtime.sockets import check_free, listen
from runstore.runtime.supervisor import Supervisor
from runstore.runtime.tls import server_certificate, warn_of_plain_text

_log = structlog.get_logger(__name__)

_CLI = (sys.executable, "-m", "runstore.runtime.cli")


def serve(settings: Settings) -> bool:
    """Runs until SIGINT or SIGTERM. Returns False when a second one cut the draining short.

    Raises CannotStart when the folder or a port is taken, a certificate cannot be used or a process cannot be
    started.
    """
    with owned_data_dir(settings.data_dir):
        pass  # Before a store is refused, its gateways and workers would take the places of the owner's.
    server_certificate(settings)
    warn_of_plain_text(settings, "http", "grpc")
    check_free(settings.grpc, "grpc (RUNSTORE_GRPC)")
    with listen(settings.http, "http (RUNSTORE_HTTP)") as http_socket:
        http = Address(settings.http.host, http_socket.getsockname()[1])
        return asyncio.run(_supervise(settings, http, http_socket.fileno()))


async def _supervise(settings: Settings, http: Address, http_fd: int) -> bool:
    stop, force = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            force.set()
        else:
            _log.info("stopping", hint="once more to stop at once")
            stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    environment = settings.environment()
    clock, backoff = SystemClock(), Backoff()
    store = Child(ChildSpec("store", (*_CLI, "store"), environment), clock, backoff)
    gateway = (*_CLI, "gateway", "--fd", str(http_fd))
    gateways = [
        Child(
            ChildSpec(f"gateway-{n}", (*gateway, "--name", f"gateway-{n}"), environment, (http_fd,)),
            clock,
            backoff,
        )
        for n in range(1, settings.gateway_workers + 1)
    ]
    workers = (
        [Child(ChildSpec("agents", (*_CLI, "agents"), environment), clock, backoff)]
        if settings.agents
        else []
    )
    supervisor = Supervisor(store, [*gateways, *workers], drain_timeout_s=settings.drain_timeout_s)
    await supervisor.run(
        stop=stop,
        force=force,
        on_ready=lambda: print(greeting(settings, http), flush=True),  # noqa: T201 - for the person who started it
    )
    return not force.is_set()


def greeting(settings: Settings, http: Address) -> str:
    """What a person needs to know once everything answers: two addresses, and how to use them."""
    if settings.auth is AuthMode.NONE:
        key = "any   # not checked on loopback, but SDKs want one"
    else:
        key = "<secret from: runstore keys create --name NAME>"
    url = f"{'https' if settings.tls_certificate else 'http'}://{http.reachable}"
    graphs = f"\nIts graphs are run by langgraph-sdk:\n\n  get_client(url='{url}')\n"
    return f"""
runstore is ready

  HTTP  {url}   (documentation: {url}/docs)
  gRPC  {settings.grpc.reachable}

Send it the traces of an application that uses the LangSmith SDK:

  export LANGSMITH_TRACING=true
  export LANGSMITH_ENDPOINT={url}
  export LANGSMITH_API_KEY={key}
{graphs if settings.agents else ""}"""
