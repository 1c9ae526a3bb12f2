"""The catalog's tables about retention; conventions as in `tables`."""

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String, Table

from runstore.catalog.tables import metadata

retention_rules = Table(
    "retention_rules",
    metadata,
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    # Empty for the tenant's own rule. No foreign key: that of a project that is gone means nothing.
    Column("project_id", String(36), primary_key=True),
    Column("trace_tier", String(16)),
    Column("short_days", Integer),
    Column("long_days", Integer),
    Column("modified_at_us", BigInteger, nullable=False),
)

retention_progress = Table(
    "retention_progress",
    metadata,
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    Column("swept_at_us", BigInteger, nullable=False),
    Column("oldest_us", BigInteger),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(36), nullable=False),
    Column("until_us", BigInteger, nullable=False),
)
