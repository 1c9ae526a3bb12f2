"""The catalog's tables of datasets and examples; conventions as in `tables`.

An example is a row for each of its states. A state is visible in the versions
`from_us <= version < until_us`; one that nothing has followed has `until_us = FOREVER_US`, and an example has
one of these at most.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy import UniqueConstraint as Unique

from runstore.catalog.tables import metadata

FOREVER_US: Final = 2**63 - 1

datasets = Table(
    "datasets",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("data_type", String(8), nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("inputs_schema", LargeBinary),
    Column("outputs_schema", LargeBinary),
    Column("transformations", LargeBinary),
    Column("created_at_us", BigInteger, nullable=False),
    Column("modified_at_us", BigInteger, nullable=False),
    # Counting 100,000 examples for each line of a list would take seconds.
    Column("example_count", BigInteger, nullable=False),
    Column("version_us", BigInteger),
    Unique("tenant_id", "name"),
    Index(None, "tenant_id", "created_at_us", "id", "name"),
)

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("dataset_id", String(36), ForeignKey("datasets.id"), primary_key=True),
    Column("as_of_us", BigInteger, primary_key=True),
)

dataset_tags = Table(
    "dataset_tags",
    metadata,
    Column("dataset_id", String(36), ForeignKey("datasets.id"), primary_key=True),
    Column("tag", String(512), primary_key=True),
    Column("as_of_us", BigInteger, nullable=False),
    Index(None, "dataset_id", "as_of_us"),
)

examples = Table(
    "examples",
    metadata,
    Column("tenant_id", String(36), ForeignKey("tenants.id"), primary_key=True),
    Column("id", String(36), primary_key=True),
    Column("until_us", BigInteger, primary_key=True),
    Column("from_us", BigInteger, nullable=False),
    # Place in the write that made the state, counted from its end: newest first is then one direction.
    Column("place", Integer, nullable=False),
    Column("dataset_id", String(36), ForeignKey("datasets.id"), nullable=False),
    Column("splits", Text, nullable=False),
    Column("source_run_id", String(36)),
    Column("created_at_us", BigInteger, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    Column("files", LargeBinary, nullable=False),
    Column("inputs", LargeBinary, nullable=False),
    Column("outputs", LargeBinary),
    # Most examples are made by hand.
    Index(
        "ix_examples_tenant_id_source_run_id",
        "tenant_id",
        "source_run_id",
        sqlite_where=text("source_run_id IS NOT NULL"),
        postgresql_where=text("source_run_id IS NOT NULL"),
    ),
    Index(None, "dataset_id", "until_us", "from_us", "place", "id"),
    Index(None, "dataset_id", "from_us", "place", "until_us"),
)

# Every `splits` that an example of a dataset has ever had: few, while examples are many.
split_combinations = Table(
    "split_combinations",
    metadata,
    Column("dataset_id", String(36), ForeignKey("datasets.id"), primary_key=True),
    # SHA-256 of the text, which may be too long for an index.
    Column("digest", LargeBinary(32), primary_key=True),
    Column("splits", Text, nullable=False),
)

example_blobs = Table(
    "example_blobs",
    metadata,
    Column("tenant_id", String(36), primary_key=True),
    Column("blob_key", String(256), primary_key=True),
    Column("example_id", String(36), primary_key=True),
    Column("dataset_id", String(36), ForeignKey("datasets.id"), nullable=False),
    Index(None, "tenant_id", "example_id"),
    Index(None, "dataset_id"),
)

dataset_shares = Table(
    "dataset_shares",
    metadata,
    Column("dataset_id", String(36), ForeignKey("datasets.id"), primary_key=True),
    Column("tenant_id", String(36), nullable=False),
    Column("token", String(36), nullable=False),
    Column("share_projects", Boolean, nullable=False),
    Unique("token"),
)

comparative_experiments = Table(
    "comparative_experiments",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("tenant_id", String(36), ForeignKey("tenants.id"), nullable=False),
    Column("dataset_id", String(36), ForeignKey("datasets.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    # JSON array; nobody looks a comparison up by one of its experiments.
    Column("experiment_ids", LargeBinary, nullable=False),
    Column("extra", LargeBinary, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("modified_at_us", BigInteger, nullable=False),
    Index(None, "dataset_id", "created_at_us", "id"),
)

dataset_indexes = Table(
    "dataset_indexes",
    metadata,
    Column("dataset_id", String(36), ForeignKey("datasets.id"), primary_key=True),
)
