"""The exchange as one object: a clock, a market, an account, and the requests that change them.

It is used by one thread. Every method that changes something is one transaction. Words and shapes of
the wire are in the `api_*` modules.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from quant_resources.calendar import XNYS
from quant_resources.errors import ExchangeError
from quant_resources.exchange import corrections, restatements
from quant_resources.exchange.book import Book
from quant_resources.exchange.markets.history import HistoryMarket
from quant_resources.exchange.markets.market import Market
from quant_resources.exchange.markets.stochastic import StochasticMarket
from quant_resources.exchange.matching import Costs
from quant_resources.exchange.order_desk import OrderDesk
from quant_resources.exchange.orders import Order
from quant_resources.exchange.refusals import RefusalError, unprocessable
from quant_resources.exchange.session_events import events_between
from quant_resources.exchange.spec import MarketSpec
from quant_resources.exchange.state import State
from quant_resources.exchange.visibility import MarketView, session_open

_ACCOUNTS = uuid.UUID("6f5c3f0a-8f5e-4b5c-9a55-2d5f2a4c7e10")


def market_of(spec: MarketSpec) -> Market:
    """The market a specification names."""
    if spec.kind == "history":
        assert spec.folder is not None  # noqa: S101 - the specification validates it
        return HistoryMarket(spec.folder, spec.first_session, spec.last_session)
    assert spec.first_session is not None  # noqa: S101
    assert spec.last_session is not None  # noqa: S101
    return StochasticMarket(
        spec.seed, spec.symbols, spec.first_session, spec.last_session, spec.sessions_beyond
    )


class Exchange:
    """One exchange with one account.

    Args:
        folder: The state folder, created before with `State.create`.

    Raises:
        ExchangeError: The market is not the one the state was made with.
        DataError: The market cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.state = State(folder)
        self.spec = MarketSpec.from_json(self.state.get("spec"))
        data = market_of(self.spec).load()
        digest, kept = data.digest(), self.state.get("market_digest")
        if kept and kept != digest:
            raise ExchangeError(
                f"The market of {folder} is not the one its orders were filled on"
                + (f": {self.spec.folder} has changed" if self.spec.folder else "")
                + "; restore it, or start over with another state folder."
            )
        if not kept:
            with self.state.transaction():
                self.state.put("market_digest", digest)
        self.view = MarketView(data)
        restatements.publish_kept(self.state, self.view)
        self.book = Book(
            self.state,
            self.view,
            Costs(self.spec.volume_share, self.spec.half_spread_bps, self.spec.impact_bps),
            uuid.uuid5(_ACCOUNTS, self.spec.model_dump_json()),
        )
        self._desk = OrderDesk(self.book)

    @property
    def now(self) -> datetime:
        """The virtual clock, aware UTC."""
        return self.state.clock

    # The clock

    @property
    def end(self) -> datetime:
        """The open of the first session the market has no bars for; the clock stays before it."""
        return session_open(XNYS.next(self.view.sessions[-1]))

    def advance(self, to: datetime) -> None:
        """Move the clock, playing every event on the way; all of it or nothing.

        Raises:
            RefusalError: `to` is before the clock, or beyond the market's end.
        """
        now = self.now
        if to < now:
            raise unprocessable(
                f"the clock stands at {now.isoformat()} and moves only forward, not to {to.isoformat()}"
            )
        if to >= self.end:
            raise unprocessable(
                f"the market ends with session {self.view.sessions[-1]}; the clock cannot reach the "
                f"next open, {self.end.isoformat()}"
            )
        if to == now:
            return
        with self.state.transaction():
            for event in events_between(self.view, now, to):
                self.state.put("clock", event.at.isoformat())
                event.play(self.book)
            self.state.put("clock", to.isoformat())
            self.state.record("clock", {"from": now.isoformat(), "to": to.isoformat()})

    # Orders

    def submit(self, body: object) -> Order:
        """Take an order, or refuse it; both are written to the audit log.

        Raises:
            RefusalError: The order is not taken.
        """
        try:
            with self.state.transaction():
                order = self._desk.take(body, self.now)
                self._record_submission(body, {"outcome": "accepted", "order_id": order.order_id})
                self._desk.hold_legs(body, order, self.now)
                return order
        except RefusalError as refusal:
            with self.state.transaction():
                self._record_submission(
                    body, {"outcome": "refused", "status": refusal.status, "error": refusal.body}
                )
            raise

    def _record_submission(self, body: object, outcome: dict[str, Any]) -> None:
        client_order_id = body.get("client_order_id") if isinstance(body, dict) else None
        self.state.record(
            "submit", {"client_order_id": client_order_id, "request": body, **outcome}
        )

    def replace(self, order_id: str, body: object) -> Order:
        """Put an order with other terms into the place of an open one; returns the new one.

        Raises:
            RefusalError: There is no such order, it cannot be replaced, or the new terms are not taken.
        """
        with self.state.transaction():
            return self._desk.replace(order_id, body, self.now)

    def cancel(self, order_id: str) -> None:
        """Cancel an open order, and what is open of its bracket.

        Raises:
            RefusalError: There is no such order, or it has ended.
        """
        with self.state.transaction():
            self._desk.cancel(order_id, self.now)

    def cancel_all(self) -> list[Order]:
        """Cancel every open order; returns them."""
        with self.state.transaction():
            return self._desk.cancel_all(self.now)

    def correct(self, body: object) -> dict[str, Any]:
        """Bust or correct a fill; returns the activity that tells of it.

        Raises:
            RefusalError: There is no such fill, or it cannot be so.
        """
        with self.state.transaction():
            return corrections.correct(self.book, body, self.now)

    def suspend_trading(self, *, suspended: bool) -> None:
        """Set the account's own switch that refuses new orders."""
        with self.state.transaction():
            self.state.put("suspend_trade", "true" if suspended else "false")
            self.state.record("suspend_trade", {"suspended": suspended})

    def follow(self, *, following: bool) -> None:
        """Let the clock follow the wall clock, or stop it."""
        with self.state.transaction():
            self.state.put("follow", "true" if following else "false")
            self.state.record("follow", {"following": following})
