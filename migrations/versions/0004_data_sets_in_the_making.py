"""Data sets that take their time: what was asked of an upload, how far its reading has come, and what became of each part of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

_OLD = "datasets_sha256_format_targets_key"
_NEW = "datasets_sha256_format_targets_options_key"


def upgrade() -> None:
    op.add_column(
        "datasets",
        sa.Column("options", postgresql.JSONB(none_as_null=True), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column("datasets", sa.Column("state", sa.Text(), server_default=sa.text("'ready'"), nullable=False))
    op.add_column("datasets", sa.Column("progress", sa.ARRAY(sa.BigInteger()), nullable=True))
    op.add_column("datasets", sa.Column("errors", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("datasets", sa.Column("intake", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("datasets", sa.Column("raw_sha256", sa.Text(), nullable=True))
    op.alter_column("datasets", "prepared_sha256", nullable=True)
    op.alter_column("datasets", "schema", nullable=True)
    op.drop_constraint(op.f(_OLD), "datasets")
    op.create_unique_constraint(op.f(_NEW), "datasets", ["sha256", "format", "targets", "options"])
    op.create_check_constraint(op.f("datasets_state"), "datasets", "state IN ('preparing', 'ready', 'failed')")
    op.create_check_constraint(
        op.f("datasets_ready"),
        "datasets",
        "state <> 'ready' OR (prepared_sha256 IS NOT NULL AND schema IS NOT NULL)",
    )


def downgrade() -> None:
    op.execute("DELETE FROM datasets WHERE state <> 'ready' OR options <> '{}'")
    op.drop_constraint(op.f("datasets_ready"), "datasets")
    op.drop_constraint(op.f("datasets_state"), "datasets")
    op.drop_constraint(op.f(_NEW), "datasets")
    op.create_unique_constraint(op.f(_OLD), "datasets", ["sha256", "format", "targets"])
    op.alter_column("datasets", "schema", nullable=False)
    op.alter_column("datasets", "prepared_sha256", nullable=False)
    for name in ("raw_sha256", "intake", "errors", "progress", "state", "options"):
        op.drop_column("datasets", name)
