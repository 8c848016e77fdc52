"""Draft a new revision: `python -m quant_resources.ledger.migrations "what changes"`.

Belongs here: comparing the tables with an embedded database at the newest revision, and writing
down the difference. What is drafted must be read and cleaned by hand: the triggers of a new
append-only table, and everything that moves data, are not found by comparing.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory

from quant_resources.ledger.ledger import Ledger
from quant_resources.ledger.migrate import alembic_config, migrate
from quant_resources.postgres import ensure_postgres, stop_postgres


def main(message: str) -> None:
    """Write the draft of a revision into `versions/`."""
    with tempfile.TemporaryDirectory() as folder:
        data_root = Path(folder)
        ledger = Ledger(ensure_postgres(data_root).ledger_url)
        try:
            scripts = ScriptDirectory.from_config(alembic_config())
            number = len(list(scripts.walk_revisions())) + 1
            if number > 1:
                migrate(ledger.url.render_as_string(hide_password=False))
            with ledger.engine.begin() as connection:
                command.revision(
                    alembic_config(connection),
                    message,
                    autogenerate=True,
                    rev_id=f"{number:04d}",
                )
        finally:
            ledger.dispose()
            stop_postgres(data_root)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
