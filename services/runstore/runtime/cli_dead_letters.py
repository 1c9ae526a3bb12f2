"""`runstore dead-letters`: operations that were acknowledged and that the engine refuses."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from runstore.runtime.cli_start import failures_as_sentences, start
from runstore.runtime.progress import progress_bar

if TYPE_CHECKING:
    from runstore.runtime.admin_client import AdminClient
    from runstore.v1 import admin_service_pb2 as pb

_FAILURE = 1
_BAD_USAGE = 2
_SHOWN = 100
_REPLAYED_AT_ONCE = 50
_DROPPED_AT_ONCE = 1_000
_WIDE = 160

app = typer.Typer(
    no_args_is_help=True, help="Looks at, replays and drops operations that the engine refuses."
)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
_Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="As `runstore dead-letters list` shows them.")
]
_All = Annotated[bool, typer.Option("--all", help="All that there are at the moment.")]


@app.command(name="list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="Letters to show, at most.")] = _SHOWN,
    json_: _Json = False,
) -> None:
    """Lists dead letters, the oldest operation first.

    Example:  runstore dead-letters list --limit 20
    """
    from runstore.runtime import cli_output as output

    with _client() as client:
        letters = list(islice(client.dead_letters(), limit + 1))
    if json_:
        output.print_json([output.plain(letter) for letter in letters[:limit]])
        return
    if not letters:
        typer.echo("There are no dead letters.")
        return
    _print_table(letters[:limit])
    if len(letters) > limit:
        typer.echo(f"There are more: --limit shows more than {limit}.")


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="As `runstore dead-letters list` shows it.")],
    json_: _Json = False,
) -> None:
    """Shows a dead letter: why it was refused, and the whole operation.

    Example:  runstore dead-letters show 65f1c3a2b4d5e6f7-1f2e3d4c
    """
    from runstore.runtime import cli_output as output

    with _client() as client:
        found = client.dead_letter(letter_id)
    operation = json.loads(found.operation) if found.operation else None
    if json_:
        output.print_json({**output.plain(found.dead_letter), "operation": operation})
        return
    letter = found.dead_letter
    buried = output.time_text(letter.bury_time) if letter.HasField("bury_time") else "not known"
    for name, value in (
        ("Letter", letter.id),
        ("Run", letter.run_id),
        ("Tenant", letter.tenant_id),
        ("Accepted", output.time_text(letter.accept_time)),
        ("Refused", buried),
        ("Size", output.size_text(letter.size_bytes)),
        ("Reason", letter.reason),
    ):
        typer.echo(f"{name:<9} {value}")
    typer.echo("Operation")
    if operation is None:
        typer.echo("  kept by another version, which this one cannot read")
    else:
        typer.echo(json.dumps(operation, indent=2, ensure_ascii=False))


@app.command()
def replay(ids: _Ids = None, all_: _All = False, json_: _Json = False) -> None:
    """Sends operations on their way again, in their old place in the order: what came later still wins.

    A letter is removed once its operation is stored, and kept when it is refused again (status 1).

    Example:  runstore dead-letters replay --all
    """
    from runstore.runtime import cli_output as output
    from runstore.v1 import admin_service_pb2 as pb

    _check_choice(ids, all_)
    results: list[pb.ReplayResult] = []
    with _client() as client:
        chosen = ids or [letter.id for letter in client.dead_letters()]
        with progress_bar("Replaying dead letters", len(set(chosen))) as advance:
            for some in _in_portions(chosen, _REPLAYED_AT_ONCE):
                results += client.replay(some)
                advance(len(some))
    if json_:
        output.print_json([output.plain(result) for result in results])
    else:
        _say_outcomes(results)
    if any(result.outcome != pb.REPLAY_OUTCOME_STORED for result in results):
        raise typer.Exit(_FAILURE)


@app.command()
def drop(
    ids: _Ids = None,
    all_: _All = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: _Json = False,
) -> None:
    """Removes dead letters, and with them their operations, for good.

    Example:  runstore dead-letters drop 65f1c3a2b4d5e6f7-1f2e3d4c
    """
    from runstore.runtime import cli_output as output

    _check_choice(ids, all_)
    dropped: list[str] = []
    with _client() as client:
        chosen = ids or [letter.id for letter in client.dead_letters()]
        if chosen and not yes:
            typer.confirm(
                f"Drop {output.counted(len(chosen), 'dead letter')} for good?", abort=True, err=True
            )
        for some in _in_portions(chosen, _DROPPED_AT_ONCE):
            dropped += client.drop(some)
    if json_:
        output.print_json(dropped)
    elif not chosen:
        typer.echo("There are no dead letters.")
    else:
        typer.echo(f"Dropped {output.counted(len(dropped), 'dead letter')}.")
    if len(dropped) < len(set(chosen)):
        typer.echo(f"runstore: {len(set(chosen)) - len(dropped)} of them did not exist", err=True)
        raise typer.Exit(_FAILURE)


@contextmanager
def _client() -> "Iterator[AdminClient]":
    from runstore.runtime.admin_client import admin_client

    with failures_as_sentences():
        settings = start("dead-letters")
        with admin_client(settings) as client:
            yield client


def _check_choice(ids: list[str] | None, all_: bool) -> None:
    if bool(ids) == all_:
        typer.echo("runstore: name dead letters by their ids, or all of them by --all", err=True)
        raise typer.Exit(_BAD_USAGE)


def _in_portions(ids: list[str], size: int) -> Iterator[list[str]]:
    distinct = list(dict.fromkeys(ids))
    for begin in range(0, len(distinct), size):
        yield distinct[begin : begin + size]


def _print_table(letters: "Sequence[pb.DeadLetter]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from runstore.runtime import cli_output as output

    console = Console()
    if not console.is_terminal:
        console.width = _WIDE  # Whole lines, for `grep`.
    shows_runs = console.width >= _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("ID", "ACCEPTED", "SIZE", *(["RUN"] if shows_runs else [])):
        table.add_column(heading, no_wrap=True, min_width=len(heading))
    table.add_column("REASON", no_wrap=True, overflow="ellipsis")
    for letter in letters:
        table.add_row(
            letter.id,
            output.time_text(letter.accept_time),
            output.size_text(letter.size_bytes),
            *([letter.run_id] if shows_runs else []),
            Text(output.first_line(letter.reason)),  # Not markup, whatever the engine said.
        )
    console.print(table)


def _say_outcomes(results: "Sequence[pb.ReplayResult]") -> None:
    from runstore.runtime import cli_output as output
    from runstore.v1 import admin_service_pb2 as pb

    if not results:
        typer.echo("There are no dead letters.")
        return
    stored = sum(result.outcome == pb.REPLAY_OUTCOME_STORED for result in results)
    typer.echo(f"Stored {stored:,} of {output.counted(len(results), 'dead letter')}.")
    for result in results:
        if result.outcome == pb.REPLAY_OUTCOME_REFUSED:
            typer.echo(f"Refused again: {result.id}: {output.first_line(result.reason)}", err=True)
        elif result.outcome == pb.REPLAY_OUTCOME_NOT_FOUND:
            typer.echo(f"Not found: {result.id}", err=True)
