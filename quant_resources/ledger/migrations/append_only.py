"""Triggers that make a table history: rows can be added, and nothing else.

Belongs here: what a revision calls for each table that its declaration marks `APPEND_ONLY`.
Does not belong here: which tables those are (their modules say so, and a test compares).

The triggers fire per statement, so that even a change that would touch no row is refused, and also
in a session that replicates. Only who may drop a trigger can get around them.
"""

from __future__ import annotations

from alembic import op

_FUNCTION = """
CREATE FUNCTION refuse_change_of_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'Table % is append-only history: % is refused; add a correcting row instead.',
        TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END
$$
"""


def create_refusal() -> None:
    """Create the function that the triggers call; once, in the first revision."""
    op.execute(_FUNCTION)


def protect(*tables: str) -> None:
    """Let tables refuse UPDATE, DELETE and TRUNCATE.

    Args:
        tables: Names of existing tables.
    """
    for table in tables:
        op.execute(
            f'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON "{table}" '
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history()"
        )
        op.execute(f'ALTER TABLE "{table}" ENABLE ALWAYS TRIGGER append_only')
