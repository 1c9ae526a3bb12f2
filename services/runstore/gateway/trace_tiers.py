"""The contract's names of the tiers that traces are kept in."""

from typing import Final, Literal

from runstore.v1 import run_pb2 as pb

TierName = Literal["longlived", "shortlived"]

TIERS: Final[dict[str | None, "pb.TraceTier.ValueType"]] = {
    None: pb.TRACE_TIER_UNSPECIFIED,
    "shortlived": pb.TRACE_TIER_SHORTLIVED,
    "longlived": pb.TRACE_TIER_LONGLIVED,
}
"""By name; None for what is not given."""

TIER_NAMES: Final = {number: name for name, number in TIERS.items() if name is not None}
