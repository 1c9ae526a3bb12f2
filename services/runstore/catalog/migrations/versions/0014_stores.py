"""The stores that share this catalog, and how far each has stored what it acknowledged."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "stores",
        sa.Column("node", sa.Integer, nullable=False),
        sa.Column("instance_id", sa.String(36), nullable=False),
        sa.Column("stored_sequence", sa.BigInteger, nullable=False),
        sa.Column("seen_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("node", name="pk_stores"),
        sa.UniqueConstraint("instance_id", name="uq_stores_instance_id"),
    )
