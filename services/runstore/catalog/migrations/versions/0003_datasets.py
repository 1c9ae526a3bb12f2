"""Datasets with their versions, and examples with all of their states."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("data_type", sa.String(8), nullable=False),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
        sa.Column("inputs_schema", sa.LargeBinary),
        sa.Column("outputs_schema", sa.LargeBinary),
        sa.Column("transformations", sa.LargeBinary),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("modified_at_us", sa.BigInteger, nullable=False),
        sa.Column("example_count", sa.BigInteger, nullable=False),
        sa.Column("version_us", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_datasets_tenant_id"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_datasets_tenant_id_name"),
    )
    op.create_index(
        "ix_datasets_tenant_id_created_at_us_id", "datasets", ["tenant_id", "created_at_us", "id"]
    )
    _create_versions()
    _create_examples()


def _create_versions() -> None:
    op.create_table(
        "dataset_versions",
        sa.Column("dataset_id", sa.String(36), nullable=False),
        sa.Column("as_of_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", "as_of_us", name="pk_dataset_versions"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_dataset_versions_dataset_id"),
    )
    op.create_table(
        "dataset_tags",
        sa.Column("dataset_id", sa.String(36), nullable=False),
        sa.Column("tag", sa.String(512), nullable=False),
        sa.Column("as_of_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", "tag", name="pk_dataset_tags"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_dataset_tags_dataset_id"),
    )
    op.create_index("ix_dataset_tags_dataset_id_as_of_us", "dataset_tags", ["dataset_id", "as_of_us"])


def _create_examples() -> None:
    op.create_table(
        "examples",
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("until_us", sa.BigInteger, nullable=False),
        sa.Column("from_us", sa.BigInteger, nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("dataset_id", sa.String(36), nullable=False),
        sa.Column("splits", sa.Text, nullable=False),
        sa.Column("source_run_id", sa.String(36)),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("metadata", sa.LargeBinary, nullable=False),
        sa.Column("files", sa.LargeBinary, nullable=False),
        sa.Column("inputs", sa.LargeBinary, nullable=False),
        sa.Column("outputs", sa.LargeBinary),
        sa.PrimaryKeyConstraint("tenant_id", "id", "until_us", name="pk_examples"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_examples_tenant_id"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_examples_dataset_id"),
    )
    op.create_index(
        "ix_examples_dataset_id_until_us_from_us_place",
        "examples",
        ["dataset_id", "until_us", "from_us", "place"],
    )
    op.create_index(
        "ix_examples_dataset_id_from_us_place_until_us",
        "examples",
        ["dataset_id", "from_us", "place", "until_us"],
    )
    op.create_table(
        "example_blobs",
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("blob_key", sa.String(256), nullable=False),
        sa.Column("example_id", sa.String(36), nullable=False),
        sa.Column("dataset_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "blob_key", "example_id", name="pk_example_blobs"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_example_blobs_dataset_id"),
    )
    op.create_index("ix_example_blobs_tenant_id_example_id", "example_blobs", ["tenant_id", "example_id"])
    op.create_index("ix_example_blobs_dataset_id", "example_blobs", ["dataset_id"])
