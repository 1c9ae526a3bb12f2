"""`make soak`: a load while everything breaks, and then a look at what is stored. See docs/testing.md.

Run by its path, `python tests/soak`: tests are no package.
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
_KILLS_PER_S = 100 / 600


def main() -> int:
    """Status 0 only when nothing acknowledged is missing, wrong or duplicated."""
    sys.path[0] = str(ROOT)
    from tests.soak.soak import Plan, soak

    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ends what it has started, as Ctrl-C does.
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    engines = ("embedded", "front") if options.engine == "both" else (options.engine,)
    seconds = options.seconds / len(engines)
    kills = options.kills if options.kills is not None else round(options.seconds * _KILLS_PER_S)
    if options.agents:
        return 0 if _soak_agents(seed, options.agents) else 1
    is_good = True
    for engine in engines:
        folder = Path(tempfile.mkdtemp(prefix=f"runstore-soak-{engine}-"))
        plan = Plan(seed, engine, seconds, round(kills / len(engines)), options.rate, folder)
        print(
            f"\nseed {seed}, engine {engine}, {seconds:.0f} s, {plan.kills} kills, data in {folder}",
            flush=True,
        )
        outcome = asyncio.run(soak(plan))
        print(outcome.text(), flush=True)
        if outcome.is_good:
            shutil.rmtree(folder)
        else:
            is_good = False
            print(f"FAILED: repeat with --seed {seed} --engine {engine}; everything is kept in {folder}")
    return 0 if is_good else 1


def _soak_agents(seed: int, runs: int) -> bool:
    from tests.soak.agents_soak import AgentPlan, soak_agents

    folder = Path(tempfile.mkdtemp(prefix="runstore-soak-agents-"))
    print(f"\nseed {seed}, {runs} runs of graphs, data in {folder}", flush=True)
    outcome = asyncio.run(soak_agents(AgentPlan(seed, runs, min(50, runs), folder)))
    print(outcome.text(), flush=True)
    if outcome.is_good:
        shutil.rmtree(folder)
    else:
        print(f"FAILED: repeat with --seed {seed} --agents {runs}; everything is kept in {folder}")
    return outcome.is_good


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=600.0, help="length of the load, of all engines together"
    )
    parser.add_argument("--kills", type=int, help="processes to kill; default 100 in ten minutes")
    parser.add_argument("--seed", type=int, help="of what is sent, and of when what breaks; default random")
    parser.add_argument("--engine", choices=("embedded", "front", "both"), default="both")
    parser.add_argument(
        "--agents", type=int, metavar="RUNS", help="soak this many runs of graphs, and nothing else"
    )
    parser.add_argument("--rate", type=float, default=400.0, help="operations per second, at most")
    return parser


if __name__ == "__main__":
    sys.exit(main())
