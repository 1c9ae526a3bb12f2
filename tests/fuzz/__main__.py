"""`make fuzz`: broken requests by the hundred thousand. See docs/testing.md.

Run by its path, `python tests/fuzz`: tests are no package.
"""

import argparse
import asyncio
import os
import secrets
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Status 0 when every answer was right."""
    sys.path[0] = str(ROOT)
    from tests.fuzz.cases import case
    from tests.fuzz.fuzzing import fuzz, fuzz_with_workers

    options = _parser().parse_args()
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    if options.index is not None:
        print(case(seed, options.index))
        findings = asyncio.run(fuzz(seed, range(options.index, options.index + 1)))
    else:
        print(f"seed {seed}, {options.count} bodies, {options.workers} processes", flush=True)
        started_s = time.monotonic()
        findings = fuzz_with_workers(
            seed, range(options.first, options.first + options.count), options.workers
        )
        seconds = time.monotonic() - started_s
        print(f"{findings.bodies} bodies in {seconds:.0f} s, {findings.bodies / seconds:.0f} a second")
        print(", ".join(f"{answer}: {count}" for answer, count in sorted(findings.answers.items())))
    for index, problem in sorted(findings.failures):
        print(f"--seed {seed} --index {index}: {problem}")
    print(f"{len(findings.failures)} failures")
    return 1 if findings.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=…", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="bodies to send")
    parser.add_argument("--first", type=int, default=0, help="index of the first")
    parser.add_argument("--seed", type=int, help="default random")
    parser.add_argument("--index", type=int, help="show and send this one alone")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
