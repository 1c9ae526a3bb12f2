"""Shares of runs and threads; tokens and configurations of feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "run_shares",
        sa.Column("token", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(36)),
        sa.Column("trace_id", sa.String(36)),
        sa.Column("project_id", sa.String(36), nullable=False),
        sa.Column("thread_id", sa.Text),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_run_shares"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_run_shares_tenant_id"),
        sa.UniqueConstraint("tenant_id", "subject", name="uq_run_shares_tenant_id_subject"),
    )
    op.create_table(
        "feedback_tokens",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("feedback_key", sa.Text, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_feedback_tokens"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_feedback_tokens_tenant_id"),
    )
    op.create_index(
        "ix_feedback_tokens_tenant_id_run_id_created_at_us",
        "feedback_tokens",
        ["tenant_id", "run_id", "created_at_us"],
    )
    op.create_table(
        "feedback_configs",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("feedback_key", sa.String(180), nullable=False),
        sa.Column("config", sa.LargeBinary, nullable=False),
        sa.Column("is_lower_score_better", sa.Boolean, nullable=False),
        sa.Column("is_enforced", sa.Boolean, nullable=False),
        sa.Column("modified_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_feedback_configs"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_feedback_configs_tenant_id"),
        sa.UniqueConstraint("tenant_id", "feedback_key", name="uq_feedback_configs_tenant_id_feedback_key"),
    )
