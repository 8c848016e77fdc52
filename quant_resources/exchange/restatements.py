"""Restatements: a vendor changes what it has published, for rehearsing what follows from it.

1. A change names one bar (symbol and session) or one corporate action (id). It gives other values,
   withdraws it, or adds one that was missing (a late bar, a late action).
2. Only the past can be changed: a session that has closed, an ex-date that has come, by the exchange's
   clock. What lies ahead belongs to the market.
3. Values may be absurd (zero, negative, a thousand times too large, absent), since that is what a
   vendor's error looks like; they must be numbers.
4. The change is kept in the state, in one transaction with the audit log, and then published; a server
   that starts again publishes all changes again, in their order.
5. Only the data API answers with it: bars, latest bars, snapshots, corporate actions; latest quotes and
   trades too while they show the restated close. Orders, fills, positions, dividends and the account keep
   the prices and terms at which the exchange has traded.

Requests are read here and carried out on a `MarketView`; the HTTP side is in `api_control.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from quant_resources.calendar import XNYS, start_of_day
from quant_resources.exchange.markets.market import CorporateAction
from quant_resources.exchange.refusals import misread, not_found, unprocessable
from quant_resources.exchange.state import State
from quant_resources.exchange.visibility import MarketView, new_york_day, session_close

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_BAR_FIELDS = {
    "open": "o",
    "high": "h",
    "low": "l",
    "close": "c",
    "volume": "v",
    "trade_count": "n",
    "vwap": "vw",
}
#: What the terms of an action cannot do without, by type.
_TERMS: dict[str, tuple[str, ...]] = {
    "forward_split": ("ratio",),
    "reverse_split": ("ratio",),
    "cash_dividend": ("cash",),
    "stock_dividend": ("ratio",),
    "spin_off": ("ratio", "new_symbol"),
    "cash_merger": ("cash",),
    "name_change": ("new_symbol",),
}


@dataclass(frozen=True)
class Prepared:
    """A change that may be made.

    Attributes:
        document: What is published before (`was`) and after (`is`).
        publish: Makes the change; it cannot fail.
    """

    document: dict[str, Any]
    publish: Callable[[], None]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BarValues(_Request):
    """Values of a bar; what is not named stays, null is sent as null. USD and shares."""

    open: _Number | None = None
    high: _Number | None = None
    low: _Number | None = None
    close: _Number | None = None
    volume: _Number | None = None
    vwap: _Number | None = None
    trade_count: Annotated[int, Field(strict=True)] | None = None

    def written(self, row: Mapping[str, Any]) -> bytes:
        """A row of Alpaca's JSON with these values in it."""
        sent = {_BAR_FIELDS[name]: getattr(self, name) for name in self.model_fields_set}
        return json.dumps({**row, **sent}, separators=(",", ":")).encode()


class BarRestatement(_Request):
    """Other values for the bar of a session, a bar that was missing, or none any more."""

    symbol: str
    session: date
    values: BarValues | None = None
    add: BarValues | None = None
    withdraw: Literal[True] | None = None

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        _exactly_one(self, ("values", "add", "withdraw"))
        if self.values is not None and not self.values.model_fields_set:
            raise ValueError("values names no field")
        if self.add is not None:
            _has_all(self.add, ("open", "high", "low", "close", "volume"))
        return self

    def prepare(self, view: MarketView, now: datetime) -> Prepared:
        """What publishing it would change.

        Raises:
            RefusalError: The session has not closed, or there is no such bar (for `add`: there is).
        """
        symbol, session = self.symbol, self.session
        self._check_place(view, now)
        before = [json.loads(row) for row in view.published.of(symbol, session)]
        if self.add is None and not before:
            raise not_found(
                f"{symbol} has no bar of session {session}; send add to publish one late"
            )
        if self.add is not None and before:
            raise unprocessable(
                f"{symbol} has a bar of session {session} already; send values to restate it"
            )
        if self.add is not None:
            stamp = f"{start_of_day(session):%Y-%m-%dT%H:%M:%SZ}"
            empty = dict.fromkeys(_BAR_FIELDS.values())
            rows = [self.add.written({"t": stamp, **empty})]
        else:
            rows = [] if self.values is None else [self.values.written(row) for row in before]
        after = [json.loads(row) for row in rows]
        close = after[0]["c"] if after else None

        def publish() -> None:
            view.published.replace(symbol, session, rows)
            view.restated_closes.pop((symbol, session), None)
            if close is not None and self.add is None:
                view.restated_closes[symbol, session] = Decimal(repr(float(close)))

        return Prepared({"was": before, "is": after}, publish)

    def _check_place(self, view: MarketView, now: datetime) -> None:
        session = self.session
        if view.listing(self.symbol, now) is None:
            raise not_found(f"the exchange knows no symbol {self.symbol} by {new_york_day(now)}")
        if not XNYS.is_session(session) or not view.sessions[0] <= session <= view.sessions[-1]:
            raise unprocessable(
                f"{session} is no session of this market ({view.sessions[0]} to {view.sessions[-1]})"
            )
        if session_close(session) > now:
            raise unprocessable(
                f"session {session} has not closed by the exchange's clock, {now.isoformat()}"
            )


