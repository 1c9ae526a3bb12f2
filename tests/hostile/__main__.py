"""`make hostile`: a thousand connections, one in a hundred of them hostile. See docs/testing.md.

Run by its path, `python tests/hostile`: tests are no package.
"""

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Status 0 only when the honest clients are served nearly as well beside the hostile ones."""
    sys.path[0] = str(ROOT)
    from tests.hostile.load import Plan, hostile_load

    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ends what it has started, as Ctrl-C does.
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    folder = Path(tempfile.mkdtemp(prefix="runstore-hostile-"))
    phase_s = options.seconds / options.rounds / 2
    hostile = max(1, round(options.connections * options.share))
    plan = Plan(
        seed, options.connections, hostile, options.rate, options.rounds, phase_s, folder, options.attack
    )
    print(
        f"seed {seed}, {plan.connections} connections, {hostile} of them hostile, "
        f"{plan.calls_per_s:.0f} calls/s, "
        f"{plan.rounds} times {phase_s:.0f} s without and with them",
        flush=True,
    )
    outcome = asyncio.run(hostile_load(plan))
    print(outcome.text(), flush=True)
    if outcome.is_good:
        shutil.rmtree(folder)
        return 0
    print(f"FAILED: repeat with --seed {seed}; logs are kept in {folder}")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make hostile ARGS=…", description=__doc__)
    parser.add_argument("--connections", type=int, default=1_000, help="of all clients together")
    parser.add_argument("--share", type=float, default=0.01, help="of the connections that are hostile")
    parser.add_argument("--rate", type=float, default=60.0, help="calls per second of the honest clients")
    parser.add_argument("--seconds", type=float, default=240.0, help="that are measured")
    parser.add_argument("--rounds", type=int, default=4, help="without and with hostile clients, in turns")
    parser.add_argument("--attack", help="the only one to make, such as flood; default all in turns")
    parser.add_argument("--seed", type=int, help="of what is sent; default random")
    return parser


if __name__ == "__main__":
    sys.exit(main())
