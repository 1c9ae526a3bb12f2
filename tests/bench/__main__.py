"""`make bench`: measures runstore beside its budgets and beside the engine alone. See docs/performance.md.

Run by its path, `python tests/bench`: tests are no package.
"""

import argparse
import shutil
import signal
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench-results"


def main() -> int:
    """Status 0 whatever the figures are; they are for people to judge."""
    sys.path[0] = str(ROOT)
    from tests.bench import machine
    from tests.bench import report as reports
    from tests.bench.phases import Benchmark

    options = _parser().parse_args()
    before = reports.load(options.compare) if options.compare else None
    table = reports.markdown_table if options.markdown else reports.text_table
    if options.show:
        print(table(reports.load(options.show), before))
        return 0
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    work_dir = (options.work_dir or RESULTS / "work") / stamp
    work_dir.mkdir(parents=True)
    plan = _plan(options)
    report = reports.Report(machine.describe(work_dir), asdict(plan), [], [])
    profiles = RESULTS / f"{stamp}-profiles" if options.profile else None
    print(f"Working folder {work_dir}")
    filled = options.filled / "reads" if options.filled else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Ends what it has started, as Ctrl-C does.
    try:
        Benchmark(plan, _sections(options), work_dir, report, profiles, filled).run()
    finally:  # What was measured before a failure is worth seeing.
        if report.figures:
            report.save(RESULTS / f"{stamp}.json")
            print(f"\n{table(report, before)}\n\nSaved as {RESULTS / stamp}.json")
        if not options.keep:
            shutil.rmtree(work_dir, ignore_errors=True)
    return 0


def _sections(options: argparse.Namespace) -> set[str]:
    from tests.bench.plan import SECTIONS

    return set(options.only.split(",")) if options.only else set(SECTIONS)


def _plan(options: argparse.Namespace):  # -> Plan, which can be imported only once the path is set
    from tests.bench.plan import QUICK, Plan

    plan = QUICK if options.quick else Plan()
    if options.seconds:
        plan = replace(plan, throughput_s=options.seconds, latency_s=options.seconds)
    if options.calls:
        plan = replace(plan, read_calls=options.calls, idle_samples=options.calls)
    return replace(plan, runs=options.runs or plan.runs, seed=options.seed)


def _parser() -> argparse.ArgumentParser:
    from tests.bench.plan import SECTIONS

    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes: short phases, 100,000 runs")
    parser.add_argument("--runs", type=int, help="runs in the store when reads are measured")
    parser.add_argument("--seconds", type=float, help="length of a throughput or half-load phase")
    parser.add_argument(
        "--only", metavar="SECTION,…", type=_checked_sections, help=f"some of {', '.join(SECTIONS)}"
    )
    parser.add_argument("--calls", type=int, help="calls of each kind of read, samples of each idle latency")
    parser.add_argument(
        "--profile", action="store_true", help="record store and gateway while ingesting (py-spy)"
    )
    parser.add_argument("--compare", metavar="FILE", type=Path, help="print ratios to an earlier result")
    parser.add_argument("--show", metavar="FILE", type=Path, help="print a saved result instead of measuring")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--seed", type=int, default=1, help="of the generated traces")
    parser.add_argument(
        "--work-dir", type=Path, help="folder on the disk to measure; default bench-results/work"
    )
    parser.add_argument(
        "--filled",
        type=Path,
        metavar="DIR",
        help="ask the store that a run with --keep has filled",
    )
    parser.add_argument("--keep", action="store_true", help="keep the working folder with its data and logs")
    return parser


def _checked_sections(text: str) -> str:
    from tests.bench.plan import SECTIONS

    unknown = set(text.split(",")) - set(SECTIONS)
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
