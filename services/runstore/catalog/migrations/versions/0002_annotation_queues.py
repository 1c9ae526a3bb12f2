"""Annotation queues, what is in them, and what reviewers have done with it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "annotation_queues",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("rubric_instructions", sa.Text),
        sa.Column("rubric_items", sa.LargeBinary),
        sa.Column("metadata", sa.LargeBinary),
        sa.Column("default_dataset_id", sa.String(36)),
        sa.Column("num_reviewers_per_item", sa.Integer),
        sa.Column("enable_reservations", sa.Boolean),
        sa.Column("reservation_minutes", sa.Integer),
        sa.Column("reviewer_access_mode", sa.String(16)),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_annotation_queues"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_annotation_queues_tenant_id"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_annotation_queues_tenant_id_name"),
    )
    op.create_index(
        "ix_annotation_queues_tenant_id_created_at_us_id",
        "annotation_queues",
        ["tenant_id", "created_at_us", "id"],
    )
    op.create_table(
        "queue_items",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("queue_id", sa.String(36), nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("project_id", sa.String(36), nullable=False),
        sa.Column("run_id", sa.String(36)),
        sa.Column("thread_id", sa.Text),
        sa.Column("start_time_us", sa.BigInteger),
        sa.Column("source_proposed_example_id", sa.String(36)),
        sa.Column("added_at_us", sa.BigInteger, nullable=False),
        sa.Column("last_reviewed_at_us", sa.BigInteger),
        sa.Column("archived_at_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_queue_items"),
        sa.ForeignKeyConstraint(
            ["queue_id"], ["annotation_queues.id"], name="fk_queue_items_queue_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("queue_id", "subject", name="uq_queue_items_queue_id_subject"),
    )
    op.create_index(
        "ix_queue_items_queue_id_added_at_us_id", "queue_items", ["queue_id", "added_at_us", "id"]
    )
    op.create_index("ix_queue_items_run_id", "queue_items", ["run_id"])
    op.create_table(
        "queue_reviews",
        sa.Column("item_id", sa.String(36), nullable=False),
        sa.Column("reviewer", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16)),
        sa.Column("reviewed_at_us", sa.BigInteger, nullable=False),
        sa.Column("override_added_at_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("item_id", "reviewer", name="pk_queue_reviews"),
        sa.ForeignKeyConstraint(
            ["item_id"], ["queue_items.id"], name="fk_queue_reviews_item_id", ondelete="CASCADE"
        ),
    )
