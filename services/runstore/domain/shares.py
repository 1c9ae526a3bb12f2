"""Shares: tokens that let everybody who has one read a run with what is below it, or a thread."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareSubject:
    """What is shared: a run, or a thread with its project."""

    run_id: str | None = None
    project_id: str | None = None
    """Of a run, too, once it is shared."""
    trace_id: str | None = None
    """Of a run that is shared."""
    thread_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A token and what it covers."""

    token: str
    """A UUID. Whoever has it may read; it is not shown to other tenants and not logged."""
    tenant_id: str
    subject: ShareSubject
