"""The catalog's tables of what the generated client manages; conventions as in `tables`."""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, LargeBinary, String, Table, Text

from runstore.catalog.tables import metadata

online_evaluators = Table(
    "online_evaluators",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("type", String(16), nullable=False),
    # A JSON object.
    Column("definition", LargeBinary, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Index(None, "tenant_id", "created_at_us", "id"),
)

registered_agents = Table(
    "registered_agents",
    metadata,
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    Column("id", String(63), primary_key=True),
    Column("name", Text, nullable=False),
    Column("agent_type", String(16), nullable=False),
    Column("source_type", String(16), nullable=False),
    Column("owner_id", String(64)),
    Column("production_only", Boolean, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)

resource_tags = Table(
    "resource_tags",
    metadata,
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    # Of a project or a dataset.
    Column("resource_id", String(36), primary_key=True),
    Column("tag_value_id", String(36), primary_key=True),
)
