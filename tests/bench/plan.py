"""How much of everything: the usual measure, and a quick one."""

from dataclasses import dataclass

SECTIONS = (
    "generator",
    "engine",
    "grpc",
    "http",
    "sdk",
    "acknowledge",
    "visible",
    "reads",
    "lists",
    "agents",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the phases."""

    runs: int = 1_000_000
    """In the store when reads are measured."""
    throughput_s: float = 15.0
    """Longest time of one throughput phase."""
    throughput_runs: int = 400_000
    """Most runs of one throughput phase."""
    latency_s: float = 15.0
    """Time of one phase at half load."""
    idle_samples: int = 200
    read_calls: int = 200
    engine_rows: int = 120_000
    rows_per_block: int = 20_000
    sdk_runs: int = 10_000
    catalog_rows: int = 100_000
    """Of projects, datasets, examples of one of them, and prompts, when lists are measured."""
    seed: int = 1


QUICK = Plan(
    runs=100_000,
    throughput_s=2.5,
    throughput_runs=60_000,
    latency_s=2.0,
    idle_samples=30,
    read_calls=60,
    engine_rows=20_000,
    rows_per_block=20_000,
    sdk_runs=2_000,
)
