"""Tokens of shared datasets, and comparisons of experiments."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "dataset_shares",
        sa.Column("dataset_id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("token", sa.String(36), nullable=False),
        sa.Column("share_projects", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", name="pk_dataset_shares"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_dataset_shares_dataset_id"),
        sa.UniqueConstraint("token", name="uq_dataset_shares_token"),
    )
    op.create_table(
        "comparative_experiments",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("dataset_id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("experiment_ids", sa.LargeBinary, nullable=False),
        sa.Column("extra", sa.LargeBinary, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("modified_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_comparative_experiments"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_comparative_experiments_tenant_id"),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name="fk_comparative_experiments_dataset_id"
        ),
    )
    op.create_index(
        "ix_comparative_experiments_dataset_id_created_at_us_id",
        "comparative_experiments",
        ["dataset_id", "created_at_us", "id"],
    )
