"""Models that were sent as a file: they have no job, and no attempt made them."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.alter_column("models", "job_id", nullable=True)
    op.alter_column("models", "attempt", nullable=True)
    op.create_check_constraint(op.f("models_of_a_job"), "models", "(job_id IS NULL) = (attempt IS NULL)")


def downgrade() -> None:
    op.execute("DELETE FROM models WHERE job_id IS NULL")
    op.drop_constraint(op.f("models_of_a_job"), "models")
    op.alter_column("models", "attempt", nullable=False)
    op.alter_column("models", "job_id", nullable=False)
