"""What processes cost, read from /proc: CPU time by part of runstore, memory of the whole group."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_RSS_INTERVAL_S = 0.25
_PSS_EVERY = 8  # Adding up the mappings of a large process takes milliseconds.


@dataclass(frozen=True, slots=True)
class Memory:
    """Largest sums over the group, in bytes."""

    rss_bytes: int
    """Pages that processes share count once for each."""
    pss_bytes: int
    """Shared pages count once."""


def parts_of(supervisor_pid: int) -> dict[int, str]:
    """The supervisor and all below it: pid → "supervisor", "store", "flusher" or "gateway"."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None:
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    parts: dict[int, str] = {}
    waiting = [supervisor_pid]
    while waiting:
        pid = waiting.pop()
        parts[pid] = "supervisor" if pid == supervisor_pid else _part_name(pid)
        waiting += children.get(pid, [])
    return parts


def cpu_seconds(parts: dict[int, str]) -> dict[str, float]:
    """User and system time so far, by part."""
    total: dict[str, float] = {}
    for pid, part in parts.items():
        stat = _stat(pid)
        if stat is not None:
            total[part] = total.get(part, 0.0) + (int(stat[11]) + int(stat[12])) / _TICKS_PER_S
    return total


@contextmanager
def watching_memory(parts: dict[int, str]) -> Iterator[list[Memory]]:
    """Samples the group while the block runs; the list holds the one result afterwards."""
    stop = threading.Event()
    largest = [0, 0]

    def sample() -> None:
        for number in range(1_000_000):
            largest[0] = max(largest[0], sum(_status_bytes(pid, "status", "VmRSS:") for pid in parts))
            if number % _PSS_EVERY == 0:
                largest[1] = max(largest[1], sum(_status_bytes(pid, "smaps_rollup", "Pss:") for pid in parts))
            if stop.wait(_RSS_INTERVAL_S):
                return

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    result: list[Memory] = []
    try:
        yield result
    finally:
        stop.set()
        sampler.join()
        result.append(Memory(*largest))


def own_cpu_seconds() -> float:
    """User and system time of this process."""
    return time.process_time()


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat behind the command, so from the state on; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _part_name(pid: int) -> str:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return "other"
    return next((part for part in ("flusher", "store", "gateway") if part in arguments), "other")


def _status_bytes(pid: int, file: str, key: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
