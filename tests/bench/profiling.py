"""Records where the store and the gateway spend their time while a load runs (`--profile`)."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.server import Server

_SAMPLES_PER_S = 200
_STOP_TIMEOUT_S = 60.0
_SHOWN = 15


@contextmanager
def profiling(server: Server, folder: Path | None, phase: str) -> Iterator[None]:
    """py-spy on store and gateway while the block runs; nothing when `folder` is None.

    Leaves `PHASE-PART.folded` files of collapsed stacks, which speedscope.app and flamegraph.pl read, and
    prints the busiest functions.
    """
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    files = {part: folder / f"{phase}-{part}.folded" for part in ("store", "flusher", "gateway")}
    recorders = [_record(server.pid_of(part), file) for part, file in files.items()]
    try:
        yield
    finally:
        for recorder in recorders:
            recorder.send_signal(signal.SIGINT)
        for recorder in recorders:
            recorder.wait(_STOP_TIMEOUT_S)
    for part, file in files.items():
        _print_busiest(part, file)


def _record(pid: int, file: Path) -> "subprocess.Popen[bytes]":
    py_spy = Path(sys.executable).with_name("py-spy")
    command = [str(py_spy), "record", "--pid", str(pid), "--rate", str(_SAMPLES_PER_S), "--nonblocking"]
    command += ["--threads", "--format", "raw", "--output", str(file), "--duration", "unlimited"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _print_busiest(part: str, file: Path) -> None:
    if not file.exists():
        print(f"  profile of the {part}: none (does py-spy have the right to read its memory?)")
        return
    own: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frame = stack.rpartition(";")[2]
        own[frame.rpartition(":")[0] + ")"] += int(count)
    total = sum(own.values()) or 1
    print(f"  profile of the {part} ({file}): samples on CPU or without the GIL, by function")
    for function, samples in own.most_common(_SHOWN):
        print(f"    {100 * samples / total:5.1f} %  {function}")
