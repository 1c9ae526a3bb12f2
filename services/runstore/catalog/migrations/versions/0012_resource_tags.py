"""Values of tags on projects and datasets."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "resource_tags",
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("resource_id", sa.String(36), nullable=False),
        sa.Column("tag_value_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "resource_id", "tag_value_id", name="pk_resource_tags"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_resource_tags_tenant_id"),
    )
