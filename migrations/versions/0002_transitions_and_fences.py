"""Transitions, fences, and keys of submissions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# Where a job may go, and how it begins. The rest of the guard is the first migration's.
GUARD = """
CREATE OR REPLACE FUNCTION jobs_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF (NEW.state, NEW.attempt, NEW.failures) IS DISTINCT FROM ('queued', 0, 0) THEN
            RAISE EXCEPTION 'job % cannot begin as %', NEW.id, NEW.state
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.state IN ('succeeded', 'failed', 'cancelled') AND (
        NEW.state, NEW.attempt, NEW.failures, NEW.created_at, NEW.queued_at,
        NEW.started_at, NEW.finished_at, NEW.error, NEW.model_id
    ) IS DISTINCT FROM (
        OLD.state, OLD.attempt, OLD.failures, OLD.created_at, OLD.queued_at,
        OLD.started_at, OLD.finished_at, OLD.error, OLD.model_id
    ) THEN
        RAISE EXCEPTION 'job % has ended as % and cannot change', OLD.id, OLD.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.attempt < OLD.attempt OR NEW.attempt > OLD.attempt + 1 THEN
        RAISE EXCEPTION 'attempt of job % cannot go from % to %', OLD.id, OLD.attempt, NEW.attempt
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (NEW.attempt <> OLD.attempt) IS DISTINCT FROM (OLD.state = 'queued' AND NEW.state = 'running') THEN
        RAISE EXCEPTION 'the attempt of job % grows exactly when it is claimed', OLD.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.state <> OLD.state AND NOT (
        (OLD.state = 'queued' AND NEW.state IN ('running', 'paused', 'cancelled'))
        OR (OLD.state = 'running' AND NEW.state IN ('queued', 'paused', 'succeeded', 'failed', 'cancelled'))
        OR (OLD.state = 'paused' AND NEW.state IN ('queued', 'cancelled'))
    ) THEN
        RAISE EXCEPTION 'job % cannot go from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""

# As the first migration left it.
EARLIER_GUARD = GUARD.replace("'running', 'paused', 'cancelled')", "'running', 'cancelled')")

# What happened to a job by the word of the database alone: a checker compares it with what the program says.
NOTE_TRANSITION = """
CREATE FUNCTION note_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO transitions (job_id, from_state, to_state, attempt)
        VALUES (NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state, NEW.attempt);
    RETURN NULL;
END $$
"""

# Only the trigger above, and the deletion of a job, may touch the table: both come from within a trigger.
TRANSITIONS_GUARD = """
CREATE FUNCTION transitions_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' OR pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION 'transitions are written by the database alone'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
END $$
"""

# The job's row is locked against a claim or an end until the writer's transaction is over; who holds the attempt's fence has it
# already. One look for each statement, not for each row: metrics come two thousand at a time.
FENCE = """
CREATE FUNCTION attempt_fence() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    stale record;
BEGIN
    PERFORM FROM jobs WHERE id IN (SELECT job_id FROM written) FOR SHARE;
    SELECT w.job_id, w.attempt INTO stale
        FROM (SELECT DISTINCT job_id, attempt FROM written) AS w JOIN jobs ON jobs.id = w.job_id
        WHERE jobs.state <> 'running' OR jobs.attempt <> w.attempt LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt % of job % does not run and may not write %', stale.attempt, stale.job_id, TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$
"""

# Moves are also told of jobs that do not run; all else is what a running attempt says.
EVENTS_FENCE = """
CREATE FUNCTION events_fence() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    job record;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'event % of job % has happened and cannot change', OLD.seq, OLD.job_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    SELECT state, attempt INTO job FROM jobs WHERE id = NEW.job_id FOR SHARE;
    IF FOUND AND (
        NEW.attempt <> job.attempt
        OR (job.state <> 'running' AND NEW.attempt > 0 AND NEW.type NOT IN ('state', 'resources.released'))
    ) THEN
        RAISE EXCEPTION 'attempt % of job % does not run and may not write events', NEW.attempt, NEW.job_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""

FENCED = ("metrics", "artifacts", "models")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("idempotency_key", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("idempotency_hash", sa.Text(), nullable=True))
    op.create_index(
        "jobs_idempotency_key",
        "jobs",
        ["idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_check_constraint("jobs_idempotency", "jobs", "(idempotency_key IS NULL) = (idempotency_hash IS NULL)")
    op.execute("UPDATE jobs SET wanted = NULL WHERE state <> 'running' AND wanted IS NOT NULL")
    op.create_check_constraint("jobs_wanted_while_running", "jobs", "wanted IS NULL OR state = 'running'")
    op.create_index(
        "attempts_one_open", "attempts", ["job_id"], unique=True, postgresql_where=sa.text("ended_at IS NULL")
    )
    op.add_column("models", sa.Column("attempt", sa.Integer(), nullable=True))
    op.execute("UPDATE models SET attempt = (SELECT attempt FROM jobs WHERE jobs.id = models.job_id)")
    op.alter_column("models", "attempt", nullable=False)
    op.create_table(
        "transitions",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("transitions_job_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("transitions_pkey")),
    )
    op.add_column("workers", sa.Column("has_room", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    for function in (GUARD, NOTE_TRANSITION, TRANSITIONS_GUARD, FENCE, EVENTS_FENCE):
        op.execute(function)
    op.execute("CREATE TRIGGER jobs_begin BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION jobs_guard()")
    op.execute("CREATE TRIGGER jobs_begun AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION note_transition()")
    op.execute(
        "CREATE TRIGGER jobs_moved AFTER UPDATE ON jobs FOR EACH ROW"
        " WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION note_transition()"
    )
    op.execute(
        "CREATE TRIGGER transitions_guard BEFORE INSERT OR UPDATE OR DELETE ON transitions"
        " FOR EACH ROW EXECUTE FUNCTION transitions_guard()"
    )
    for table in FENCED:
        for verb in ("insert", "update"):
            op.execute(
                f"CREATE TRIGGER {table}_fence_{verb} AFTER {verb} ON {table} REFERENCING NEW TABLE AS written"
                " FOR EACH STATEMENT EXECUTE FUNCTION attempt_fence()"
            )
    op.execute(
        "CREATE TRIGGER events_fence BEFORE INSERT OR UPDATE ON events FOR EACH ROW EXECUTE FUNCTION events_fence()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER events_fence ON events")
    for table in FENCED:
        for verb in ("insert", "update"):
            op.execute(f"DROP TRIGGER {table}_fence_{verb} ON {table}")
    op.drop_table("transitions")
    for trigger in ("jobs_moved", "jobs_begun", "jobs_begin"):
        op.execute(f"DROP TRIGGER {trigger} ON jobs")
    for function in ("events_fence", "attempt_fence", "transitions_guard", "note_transition"):
        op.execute(f"DROP FUNCTION {function}()")
    op.execute(EARLIER_GUARD)
    op.drop_column("workers", "has_room")
    op.drop_column("models", "attempt")
    op.drop_index("attempts_one_open", table_name="attempts", postgresql_where=sa.text("ended_at IS NULL"))
    op.drop_constraint("jobs_wanted_while_running", "jobs")
    op.drop_constraint("jobs_idempotency", "jobs")
    op.drop_index("jobs_idempotency_key", table_name="jobs", postgresql_where=sa.text("idempotency_key IS NOT NULL"))
    op.drop_column("jobs", "idempotency_hash")
    op.drop_column("jobs", "idempotency_key")
