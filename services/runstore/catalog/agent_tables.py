"""The catalog's tables of agents: assistants, threads, runs and what goes with them; conventions: `tables`.

What is decided about a thread is decided while its row is locked; a run is claimed by a conditional update,
and the database itself refuses a second running run of a thread.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    TextClause,
    literal_column,
    text,
)

from runstore.catalog.tables import metadata

assistants = Table(
    "assistants",
    metadata,
    # Default assistants have the same id in every tenant.
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    Column("assistant_id", String(36), primary_key=True),
    Column("graph_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    # JSON objects.
    Column("config", LargeBinary, nullable=False),
    Column("context", LargeBinary, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Index(None, "tenant_id", "created_at_us", "assistant_id"),
)

assistant_versions = Table(
    "assistant_versions",
    metadata,
    Column("tenant_id", String(36), primary_key=True),
    Column("assistant_id", String(36), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("graph_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("config", LargeBinary, nullable=False),
    Column("context", LargeBinary, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["tenant_id", "assistant_id"],
        ["assistants.tenant_id", "assistants.assistant_id"],
        ondelete="CASCADE",
    ),
)

agent_threads = Table(
    "agent_threads",
    metadata,
    # Unique in the deployment, not only in the tenant: checkpoints know threads by their id alone.
    Column("thread_id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("status", String(16), nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("config", LargeBinary, nullable=False),
    Column("graph_id", Text),
    Column("values", LargeBinary),
    Column("interrupts", LargeBinary),
    Column("has_next", Boolean, nullable=False),
    Column("error_class", Text),
    Column("error_message", Text),
    Column("is_temporary", Boolean, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Column("state_updated_at_us", BigInteger),
    Column("ttl_minutes", Float),
    Column("ttl_strategy", String(16)),
    Column("expires_at_us", BigInteger),
    Index(None, "tenant_id", "updated_at_us", "thread_id"),
    Index(None, "tenant_id", "created_at_us", "thread_id"),
    Index(None, "expires_at_us"),
)

# Literals, for which SQLite uses a partial index; it never does for a parameter.
_RUNNING = text("status = 'running'")
_PENDING = text("status = 'pending'")
_IN_FLIGHT = text("status IN ('pending', 'running')")


def _index(name: str, condition: TextClause, *columns: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


agent_runs = Table(
    "agent_runs",
    metadata,
    Column("run_id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column(
        "thread_id", String(36), ForeignKey("agent_threads.thread_id", ondelete="CASCADE"), nullable=False
    ),
    Column("assistant_id", String(36), nullable=False),
    Column("graph_id", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("kwargs", LargeBinary, nullable=False),
    Column("multitask_strategy", String(16), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("due_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
    # Of a running run: who has it, by what right, for how long.
    Column("worker_id", String(36)),
    Column("claim_token", String(64)),
    Column("lease_until_us", BigInteger),
    Column("cancel_action", String(16)),
    Column("cancel_reason", Text),
    Column("project_name", Text),
    Column("webhook", Text),
    Column("user_id", Text, nullable=False),
    Column("is_traced", Boolean, nullable=False),
    Column("has_checkpoints", Boolean, nullable=False),
    Column("result", LargeBinary),
    Column("started_at_us", BigInteger),
    Column("ended_at_us", BigInteger),
    Index(None, "thread_id", "due_at_us", "run_id"),
    _index("uq_agent_runs_running", _RUNNING, "thread_id", unique=True),
    _index("ix_agent_runs_leases", _RUNNING, "lease_until_us"),
    _index("ix_agent_runs_queue", _PENDING, "tenant_id", "due_at_us", "run_id"),
    _index("ix_agent_runs_in_flight", _IN_FLIGHT, "thread_id", "due_at_us", "run_id"),
)

IS_RUNNING = agent_runs.c.status == literal_column("'running'")
IS_PENDING = agent_runs.c.status == literal_column("'pending'")


def is_in_flight(runs: FromClause) -> ColumnElement[bool]:
    """Whether a row of `runs` (the table, or an alias of it) is pending or running."""
    return runs.c.status.in_([literal_column("'pending'"), literal_column("'running'")])


IS_IN_FLIGHT = is_in_flight(agent_runs)

# Ends of runs whose row is gone, for those who still wait for them.
agent_results = Table(
    "agent_results",
    metadata,
    Column("run_id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("thread_id", String(36), nullable=False),
    Column("status", String(16), nullable=False),
    Column("result", LargeBinary, nullable=False),
    Column("ended_at_us", BigInteger, nullable=False),
    Index(None, "ended_at_us"),
)

agent_crons = Table(
    "agent_crons",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("assistant_id", String(36), nullable=False),
    Column("thread_id", String(36), ForeignKey("agent_threads.thread_id", ondelete="CASCADE")),
    Column("user_id", String(64)),
    Column("schedule", Text, nullable=False),
    Column("timezone", Text),
    Column("end_time_us", BigInteger),
    Column("enabled", Boolean, nullable=False),
    # A request to create a run, as gRPC has it.
    Column("run", LargeBinary, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("next_run_at_us", BigInteger),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["tenant_id", "assistant_id"],
        ["assistants.tenant_id", "assistants.assistant_id"],
        ondelete="CASCADE",
    ),
    Index(None, "tenant_id", "created_at_us", "id"),
    Index(None, "tenant_id", "thread_id"),
    Index(None, "next_run_at_us"),
)

agent_items = Table(
    "agent_items",
    metadata,
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    # Each label in UTF-8 with a dot behind it.
    Column("namespace", LargeBinary, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    # Time to live from the last use on.
    Column("ttl_us", BigInteger),
    Column("expires_at_us", BigInteger),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Index(None, "expires_at_us"),
)

webhook_outbox = Table(
    "webhook_outbox",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("run_id", String(36), nullable=False),
    Column("url", Text, nullable=False),
    # A JSON object.
    Column("body", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False),
    # When it may next be tried; while somebody tries, when others may take it over.
    Column("due_at_us", BigInteger, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Index(None, "due_at_us"),
)
