"""What every ledger table is made of: the declarative base, the exact number and UTC time types.

Belongs here: column types and table conventions that registry and order tables share.
Does not belong here: tables (`registry_tables.py`, `order_tables.py`), connections (`ledger.py`).

The rules that the types enforce, so that no caller has to remember them:

1. Money and quantities are `Decimal`, never float, never NaN or infinity, at nine decimals.
2. Times carry a time zone when they go in and are UTC when they come out.
3. A table marked `APPEND_ONLY` is history: the migration gives it triggers that refuse
   UPDATE, DELETE and TRUNCATE, whoever connects.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

from sqlalchemy import (
    BigInteger,
    DateTime,
    Identity,
    MetaData,
    Numeric,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

PRECISION: Final = 28
SCALE: Final = 9
#: One unit of the last decimal place that the ledger keeps.
QUANTUM: Final = Decimal(1).scaleb(-SCALE)
_CONTEXT: Final = Context(prec=PRECISION)

#: Put into a table's `info` (`__table_args__ = {"info": APPEND_ONLY}`) to make it history.
APPEND_ONLY: Final[dict[str, Any]] = {"append_only": True}


def quantize(value: Decimal | int) -> Decimal:
    """Round to the nine decimals the ledger keeps, half to even.

    Args:
        value: A finite amount, price or quantity.

    Returns:
        The value exactly as it will be read back.

    Raises:
        decimal.InvalidOperation: When the value needs more than 28 digits.
    """
    return Decimal(value).quantize(QUANTUM, rounding=ROUND_HALF_EVEN, context=_CONTEXT)


class ExactNumeric(TypeDecorator[Decimal]):
    """NUMERIC(28, 9) that refuses floats and what is not a number, on the way in."""

    impl = Numeric(PRECISION, SCALE, asdecimal=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        """Check and round what is about to be stored."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, Decimal | int):
            raise TypeError(
                f"The ledger takes Decimal, not {type(value).__name__} ({value!r}): "
                "convert with Decimal(str(value)) where the number enters the program."
            )
        if isinstance(value, Decimal) and not value.is_finite():
            raise ValueError(f"The ledger takes finite numbers, not {value}.")
        return quantize(value)


class UtcDateTime(TypeDecorator[datetime]):
    """TIMESTAMPTZ that refuses naive times on the way in and gives UTC on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Check what is about to be stored."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"The ledger takes times with a time zone, not the naive {value}.")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Turn the server's session time zone into UTC."""
        return None if value is None else value.astimezone(UTC)


# Column types, used as `price: Mapped[Price]` or, nullable, `price: Mapped[Price | None]`.
Money = Annotated[Decimal, mapped_column(ExactNumeric)]
Price = Annotated[Decimal, mapped_column(ExactNumeric)]
Quantity = Annotated[Decimal, mapped_column(ExactNumeric)]
Fraction = Annotated[Decimal, mapped_column(ExactNumeric)]
Utc = Annotated[datetime, mapped_column(UtcDateTime)]
ShortText = Annotated[str, mapped_column(String(128))]
LongText = Annotated[str, mapped_column(Text)]
JsonObject = Annotated[dict[str, Any], mapped_column(JSONB)]
#: Primary key given by the server, in the order of insertion.
SequenceId = Annotated[int, mapped_column(BigInteger, Identity(always=True), primary_key=True)]


class Base(DeclarativeBase):
    """Base of all ledger tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def append_only_tables() -> tuple[str, ...]:
    """Return the names of the tables that are history, in alphabetical order."""
    return tuple(
        sorted(
            table.name for table in Base.metadata.tables.values() if table.info.get("append_only")
        )
    )
