"""`runstore status`: how everything is, on one screen."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runstore.runtime.cli_start import failures_as_sentences, start

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from runstore.runtime.settings import Settings
    from runstore.v1 import admin_service_pb2 as pb

_UNHEALTHY = 1
_WIDE = 100
_HTTP_PATIENCE_S = 2.0
_LABEL_STYLE = "dim"


def status(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")] = False,
) -> None:
    """Shows how the server is: processes, rates, lag, log, engine, dead letters. Status 1 when unhealthy.

    Example:  runstore status --json | jq .problems
    """
    with failures_as_sentences():
        settings = start("status")
        found, problems = _ask(settings)
        http = _answers(settings)
        if found is not None and not http and any(p.name.startswith("gateway") for p in found.processes):
            problems.append(f"no gateway answers at {settings.http_url}")
        if json_:
            _print_json(settings, found, problems, http=http)
        else:
            _print(settings, found, problems, http=http)
        if problems:
            raise typer.Exit(_UNHEALTHY)


def _ask(settings: "Settings") -> "tuple[pb.GetStatusResponse | None, list[str]]":
    """What the store says, and what is wrong; nothing of a store that is away or busy but that."""
    from runstore.runtime.admin_client import StoreAway, admin_client

    try:
        with admin_client(settings) as client:
            found = client.status()
    except StoreAway as error:
        return None, [str(error)]
    return found, list(found.problems)


def _answers(settings: "Settings") -> bool:
    """Whether a gateway answers at the HTTP address."""
    import ssl
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    address = settings.http.reachable
    connection = HTTPConnection(address.host, address.port, timeout=_HTTP_PATIENCE_S)
    if settings.tls_certificate is not None:
        # Its name is that of the public address, which need not be this one; and no secret is sent.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = HTTPSConnection(address.host, address.port, timeout=_HTTP_PATIENCE_S, context=context)
    try:
        connection.connect()
        if settings.tls_client_ca is not None:  # More than a handshake needs a certificate.
            return True
        connection.request("GET", "/ok")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _print_json(
    settings: "Settings", found: "pb.GetStatusResponse | None", problems: list[str], *, http: bool
) -> None:
    from runstore.runtime import cli_output as output

    store = None if found is None else output.plain(found)
    output.print_json(
        {
            "healthy": not problems,
            "problems": problems,
            "http": {"address": str(settings.http.reachable), "answers": http},
            "log_on_disk_bytes": _log_on_disk_bytes(settings),
            "store": store,
        }
    )


def _print(
    settings: "Settings", found: "pb.GetStatusResponse | None", problems: list[str], *, http: bool
) -> None:
    from rich.console import Console

    # Rich would wrap at 80 columns where nobody looks.
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _WIDE
    for part in _parts(settings, found, problems, http=http):
        console.print(part)


def _parts(
    settings: "Settings", found: "pb.GetStatusResponse | None", problems: list[str], *, http: bool
) -> "Iterator[RenderableType]":
    from rich.text import Text

    from runstore.runtime import cli_output as output

    title = Text("runstore", style="bold")
    if found is not None:
        title.append(f" {found.version}")
    if problems:
        title.append("  not healthy", style="bold red")
    else:
        title.append("  healthy", style="bold green")
    yield title
    for problem in problems:
        yield Text(f"  ! {problem}", style="red")
    gateway = "answers" if http else "nobody answers"
    pairs = [("HTTP", f"{settings.http_url}  ({gateway})")]
    if found is None:
        pairs += [
            ("data", str(settings.data_dir)),
            ("log on disk", output.size_text(_log_on_disk_bytes(settings))),
        ]
        yield _pairs(pairs)
        return
    pairs += [
        ("gRPC", "  ".join(found.addresses)),
        ("access", "API keys" if found.auth == "keys" else "everybody on this machine"),
        ("data", f"{found.data_dir}  ({output.size_text(found.disk_free_bytes)} free)"),
        ("blobs", found.blob_store),
    ]
    yield _pairs(pairs)
    yield ""
    yield _processes(found)
    yield ""
    yield _pairs(_ingest(found))
    yield ""
    if found.retention:
        yield _retention(found)
        yield ""
    if found.tenant_deletions:
        yield _deletions(found)
        yield ""
    yield _engine(found)


def _retention(found: "pb.GetStatusResponse") -> "Table":
    from runstore.runtime import cli_output as output

    table = _table("RETENTION OF", "DAYS, KEPT", "OLDEST", "SWEPT", "ROWS FREED", "SIZE")
    for each in found.retention:
        table.add_row(
            each.tenant_id,
            f"{_days_text(each.days)}, {_days_text(each.kept_days)}",
            output.time_text(each.oldest_time)[:10] if each.HasField("oldest_time") else "",
            output.age_text(each.sweep_time) if each.HasField("sweep_time") else "never",
            f"{each.freed_rows:,}",
            output.size_text(each.freed_bytes),
        )
    return table


def _deletions(found: "pb.GetStatusResponse") -> "Table":
    from rich.text import Text

    from runstore.runtime import cli_output as output

    table = _table("DELETED TENANT", "SINCE", "ROWS GONE", "BLOBS GONE", "WAITS FOR")
    for each in found.tenant_deletions:
        table.add_row(
            Text(each.name),
            output.age_text(each.delete_time),
            f"{each.removed_rows:,}",
            f"{each.removed_blobs:,}",
            Text(output.first_line(each.waits_for, 60)),
        )
    return table


def _days_text(days: int) -> str:
    return f"{days:,}" if days else "ever"


def _ingest(found: "pb.GetStatusResponse") -> "Iterator[tuple[str, str]]":
    from runstore.runtime import cli_output as output

    ingest = found.ingest
    lag_s = ingest.lag.ToTimedelta().total_seconds()
    rates = f"{ingest.durable_per_second:,.0f}/s accepted, {ingest.visible_per_second:,.0f}/s visible"
    yield "operations", f"{rates}; {ingest.durable_operations:,} since the start"
    yield "lag", "none" if not lag_s else f"{output.duration_text(lag_s)} (oldest not visible yet)"
    waiting = f"{output.size_text(ingest.waiting_bytes)} of {output.size_text(ingest.waiting_max_bytes)}"
    yield "waiting", f"{output.counted(ingest.waiting_operations, 'operation')}, {waiting}"
    log = f"{output.size_text(ingest.log_bytes)} of {output.size_text(ingest.log_max_bytes)}"
    recovering = ", replaying what an earlier process left" if ingest.recovering else ""
    yield "log", f"{log} in {output.counted(ingest.log_segments, 'file')}{recovering}"
    yield "last flush", _last_flush(found)
    letters = f"{found.dead_letters:,}"
    if found.dead_letters:
        letters += "  (runstore dead-letters list)"
    yield "dead letters", letters
    yield "parked", f"{output.counted(found.parked_operations, 'operation')} that wait for another run"
    yield "deleted", f"{output.counted(found.deleted_runs, 'run')} to be purged"


def _last_flush(found: "pb.GetStatusResponse") -> str:
    from runstore.runtime import cli_output as output

    if not found.HasField("last_flush"):
        return "none since the start"
    flush = found.last_flush
    # Waiting is no work of the flush.
    seconds = sum(value for stage, value in flush.stage_seconds.items() if stage != "wait")
    return (
        f"{output.age_text(flush.end_time)}: {output.counted(flush.runs, 'run')}, "
        f"{output.size_text(flush.size_bytes)} in {output.duration_text(seconds)} "
        f"(engine {output.duration_text(flush.stage_seconds.get('insert', 0))})"
    )


def _processes(found: "pb.GetStatusResponse") -> "Table":
    from runstore.runtime import cli_output as output

    table = _table("PROCESS", "PID", "UP", "MEMORY", "CPU TIME")
    for process in found.processes:
        up_s = output.age(process.start_time).total_seconds() if process.HasField("start_time") else 0
        table.add_row(
            process.name,
            str(process.pid),
            output.duration_text(up_s),
            output.size_text(process.resident_bytes),
            output.duration_text(process.cpu_time.ToTimedelta().total_seconds()),
        )
    return table


def _engine(found: "pb.GetStatusResponse") -> "RenderableType":
    from rich.console import Group

    from runstore.runtime import cli_output as output

    engine = found.engine
    kind = "embedded" if engine.embedded else "server"
    state = "available" if engine.available else "away"
    pairs = [("engine", f"ClickHouse {engine.version or '(never answered)'}, {kind}, {state}")]
    if engine.HasField("last_error_time"):
        when = output.age_text(engine.last_error_time)
        pairs.append(("last error", f"{when}: {output.first_line(engine.last_error, 80)}"))
    if not engine.tables:
        return _pairs(pairs)
    if output.age(engine.read_time).total_seconds() > 30:
        pairs.append(("figures", f"of {output.age_text(engine.read_time)}: the engine is busy or away"))
    table = _table("TABLE", "PARTS", "ROWS", "ON DISK", "RAW", "RATIO")
    for each in engine.tables:
        table.add_row(
            each.name, f"{each.parts:,}", f"{each.rows:,}", *_sizes(each.disk_bytes, each.raw_bytes)
        )
    totals = [
        sum(getattr(each, name) for each in engine.tables)
        for name in ("parts", "rows", "disk_bytes", "raw_bytes")
    ]
    table.add_row("all", f"{totals[0]:,}", f"{totals[1]:,}", *_sizes(totals[2], totals[3]), style="bold")
    return Group(_pairs(pairs), "", table)


def _sizes(disk_bytes: int, raw_bytes: int) -> tuple[str, str, str]:
    from runstore.runtime import cli_output as output

    ratio = f"{disk_bytes / raw_bytes:.2f}" if raw_bytes else ""
    return output.size_text(disk_bytes), output.size_text(raw_bytes), ratio


def _pairs(pairs: Iterable[tuple[str, str]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style=_LABEL_STYLE, no_wrap=True, min_width=12)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, Text(value))
    return table


def _table(first: str, *numbers: str) -> "Table":
    from rich.table import Table

    options: dict[str, Any] = {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0)}
    table = Table(header_style=_LABEL_STYLE, **options)
    table.add_column(first, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _log_on_disk_bytes(settings: "Settings") -> int:
    """Bytes in the log's files, as far as this machine has them."""
    return sum(path.stat().st_size for path in settings.log_dir.glob("*.log"))
