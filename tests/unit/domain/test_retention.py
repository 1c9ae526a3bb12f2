"""Which rule holds: the project's before the tenant's before the deployment's, field by field."""

import pytest

from runstore.domain.retention import (
    FOREVER,
    NEVER_US,
    NO_RULE,
    Retention,
    RetentionRule,
    RetentionRules,
    TraceTier,
)
from runstore.domain.times import MIN_TIME_US

SHORT, LONG = TraceTier.SHORTLIVED, TraceTier.LONGLIVED
DAY_US = 86_400_000_000


def of_project(
    project: RetentionRule = NO_RULE, tenant: RetentionRule = NO_RULE, deployment: RetentionRule = NO_RULE
) -> Retention:
    return RetentionRules(deployment, {"t": tenant}, {("t", "p"): project}).of("t", "p")


@pytest.mark.parametrize(
    ("retention", "expected"),
    [
        (of_project(), Retention(LONG, FOREVER, FOREVER)),
        (of_project(deployment=RetentionRule(short_days=14)), Retention(SHORT, 14, FOREVER)),
        (of_project(deployment=RetentionRule(short_days=14, long_days=400)), Retention(SHORT, 14, 400)),
        (
            of_project(tenant=RetentionRule(short_days=3), deployment=RetentionRule(short_days=14)),
            Retention(SHORT, 3, FOREVER),
        ),
        (
            of_project(RetentionRule(short_days=0), RetentionRule(short_days=3, long_days=9)),
            Retention(LONG, FOREVER, FOREVER),
        ),
        (
            of_project(RetentionRule(trace_tier=LONG), RetentionRule(short_days=3, long_days=9)),
            Retention(LONG, 9, 9),
        ),
        (
            of_project(RetentionRule(trace_tier=SHORT), RetentionRule(trace_tier=LONG, short_days=3)),
            Retention(SHORT, 3, FOREVER),
        ),
        (of_project(RetentionRule(short_days=30, long_days=10)), Retention(SHORT, 30, 30)),
        (of_project(RetentionRule(trace_tier=SHORT)), Retention(SHORT, FOREVER, FOREVER)),
    ],
)
def test_what_holds(retention: Retention, expected: Retention) -> None:
    """The tier chooses the period; keeping never shortens it; without a short period all are long-lived."""
    assert retention == expected


def test_other_projects_and_tenants_have_their_own() -> None:
    """A rule says nothing about its neighbours."""
    rules = RetentionRules(
        RetentionRule(), {"t": RetentionRule(short_days=5)}, {("u", "p"): RetentionRule(short_days=7)}
    )
    assert [rules.of("t", "p").days, rules.of("u", "p").days, rules.of("u", "q").days] == [5, 7, FOREVER]
    assert [rules.of("t", None).days, rules.of("u", None).days] == [5, FOREVER]
    assert [rules.is_limited(tenant) for tenant in "tuv"] == [True, True, False]


def test_times_and_tiers_of_traces() -> None:
    """What is kept for ever does not expire, however long ago it started."""
    retention = Retention(SHORT, 2, FOREVER)
    now_us = 10 * DAY_US
    assert retention.cutoff_us(now_us, is_kept=False) == 8 * DAY_US
    assert retention.cutoff_us(now_us, is_kept=True) == NEVER_US == MIN_TIME_US
    assert retention.cutoff_us(DAY_US, is_kept=False) == -DAY_US
    assert (retention.ttl_seconds(is_kept=False), retention.ttl_seconds(is_kept=True)) == (172_800, None)
    assert (retention.tier_of(is_kept=False), retention.tier_of(is_kept=True)) == (SHORT, LONG)
