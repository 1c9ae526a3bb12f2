"""How long traces are kept, as readers are told."""

from collections.abc import Collection, Mapping
from typing import Protocol

from runstore.domain.retention import Retention, RetentionRule, RetentionRules


class Rules(Protocol):
    """What is needed of the catalog. Raises UNAVAILABLE."""

    async def rules(self, deployment: RetentionRule) -> RetentionRules: ...


class KeptTraces(Protocol):
    """Knows which traces are kept. Raises StoreUnavailable."""

    async def kept(self, tenant_id: str, trace_ids: Collection[str], /) -> set[str]: ...


class ReadRetention:
    """Answers by the rules of the catalog and of the deployment's settings."""

    def __init__(self, rules: Rules, store: KeptTraces, deployment: RetentionRule) -> None:
        self._rules = rules
        self._store = store
        self._deployment = deployment

    async def of_project(self, tenant_id: str, project_id: str | None) -> Retention:
        """What holds for a project; with None, for those of the tenant that have no rule."""
        return (await self.rules()).of(tenant_id, project_id)

    async def rules(self) -> RetentionRules:
        """All rules."""
        return await self._rules.rules(self._deployment)

    async def of_traces(
        self, tenant_id: str, project_of: Mapping[str, str]
    ) -> dict[str, tuple[Retention, bool]]:
        """What holds for each trace, given with its project, and whether it is kept.

        Where everything is kept for ever, nothing is looked up and no trace counts as kept.
        """
        rules = await self.rules()
        found = {trace_id: rules.of(tenant_id, project_id) for trace_id, project_id in project_of.items()}
        limited = [trace_id for trace_id, retention in found.items() if retention.is_limited]
        kept = await self._store.kept(tenant_id, limited) if limited else set()
        return {trace_id: (retention, trace_id in kept) for trace_id, retention in found.items()}
