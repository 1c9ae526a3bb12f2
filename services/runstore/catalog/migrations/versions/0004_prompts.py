"""Handles of tenants; prompts with their commits, tags and likes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "tenant_handles",
        sa.Column("handle", sa.String(128), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("handle", name="pk_tenant_handles"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_tenant_handles_tenant_id"),
        sa.UniqueConstraint("tenant_id", name="uq_tenant_handles_tenant_id"),
    )
    _create_prompts()
    _create_commits()
    op.create_table(
        "prompt_tags",
        sa.Column("prompt_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("commit_id", sa.String(36), nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("prompt_id", "name", name="pk_prompt_tags"),
        sa.ForeignKeyConstraint(
            ["prompt_id"], ["prompts.id"], name="fk_prompt_tags_prompt_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["commit_id"], ["prompt_commits.id"], name="fk_prompt_tags_commit_id", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "prompt_likes",
        sa.Column("prompt_id", sa.String(36), nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("prompt_id", "user", name="pk_prompt_likes"),
        sa.ForeignKeyConstraint(
            ["prompt_id"], ["prompts.id"], name="fk_prompt_likes_prompt_id", ondelete="CASCADE"
        ),
    )


def _create_prompts() -> None:
    op.create_table(
        "prompts",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("tenant_id", sa.String(36), nullable=False),
        sa.Column("handle", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("readme", sa.Text, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("is_public", sa.Boolean, nullable=False),
        sa.Column("is_archived", sa.Boolean, nullable=False),
        sa.Column("num_likes", sa.BigInteger, nullable=False),
        sa.Column("num_downloads", sa.BigInteger, nullable=False),
        sa.Column("num_views", sa.BigInteger, nullable=False),
        sa.Column("num_commits", sa.BigInteger, nullable=False),
        sa.Column("last_commit_id", sa.String(36)),
        sa.Column("last_commit_hash", sa.String(64)),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_prompts"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_prompts_tenant_id"),
        sa.UniqueConstraint("tenant_id", "handle", name="uq_prompts_tenant_id_handle"),
    )
    for columns in (
        ["tenant_id", "kind", "updated_at_us", "id"],
        ["tenant_id", "kind", "is_archived", "is_public"],
        ["kind", "is_public", "is_archived", "updated_at_us", "id"],
    ):
        op.create_index("ix_prompts_" + "_".join(columns), "prompts", columns)


def _create_commits() -> None:
    op.create_table(
        "prompt_commits",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("prompt_id", sa.String(36), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("parent_id", sa.String(36)),
        sa.Column("parent_hash", sa.String(64)),
        sa.Column("manifest", sa.LargeBinary, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("num_downloads", sa.BigInteger, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_prompt_commits"),
        sa.ForeignKeyConstraint(
            ["prompt_id"], ["prompts.id"], name="fk_prompt_commits_prompt_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("prompt_id", "number", name="uq_prompt_commits_prompt_id_number"),
        sa.UniqueConstraint("prompt_id", "hash", name="uq_prompt_commits_prompt_id_hash"),
    )
