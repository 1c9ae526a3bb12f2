"""`runstore health`: whether the workers of this machine are well, for what watches their containers."""

from typing import TYPE_CHECKING, Annotated

import typer

from runstore.runtime.cli_start import failures_as_sentences, start

if TYPE_CHECKING:
    from runstore.runtime.worker_health import WorkerHealth

_UNHEALTHY = 1


def health(
    alive: Annotated[
        bool, typer.Option("--alive", help="Whether they answer is enough; the store may be away.")
    ] = False,
) -> None:
    """Says how the workers of this data directory are, which run graphs. Status 1 unless all are well.

    Example:  docker exec agents runstore health
    """
    with failures_as_sentences():
        settings = start("health")
        from runstore.runtime.worker_health import ask_workers

        folder = settings.workers_dir
        found = ask_workers(folder) if folder is not None else {}
        if not found:
            print(f"no worker runs in {settings.data_dir}")
        for pid, said in found.items():
            print(f"worker {pid}: {_sentence(said)}")
        well = [
            said is not None and (alive or (said.is_connected and said.do_graphs_answer))
            for said in found.values()
        ]
        if not well or not all(well):
            raise typer.Exit(_UNHEALTHY)


def _sentence(said: "WorkerHealth | None") -> str:
    if said is None:
        return "does not answer"
    store = "connected to its store" if said.is_connected else "its store is away"
    graphs = "" if said.do_graphs_answer else ", its graphs hold each other up"
    return f"{store}, {said.runs} of {said.slots} runs under way{graphs}"
