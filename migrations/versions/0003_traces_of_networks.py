"""What is known of networks without Keras."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "traces",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("keras", sa.Text(), nullable=False),
        sa.Column("trace", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", "keras", name=op.f("traces_pkey")),
    )
    op.create_index(op.f("traces_created_at_idx"), "traces", ["created_at"])


def downgrade() -> None:
    op.drop_table("traces")
