"""`runstore export` and `runstore import`: runs out of a store into files, and back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runstore.runtime.cli_start import failures_as_sentences, start
from runstore.runtime.failures import CannotStart

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from runstore.domain.errors import RunstoreError
    from runstore.runtime.transfer.client import StoreAccess
    from runstore.runtime.transfer.importing import Import
    from runstore.runtime.transfer.writers import FileFormat
    from runstore.v1 import run_query_service_pb2 as queries

_FAILURE = 1
_BAD_USAGE = 2

StoreAddress = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="HOST:PORT|unix:PATH",
        help="Where the store answers gRPC (RUNSTORE_STORE_ADDRESS).",
        show_default="its socket in the data directory",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY", envvar="RUNSTORE_API_KEY", help="API key, where the store wants one.", show_envvar=True
    ),
]


def export(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write, or - for standard output.")
    ] = Path("-"),
    project: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Project to export; may be repeated.", show_default="all"),
    ] = None,
    start_time: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Runs that started then or later (ISO 8601).")
    ] = None,
    end_time: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Runs that started then or earlier.")
    ] = None,
    filter_: Annotated[
        str, typer.Option("--filter", help="Runs that satisfy this expression of the filter language.")
    ] = "",
    trace_filter: Annotated[str, typer.Option(help="As --filter, on the root of the run's trace.")] = "",
    tree_filter: Annotated[str, typer.Option(help="As --filter, on any run of the run's trace.")] = "",
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="jsonl|parquet", help="Format.", show_default="by the file's ending; jsonl"
        ),
    ] = None,
    *,
    attachments: Annotated[
        bool, typer.Option("--attachments", help="Write attached files, too, up to 64 MiB each.")
    ] = False,
    store: StoreAddress = None,
    api_key: ApiKey = None,
) -> None:
    """Writes runs into a file, as JSON lines or Parquet. The file appears once it is complete.

    Example:  runstore export --project my-app --from 2026-11-01 -o runs.parquet
    """
    from runstore.runtime import cli_output as output_of
    from runstore.runtime.progress import Amounts, ProgressBar
    from runstore.runtime.transfer.exporting import export_runs
    from runstore.runtime.transfer.writers import run_file_writer, whole_file

    file_format = _format(format_, output)
    with _access(store, api_key) as access:
        query = _query(start_time, end_time, filter_, trace_filter, tree_filter)
        chosen = [access.project_named(name) for name in project] if project else list(access.every_project())
        bar = ProgressBar("Exporting", amounts=Amounts.SHARE)

        def show(done: int, total: int, runs: int) -> None:
            bar.update(done, total, f"Exporting {output_of.counted(runs, 'run')}")

        try:
            with (
                whole_file(output) as file,
                run_file_writer(file_format, file, access.read_blob, has_attachments=attachments) as writer,
            ):
                done = export_runs(access, chosen, query, writer, show, has_attachments=attachments)
        finally:
            bar.finish()
    typer.echo(f"Exported {_amount(done.runs, done.feedback)}.", err=True)
    if done.files_left_out:
        why = "larger than 64 MiB" if attachments else "see --attachments"
        typer.echo(f"Left out {output_of.counted(done.files_left_out, 'attachment')}: {why}.", err=True)


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Files, or folders of them; - for lines on standard input."),
    ],
    project: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Project for all runs.", show_default="the runs' own"),
    ] = None,
    store: StoreAddress = None,
    api_key: ApiKey = None,
) -> None:
    """Reads runs from files: of `runstore export`, of a LangSmith bulk export, or JSON of its API and SDKs.

    Ids and times are kept, so that importing a file again changes nothing. Rows that are refused are named
    with the reason (status 1); all others are stored.

    Example:  runstore import runs.parquet
    """
    from runstore.runtime import cli_output as output_of
    from runstore.runtime.transfer.importing import Import
    from runstore.runtime.transfer.readers import files_in

    with _access(store, api_key) as access:
        paths = files_in(files)
        current = Path()

        def refused(place: str, error: "RunstoreError") -> None:
            field = f"{error.field}: " if error.field else ""
            typer.echo(f"{current}: {place}: {field}{output_of.first_line(error.message)}", err=True)

        importing = Import(access, project, refused)
        for current in paths:
            _import_file(importing, current)
    typer.echo(f"Imported {_amount(importing.stored, importing.stored_feedback)}.", err=True)
    if importing.refused:
        typer.echo(f"Refused {output_of.counted(importing.refused, 'row')}.", err=True)
        raise typer.Exit(_FAILURE)


def _import_file(importing: "Import", path: Path) -> None:
    from runstore.runtime import cli_output as output_of
    from runstore.runtime.progress import Amounts, ProgressBar
    from runstore.runtime.transfer.readers import read_runs

    bar = ProgressBar(f"Importing {path.name}", amounts=Amounts.SHARE)

    def show(done: int, total: int) -> None:
        bar.update(done, total, f"Importing {path.name}: {output_of.counted(importing.stored, 'run')}")

    try:
        for row in read_runs(path, show):
            importing.add(row)
        importing.finish()
    finally:
        bar.finish()


def _amount(runs: int, feedback: int) -> str:
    from runstore.runtime import cli_output as output_of

    text = output_of.counted(runs, "run")
    return f"{text} and {output_of.counted(feedback, 'feedback record')}" if feedback else text


@contextmanager
def _access(store: str | None, api_key: str | None) -> "Iterator[StoreAccess]":
    from runstore.runtime.transfer.client import store_access

    with failures_as_sentences():
        settings = start("transfer", store_address=store)
        with store_access(settings, api_key) as access:
            yield access


def _format(name: str | None, output: Path) -> "FileFormat":
    from runstore.runtime.transfer.writers import FileFormat

    if name is None:
        return FileFormat.PARQUET if output.suffix == ".parquet" else FileFormat.JSONL
    if name not in list(FileFormat):
        typer.echo(f"runstore: --format is {' or '.join(FileFormat)}, not {name}", err=True)
        raise typer.Exit(_BAD_USAGE)
    return FileFormat(name)


def _query(
    start_time: str | None, end_time: str | None, filter_: str, trace_filter: str, tree_filter: str
) -> "queries.ListRunsRequest":
    from runstore.domain.errors import RunstoreError
    from runstore.domain.times import parse_time
    from runstore.gateway.time_fields import to_timestamp
    from runstore.v1 import run_query_service_pb2 as queries

    def time_of(option: str, text: str) -> "Timestamp":
        try:
            return to_timestamp(parse_time(option, text))
        except RunstoreError as error:
            raise CannotStart(f"--{option}: {error.message}") from None

    query = queries.ListRunsRequest(filter=filter_, trace_filter=trace_filter, tree_filter=tree_filter)
    if start_time is not None:
        query.min_start_time.CopyFrom(time_of("from", start_time))
    if end_time is not None:
        query.max_start_time.CopyFrom(time_of("until", end_time))
    return query
