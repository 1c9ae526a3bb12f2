"""Tenants that are being deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "tenant_deletions",
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("deleted_at_us", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("blobs", sa.BigInteger, nullable=False),
        sa.Column("waits_for", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_tenant_deletions"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_tenant_deletions_tenant_id"),
    )
