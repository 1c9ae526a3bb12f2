"""Crons, items of agents, and the outbox of webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "agent_items",
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("namespace", sa.LargeBinary, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("ttl_us", sa.BigInteger),
        sa.Column("expires_at_us", sa.BigInteger),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "namespace", "key", name="pk_agent_items"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_agent_items_tenant_id"),
    )
    op.create_index("ix_agent_items_expires_at_us", "agent_items", ["expires_at_us"])
    op.create_table(
        "webhook_outbox",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at_us", sa.BigInteger, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_outbox"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_webhook_outbox_tenant_id"),
    )
    op.create_index("ix_webhook_outbox_due_at_us", "webhook_outbox", ["due_at_us"])
    op.create_table(
        "agent_crons",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("assistant_id", sa.String(36), nullable=False),
        sa.Column("thread_id", sa.String(36)),
        sa.Column("user_id", sa.String(64)),
        sa.Column("schedule", sa.Text, nullable=False),
        sa.Column("timezone", sa.Text),
        sa.Column("end_time_us", sa.BigInteger),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("run", sa.LargeBinary, nullable=False),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
        sa.Column("next_run_at_us", sa.BigInteger),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agent_crons"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_agent_crons_tenant_id"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "assistant_id"],
            ["assistants.tenant_id", "assistants.assistant_id"],
            name="fk_agent_crons_tenant_id_assistant_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["thread_id"], ["agent_threads.thread_id"], name="fk_agent_crons_thread_id", ondelete="CASCADE"
        ),
    )
    for columns in (["tenant_id", "created_at_us", "id"], ["tenant_id", "thread_id"], ["next_run_at_us"]):
        op.create_index(f"ix_agent_crons_{'_'.join(columns)}", "agent_crons", columns)
