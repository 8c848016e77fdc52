"""What a database's own catalog says of its tables."""

from __future__ import annotations

from sqlalchemy import text

from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.migrate import VERSION_TABLE

CATALOG = """
    SELECT 'column', table_name || '.' || column_name,
           concat_ws(' ', data_type, character_maximum_length, numeric_precision, numeric_scale,
                     is_nullable, column_default, is_identity, identity_generation)
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> :version_table
    UNION ALL
    SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
    FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid <> to_regclass(:version_table)
      AND contype <> 't'  -- triggers are no part of the declared tables; they have tests of their own
    UNION ALL
    SELECT 'index', tablename || '.' || indexname, indexdef
    FROM pg_indexes WHERE schemaname = 'public' AND tablename <> :version_table
"""


def catalog(ledger: Ledger) -> dict[tuple[str, str], str]:
    """Columns, constraints and indexes of a ledger, by kind and name."""
    with ledger.begin() as transaction:
        rows = transaction.execute(text(CATALOG), {"version_table": VERSION_TABLE})
        return {(kind, name): definition for kind, name, definition in rows}
