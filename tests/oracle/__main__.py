"""`make oracle`: random questions by the ten thousand, answered as an oracle does. See docs/testing.md.

Run by its path, `python tests/oracle`: tests are no package.
"""

import argparse
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Status 0 when every answer was right."""
    sys.path[0] = str(ROOT)
    # Terminated, it takes its processes along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    from tests.conformance.random_cases import KINDS, corpora
    from tests.oracle.asking import Job, ask_with_workers

    parser = _parser(KINDS)
    options = parser.parse_args()
    if (options.corpus is None) != (options.index is None):
        parser.error("--corpus and --index go together")
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    if options.corpus is None:
        asked = list(corpora(options.cases, options.cases_per_corpus))
    else:
        asked = [(options.corpus, range(options.index, options.index + 1))]
    print(f"seed {seed}, {options.workers} processes", flush=True)
    started_s, cpu_s, cases, failures = time.monotonic(), 0.0, 0, 0
    for answers in ask_with_workers(
        [Job(options.kind, seed, corpus, indexes) for corpus, indexes in asked], options.workers
    ):
        cases += answers.cases
        cpu_s += answers.cpu_s
        failures += len(answers.failures)
        for failure in answers.failures:
            print(failure)
        seconds = time.monotonic() - started_s
        print(f"{cases} cases in {seconds:.0f} s, {cpu_s:.0f} s of CPU, {failures} failures", flush=True)
    return 1 if failures else 0


def _parser(kinds: Iterable[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make oracle ARGS=…", description=__doc__)
    parser.add_argument("--kind", choices=list(kinds), default="any", help="what to ask for")
    parser.add_argument("--cases", type=int, default=20_000, help="questions to ask")
    parser.add_argument("--cases-per-corpus", type=int, default=200, help="questions about the same runs")
    parser.add_argument("--seed", type=int, help="default random")
    parser.add_argument("--corpus", type=int, help="with --index: ask only this one")
    parser.add_argument("--index", type=int, help="of the question in its corpus")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
