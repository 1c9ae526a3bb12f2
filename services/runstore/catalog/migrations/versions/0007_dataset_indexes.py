"""Which datasets are indexed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "dataset_indexes",
        sa.Column("dataset_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", name="pk_dataset_indexes"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_dataset_indexes_dataset_id"),
    )
