"""Figures as commands show them, and what `runstore status` calls a problem."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from runstore.runtime.cli_output import counted, duration_text, first_line, plain, size_text
from runstore.runtime.cli_status import _parts
from runstore.runtime.settings import load_settings
from runstore.runtime.status import problems
from runstore.v1 import admin_service_pb2 as pb


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (3.4 * 2**20, "3.4 MiB"),
        (5_000 * 2**40, "5000.0 TiB"),
    ],
)
def test_sizes_have_a_unit(size_bytes: float, text: str) -> None:
    """Powers of 1,024, one decimal."""
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.25, "250 ms"),
        (4.21, "4.2 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3_600, "1 h"),
        (18_600, "5 h 10 min"),
        (183_600, "2 d 3 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    """As people say them."""
    assert duration_text(seconds) == text


def test_words_agree_with_their_number() -> None:
    """One letter, two letters; long reasons are cut to a line."""
    assert [counted(number, "letter") for number in (0, 1, 2_000)] == [
        "0 letters",
        "1 letter",
        "2,000 letters",
    ]
    assert first_line("a\nb") == "a"
    assert first_line("") == ""
    assert first_line("x" * 200, 10) == "xxxxxxxxx…"


def test_messages_become_plain_json() -> None:
    """Integers stay numbers, times are text, durations seconds, enums their names, what is absent null."""
    status = pb.GetStatusResponse(
        dead_letters=2**53,
        processes=[pb.Process(name="store", pid=1)],
        last_flush=pb.FlushStatus(stage_seconds={"wait": 0.5}),
    )
    status.last_flush.end_time.FromSeconds(0)
    status.processes[0].cpu_time.FromMilliseconds(1_500)
    shown = plain(status)
    assert shown["dead_letters"] == 2**53
    assert shown["engine"] is None
    assert shown["processes"][0]["cpu_time"] == 1.5
    assert shown["processes"][0]["start_time"] is None
    assert shown["last_flush"]["end_time"] == "1970-01-01T00:00:00Z"
    assert shown["last_flush"]["stage_seconds"] == {"wait": 0.5}
    assert plain(pb.ReplayResult(outcome=pb.REPLAY_OUTCOME_STORED))["outcome"] == "REPLAY_OUTCOME_STORED"


def healthy() -> pb.GetStatusResponse:
    return pb.GetStatusResponse(
        processes=[pb.Process(name="store"), pb.Process(name="flusher")],
        disk_free_bytes=2**40,
        engine=pb.EngineStatus(available=True),
        ingest=pb.IngestStatus(log_max_bytes=1_000),
    )


def test_each_problem_is_one_sentence() -> None:
    """A healthy store has none; each fault is named alone."""
    assert list(problems(healthy())) == []
    sentences = (
        "engine takes nothing",
        "log cannot be written",
        "log is 90% full",
        "wait for 61 s",
        "are free",
        "flusher",
        "deleted tenant research is not removed yet: a backup",
    )
    faults = [(expected, healthy()) for expected in sentences]
    faults[0][1].engine.available = False
    faults[1][1].ingest.log_error = "no space"
    faults[2][1].ingest.log_bytes = 900
    faults[3][1].ingest.lag.FromSeconds(61)
    faults[4][1].disk_free_bytes = 2**20
    del faults[5][1].processes[1]
    late = faults[6][1].tenant_deletions.add(name="research", waits_for="a backup")
    late.delete_time.FromSeconds(1)
    faults[6][1].tenant_deletions.add(name="new").delete_time.GetCurrentTime()
    for expected, status in faults:
        [problem] = problems(status)
        assert expected in problem


def test_recovery_is_no_problem() -> None:
    """What an earlier process left is old by nature."""
    status = healthy()
    status.ingest.lag.FromSeconds(3_600)
    status.ingest.recovering = True
    assert list(problems(status)) == []


def test_tenants_that_are_being_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What they were called, what is gone, what is waited for; nothing when there are none."""
    monkeypatch.setenv("RUNSTORE_DATA_DIR", str(tmp_path))
    settings = load_settings()

    def shown(status: pb.GetStatusResponse) -> str:
        out = StringIO()
        console = Console(file=out, width=150)
        for part in _parts(settings, status, [], http=True):
            console.print(part)
        return out.getvalue()

    status = healthy()
    assert "DELETED TENANT" not in shown(status)
    deletion = status.tenant_deletions.add(
        name="[bold]research", removed_rows=12_000, removed_blobs=3, waits_for="a backup [is] being made"
    )
    deletion.delete_time.GetCurrentTime()
    [line] = [each for each in shown(status).splitlines() if "research" in each]
    assert line.startswith("[bold]research ")
    assert [part in line for part in ("12,000", " 3 ", "a backup [is] being made")] == [True] * 3