class ActionTerms(_Request):
    """Terms of a corporate action: ratio in new shares for one old (2, 1.5 or "3/2"), cash in USD."""

    ratio: Fraction | None = None
    cash: Annotated[Decimal, Field(allow_inf_nan=False)] | None = None
    new_symbol: str | None = None
    special: bool | None = None
    ex_date: date | None = None

    @field_validator("ratio", mode="before")
    @classmethod
    def _exact(cls, value: object) -> object:
        if isinstance(value, str | int | float):
            try:
                return Fraction(str(value))
            except (ValueError, ZeroDivisionError):
                raise ValueError(f"{value!r} is no ratio") from None
        return value

    @model_validator(mode="after")
    def _no_null(self) -> Self:
        _has_all(self, tuple(sorted(self.model_fields_set)))
        return self

    def given(self) -> dict[str, Any]:
        """The terms that were named."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class NewAction(ActionTerms):
    """A corporate action that was missing."""

    action_type: str
    symbol: str

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.action_type not in _TERMS:
            raise ValueError(f"action_type is one of {', '.join(_TERMS)}")
        _has_all(self, ("ex_date", *_TERMS[self.action_type]))
        return self


class ActionRestatement(_Request):
    """Other terms for a published corporate action, a late one, or none any more."""

    action_id: str = ""
    values: ActionTerms | None = None
    action: NewAction | None = None
    withdraw: Literal[True] | None = None

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        _exactly_one(self, ("values", "action", "withdraw"))
        if (self.action is None) != bool(self.action_id):
            raise ValueError("values and withdraw need action_id, a new action has none")
        return self

    def prepare(self, view: MarketView, now: datetime) -> Prepared:
        """What publishing it would change.

        Raises:
            RefusalError: The ex-date has not come, the action is unknown, or is published already.
        """
        seen = {
            action.action_id: action
            for action in view.visible_actions(now, date.min, date.max, None)
        }
        before = seen.get(self.action_id)
        if self.action_id and before is None:
            raise not_found(f"no corporate action {self.action_id} has been published")
        after = self._changed(before)
        if after is not None and after.ex_date > new_york_day(now):
            raise unprocessable(
                f"ex_date {after.ex_date} lies ahead of the exchange's clock, {now.isoformat()}"
            )
        if before is None and after is not None:
            if view.listing(after.symbol, now) is None:
                raise not_found(
                    f"the exchange knows no symbol {after.symbol} by {new_york_day(now)}"
                )
            if after.action_id in seen:
                raise unprocessable(f"this action is published already, as {after.action_id}")
        kept = [action for action in view.published_actions if action is not before]
        published = [*kept, after] if after is not None else kept
        changed = after or before
        assert changed is not None  # noqa: S101 - one of both is there

        def publish() -> None:
            view.published_actions = tuple(sorted(published, key=lambda action: action.ex_date))

        document = {"id": changed.action_id, "was": _terms(before), "is": _terms(after)}
        return Prepared(document, publish)

    def _changed(self, before: CorporateAction | None) -> CorporateAction | None:
        if self.action is not None:
            # Holders do not get it: its day is over, and the exchange has traded without it.
            return CorporateAction(
                **{"special": False, **self.action.given(), "applies": False}  # pyright: ignore[reportArgumentType]
            )
        if self.values is None or before is None:
            return None
        return replace(before, **self.values.given(), published_id=before.action_id)


Restatement = BarRestatement | ActionRestatement


def read_restatement(body: object) -> Restatement:
    """A restatement from a request's JSON.

    Raises:
        RefusalError: It is none; the message says which field is wrong.
    """
    kind = ActionRestatement
    if isinstance(body, dict) and "symbol" in body:
        kind = BarRestatement
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise misread(error, "restatement") from None


def restate(state: State, view: MarketView, body: object) -> dict[str, Any]:
    """Keep and publish a change; returns it as it was kept.

    Raises:
        RefusalError: It cannot be made; nothing was changed.
    """
    change = read_restatement(body)
    prepared = change.prepare(view, state.clock)
    request = change.model_dump(mode="json", exclude_unset=True)
    with state.transaction():
        state.insert_restatement({"request": request, **prepared.document})
        state.record("restatement", {"request": request, **prepared.document})
    prepared.publish()
    return state.restatements()[-1]


def publish_kept(state: State, view: MarketView) -> None:
    """Publish everything that the state keeps, on a fresh view of its market."""
    for kept in state.restatements():
        moment = datetime.fromisoformat(kept["at"])
        read_restatement(kept["request"]).prepare(view, moment).publish()


def _exactly_one(request: BaseModel, names: tuple[str, ...]) -> None:
    if sum(getattr(request, name) is not None for name in names) != 1:
        raise ValueError(f"give exactly one of {', '.join(names)}")


def _has_all(terms: BaseModel, names: tuple[str, ...]) -> None:
    missing = [name for name in names if getattr(terms, name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing")


def _terms(action: CorporateAction | None) -> dict[str, Any] | None:
    if action is None:
        return None
    ratio, cash = action.ratio, action.cash
    return {
        "action_type": action.action_type,
        "symbol": action.symbol,
        "ex_date": action.ex_date.isoformat(),
        "ratio": None if ratio is None else str(ratio),
        "cash": None if cash is None else str(cash),
        "new_symbol": action.new_symbol,
        "special": action.special,
    }
