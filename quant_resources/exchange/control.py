"""A client of the exchange's own API: status, clock and audit log."""

from __future__ import annotations

from datetime import datetime
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

    def _ask(
        self, method: str, path: str, timeout: float, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            answer = self._session.request(method, self.url + path, json=body, timeout=timeout)
            content = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise ExchangeError(
                f"The local exchange at {self.url} does not answer: {error}."
            ) from error
        if not answer.ok:
            raise ExchangeError(f"The local exchange refuses: {content.get('message', content)}.")
        return content
