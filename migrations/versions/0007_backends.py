"""Jobs that ask for a backend of Keras, and which ones a worker has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("backend", sa.Text(), server_default=sa.text("'auto'"), nullable=False))
    texts = postgresql.ARRAY(sa.Text())
    op.add_column("workers", sa.Column("backends", texts, server_default=sa.text("'{}'"), nullable=False))


def downgrade() -> None:
    op.drop_column("workers", "backends")
    op.drop_column("jobs", "backend")
