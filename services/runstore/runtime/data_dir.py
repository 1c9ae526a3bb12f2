"""Ownership of a data directory: one store process at a time, because the embedded engine allows one."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from runstore.runtime.failures import CannotStart

LOCK_FILE = "store.lock"
"""Whoever has it locked owns the folder."""

RESTORE_MARK = "restoring"
"""Says that a restore has not ended well."""

# A store that just lost its supervisor may still be flushing; ask again for a moment.
_PATIENCE_S = 5.0
_RETRY_INTERVAL_S = 0.05


def instance_id(path: Path) -> str:
    """The id of a data directory that exists, made once: by it other stores know whose log is in it."""
    file = path / "store-id"
    if not file.exists():
        made = file.with_suffix(".new")
        with made.open("w") as text:
            text.write(f"{uuid4()}\n")
            text.flush()
            os.fsync(text.fileno())
        made.replace(file)
    return file.read_text().strip()


@contextmanager
def owned_data_dir(path: Path, *, patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Makes the folder if need be and holds its lock; the kernel lets go of it however the process ends.

    Blocks up to `patience_s`. Raises CannotStart, naming the owner's pid, when the folder stays taken.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"the data directory {path} cannot be used: {error.strerror}") from error
    try:
        _lock(descriptor, path, time.monotonic() + patience_s)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # The file stays: removing it would let two processes lock two files of one name.
        os.close(descriptor)


def check_whole(path: Path) -> None:
    """Raises CannotStart for a data directory that a restore was to fill and has not."""
    if (path / RESTORE_MARK).exists():
        raise CannotStart(
            f"the data directory {path} holds a restore that was broken off: "
            "repeat `runstore restore`, or choose another --data-dir"
        )


def _lock(descriptor: int, path: Path, give_up_at: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= give_up_at:
                owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                raise CannotStart(
                    f"the data directory {path} belongs to a running store (pid {owner}): "
                    "stop it, or choose another --data-dir"
                ) from error
            time.sleep(_RETRY_INTERVAL_S)
        else:
            return
