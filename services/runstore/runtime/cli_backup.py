"""`runstore backup` and `runstore restore`: everything into a folder while the store runs, and back."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runstore.runtime.cli_start import failures_as_sentences, start

if TYPE_CHECKING:
    from runstore.runtime.progress import ProgressBar
    from runstore.v1 import admin_service_pb2 as pb


def backup(
    folder: Annotated[
        Path, typer.Argument(metavar="DEST", help="Folder on the machine of the store; made when missing.")
    ],
    *,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")] = False,
) -> None:
    """Copies everything into a folder while the store runs: runs, catalog, checkpoints, files.

    A folder that holds this store's backup is brought up to date, and keeps the old one until then.

    Example:  runstore backup /backups/runstore
    """
    from runstore.runtime import cli_output as output
    from runstore.runtime.admin_client import admin_client
    from runstore.runtime.progress import Amounts, ProgressBar
    from runstore.v1 import admin_service_pb2 as pb

    made = pb.Backup()
    with failures_as_sentences():
        settings = start("backup")
        bar = ProgressBar("Backing up", amounts=Amounts.SHARE)
        try:
            with admin_client(settings) as client:
                for event in client.create_backup(str(folder.absolute())):
                    if event.HasField("backup"):
                        made = event.backup
                    else:
                        _show(bar, event.progress)
        finally:
            bar.finish()
    if json_:
        output.print_json(output.plain(made))
        return
    size = output.size_text(made.size_bytes + made.blob_bytes)
    typer.echo(f"Backup {made.id}: {size}, {output.counted(made.blobs, 'blob')} in {folder.absolute()}.")
    if made.engine_location != "engine.tar":
        typer.echo(f"The ClickHouse server has its part at {made.engine_location}.")
    for what in made.left_out:
        typer.echo(f"Not in it: {what}")


def restore(
    folder: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of `runstore backup`.")],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Empty folder that becomes the data directory (RUNSTORE_DATA_DIR).", show_default="./data"
        ),
    ] = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only compare the backup with its checksums; restore nothing.")
    ] = False,
) -> None:
    """Puts a backup in place of nothing: into an empty data directory and empty databases.

    A restore that was broken off is repeated by the same command.

    Example:  runstore restore /backups/runstore --data-dir /var/lib/runstore
    """
    from runstore.runtime import cli_output as output
    from runstore.runtime.backup.restoring import check_backup, restore_backup
    from runstore.runtime.data_dir import owned_data_dir
    from runstore.runtime.progress import Amounts, ProgressBar

    with failures_as_sentences():
        settings = start("restore", data_dir=data_dir)
        bar = ProgressBar("Restoring", amounts=Amounts.SHARE)

        def show(title: str, done: int, total: int) -> None:
            bar.update(done, max(total, 1), title)

        try:
            if check:
                manifest = asyncio.run(check_backup(folder.absolute(), show))
            else:
                with owned_data_dir(settings.data_dir):
                    manifest = asyncio.run(restore_backup(settings, folder.absolute(), show))
        finally:
            bar.finish()
    size = output.size_text(
        sum(file.size_bytes for file in manifest.files.values()) + manifest.blobs.size_bytes
    )
    what = f"backup {manifest.id} of {manifest.snapshot_time}: {size}"
    typer.echo(f"Checked {what}; it is whole." if check else f"Restored {what}.")
    for left_out in manifest.left_out:
        typer.echo(f"Not in it: {left_out}")


def _show(bar: "ProgressBar", progress: "pb.BackupProgress") -> None:
    from runstore.v1 import admin_service_pb2 as pb

    title = {
        pb.BACKUP_STAGE_SETTLING: "Waiting for what is acknowledged",
        pb.BACKUP_STAGE_ENGINE: "Copying runs",
        pb.BACKUP_STAGE_CATALOG: "Copying the catalog",
        pb.BACKUP_STAGE_CHECKSUMS: "Computing checksums",
        pb.BACKUP_STAGE_BLOBS: "Copying blobs",
    }.get(progress.stage, "Backing up")
    bar.update(min(progress.done, progress.total), max(progress.total, 1), title)
