"""A data directory as the first start makes it: made once in a test run, and copied for each server.

Its tables take a server a third of its first start. Tests of the first start itself begin with nothing.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_MIGRATE = (sys.executable, "-m", "runstore.runtime.cli", "migrate")
_kept_in: list[Path] = []


def keep_in(config: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    """From now on `copy_prepared` copies; all processes of a test run share what is copied."""
    own = tmp_path_factory.getbasetemp()
    _kept_in[:] = [own.parent if hasattr(config, "workerinput") else own]


def copy_prepared(target: Path) -> None:
    """Makes the data directory `target` of the prepared one, unless it is there or this is no test run."""
    if not _kept_in or target.exists():
        return
    shutil.copytree(_prepared(_kept_in[0]), target, symlinks=True)


def _prepared(folder: Path) -> Path:
    made, unfinished = folder / "prepared", folder / "prepared.unfinished"
    with (folder / "prepared.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            own = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTORE_")}
            environment = {**own, "RUNSTORE_DATA_DIR": str(unfinished)}
            done = subprocess.run(
                _MIGRATE, env=environment, capture_output=True, text=True, timeout=60, check=True
            )
            assert "Schema is up to date." in done.stdout
            unfinished.rename(made)
    return made
