"""Comparisons of experiments on one dataset, to which feedback on pairs of runs refers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparativeExperiment:
    """Experiments that are judged against each other."""

    id: str
    """Canonical UUID text (lower case, dashes), unique in the deployment."""
    tenant_id: str
    dataset_id: str
    name: str
    description: str | None = None
    experiment_ids: tuple[str, ...]
    """Projects, in the order given."""
    extra: bytes = b"{}"
    """A JSON object, kept as it was sent."""
    created_at_us: int
    """Microseconds since the Unix epoch, UTC."""
    modified_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparativeFilter:
    """Which comparisons to list. Conditions left at their default do not restrict."""

    dataset_id: str
    ids: tuple[str, ...] = ()
    name: str | None = None
    """The exact name."""
    name_contains: str | None = None
    """Part of the name, upper and lower case alike."""
    offset: int = 0
    limit: int = 100
