"""The catalog's tables as SQLAlchemy sees them; `migrations/` brings a database to this shape.

Ids are canonical UUID text, times microseconds since the Unix epoch (`_us`), JSON is kept as
the bytes that were sent. Nothing here is specific to SQLite or PostgreSQL.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = "0017"
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

organizations = Table(
    "organizations",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at_us", BigInteger, nullable=False),
)

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at_us", BigInteger, nullable=False),
    Column("organization_id", String(36), ForeignKey("organizations.id")),
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
    # With the name, so that looking for a part of one reads no rows.
    Index(None, "tenant_id", "start_time_us", "id", "name"),
    Index(None, "tenant_id", "reference_dataset_id"),
)

# Tenants that are being deleted: their rows in `tenants` are the last to go.
tenant_deletions = Table(
    "tenant_deletions",
    metadata,
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    # The tenant's own is free for another one.
    Column("name", Text, nullable=False),
    Column("deleted_at_us", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("blobs", BigInteger, nullable=False),
    # Why the purge goes on; empty before it has begun.
    Column("waits_for", Text, nullable=False),
)

tenant_limits = Table(
    "tenant_limits",
    metadata,
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    *(
        Column(f"{scope}_{measure}_per_s", Double)
        for scope in ("key", "tenant")
        for measure in ("runs", "bytes", "queries")
    ),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    # Either of the two.
    Column("tenant_id", String(36), ForeignKey("tenants.id")),
    Column("organization_id", String(36), ForeignKey("organizations.id")),
    Column("role", String(16), nullable=False),
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

stores = Table(
    "stores",
    metadata,
    # Part of the sequence numbers that the store gives.
    Column("node", Integer, primary_key=True, autoincrement=False),
    # Of its data directory, where its log is.
    Column("instance_id", String(36), nullable=False, unique=True),
    # Everything up to here that the store has acknowledged is in the engine.
    Column("stored_sequence", BigInteger, nullable=False),
    Column("seen_at_us", BigInteger, nullable=False),
)

annotation_queues = Table(
    "annotation_queues",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("rubric_instructions", Text),
    Column("rubric_items", LargeBinary),
    Column("metadata", LargeBinary),
    Column("default_dataset_id", String(36)),
    Column("num_reviewers_per_item", Integer),
    Column("enable_reservations", Boolean),
    Column("reservation_minutes", Integer),
    Column("reviewer_access_mode", String(16)),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "name"),
    Index(None, "tenant_id", "created_at_us", "id"),
)

queue_items = Table(
    "queue_items",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("queue_id", String(36), ForeignKey("annotation_queues.id", ondelete="CASCADE"), nullable=False),
    Column("type", String(16), nullable=False),
    # What makes the item unique in its queue: the run's id, or a digest of the thread and its project.
    Column("subject", String(64), nullable=False),
    Column("project_id", String(36), nullable=False),
    Column("run_id", String(36)),
    Column("thread_id", Text),
    Column("start_time_us", BigInteger),
    Column("source_proposed_example_id", String(36)),
    Column("added_at_us", BigInteger, nullable=False),
    Column("last_reviewed_at_us", BigInteger),
    Column("archived_at_us", BigInteger),
    UniqueConstraint("queue_id", "subject"),
    Index(None, "queue_id", "added_at_us", "id"),
    Index(None, "run_id"),
)

queue_reviews = Table(
    "queue_reviews",
    metadata,
    Column("item_id", String(36), ForeignKey("queue_items.id", ondelete="CASCADE"), primary_key=True),
    Column("reviewer", String(64), primary_key=True),
    Column("status", String(16)),
    Column("reviewed_at_us", BigInteger, nullable=False),
    Column("override_added_at_us", BigInteger),
)

tenant_handles = Table(
    "tenant_handles",
    metadata,
    Column("handle", String(128), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False, unique=True),
)

prompts = Table(
    "prompts",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("handle", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("description", Text, nullable=False),
    Column("readme", Text, nullable=False),
    # A JSON array of strings.
    Column("tags", Text, nullable=False),
    Column("is_public", Boolean, nullable=False),
    Column("is_archived", Boolean, nullable=False),
    Column("num_likes", BigInteger, nullable=False),
    Column("num_downloads", BigInteger, nullable=False),
    Column("num_views", BigInteger, nullable=False),
    Column("num_commits", BigInteger, nullable=False),
    Column("last_commit_id", String(36)),
    Column("last_commit_hash", String(64)),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "handle"),
    Index(None, "tenant_id", "kind", "updated_at_us", "id"),
    Index(None, "tenant_id", "kind", "num_likes", "id"),
    Index(None, "tenant_id", "kind", "num_downloads", "id"),
    Index(None, "tenant_id", "kind", "num_views", "id"),
    # What counting a list looks at.
    Index(None, "tenant_id", "kind", "is_archived", "is_public"),
    Index(None, "kind", "is_public", "is_archived", "updated_at_us", "id"),
)

prompt_commits = Table(
    "prompt_commits",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("prompt_id", String(36), ForeignKey("prompts.id", ondelete="CASCADE"), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("parent_id", String(36)),
    Column("parent_hash", String(64)),
    Column("manifest", LargeBinary, nullable=False),
    Column("description", Text),
    Column("num_downloads", BigInteger, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("prompt_id", "number"),
    UniqueConstraint("prompt_id", "hash"),
)

prompt_tags = Table(
    "prompt_tags",
    metadata,
    Column("prompt_id", String(36), ForeignKey("prompts.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("commit_id", String(36), ForeignKey("prompt_commits.id", ondelete="CASCADE"), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
)

prompt_likes = Table(
    "prompt_likes",
    metadata,
    Column("prompt_id", String(36), ForeignKey("prompts.id", ondelete="CASCADE"), primary_key=True),
    Column("user", String(64), primary_key=True),
)

run_shares = Table(
    "run_shares",
    metadata,
    Column("token", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    # The run's id, or a digest of the thread and its project: shared at most once.
    Column("subject", String(64), nullable=False),
    Column("run_id", String(36)),
    Column("trace_id", String(36)),
    Column("project_id", String(36), nullable=False),
    Column("thread_id", Text),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "subject"),
)

feedback_tokens = Table(
    "feedback_tokens",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("run_id", String(36), nullable=False),
    Column("feedback_key", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Index(None, "tenant_id", "run_id", "created_at_us"),
)

feedback_configs = Table(
    "feedback_configs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("feedback_key", String(180), nullable=False),
    # A JSON object.
    Column("config", LargeBinary, nullable=False),
    Column("is_lower_score_better", Boolean, nullable=False),
    Column("is_enforced", Boolean, nullable=False),
    Column("modified_at_us", BigInteger, nullable=False),
    UniqueConstraint("tenant_id", "feedback_key"),
)
