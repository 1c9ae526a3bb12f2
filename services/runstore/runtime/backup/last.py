"""When the last backup was made; a file in the data folder, for the alert on backups that have stopped."""

from contextlib import suppress
from pathlib import Path

_FILE = "last_backup"


def last_backup_s(data_dir: Path) -> float:
    """Seconds since 1970 at which the last complete backup was begun; 0 when none is known."""
    with suppress(OSError, ValueError):
        return float((data_dir / _FILE).read_text())
    return 0.0


def note_backup(data_dir: Path, begun_us: int) -> None:
    """A backup is complete. A disk that does not take the note fails nothing: the backup is there."""
    made = data_dir / f"{_FILE}.new"  # Whoever looks meanwhile sees one or the other.
    with suppress(OSError):
        made.write_text(f"{begun_us / 1e6}\n")
        made.replace(data_dir / _FILE)
