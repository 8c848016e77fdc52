"""What the data root remembers of its market: where it begins and ends, when trading began, its convention.

The partitions are built from it, so that a graph is complete for its market and does not drift with the
wall clock, and its dividends adjust prices in one way. Kept in `<data root>/market.json`. Pure but for that one small file.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from quant_resources.calendar import XNYS
from quant_resources.errors import ConfigurationError
from quant_resources.settings import DividendConvention, Settings
from quant_resources.store import write_text_atomically

#: Sessions before the first month that can have a model: 60 of feature warm-up, then about nine months
#: of labelled rows to learn from and three to judge by.
SESSIONS_BEFORE_FIRST_MODEL = 252
DEFAULT_FIRST_SESSION = date(2023, 1, 3)
DEFAULT_SESSIONS = 515
DEFAULT_TRADING_SESSIONS = 10
_FILE = "market.json"


class MarketSpan(BaseModel):
    """First and last sessions of a data root's market.

    Attributes:
        first_session: First session with bars.
        last_session: Last session with bars; None: the market goes on with the wall clock.
        first_trading_session: First session on which the book trades.
        dividend_convention: Factor of a dividend in the stored bars; data roots that remember none
            were made with CRSP's.
    """

    model_config = ConfigDict(frozen=True)

    first_session: date
    last_session: date | None
    first_trading_session: date
    dividend_convention: DividendConvention = "crsp"

    @model_validator(mode="after")
    def _in_order(self) -> MarketSpan:
        last = self.last_session
        for session in (self.first_session, self.first_trading_session, last):
            if session is not None and not XNYS.is_session(session):
                raise ValueError(f"{session} is no XNYS session")
        if last is not None and not self.first_session < self.first_trading_session <= last:
            raise ValueError("sessions are not in order: first < first trading <= last")
        return self

    @property
    def first_model_month(self) -> date:
        """First day of the first calendar month that has enough sessions before it for a model."""
        enough = XNYS.offset(self.first_session, SESSIONS_BEFORE_FIRST_MODEL)
        return date(enough.year + enough.month // 12, enough.month % 12 + 1, 1)

    def sessions(self) -> list[date]:
        """All sessions of a bounded market, ascending.

        Raises:
            ConfigurationError: The market has no end.
        """
        if self.last_session is None:
            raise ConfigurationError("This market has no last session; name the one that is meant.")
        return XNYS.sessions(self.first_session, self.last_session)

    @classmethod
    def counted(cls, first_session: date, sessions: int, trading_sessions: int) -> MarketSpan:
        """A market of so many sessions, the last of which are traded."""
        last = XNYS.offset(first_session, sessions - 1)
        return cls(
            first_session=first_session,
            last_session=last,
            first_trading_session=XNYS.offset(last, 1 - trading_sessions),
        )


def default_span() -> MarketSpan:
    """The market of a fresh checkout: about two years of the stochastic exchange."""
    return MarketSpan.counted(DEFAULT_FIRST_SESSION, DEFAULT_SESSIONS, DEFAULT_TRADING_SESSIONS)


def remembered_span(data_root: Path) -> MarketSpan | None:
    """The span that the data root remembers, or None when it remembers none.

    Raises:
        ConfigurationError: The file is damaged.
    """
    file = data_root / _FILE
    if not file.exists():
        return None
    try:
        return MarketSpan.model_validate(json.loads(file.read_text()))
    except (ValidationError, ValueError) as error:
        raise ConfigurationError(
            f"{file} is damaged ({error}); restore it or start over with `quant demo --fresh`."
        ) from error


def market_span(settings: Settings) -> MarketSpan:
    """The span in force: what the data root remembers, else the market of a fresh checkout.

    Raises:
        ConfigurationError: The file is damaged, or its bars were adjusted in another convention than
            the settings ask for.
    """
    asked = settings.dividend_convention
    remembered = remembered_span(settings.data_root)
    if remembered is None:
        return default_span().model_copy(update={"dividend_convention": asked})
    if remembered.dividend_convention != asked:
        raise ConfigurationError(
            f"The bars in {settings.data_root} are adjusted in the convention "
            f"{remembered.dividend_convention}, but QUANT_DIVIDEND_CONVENTION is {asked}; unset it or "
            "choose another QUANT_DATA_ROOT, since one history cannot mix both."
        )
    return remembered


def remember_span(data_root: Path, span: MarketSpan) -> None:
    """Write the span into the data root, atomically."""
    write_text_atomically(data_root / _FILE, span.model_dump_json(indent=2) + "\n")
