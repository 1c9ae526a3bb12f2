"""Assistants, threads and runs of graphs."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    _create_assistants()
    _create_threads()
    _create_runs()
    op.create_table(
        "agent_results",
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("thread_id", sa.String(36), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("result", sa.LargeBinary, nullable=False),
        sa.Column("ended_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_agent_results"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_agent_results_tenant_id"),
    )
    op.create_index("ix_agent_results_ended_at_us", "agent_results", ["ended_at_us"])


def _create_assistants() -> None:
    op.create_table(
        "assistants",
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("assistant_id", sa.String(36), nullable=False),
        sa.Column("graph_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("config", sa.LargeBinary, nullable=False),
        sa.Column("context", sa.LargeBinary, nullable=False),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "assistant_id", name="pk_assistants"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_assistants_tenant_id"),
    )
    op.create_index(
        "ix_assistants_tenant_id_created_at_us_assistant_id",
        "assistants",
        ["tenant_id", "created_at_us", "assistant_id"],
    )
    op.create_table(
        "assistant_versions",
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("assistant_id", sa.String(36), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("graph_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("config", sa.LargeBinary, nullable=False),
        sa.Column("context", sa.LargeBinary, nullable=False),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "assistant_id", "version", name="pk_assistant_versions"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "assistant_id"],
            ["assistants.tenant_id", "assistants.assistant_id"],
            name="fk_assistant_versions_tenant_id_assistant_id",
            ondelete="CASCADE",
        ),
    )


def _create_threads() -> None:
    op.create_table(
        "agent_threads",
        sa.Column("thread_id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
        sa.Column("config", sa.LargeBinary, nullable=False),
        sa.Column("graph_id", sa.Text),
        sa.Column("values", sa.LargeBinary),
        sa.Column("interrupts", sa.LargeBinary),
        sa.Column("has_next", sa.Boolean, nullable=False),
        sa.Column("error_class", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("is_temporary", sa.Boolean, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("state_updated_at_us", sa.BigInteger),
        sa.Column("ttl_minutes", sa.Float),
        sa.Column("ttl_strategy", sa.String(16)),
        sa.Column("expires_at_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("thread_id", name="pk_agent_threads"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_agent_threads_tenant_id"),
    )
    for column in ("updated_at_us", "created_at_us"):
        op.create_index(
            f"ix_agent_threads_tenant_id_{column}_thread_id",
            "agent_threads",
            ["tenant_id", column, "thread_id"],
        )
    op.create_index("ix_agent_threads_expires_at_us", "agent_threads", ["expires_at_us"])


def _create_runs() -> None:
    op.create_table(
        "agent_runs",
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("thread_id", sa.String(36), nullable=False),
        sa.Column("assistant_id", sa.String(36), nullable=False),
        sa.Column("graph_id", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
        sa.Column("kwargs", sa.LargeBinary, nullable=False),
        sa.Column("multitask_strategy", sa.String(16), nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("due_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("worker_id", sa.String(36)),
        sa.Column("claim_token", sa.String(64)),
        sa.Column("lease_until_us", sa.BigInteger),
        sa.Column("cancel_action", sa.String(16)),
        sa.Column("cancel_reason", sa.Text),
        sa.Column("project_name", sa.Text),
        sa.Column("webhook", sa.Text),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("is_traced", sa.Boolean, nullable=False),
        sa.Column("has_checkpoints", sa.Boolean, nullable=False),
        sa.Column("result", sa.LargeBinary),
        sa.Column("started_at_us", sa.BigInteger),
        sa.Column("ended_at_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("run_id", name="pk_agent_runs"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_agent_runs_tenant_id"),
        sa.ForeignKeyConstraint(
            ["thread_id"], ["agent_threads.thread_id"], name="fk_agent_runs_thread_id", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "ix_agent_runs_thread_id_due_at_us_run_id", "agent_runs", ["thread_id", "due_at_us", "run_id"]
    )
    running, pending = sa.text("status = 'running'"), sa.text("status = 'pending'")
    in_flight = sa.text("status IN ('pending', 'running')")
    _create_index("uq_agent_runs_running", running, "thread_id", unique=True)
    _create_index("ix_agent_runs_leases", running, "lease_until_us")
    _create_index("ix_agent_runs_queue", pending, "tenant_id", "due_at_us", "run_id")
    _create_index("ix_agent_runs_in_flight", in_flight, "thread_id", "due_at_us", "run_id")


def _create_index(name: str, condition: sa.TextClause, *columns: str, unique: bool = False) -> None:
    op.create_index(
        name, "agent_runs", columns, unique=unique, sqlite_where=condition, postgresql_where=condition
    )
