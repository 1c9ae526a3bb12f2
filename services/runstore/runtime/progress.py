"""Progress of long work: a bar on a terminal, nothing elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_LONG_S = 1.5
"""What is done sooner needs no bar."""


class Amounts(Enum):
    """What is counted, and so how it is shown."""

    STEPS = auto()
    BYTES = auto()
    SHARE = auto()
    """Of no unit that people know: shown in per cent."""


class ProgressBar:
    """A bar on standard error, once the work has taken long enough; it disappears at the end."""

    def __init__(self, title: str, *, amounts: Amounts = Amounts.STEPS, after_s: float = _LONG_S) -> None:
        self._title = title
        self._amounts = amounts
        self._appears_at = monotonic() + after_s
        self._is_wanted = sys.stderr.isatty()
        self._progress: Progress | None = None

    def update(self, done: int, total: int, title: str = "") -> bool:
        """So much is done of so much, under another title if one is given; whether a bar shows it."""
        self._title = title or self._title
        if not self._is_wanted or (self._progress is None and monotonic() < self._appears_at):
            return False
        if self._progress is None:
            self._progress = _bar(self._amounts)
            self._progress.add_task(self._title, completed=done, total=total)
            self._progress.start()
        [task] = self._progress.task_ids
        self._progress.update(task, completed=done, total=total, description=self._title)
        return True

    def finish(self) -> None:
        """The work has ended, well or not."""
        self._is_wanted = False
        if self._progress is not None:
            self._progress.stop()


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for `total` steps; yields what is to be told how many more are done."""
    bar = ProgressBar(title, after_s=0)
    done = 0

    def advance(steps: int) -> None:
        nonlocal done
        done += steps
        bar.update(done, total)

    bar.update(0, total)
    try:
        yield advance
    finally:
        bar.finish()


def _bar(amounts: Amounts) -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    amount = {
        Amounts.STEPS: MofNCompleteColumn(),
        Amounts.BYTES: DownloadColumn(binary_units=True),
        Amounts.SHARE: TaskProgressColumn(),
    }[amounts]
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        amount,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
