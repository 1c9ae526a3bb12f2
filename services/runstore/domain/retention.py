"""How long traces are kept: rules of the deployment, of tenants and of projects (docs/decisions/0016)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from runstore.domain.times import MIN_TIME_US

MAX_DAYS = 36_500
_US_PER_DAY = 86_400 * 1_000_000

FOREVER = 0
"""As a number of days."""

NEVER_US = MIN_TIME_US
"""A cutoff that nothing started before."""


class TraceTier(StrEnum):
    """Which of its project's periods a trace is kept for. The values are those of the public contract."""

    SHORTLIVED = "shortlived"
    LONGLIVED = "longlived"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRule:
    """What somebody has decided. None: as the tenant says, or else the deployment."""

    trace_tier: TraceTier | None = None
    """Of traces that nothing keeps."""
    short_days: int | None = None
    """Days from the last start of a run in the trace, or FOREVER."""
    long_days: int | None = None
    """As `short_days`, for the long tier and for kept traces."""


NO_RULE = RetentionRule()


@dataclass(frozen=True, slots=True)
class Retention:
    """What holds for the traces of a project."""

    trace_tier: TraceTier
    """Of traces that nothing keeps."""
    days: int
    """Of these traces; FOREVER."""
    kept_days: int
    """Of kept traces; FOREVER, and never less than `days`."""

    @property
    def is_limited(self) -> bool:
        """Whether anything expires."""
        return self.days != FOREVER

    def tier_of(self, *, is_kept: bool) -> TraceTier:
        """The tier that a trace is in."""
        return TraceTier.LONGLIVED if is_kept else self.trace_tier

    def ttl_seconds(self, *, is_kept: bool) -> int | None:
        """How long a trace is kept after the last of its runs started; None for ever."""
        days = self.kept_days if is_kept else self.days
        return None if days == FOREVER else days * 86_400

    def cutoff_us(self, now_us: int, *, is_kept: bool) -> int:
        """A trace whose last run started before this time has expired; `NEVER_US` when none ever does."""
        days = self.kept_days if is_kept else self.days
        return NEVER_US if days == FOREVER else max(now_us - days * _US_PER_DAY, NEVER_US)


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """All rules there are."""

    deployment: RetentionRule
    """Says `short_days` and `long_days`."""
    tenants: Mapping[str, RetentionRule] = field(default_factory=dict)
    projects: Mapping[tuple[str, str], RetentionRule] = field(default_factory=dict)
    """By (tenant id, project id)."""

    def of(self, tenant_id: str, project_id: str | None) -> Retention:
        """What holds for a project; with None, for those of the tenant that have no rule."""
        rules = [self.tenants.get(tenant_id, NO_RULE), self.deployment]
        if project_id is not None:
            rules.insert(0, self.projects.get((tenant_id, project_id), NO_RULE))
        return _retention(rules)

    def is_limited(self, tenant_id: str) -> bool:
        """Whether anything of a tenant expires."""
        return self.of(tenant_id, None).is_limited or any(
            self.of(tenant_id, project_id).is_limited for project_id in self.projects_of(tenant_id)
        )

    def projects_of(self, tenant_id: str) -> list[str]:
        """Ids of the tenant's projects that have a rule."""
        return [project_id for tenant, project_id in self.projects if tenant == tenant_id]


def _retention(rules: Sequence[RetentionRule]) -> Retention:
    """`rules`: what is first counts first."""
    short = next((rule.short_days for rule in rules if rule.short_days is not None), FOREVER)
    long = next((rule.long_days for rule in rules if rule.long_days is not None), FOREVER)
    told = next((rule.trace_tier for rule in rules if rule.trace_tier is not None), None)
    days = long if told is TraceTier.LONGLIVED else short
    tier = told or (TraceTier.LONGLIVED if days == FOREVER else TraceTier.SHORTLIVED)
    # Keeping a trace never shortens its life.
    kept_days = FOREVER if FOREVER in (days, long) else max(days, long)
    return Retention(tier, days, kept_days)


class TraceKeep(msgspec.Struct, frozen=True, gc=False):
    """Keeps traces, as an operation among those that build runs: for the long period of their project."""

    tenant_id: str
    sequence: int
    """Position in the order of all operations; see `ingest.sequence`."""
    run_ids: tuple[str, ...] = ()
    """Runs whose traces are meant."""
    trace_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryQuery:
    """Which traces of a tenant have expired. Times are microseconds since the epoch."""

    tenant_id: str
    cutoff_us: int
    """Of traces in projects without a rule of their own."""
    kept_cutoff_us: int
    cutoffs_us: Mapping[str, tuple[int, int]]
    """By project: that of its traces and that of its kept traces."""
    limit: int


@dataclass(frozen=True, slots=True)
class ExpiredTrace:
    """A trace that has expired."""

    trace_id: str
    is_kept: bool
    cutoff_us: int
    """Its last run started before."""
    first_us: int
    last_us: int
    """When its first and its last run started."""


@dataclass(frozen=True, slots=True)
class Month:
    """A partition of the tables of runs."""

    number: int
    """202611 for November 2026."""
    start_us: int
    end_us: int
    """When the next one starts."""


@dataclass(frozen=True, slots=True)
class Freed:
    """What was deleted of a tenant."""

    rows: int
    """Of its runs; a run has one for each flush that it came in."""
    bytes: int
    """On disk, estimated by the number of rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionProgress:
    """What retention has done for a tenant."""

    tenant_id: str
    swept_at_us: int
    """When the last sweep ended; 0 for never."""
    oldest_us: int | None = None
    """Start of the oldest trace that it left."""
    rows: int = 0
    """As in `Freed`, since ever."""
    bytes: int = 0
