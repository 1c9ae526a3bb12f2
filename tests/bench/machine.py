"""Describes what the figures were measured on."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("chdb", "chdb-core", "clickhouse-connect", "grpcio", "protobuf", "pyarrow", "langsmith")
_QUIET_LOAD_PER_CORE = 0.3


def describe(work_dir: Path) -> dict[str, str]:
    """CPU, memory, kernel, disk, versions, and which runstore."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": f"{_value('/proc/cpuinfo', 'model name') or platform.machine()}, {cores()} cores",
        "memory": f"{int(_value('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "disk": f"{_file_system(work_dir)} at the working folder",
        "versions": ", ".join(
            [f"Python {sys.version.split()[0]}", *(f"{name} {version(name)}" for name in _PACKAGES)]
        ),
        "runstore": _revision(),
        "load before": f"{os.getloadavg()[0]:.2f} (1 minute)",
        "settings": ", ".join(_settings()) or "defaults",
    }


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0))


def is_busy() -> bool:
    """Whether others use the machine."""
    return os.getloadavg()[0] > _QUIET_LOAD_PER_CORE * cores()


def _value(file: str, key: str) -> str:
    for line in Path(file).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _file_system(path: Path) -> str:
    """Type of the mounted file system that holds `path`."""
    best, found = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind = line.split()[:3]
        if len(mount) > len(best) and (path.absolute().is_relative_to(mount)):
            best, found = mount, kind
    return found


def _revision() -> str:
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "services", "gen")
    return f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{' with local changes' if changed else ''}"


def _settings() -> list[str]:
    """Settings that differ from the defaults, without those that may hold a password."""
    secret = ("DSN", "URL", "KEY", "SECRET")
    return sorted(
        f"{name}={'…' if any(word in name for word in secret) else value}"
        for name, value in os.environ.items()
        if name.startswith("RUNSTORE_")
    )
