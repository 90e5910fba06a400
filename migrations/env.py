"""Alembic's entry: runs on the connection that `app.db.migrate` hands over, or on DATABASE_URL for the command line."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from app.db import engine
from app.tables import Row


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Row.metadata, compare_server_default=False)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with engine().connect() as own:
        run(own)
