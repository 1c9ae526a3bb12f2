"""Limits of single tenants."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "tenant_limits",
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("key_runs_per_s", sa.Double),
        sa.Column("key_bytes_per_s", sa.Double),
        sa.Column("key_queries_per_s", sa.Double),
        sa.Column("tenant_runs_per_s", sa.Double),
        sa.Column("tenant_bytes_per_s", sa.Double),
        sa.Column("tenant_queries_per_s", sa.Double),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_tenant_limits"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_tenant_limits_tenant_id"),
    )
