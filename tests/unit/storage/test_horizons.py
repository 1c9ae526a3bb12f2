"""What was learned of one tenant's runs says nothing of another's."""

from collections import OrderedDict

from runstore.domain.runs import RunQuery
from runstore.storage.clickhouse.horizons import Horizon, Memory
from runstore.storage.clickhouse.list_sql import KeyRange

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def test_kinds_are_the_tenants_own() -> None:
    """Even for the same projects, as hostile callers name them."""
    memory: Memory[int] = OrderedDict()
    projects = (ONE,)

    def horizon(tenant_id: str, limit: int = 10) -> Horizon[int]:
        query = RunQuery(tenant_id, frozenset(), project_ids=projects, limit=limit)
        return Horizon(memory, query, KeyRange(projects))

    horizon(ONE).learned(7)
    assert horizon(ONE).known == 7
    assert horizon(TWO).known is None
    assert horizon(ONE, limit=11).known is None
