"""Organisations, their keys, and roles. Keys that were made before may do what they could: everything."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "organizations",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organizations"),
        sa.UniqueConstraint("name", name="uq_organizations_name"),
    )
    # As SQL: Alembic would copy the table in SQLite, and other tables refer to its rows.
    op.execute(
        "ALTER TABLE tenants ADD COLUMN organization_id VARCHAR(36)"
        " CONSTRAINT fk_tenants_organization_id REFERENCES organizations (id)"
    )
    with op.batch_alter_table("api_keys") as keys:
        keys.alter_column("tenant_id", existing_type=sa.String(36), nullable=True)
        keys.add_column(sa.Column("organization_id", sa.String(36)))
        # The default is for a store of the version before, which may still make keys while this one starts.
        keys.add_column(sa.Column("role", sa.String(16), nullable=False, server_default="admin"))
        keys.create_foreign_key("fk_api_keys_organization_id", "organizations", ["organization_id"], ["id"])
