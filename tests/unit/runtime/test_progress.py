"""Bars for long work: where somebody looks, and only when there is something to wait for."""

import io
from contextlib import redirect_stderr

import pytest

from runstore.runtime.progress import Amounts, ProgressBar, progress_bar


class Terminal(io.StringIO):
    """What a terminal would get."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def known_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns that understands what terminals do."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def test_long_work_shows_how_far_it_is() -> None:
    """What, how much of how much; the bar is gone from the screen afterwards."""
    with redirect_stderr(Terminal()) as terminal, progress_bar("Replaying", 7) as advance:
        advance(3)
        advance(4)
    shown = terminal.getvalue()
    assert "Replaying" in shown
    assert "7/7" in shown
    assert shown.rstrip().endswith("\x1b[2K")


def test_quick_work_shows_nothing() -> None:
    """A bar that flashes up helps nobody."""
    with redirect_stderr(Terminal()) as terminal:
        bar = ProgressBar("Replaying", after_s=3_600)
        assert not bar.update(1, 2)
        bar.finish()
    assert terminal.getvalue() == ""


def test_bytes_have_units_and_an_end() -> None:
    """Sizes are shown as sizes; after the end nothing more is drawn."""
    with redirect_stderr(Terminal()) as terminal:
        bar = ProgressBar("Replaying the log", amounts=Amounts.BYTES, after_s=0)
        assert bar.update(2**20, 4 * 2**20)
        bar.finish()
    shown = terminal.getvalue()
    assert "1.0/4.0 MiB" in shown
    assert not bar.update(2 * 2**20, 4 * 2**20)
    assert terminal.getvalue() == shown


def test_pipes_get_no_bars() -> None:
    """Logs in files and pipes stay lines."""
    with redirect_stderr(io.StringIO()) as pipe, progress_bar("Replaying", 2) as advance:
        advance(2)
    assert pipe.getvalue() == ""
