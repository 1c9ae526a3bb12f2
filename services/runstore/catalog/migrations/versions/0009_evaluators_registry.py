"""Definitions of evaluators, registered agents, and which runs examples were made of."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "online_evaluators",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("definition", sa.LargeBinary, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_online_evaluators"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_online_evaluators_tenant_id"),
    )
    op.create_index(
        "ix_online_evaluators_tenant_id_created_at_us_id",
        "online_evaluators",
        ["tenant_id", "created_at_us", "id"],
    )
    op.create_table(
        "registered_agents",
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("id", sa.String(63), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("agent_type", sa.String(16), nullable=False),
        sa.Column("source_type", sa.String(16), nullable=False),
        sa.Column("owner_id", sa.String(64)),
        sa.Column("production_only", sa.Boolean, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_registered_agents"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_registered_agents_tenant_id"),
    )
    op.create_index(
        "ix_examples_tenant_id_source_run_id",
        "examples",
        ["tenant_id", "source_run_id"],
        sqlite_where=sa.text("source_run_id IS NOT NULL"),
        postgresql_where=sa.text("source_run_id IS NOT NULL"),
    )
