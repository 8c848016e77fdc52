"""A client of the exchange's own API: status, clock, audit log, faults, restatements, busts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import requests

from quant_resources.errors import ExchangeError

_ANSWER_SECONDS = 10.0
_ADVANCE_SECONDS = 300.0


class ExchangeControl:
    """Moves the clock of a local exchange and reads its truth.

    Args:
        url: The exchange's address, such as "http://127.0.0.1:8123".
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        # Loopback is never reached through a proxy, whatever the environment says.
        self._session.trust_env = False

    def status(self, timeout: float = _ANSWER_SECONDS) -> dict[str, Any]:
        """Where the exchange stands: clock, market, account."""
        return self._ask("GET", "/exchange/status", timeout)

    def clock(self) -> datetime:
        """The virtual clock, aware UTC."""
        return datetime.fromisoformat(self.status()["clock"])

    def advance(self, to: datetime) -> dict[str, Any]:
        """Move the clock to an aware moment; returns the status there.

        Raises:
            ExchangeError: The moment is in the exchange's past, or beyond its market.
        """
        if to.tzinfo is None:
            raise ExchangeError(f"The clock needs a moment with a time zone, not {to}.")
        return self._ask("POST", "/exchange/clock", _ADVANCE_SECONDS, {"to": to.isoformat()})

    def follow(self, *, following: bool = True) -> dict[str, Any]:
        """Let the clock follow the wall clock, or stop it."""
        return self._ask("POST", "/exchange/clock", _ANSWER_SECONDS, {"follow": following})

    def audit(self, after: int = 0) -> list[dict[str, Any]]:
        """What happened after an audit sequence number, oldest first."""
        return self._ask("GET", f"/exchange/audit?after={after}", _ANSWER_SECONDS)["audit"]

    def inject(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Put a fault plan in force (`faults.FaultPlan`); returns it with its counts.

        Raises:
            ExchangeError: It is no plan; the message names what is wrong.
        """
        return self._ask("POST", "/exchange/faults", _ANSWER_SECONDS, dict(plan))

    def faults(self) -> dict[str, Any]:
        """The fault plan in force, each rule with the requests it has seen and broken."""
        return self._ask("GET", "/exchange/faults", _ANSWER_SECONDS)

    def clear_faults(self) -> None:
        """Let everything go right again."""
        self._ask("DELETE", "/exchange/faults", _ANSWER_SECONDS)

    def restate(self, symbol: str, session: date, **values: float | None) -> dict[str, Any]:
        """Publish other values for a bar: open, high, low, close, volume, vwap, trade_count.

        Raises:
            ExchangeError: There is no such bar, or its session has not closed.
        """
        return self._change_bar(symbol, session, "values", values)

    def withdraw(self, symbol: str, session: date) -> dict[str, Any]:
        """Withdraw a bar.

        Raises:
            ExchangeError: There is no such bar, or its session has not closed.
        """
        return self._change_bar(symbol, session, "withdraw", True)

    def add_bar(self, symbol: str, session: date, **values: float | None) -> dict[str, Any]:
        """Publish a bar that was missing: open, high, low, close, volume; vwap and trade_count too.

        Raises:
            ExchangeError: There is one already, or the session has not closed.
        """
        return self._change_bar(symbol, session, "add", values)

    def add_action(self, **terms: Any) -> dict[str, Any]:
        """Publish a corporate action late: action_type, symbol, ex_date and its terms.

        Raises:
            ExchangeError: A term is missing, or the ex-date lies ahead.
        """
        return self._restate({"action": {name: _plain(value) for name, value in terms.items()}})

    def restate_action(self, action_id: str, **terms: Any) -> dict[str, Any]:
        """Publish other terms for a corporate action.

        Raises:
            ExchangeError: It has not been published.
        """
        values = {name: _plain(value) for name, value in terms.items()}
        return self._restate({"action_id": action_id, "values": values})

    def withdraw_action(self, action_id: str) -> dict[str, Any]:
        """Withdraw a corporate action.

        Raises:
            ExchangeError: It has not been published.
        """
        return self._restate({"action_id": action_id, "withdraw": True})

    def restatements(self) -> list[dict[str, Any]]:
        """Every change of published data, oldest first, with what was and what is."""
        return self._ask("GET", "/exchange/restatements", _ANSWER_SECONDS)["restatements"]

    def bust(self, execution_id: str) -> dict[str, Any]:
        """Take a fill back, as if it had never been; returns its FILL activity.

        Raises:
            ExchangeError: There is no such fill, or it is busted already.
        """
        return self._correct({"execution_id": execution_id, "kind": "bust"})

    def correct(
        self, execution_id: str, *, quantity: Decimal | None = None, price: Decimal | None = None
    ) -> dict[str, Any]:
        """Say that a fill was of other shares, or at another price (USD); returns its FILL activity.

        Raises:
            ExchangeError: There is no such fill, it is busted, or it cannot be so.
        """
        values = {"quantity": quantity, "price": price}
        named = {name: str(value) for name, value in values.items() if value is not None}
        return self._correct({"execution_id": execution_id, "kind": "correct", **named})

    def _correct(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", "/exchange/corrections", _ANSWER_SECONDS, body)

    def _change_bar(self, symbol: str, session: date, how: str, change: object) -> dict[str, Any]:
        return self._restate({"symbol": symbol, "session": session.isoformat(), how: change})

    def _restate(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", "/exchange/restatements", _ANSWER_SECONDS, body)

    def _ask(
        self, method: str, path: str, timeout: float, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            answer = self._session.request(method, self.url + path, json=body, timeout=timeout)
            content = answer.json()
        except requests.exceptions.InvalidJSONError as error:
            raise ExchangeError(f"This cannot be sent to the exchange: {error}.") from error
        except (requests.RequestException, ValueError) as error:
            raise ExchangeError(
                f"The local exchange at {self.url} does not answer: {error}."
            ) from error
        if not answer.ok:
            raise ExchangeError(f"The local exchange refuses: {content.get('message', content)}.")
        return content


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value
