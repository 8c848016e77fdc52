"""Alembic's entry point: runs revisions on the connection that it is given.

Belongs here: what Alembic must know about the ledger. Does not belong here: revisions
(`versions/`) and the decision to migrate (`migrate.py`).
"""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import TypeDecorator

from quant_resources.ledger import Base
from quant_resources.ledger.migrate import VERSION_TABLE


def _render_item(kind: str, item: Any, autogen_context: Any) -> str | Literal[False]:  # noqa: ARG001
    # A revision states database types, so that it stays true when our Python types change.
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl_instance!r}"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    compare_type=True,
    compare_server_default=True,
    render_item=_render_item,
)
# The caller has begun the transaction.
context.run_migrations()
