"""Targets say when their reference price was made; of older ones it is not known.

There is no way back: a ledger loses no history by a downgrade, it is restored from a backup.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the revision."""
    op.add_column(
        "target_positions", sa.Column("priced_at", sa.DateTime(timezone=True), nullable=True)
    )
