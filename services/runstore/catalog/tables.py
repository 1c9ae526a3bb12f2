"""The catalog's tables as SQLAlchemy sees them; `migrations/` brings a database to this shape.

Ids are canonical UUID text, times microseconds since the Unix epoch (`_us`), JSON is kept as
the bytes that were sent. Nothing here is specific to SQLite or PostgreSQL.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = "0001"
"""The newest migration; a database that says otherwise is migrated or, if newer, refused."""

metadata = MetaData(
    # Names that do not depend on the database, so that migrations can drop and alter by name.
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at_us", BigInteger, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    # Unique in the deployment, not only in the tenant: runs are sorted by project id.
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("extra", LargeBinary, nullable=False),
    Column("reference_dataset_id", String(36)),
    Column("start_time_us", BigInteger, nullable=False),
    Column("end_time_us", BigInteger),
    Column("created_at_us", BigInteger, nullable=False),
    Column("modified_at_us", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "name"),
    Index(None, "tenant_id", "start_time_us", "id"),
    Index(None, "tenant_id", "reference_dataset_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    # SHA-256 of the whole secret: 256 random bits need no salt and no slow hash.
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger),
    Column("revoked_at_us", BigInteger),
    Column("last_used_at_us", BigInteger),
    Index(None, "tenant_id", "created_at_us"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)
