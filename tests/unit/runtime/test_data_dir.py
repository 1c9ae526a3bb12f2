"""Ownership of a data directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runstore.runtime.data_dir import owned_data_dir
from runstore.runtime.failures import CannotStart

_HOLD = """
import sys, pathlib
from runstore.runtime.data_dir import owned_data_dir
with owned_data_dir(pathlib.Path(sys.argv[1])):
    print("owned", flush=True)
    sys.stdin.read()
"""


def test_second_owner_is_refused_by_name_of_the_first(tmp_path: Path) -> None:
    """Two stores in one directory would destroy it: the second says which process has it."""
    with (
        owned_data_dir(tmp_path / "data"),
        pytest.raises(CannotStart, match=rf"pid {os.getpid()}\b"),
        owned_data_dir(tmp_path / "data", patience_s=0),
    ):
        pytest.fail("owned twice")
    with owned_data_dir(tmp_path / "data", patience_s=0):
        pass


def test_killed_owner_lets_go(tmp_path: Path) -> None:
    """No stale lock survives `kill -9`, even one that nobody cleaned up."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"owned\n"
        holder.kill()
    with owned_data_dir(tmp_path, patience_s=0):
        pass


def test_unusable_directory_is_explained(tmp_path: Path) -> None:
    """A path that is a file gives a sentence that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match="file"), owned_data_dir(tmp_path / "file"):
        pytest.fail("owned")
