"""Rules of retention, what was done by them, and who does it."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "retention_rules",
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("project_id", sa.String(36), nullable=False),
        sa.Column("trace_tier", sa.String(16)),
        sa.Column("short_days", sa.Integer),
        sa.Column("long_days", sa.Integer),
        sa.Column("modified_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "project_id", name="pk_retention_rules"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_retention_rules_tenant_id"),
    )
    op.create_table(
        "retention_progress",
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("swept_at_us", sa.BigInteger, nullable=False),
        sa.Column("oldest_us", sa.BigInteger),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_retention_progress"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_retention_progress_tenant_id"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("holder", sa.String(36), nullable=False),
        sa.Column("until_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
