"""Jobs that are submitted at once, one of which may inherit from another."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "pipelines",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("cancelled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("idempotency_hash", sa.Text()),
        sa.CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name=op.f("pipelines_outcome")),
        sa.CheckConstraint(
            "(idempotency_key IS NULL) = (idempotency_hash IS NULL)", name=op.f("pipelines_idempotency")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pipelines_pkey")),
    )
    op.create_index(
        "pipelines_idempotency_key",
        "pipelines",
        ["idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_index("pipelines_unfinished", "pipelines", ["id"], postgresql_where=sa.text("finished_at IS NULL"))
    op.create_table(
        "pipeline_steps",
        sa.Column("pipeline_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("needs", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("job_id", sa.Text()),
        sa.Column("problem", postgresql.JSONB(none_as_null=True)),
        sa.CheckConstraint("job_id IS NULL OR problem IS NULL", name=op.f("pipeline_steps_once")),
        sa.ForeignKeyConstraint(
            ["pipeline_id"], ["pipelines.id"], name=op.f("pipeline_steps_pipeline_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("pipeline_id", "name", name=op.f("pipeline_steps_pkey")),
        sa.UniqueConstraint("pipeline_id", "position", name=op.f("pipeline_steps_pipeline_id_position_key")),
        sa.UniqueConstraint("job_id", name=op.f("pipeline_steps_job_id_key")),
    )


def downgrade() -> None:
    op.drop_table("pipeline_steps")
    op.drop_table("pipelines")
